// The monotonic clock (CLOCK_MONOTONIC), as daemon and command line read it and sleep by it.
// Any thread; no system call but for the sleep (vDSO). Not for the shim, which links nothing.
#pragma once

#include <time.h>

#include <cstdint>

namespace divvy {

inline uint64_t MonotonicNs(clockid_t clock = CLOCK_MONOTONIC) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(t.tv_nsec);
}
// Signed: for differences that may be negative.
inline int64_t NowNs() { return static_cast<int64_t>(MonotonicNs()); }
inline double NowS() { return static_cast<double>(MonotonicNs()) / 1e9; }

// Returns at `when_ns`, or before it at a signal.
inline void SleepUntil(int64_t when_ns) {
  const timespec t{when_ns / 1'000'000'000, when_ns % 1'000'000'000};
  ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr);
}

}  // namespace divvy
