// Futex words in shared memory and precise sleeping, for both sides of the channel.
#pragma once

#include <atomic>
#include <cstdint>

namespace divvy::sim {

// Until the word differs from `seen`, someone wakes it, or CLOCK_MONOTONIC reaches until_ns
// (kNever: no limit). May return early.
void FutexWait(std::atomic<uint32_t>* word, uint32_t seen, uint64_t until_ns);
void FutexWakeAll(std::atomic<uint32_t>* word);

// Timer slack of the calling thread at its least while one of these lives (prctl(2)).
class PreciseSleep {
 public:
  PreciseSleep();
  ~PreciseSleep();
  PreciseSleep(const PreciseSleep&) = delete;
  PreciseSleep& operator=(const PreciseSleep&) = delete;

 private:
  int before_;
};

}  // namespace divvy::sim
