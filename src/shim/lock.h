// The process-private lock of the shim's own books: held for tens of nanoseconds, never across a
// driver call, so a waiter looks again instead of being woken, and giving it back is a plain store.
// Bounded: a thread that cannot get it within kPatience (its holder was stopped or killed inside)
// gives up and the caller steps down visibly instead of hanging its host. Lives in memory that fork
// wipes, so a child always finds it free. Any thread of the tenant.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace divvy::shim {

inline long Futex(const std::atomic<uint32_t>* word, int operation, uint32_t value,
                  const timespec* timeout) noexcept {
  return syscall(SYS_futex, word, operation, value, timeout, nullptr, 0);
}

inline uint64_t MonotonicNs(clockid_t clock = CLOCK_MONOTONIC) noexcept {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1000000000u + static_cast<uint64_t>(t.tv_nsec);
}

class BoundedLock {
 public:
  static constexpr uint64_t kPatienceNs = 2000000000;

  // False: not within kPatienceNs. Acquire: partner of Unlock's release.
  bool Lock() noexcept {
    if (__builtin_expect(word_.exchange(1, std::memory_order_acquire) == 0, 1)) return true;
    return LockSlow();
  }
  bool TryLock() noexcept {
    return word_.load(std::memory_order_relaxed) == 0 &&
           word_.exchange(1, std::memory_order_acquire) == 0;
  }
  void Unlock() noexcept { word_.store(0, std::memory_order_release); }

 private:
  __attribute__((noinline)) bool LockSlow() noexcept;
  std::atomic<uint32_t> word_{0};
};

}  // namespace divvy::shim
