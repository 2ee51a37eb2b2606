// How many of a stream's operations the GPU has finished, without waiting for any: events between
// them, asked from another thread. Two threads: one submits and records, one asks.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "src/cli/load/driver.h"

namespace divvy::cli {

class Completions {
 public:
  explicit Completions(Driver driver) : driver_(driver) {}

  // `submitted` operations are in the stream so far; an event behind them will tell.
  Status Record(CUstream stream, bool ptsz, uint64_t submitted);
  // Everything submitted so far is known to be finished: the stream was waited for.
  void AllDone(uint64_t submitted);
  // Of the operations submitted, those known to be finished. Needs a current context.
  uint64_t Done();

 private:
  struct Pending {
    CUevent event;
    uint64_t submitted;
  };
  Driver driver_;
  std::mutex mutex_;
  std::deque<Pending> pending_;
  std::vector<CUevent> free_;
  uint64_t done_ = 0;
};

}  // namespace divvy::cli
