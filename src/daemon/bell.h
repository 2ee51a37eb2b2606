// The bell (src/region/layout.h): one page that all tenants map, to wake the arbiter's thread.
//
// Side: the daemon. Whoever holds the descriptor may write the page; a ring means "look now" and
// nothing more. Threads: any.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "src/base/result.h"
#include "src/base/unique_fd.h"
#include "src/region/layout.h"

namespace divvy::daemon {

class BellPage {
 public:
  static Result<std::unique_ptr<BellPage>> Create();
  ~BellPage();
  BellPage(const BellPage&) = delete;
  BellPage& operator=(const BellPage&) = delete;

  int fd() const { return fd_.get(); }
  uint32_t rung() const { return page_->rung.load(std::memory_order_acquire); }
  void Ring();
  // Sleeps until `rung` is no longer what it is, or until `deadline` (CLOCK_MONOTONIC).
  void Wait(uint32_t rung, std::chrono::nanoseconds deadline);

 private:
  BellPage() = default;
  UniqueFd fd_;
  region::Bell* page_ = nullptr;
};

}  // namespace divvy::daemon
