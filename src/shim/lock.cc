// The waiting half of the bounded lock; see lock.h.
#include "src/shim/lock.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace divvy::shim {

bool BoundedLock::LockSlow() noexcept {
  // A holder that runs is gone within tens of nanoseconds; one that was preempted needs the core.
  constexpr unsigned kSpins = 128, kYields = 64;
  constexpr timespec kNap{0, 50000};
  const auto try_once = [this] {
    return word_.load(std::memory_order_relaxed) == 0 &&
           word_.exchange(1, std::memory_order_acquire) == 0;
  };
  for (unsigned i = 0; i < kSpins; ++i) {
    if (try_once()) return true;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  for (unsigned i = 0; i < kYields; ++i) {
    if (try_once()) return true;
    sched_yield();
  }
  for (const uint64_t start = MonotonicNs(); MonotonicNs() - start < kPatienceNs;) {
    if (try_once()) return true;
    syscall(SYS_nanosleep, &kNap, nullptr);  // no cancellation point
  }
  return false;
}

}  // namespace divvy::shim
