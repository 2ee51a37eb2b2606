// What both ways to charge have in common: books.cc's, past which every allocation goes, and that
// of shared memory (shared.cc). Only these two include it.
#pragma once

#include "src/shim/attach.h"
#include "src/shim/books.h"

namespace divvy::shim {

inline uint64_t KindBytes(const Session& s, unsigned d, Kind kind) noexcept {
  return s.Slot().device[d].kind_units[static_cast<unsigned>(kind)].load(
             std::memory_order_relaxed) *
         region::kUnitBytes;
}

// What may be charged in all: the limit less what the driver takes above the charges. A negative
// overhead (the learned figure of a context was too high) gives back at most what this process was
// charged for its contexts. What was charged for imported memory is never given back: its exporter
// can free it at any moment, and then this charge alone stands for it.
inline uint64_t ChargeableBytes(const Session& s, unsigned d) noexcept {
  const region::PolicyDevice& p = s.policy->device[d];
  const uint64_t limit = p.limit_bytes.load(std::memory_order_relaxed);
  const int64_t overhead = p.overhead_bytes.load(std::memory_order_relaxed);
  if (overhead >= 0) {
    const auto o = static_cast<uint64_t>(overhead);
    return o < limit ? limit - o : 0;
  }
  const uint64_t back = static_cast<uint64_t>(-(overhead + 1)) + 1;
  const uint64_t most = KindBytes(s, d, Kind::kContext);
  return limit + (back < most ? back : most);
}

// One try, to be repeated; what `Call` refers to stays the caller's.
class Attempt {
 public:
  template <typename Call>
  explicit Attempt(const Call& call) noexcept
      : run_([](const void* with) noexcept { return (*static_cast<const Call*>(with))(); }),
        with_(&call) {}
  Verdict operator()() const noexcept { return run_(with_); }

 private:
  Verdict (*run_)(const void*) noexcept;
  const void* with_;
};

// After a first refusal: what Charge (books.h) does before it is final.
Verdict ChargePatiently(Verdict first, unsigned device, uint64_t units, DriverSymbol symbol,
                        const Attempt& again) noexcept;

// The limit alone refused it: whether there is room by what is charged more than once.
Verdict TryBeyond(unsigned device, uint64_t units, Kind kind, int begun) noexcept;

void WakeWaiters(region::Usage& usage) noexcept;
// After a credit.
inline void WakeForRoom(region::Usage& usage) noexcept {
  // Partner of the waiter's fetch_add before its try. On x86 the locked exchange of the book has
  // ordered this load already.
#if !defined(__x86_64__)
  std::atomic_thread_fence(std::memory_order_seq_cst);
#else
  std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
  if (__builtin_expect(usage.freed_waiters.load(std::memory_order_relaxed) != 0, 0))
    WakeWaiters(usage);
}

}  // namespace divvy::shim
