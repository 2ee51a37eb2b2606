// The waiting half of the bounded lock; see lock.h.
#include "src/shim/lock.h"

namespace divvy::shim {

bool BoundedLock::LockSlow() noexcept {
  // Holders are gone within tens of nanoseconds unless they were preempted: look a few times first.
  for (int i = 0; i < 64; ++i) {
    __builtin_ia32_pause();
    uint32_t free = kFree;
    if (word_.compare_exchange_weak(free, kHeld, std::memory_order_acquire,
                                    std::memory_order_relaxed))
      return true;
  }
  const uint64_t start = MonotonicNs();
  while (word_.exchange(kContended, std::memory_order_acquire) != kFree) {
    const uint64_t waited = MonotonicNs() - start;
    if (waited >= kPatienceNs) return false;
    const uint64_t left = kPatienceNs - waited;
    const timespec slice{static_cast<time_t>(left / 1000000000u),
                         static_cast<long>(left % 1000000000u)};
    Futex(&word_, FUTEX_WAIT_PRIVATE, kContended, &slice);
  }
  return true;
}

}  // namespace divvy::shim
