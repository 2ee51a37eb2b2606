// The two sealed memfds of one tenant (src/region/layout.h): made and mapped here, nowhere else.
//
// Side: the daemon. The policy is mapped writable and then sealed against every future writable
// mapping; neither can shrink or grow, so that a read never meets SIGBUS. What stands in the usage
// segment is the tenant's word: copy, check, use.
// Threads: made by one; afterwards as layout.h says.
#pragma once

#include <memory>
#include <string>

#include "src/base/result.h"
#include "src/base/unique_fd.h"
#include "src/region/layout.h"

namespace divvy::daemon {

class Segments {
 public:
  // Zeroed but for magic, version, size, generation and the tenant's name.
  static Result<std::unique_ptr<Segments>> Create(const std::string& tenant, uint64_t generation);
  ~Segments();
  Segments(const Segments&) = delete;
  Segments& operator=(const Segments&) = delete;

  region::Policy& policy() const { return *policy_; }
  region::Usage& usage() const { return *usage_; }
  int policy_fd() const { return policy_fd_.get(); }
  int usage_fd() const { return usage_fd_.get(); }
  uint32_t& book_sequence() { return book_sequence_; }  // the daemon's own, for AdjustBook

  // False when a tenant wrote over the segment's head: nothing in it is worth reading.
  bool UsageHeadIntact() const;
  // Changes the heartbeat word and wakes whoever waits for a limit.
  void WakePolicyWaiters();
  // Room was made in the tenant's book: wakes who waits for it.
  void WakeRoomWaiters();

 private:
  Segments() = default;
  UniqueFd policy_fd_, usage_fd_;
  region::Policy* policy_ = nullptr;
  region::Usage* usage_ = nullptr;
  uint64_t generation_ = 0;
  uint32_t book_sequence_ = 0;
};

}  // namespace divvy::daemon
