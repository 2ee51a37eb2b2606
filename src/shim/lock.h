// The process-private lock of the shim's own books: a futex word, held for tens of nanoseconds,
// never across a driver call. Bounded: a thread that cannot get it within kPatience (its holder was
// stopped or killed inside) gives up and the caller steps down visibly instead of hanging its host.
// Lives in memory that fork wipes, so a child always finds it free. Any thread of the tenant.
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
    uint32_t free = kFree;
    if (__builtin_expect(word_.compare_exchange_strong(free, kHeld, std::memory_order_acquire,
                                                       std::memory_order_relaxed),
                         1))
      return true;
    return LockSlow();
  }
  void Unlock() noexcept {
    if (__builtin_expect(word_.exchange(kFree, std::memory_order_release) == kContended, 0))
      Futex(&word_, FUTEX_WAKE_PRIVATE, 1, nullptr);
  }

 private:
  static constexpr uint32_t kFree = 0, kHeld = 1, kContended = 2;
  __attribute__((noinline)) bool LockSlow() noexcept;
  std::atomic<uint32_t> word_{kFree};
};

}  // namespace divvy::shim
