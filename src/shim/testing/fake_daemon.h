// A divvyd of a few lines for the shim's unit tests: one tenant, its two segments, a socket. A
// thread answers hellos until the object is destroyed; segments stay mapped for the test to look
// at.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "src/region/books.h"
#include "src/region/wire.h"

namespace divvy::shim::testing {

struct FakeShare {
  uint8_t uuid_byte = 1;  // the UUID is sixteen of these, unless uuid is given
  uint64_t limit_bytes = 1 << 30;
  uint64_t context_bytes = 0;
  uint32_t nvml_index = 0;
  std::vector<uint8_t> uuid = {};
};

class FakeDaemon {
 public:
  explicit FakeDaemon(std::vector<FakeShare> shares, uint64_t generation = 1);
  ~FakeDaemon();

  // What the shim reads and writes.
  region::Policy& policy() { return *policy_; }
  region::Usage& usage() { return *usage_; }
  region::Bell& bell() { return *bell_; }
  void GiveNoBell() { gives_bell_ = false; }
  region::PolicyGate& gate(unsigned device = 0) { return policy_->device[device].gate; }
  region::Meter& meter(unsigned slot = 1, unsigned device = 0) {
    return usage_->meter[slot].device[device];
  }
  // Another value of a gate's word, with its waiters woken, as divvyd writes it.
  void SetGate(uint32_t bits, unsigned device = 0);
  const std::string& socket() const { return path_; }

  uint64_t BookBytes(unsigned device = 0) { return region::BookBytes(*usage_, device); }
  unsigned hellos() const { return hellos_; }
  const wire::Hello& last_hello() const {
    hellos_.load();  // pairs with the count that follows it; the answer alone is the kernel's word
    return last_hello_;
  }
  void Refuse(uint32_t code) { refuse_ = code; }
  // As one that dies over the next `count` hellos: they are read and not answered.
  void HangUp(unsigned count) { hang_up_ = count; }
  void Beat();  // its heart beats, from now on
  void Die();   // closes the socket; the segments stay
  // Another daemon on the same path with another generation; what the shim held is booked again.
  void Restart(uint64_t generation);
  // Stopped: it listens, so that a hello can be said, and answers once it goes on.
  void Stop();
  void GoOn();

  // Events written so far, in order.
  std::vector<region::UsageEvent*> Events();

 private:
  void MakeSegments(uint64_t generation);
  void Listen();
  void Serve();
  void Answer(int connection);

  std::vector<FakeShare> shares_;
  std::string folder_, path_;
  int listener_ = -1, policy_fd_ = -1, usage_fd_ = -1, bell_fd_ = -1, stop_[2] = {-1, -1};
  std::vector<int> connections_;
  region::Policy* policy_ = nullptr;
  region::Usage* usage_ = nullptr;
  region::Bell* bell_ = nullptr;
  std::atomic<bool> gives_bell_{true};
  uint32_t gate_sequence_ = 0;
  uint32_t next_slot_ = 1, daemon_sequence_ = 0;
  std::mutex stopped_mu_;
  std::condition_variable goes_on_;
  bool stopped_ = false;
  std::atomic<unsigned> hellos_{0};
  std::atomic<uint32_t> refuse_{0};
  std::atomic<unsigned> hang_up_{0};
  wire::Hello last_hello_{};
  std::thread thread_;
};

// Puts the shim back to the state of a process that has called nothing yet, as the tenant of
// `socket` (or of nobody, if empty).
void FreshProcess(const std::string& socket);

}  // namespace divvy::shim::testing
