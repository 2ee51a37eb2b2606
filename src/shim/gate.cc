// The waiting half of the gate; see gate.h.
#include "src/shim/gate.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "src/shim/attach.h"
#include "src/shim/capture.h"
#include "src/shim/contexts.h"
#include "src/shim/driver.h"

namespace divvy::shim {
namespace {

constexpr uint64_t kSliceNs = 100000000;
constexpr uint64_t kDeadAfterNs = 1000000000;
// Between two looks at what is in flight. Shorter than a marker's space, longer than a wake-up.
constexpr uint64_t kShortestNapNs = 20000, kLongestNapNs = 200000;
constexpr uint64_t kDefaultPatienceNs = 2000000;
// Launches at a lone gate between two looks at what it says; while nobody else has a share of the
// device, twice as many.
constexpr uint64_t kLoneStretch = 64, kFreeStretch = 128;

constinit const region::U32 kOpen{0};
// Where a submission has to find out first which device it is for.
constinit const region::U32 kLookCloser{region::kGateSequence};
// For a process that is no tenant.
constinit region::U64 unread_launches{0};

constexpr uint32_t kHolds = region::kGateShut | region::kGatePaused;

bool DaemonIsDead(const Session& s) noexcept {
  return MonotonicNs(CLOCK_MONOTONIC_COARSE) >
         s.policy->heartbeat_ns.load(std::memory_order_relaxed) + kDeadAfterNs;
}

// While it lives: counted as waiting. A stopped process does not renew.
class Waiting {
 public:
  explicit Waiting(region::Meter& meter) noexcept : meter_(meter) {
    meter_.waiters.fetch_add(1, std::memory_order_relaxed);
    Renew();
  }
  ~Waiting() { meter_.waiters.fetch_sub(1, std::memory_order_relaxed); }
  void Renew() noexcept { meter_.waits.fetch_add(1, std::memory_order_relaxed); }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  region::Meter& meter_;
};

// One wait has ended.
void CountWait(region::Meter& meter, uint64_t ns) noexcept {
  unsigned bucket = 0;
  while (bucket < region::kWaitBuckets - 1 && ns > uint64_t{region::kWaitBoundsUs[bucket]} * 1000)
    ++bucket;
  meter.wait_buckets[bucket].fetch_add(1, std::memory_order_relaxed);
}

// Returns when the gate is open, or (false) may be passed for a fault's sake. Again each time by
// way of the session: another generation may have come. The shut gate of a living daemon is the
// promise itself (a cap of 2 % is shut for minutes after a long kernel): it opens when the daemon
// says so, and a daemon whose arbiter hangs lets its heart stop.
bool AwaitOpen(unsigned local) noexcept {
  const uint64_t start = MonotonicNs();
  bool has_waited = false;
  for (;;) {
    const Session* s = FreshSession(Wait::kNo);
    const int d = s != nullptr ? s->policy_index[local] : -1;
    if (d < 0) return true;
    const region::U32& gate = s->policy->device[d].gate.word;
    region::Meter& meter = s->usage->meter[s->slot].device[d];
    const uint32_t word = gate.load(std::memory_order_acquire);
    if ((word & kHolds) == 0) {
      if (has_waited) CountWait(meter, MonotonicNs() - start);
      return true;
    }
    const bool paused = (word & region::kGatePaused) != 0;
    const bool deny =
        (s->policy->flags.load(std::memory_order_relaxed) & region::kFlagDenyOnFault) != 0;
    const uint64_t waited = MonotonicNs() - start;
    if (!paused && !deny && DaemonIsDead(*s)) {
      meter.forced.fetch_add(1, std::memory_order_relaxed);
      CountWait(meter, waited);
      return false;
    }
    const Waiting waiting(meter);
    const timespec slice{0, static_cast<long>(kSliceNs)};
    Futex(&gate, FUTEX_WAIT, word, &slice);
    has_waited = true;
    meter.gate_wait_ns.fetch_add(MonotonicNs() - start - waited, std::memory_order_relaxed);
  }
}

// Takes its place in flight if there is room: always, if nothing else is.
bool TakeRoom(DeviceMeter& meter, uint64_t ns, uint64_t bound_ns) noexcept {
  uint64_t now = meter.in_flight_ns.load(std::memory_order_relaxed);
  while (now == 0 || now + ns <= bound_ns)
    if (meter.in_flight_ns.compare_exchange_weak(now, now + ns, std::memory_order_relaxed))
      return true;
  return false;
}

bool UseFreePass(DeviceMeter& meter) noexcept {
  uint32_t left = meter.free_passes.load(std::memory_order_relaxed);
  while (left != 0)
    if (meter.free_passes.compare_exchange_weak(left, left - 1, std::memory_order_relaxed))
      return true;
  return false;
}

void Nap(uint64_t ns) noexcept {
  const timespec t{0, static_cast<long>(ns)};
  // Not the C library's function: a launch is no cancellation point, and what is counted as waiting
  // must be counted off again.
  syscall(SYS_nanosleep, &t, nullptr);
}

// How long nothing has ended although something might have.
struct Stillness {
  uint64_t ns;
  uint64_t progress;  // DeviceMeter's, since then
};

// Waits until the operation may be in flight; true once it is counted there, false if the gate shut
// meanwhile. Without any completion for the patience and half as long again as what is in flight
// takes, it goes through: its own work may wait for it. So may what comes next, twice as much after
// each such wait: a program that has to launch a hundred kernels before the first can end is held
// up seven times.
// What it waited without progress while the gate was open is kept in `still`: windows are shorter
// than what a long operation's patience may be.
bool AwaitRoom(DeviceMeter& meter, uint64_t ns, uint64_t bound_ns, bool heed_gate,
               Stillness* still) noexcept {
  ObserveAll(meter);
  if (TakeRoom(meter, ns, bound_ns)) return true;
  if (UseFreePass(meter)) {
    meter.in_flight_ns.fetch_add(ns, std::memory_order_relaxed);
    return true;
  }
  MarkAll(meter);
  const uint64_t patience_us = meter.gate->patience_us.load(std::memory_order_relaxed);
  const uint64_t patience_ns = patience_us != 0 ? patience_us * 1000 : kDefaultPatienceNs;
  Waiting waiting(*meter.shared);
  const uint64_t start = MonotonicNs();
  uint64_t looked = start;
  bool admitted = true;
  for (;;) {
    const uint64_t in_flight = meter.in_flight_ns.load(std::memory_order_relaxed);
    const uint64_t too_much = in_flight + ns > bound_ns ? in_flight + ns - bound_ns : 0;
    const uint64_t nap = too_much / 2;
    Nap(nap < kShortestNapNs ? kShortestNapNs : nap > kLongestNapNs ? kLongestNapNs : nap);
    ObserveAll(meter);
    const uint64_t now = MonotonicNs();
    still->ns += now - looked;
    looked = now;
    if (const uint64_t p = meter.progress.load(std::memory_order_relaxed); p != still->progress)
      *still = {0, p};
    waiting.Renew();
    if (TakeRoom(meter, ns, bound_ns)) break;
    if (heed_gate && (meter.gate->word.load(std::memory_order_relaxed) & kHolds) != 0) {
      admitted = false;
      break;
    }
    if (still->ns > patience_ns + in_flight + in_flight / 2) {
      if (SettleTails(meter)) continue;
      const uint32_t times = meter.forced_running.fetch_add(1, std::memory_order_relaxed);
      meter.free_passes.store((2u << (times < 9 ? times : 9)) - 1, std::memory_order_relaxed);
      meter.shared->forced.fetch_add(1, std::memory_order_relaxed);
      meter.in_flight_ns.fetch_add(ns, std::memory_order_relaxed);
      break;
    }
  }
  const uint64_t waited = MonotonicNs() - start;
  meter.shared->bound_wait_ns.fetch_add(waited, std::memory_order_relaxed);
  CountWait(*meter.shared, waited);
  return admitted;
}

// Once for each value of the word.
void Ring(const Session& session, DeviceMeter& meter, uint32_t word) noexcept {
  if (session.bell == nullptr || meter.rung.exchange(word, std::memory_order_relaxed) == word)
    return;
  session.bell->rung.fetch_add(1, std::memory_order_release);
  Futex(&session.bell->rung, FUTEX_WAKE, INT32_MAX, nullptr);
}

// The count of launches on a device and where the next lone one is metered: the process's own where
// it has one device, so that the fast path sees both.
struct Counter {
  std::atomic<uint64_t>& count;
  std::atomic<uint64_t>& meter_at;
};
Counter CounterOf(const Session& session, DeviceMeter& meter) noexcept {
  if (g_process.only_device.load(std::memory_order_relaxed) != 0)
    return {session.Slot().launches, g_process.meter_at};
  return {meter.count, meter.meter_at};
}
// One more submission, counted without an atomic addition: two threads that meet may lose one.
uint64_t CountOne(std::atomic<uint64_t>& count) noexcept {
  const uint64_t n = count.load(std::memory_order_relaxed) + 1;
  count.store(n, std::memory_order_relaxed);
  return n;
}
// How many have passed fast since the last slow pass, before the `n`th. None if that one was
// metered: it leaves no fast way open.
uint64_t PassedFast(DeviceMeter& meter, uint64_t n, bool metered_last) noexcept {
  const uint64_t before = meter.accounted.load(std::memory_order_relaxed);
  if (before < n) meter.accounted.store(n, std::memory_order_relaxed);
  if (metered_last || before + 1 >= n) return 0;
  const uint64_t fast = n - 1 - before;
  return fast <= kFreeStretch ? fast : kFreeStretch;
}

// How many launches a lone one stands for. Never quite the same twice: a program's pattern of long
// and short ones must not hide the long.
uint64_t LoneStretch(const DeviceMeter& meter, uint64_t n, uint64_t space_ns) noexcept {
  const uint64_t mean = meter.mean_ns.load(std::memory_order_relaxed);
  uint64_t stretch = mean == 0 ? 1 : space_ns / mean;
  if (stretch > kLoneStretch) stretch = kLoneStretch;
  if (stretch > 3) stretch -= Mix(n) % (stretch / 4 + 1);
  return stretch != 0 ? stretch : 1;
}

void PassDevice(const Session* session, unsigned local, const Operation& op,
                Submission* out) noexcept {
  bool through = false, counted = false;
  uint64_t n = 0, fast = 0, held_since = 0;
  for (;;) {
    DeviceMeter* m = MeterOf(*session, local);
    if (m == nullptr) {
      AwaitOpen(local);
      return;
    }
    DeviceMeter& meter = *m;
    const Counter counter = CounterOf(*session, meter);
    const uint32_t word = meter.gate->word.load(std::memory_order_acquire);
    if (!counted) {
      const uint64_t meter_at = counter.meter_at.load(std::memory_order_relaxed);
      n = CountOne(counter.count);
      // With several devices the fast way leads through here, too.
      if (word == 0 && n < meter_at) return;
      fast = PassedFast(meter, n, meter_at == 0);
      counted = true;
    }
    if ((word & kHolds) != 0 && !through) {
      if (held_since == 0) held_since = MonotonicNs();
      MarkAll(meter);
      through = !AwaitOpen(local);
      session = CurrentSession();
      if (session == nullptr) return;
      continue;
    }
    if ((word & region::kGateBell) != 0) Ring(*session, meter, word);
    const bool each_op = (word & region::kGateEachOp) != 0;
    const uint64_t bound_ns = uint64_t{meter.gate->bound_us.load(std::memory_order_relaxed)} * 1000;
    const uint64_t space_ns = uint64_t{meter.gate->space_us.load(std::memory_order_relaxed)} * 1000;
    if (bound_ns == 0 && !each_op) {
      SetMetering(local, false);
      counter.meter_at.store(n + kFreeStretch, std::memory_order_relaxed);
      return;
    }
    const bool lone = word == 0;
    SetMetering(local, !lone);
    bool learn;
    const uint64_t estimate_ns = EstimateOf(meter, op, bound_ns, &learn);
    // What went by uncounted is in flight already.
    uint64_t earlier_ns = fast * (meter.mean_ns.load(std::memory_order_relaxed) | 1);
    if (earlier_ns != 0) meter.in_flight_ns.fetch_add(earlier_ns, std::memory_order_relaxed);
    if (lone || counter.meter_at.load(std::memory_order_relaxed) != 0)
      counter.meter_at.store(lone ? n + LoneStretch(meter, n, space_ns) : 0,
                             std::memory_order_relaxed);
    const uint64_t room = bound_ns != 0 ? bound_ns : UINT64_MAX / 2;
    const Session* now = session;
    if (__builtin_expect(!TakeRoom(meter, estimate_ns, room), 0)) {
      if (held_since == 0) held_since = MonotonicNs();
      if (fast != 0) {
        // Whether they have ended only a marker behind them can say.
        AccountEarlier(meter, op.stream, fast, earlier_ns);
        fast = earlier_ns = 0;
      }
      Stillness still{0, meter.progress.load(std::memory_order_relaxed)};
      while (now == session && !AwaitRoom(meter, estimate_ns, room, !through, &still)) {
        through = !AwaitOpen(local);
        now = CurrentSession();
      }
    }
    if (now != session) {  // another daemon's gate, and lanes of its own
      session = now;
      continue;
    }
    const uint64_t held_ns = held_since != 0 && each_op ? MonotonicNs() - held_since : 0;
    BeginOperation(meter, op, {space_ns, held_ns, lone, each_op}, estimate_ns, learn, fast + 1,
                   earlier_ns, out);
    return;
  }
}

}  // namespace

void OpenGates(const Session& session) noexcept {
  if (!DriverBound()) return;
  int only = -1, local_only = -1;
  for (unsigned local = 0; local < kLocalDevices; ++local)
    if (session.policy_index[local] >= 0) {
      local_only = static_cast<int>(local);
      only = only == -1 ? session.policy_index[local] : -2;
    }
  g_process.only_device.store(only >= 0 ? static_cast<uint32_t>(local_only) + 1 : 0,
                              std::memory_order_relaxed);
  g_process.meter_at.store(0, std::memory_order_relaxed);
  g_process.launches.store(&session.Slot().launches, std::memory_order_relaxed);
  g_process.gate_word.store(only >= 0 ? &session.policy->device[only].gate.word : &kLookCloser,
                            std::memory_order_release);
}

void PassGates() noexcept {
  if (!DriverBound()) return;
  g_process.launches.store(&unread_launches, std::memory_order_relaxed);
  g_process.meter_at.store(UINT64_MAX, std::memory_order_relaxed);
  g_process.gate_word.store(&kOpen, std::memory_order_release);
}

CUresult BeginSubmission(const Operation& op, Submission* out) noexcept {
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
  if (standing != Standing::kActive) return CUDA_SUCCESS;
  // A new daemon's policy is looked for here, too: a program that only launches asks nowhere else.
  const Session* session = FreshSession(Wait::kNo);
  if (session == nullptr) return CUDA_SUCCESS;
  const uint32_t only = g_process.only_device.load(std::memory_order_relaxed);
  int local = static_cast<int>(only) - 1;
  if (only == 0) {
    CountOne(session->Slot().launches);
    local = CurrentPlace().device;
  }
  if (local < 0) return CUDA_SUCCESS;
  // What is recorded is not done now.
  if (IsCapturing(op.stream, false)) return CUDA_SUCCESS;
  PassDevice(session, static_cast<unsigned>(local), op, out);
  return CUDA_SUCCESS;
}

}  // namespace divvy::shim
