// Futex words and precise sleeping. See futex.h.
#include "src/sim/wire/futex.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace divvy::sim {

void FutexWait(std::atomic<uint32_t>* word, uint32_t seen, uint64_t until_ns) {
  timespec t{time_t(until_ns / 1'000'000'000), long(until_ns % 1'000'000'000)};
  // Absolute time on CLOCK_MONOTONIC needs the bitset form.
  syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen, until_ns == UINT64_MAX ? nullptr : &t, nullptr,
          FUTEX_BITSET_MATCH_ANY);
}

void FutexWakeAll(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

PreciseSleep::PreciseSleep() : before_(prctl(PR_GET_TIMERSLACK)) { prctl(PR_SET_TIMERSLACK, 1); }
PreciseSleep::~PreciseSleep() {
  if (before_ > 0) prctl(PR_SET_TIMERSLACK, before_);
}

}  // namespace divvy::sim
