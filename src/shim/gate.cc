// The waiting half of the gate; see gate.h.
#include "src/shim/gate.h"

#include "src/shim/attach.h"
#include "src/shim/contexts.h"
#include "src/shim/driver.h"

namespace divvy::shim {
namespace {

constexpr uint64_t kSliceNs = 100000000;
constexpr uint64_t kDeadAfterNs = 1000000000;
// A shut gate of a living daemon opens by itself after this: progress before fairness.
constexpr uint64_t kLongestShutNs = 10000000000;

constinit const region::U32 kOpen{0};
// Where a submission has to find out first which device it is for.
constinit const region::U32 kLookCloser{region::kGateSequence};
// For a process that is no tenant.
constinit region::U64 unread_launches{0};

bool DaemonIsDead(const Session& s) noexcept {
  return MonotonicNs(CLOCK_MONOTONIC_COARSE) >
         s.policy->heartbeat_ns.load(std::memory_order_relaxed) + kDeadAfterNs;
}

constexpr uint32_t kHolds = region::kGateShut | region::kGatePaused;

void AwaitOpen(unsigned device) noexcept {
  const Session* s = CurrentSession();
  if (const int d = s->policy_index[device];
      d < 0 || (s->policy->device[d].gate.word.load(std::memory_order_acquire) & kHolds) == 0)
    return;
  const uint64_t start = MonotonicNs();
  for (;;) {
    // Again each time: another generation may have come.
    s = FreshSession();
    const int d = s != nullptr ? s->policy_index[device] : -1;
    if (d < 0) return;
    const region::U32& gate = s->policy->device[d].gate.word;
    const uint32_t word = gate.load(std::memory_order_acquire);
    if ((word & kHolds) == 0) return;
    const bool paused = (word & region::kGatePaused) != 0;
    const bool deny =
        (s->policy->flags.load(std::memory_order_relaxed) & region::kFlagDenyOnFault) != 0;
    if (!paused && (DaemonIsDead(*s) ? !deny : MonotonicNs() - start > kLongestShutNs)) return;
    const timespec slice{0, static_cast<long>(kSliceNs)};
    region::U32& waiters = s->usage->meter[s->slot].device[d].waiters;
    waiters.fetch_add(1, std::memory_order_relaxed);
    Futex(&gate, FUTEX_WAIT, word, &slice);
    waiters.fetch_sub(1, std::memory_order_relaxed);
  }
}

}  // namespace

void OpenGates(const Session& session) noexcept {
  if (!DriverBound()) return;
  int only = -1;
  for (unsigned local = 0; local < kLocalDevices; ++local)
    if (session.policy_index[local] >= 0) only = only == -1 ? session.policy_index[local] : -2;
  g_process.launches.store(&session.Slot().launches, std::memory_order_relaxed);
  g_process.gate_word.store(only >= 0 ? &session.policy->device[only].gate.word : &kLookCloser,
                            std::memory_order_release);
}

void PassGates() noexcept {
  if (!DriverBound()) return;
  g_process.launches.store(&unread_launches, std::memory_order_relaxed);
  g_process.gate_word.store(&kOpen, std::memory_order_release);
}

CUresult GateSlow() noexcept {
  EnsureDriver();
  const Standing standing = Now();
  if (standing == Standing::kNotReady) return CUDA_ERROR_SYSTEM_NOT_READY;
  if (g_process.gate_word.load(std::memory_order_relaxed) == nullptr) {
    // Attached before the driver was bound (by NVML).
    if (standing == Standing::kNotTenant)
      PassGates();
    else
      OpenGates(*CurrentSession());
  }
  if (standing == Standing::kActive) {
    const Here here = CurrentPlace();
    if (here.device >= 0) AwaitOpen(static_cast<unsigned>(here.device));
  }
  return CUDA_SUCCESS;
}

}  // namespace divvy::shim
