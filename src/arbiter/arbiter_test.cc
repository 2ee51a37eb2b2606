// The arbiter by hand-fed samples: arguments, gates, garbage, pause, caps, stalls, and that the
// steady state does not allocate.
#include "src/arbiter/arbiter.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <new>

namespace {
std::atomic<long> allocations{0};
}  // namespace
// Not inlined: the compiler would see malloc and free through them and warn.
[[gnu::noinline]] void* operator new(size_t n) {
  ++allocations;
  if (void* p = std::malloc(n)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace divvy::arbiter {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// A saturating tenant whose every operation ends when its gate is shut for a tick.
class Rig {
 public:
  explicit Rig(unsigned tenants, unsigned devices = 1, Tunables k = {})
      : arbiter(tenants, devices, k), progress(tenants) {}

  void Join(TenantIndex t, ComputeShare share = {}) {
    ASSERT_TRUE(arbiter.Join(t, 0, share, now).ok());
    present.push_back(t);
  }
  // Ticks of 50 us; tenants in `present` always have work, finished at once when their gate shuts.
  void Run(Nanos time) {
    for (const Nanos end = now + time; now < end;) {
      now += microseconds(50);
      for (TenantIndex t : present) {
        Progress& p = progress[t];
        const bool open = arbiter.GateOf(t, 0).open();
        if (open) {
          p.issued += 2;
          p.done = p.issued - 1;
        } else {
          p.done = p.issued;
        }
        p.begun = open;
        p.waiters = !open;
        arbiter.Observe(t, 0, p);
      }
      arbiter.Tick(0, now);
    }
  }
  unsigned Open() const {
    unsigned n = 0;
    for (TenantIndex t : present) n += arbiter.GateOf(t, 0).open();
    return n;
  }

  Arbiter arbiter;
  std::vector<Progress> progress;
  std::vector<TenantIndex> present;
  Nanos now{0};
};

double Ms(Nanos t) { return double(t.count()) / 1e6; }

TEST(Arbiter, RefusesBadArguments) {
  Arbiter a(4, 2, {});
  EXPECT_EQ(a.Join(4, 0, {}, Nanos(0)).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(a.Join(0, 2, {}, Nanos(0)).error().code, ErrorCode::kInvalid);
  for (double bad : {0.0, -1.0, double(NAN), double(INFINITY), 1e9}) {
    EXPECT_FALSE(a.Join(0, 0, {.weight = bad}, Nanos(0)).ok()) << bad;
  }
  for (double bad : {0.0, -1.0, double(NAN), 1.01}) {
    EXPECT_FALSE(a.Join(0, 0, {.cap = bad}, Nanos(0)).ok()) << bad;
  }
  EXPECT_TRUE(a.Join(0, 0, {}, Nanos(0)).ok());
  EXPECT_EQ(a.Join(0, 0, {}, Nanos(0)).error().code, ErrorCode::kExists);
  EXPECT_EQ(a.SetShare(1, 0, {}).error().code, ErrorCode::kNotFound);
  // Strangers are ignored, and have no open gate.
  a.Observe(3, 1, {});
  a.Leave(3, 1);
  a.Pause(77, 9, true);
  a.Debit(3, 1, milliseconds(1));
  EXPECT_FALSE(a.GateOf(3, 1).open());
}

TEST(Arbiter, LoneTenantKeepsAnOpenGate) {
  Rig rig(2);
  rig.Join(0);
  rig.Join(1);
  rig.present = {0};
  rig.Run(milliseconds(500));
  EXPECT_EQ(rig.arbiter.GateOf(0, 0).mode, GateMode::kBound) << "company may come back";
  rig.Run(milliseconds(700));
  EXPECT_EQ(rig.arbiter.GateOf(0, 0).mode, GateMode::kLone);
  EXPECT_TRUE(rig.arbiter.GateOf(1, 0).open()) << "an idle tenant in credit need not ask";
  EXPECT_FALSE(rig.arbiter.Contended(0));
}

TEST(Arbiter, AtMostOneHeavyTenantHoldsTheDevice) {
  Rig rig(3);
  for (TenantIndex t : {0, 1, 2}) rig.Join(t);
  rig.Run(milliseconds(50));  // past their first light moments
  for (int i = 0; i < 4000; ++i) {
    rig.Run(microseconds(50));
    ASSERT_LE(rig.Open(), 1u) << i;
  }
}

TEST(Arbiter, BillsByWeight) {
  Rig rig(3);
  rig.Join(0, {.weight = 20});
  rig.Join(1, {.weight = 30});
  rig.Join(2, {.weight = 50});
  rig.Run(std::chrono::seconds(10));
  double sum = 0;
  for (TenantIndex t : {0, 1, 2}) sum += Ms(rig.arbiter.StatsOf(t, 0).used);
  EXPECT_NEAR(Ms(rig.arbiter.StatsOf(0, 0).used) / sum, .2, .002);
  EXPECT_NEAR(Ms(rig.arbiter.StatsOf(1, 0).used) / sum, .3, .002);
  EXPECT_NEAR(Ms(rig.arbiter.StatsOf(2, 0).used) / sum, .5, .002);
  EXPECT_LE(sum, 10000.01);
}

TEST(Arbiter, AChangedShareHoldsAtOnceAndKeepsDebts) {
  Rig rig(2);
  rig.Join(0, {.weight = 50});
  rig.Join(1, {.weight = 50});
  rig.Run(std::chrono::seconds(1));
  ASSERT_TRUE(rig.arbiter.SetShare(0, 0, {.weight = 12.5}).ok());
  const Nanos before0 = rig.arbiter.StatsOf(0, 0).used, before1 = rig.arbiter.StatsOf(1, 0).used;
  rig.Run(milliseconds(200));
  const double got0 = Ms(rig.arbiter.StatsOf(0, 0).used - before0);
  const double got1 = Ms(rig.arbiter.StatsOf(1, 0).used - before1);
  EXPECT_NEAR(got0 / (got0 + got1), .2, .05);
}

TEST(Arbiter, PauseShutsAndResumeOpens) {
  Rig rig(2);
  rig.Join(0);
  rig.Join(1);
  rig.Run(milliseconds(100));
  rig.arbiter.Pause(0, 0, true);
  rig.Run(milliseconds(1));
  for (int i = 0; i < 22000; ++i) {
    rig.Run(microseconds(50));
    ASSERT_FALSE(rig.arbiter.GateOf(0, 0).open());
  }
  EXPECT_EQ(rig.arbiter.GateOf(1, 0).mode, GateMode::kLone) << "nobody else may run";
  rig.arbiter.Pause(0, 0, false);
  const Nanos before = rig.arbiter.StatsOf(0, 0).used;
  rig.Run(milliseconds(200));
  EXPECT_NEAR(Ms(rig.arbiter.StatsOf(0, 0).used - before), 100, 15);
}

TEST(Arbiter, CapHoldsOnAnIdleDevice) {
  Rig rig(1);
  rig.Join(0, {.cap = .3});
  rig.Run(std::chrono::seconds(2));
  EXPECT_NEAR(Ms(rig.arbiter.StatsOf(0, 0).used), 600, 12);
}

TEST(Arbiter, GateSequenceCountsEveryChange) {
  Rig rig(2);
  rig.Join(0);
  rig.Join(1);
  Gate last = rig.arbiter.GateOf(0, 0);
  int changes = 0;
  for (int i = 0; i < 4000; ++i) {
    rig.Run(microseconds(50));
    const Gate g = rig.arbiter.GateOf(0, 0);
    ASSERT_EQ(g.sequence - last.sequence, g.mode == last.mode ? 0u : 1u);
    changes += g.mode != last.mode;
    last = g;
  }
  EXPECT_GT(changes, 10);
  rig.arbiter.Leave(0, 0);
  ASSERT_TRUE(rig.arbiter.Join(0, 0, {}, rig.now).ok());
  EXPECT_GT(rig.arbiter.GateOf(0, 0).sequence, last.sequence) << "a gate word never comes back";
}

TEST(Arbiter, NonsenseIsCountedAndHarmsOnlyTheGuilty) {
  Rig rig(3);
  for (TenantIndex t : {0, 1, 2}) rig.Join(t);
  rig.present = {1, 2};
  uint64_t x = 88172645463325252u;
  for (int i = 0; i < 40000; ++i) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    Progress p{.issued = x, .done = x * 31, .waiters = uint32_t(x), .waits = x >> 3};
    p.begun = x & 4;
    p.paused = x & 8;
    rig.arbiter.Observe(0, 0, p);
    rig.Run(microseconds(50));
  }
  EXPECT_GT(rig.arbiter.StatsOf(0, 0).faults, 30000u);
  EXPECT_TRUE(rig.arbiter.StatsOf(0, 0).distrusted);
  for (TenantIndex t : {1, 2}) {
    EXPECT_GT(Ms(rig.arbiter.StatsOf(t, 0).used), 2000 / 3. * .97) << t;
    EXPECT_EQ(rig.arbiter.StatsOf(t, 0).faults, 0u);
  }
}

// Its work never seems to end, as its samples are dropped. That is no reason to let it run along.
TEST(Arbiter, NoiseEntanglesNobody) {
  Rig rig(2);
  rig.Join(0, {.weight = 2});
  rig.Join(1, {.weight = 90});
  rig.Run(milliseconds(100));
  Progress p = rig.progress[0];
  p.issued += 2;  // outstanding when the noise begins
  rig.arbiter.Observe(0, 0, p);
  rig.present = {1};
  int open = 0, both = 0;
  for (int i = 0; i < 100000; ++i) {
    rig.arbiter.Observe(0, 0, {.garbage = true});
    rig.Run(microseconds(50));
    open += rig.arbiter.GateOf(0, 0).open();
    both += rig.arbiter.GateOf(0, 0).open() && rig.arbiter.GateOf(1, 0).open();
    ASSERT_FALSE(rig.arbiter.StatsOf(0, 0).entangled || rig.arbiter.StatsOf(1, 0).entangled) << i;
  }
  EXPECT_EQ(both, 0) << "its gate is shut until its turn";
  EXPECT_GT(open, 0);
  EXPECT_LT(open, 100000 * 4 / 100);
}

TEST(Arbiter, AProcessThatCameOrWentIsNoFault) {
  Rig rig(1);
  rig.Join(0);
  rig.Run(milliseconds(10));
  rig.arbiter.Rebase(0, 0);
  rig.progress[0] = {};
  rig.Run(milliseconds(10));
  EXPECT_EQ(rig.arbiter.StatsOf(0, 0).faults, 0u);
}

TEST(Arbiter, AStaleWaiterDoesNotHoldTheDevice) {
  Rig rig(2);
  rig.Join(0);
  rig.Join(1);
  rig.Run(milliseconds(100));
  rig.present = {1};  // tenant 0 is stopped while it waits at its gate
  Progress p = rig.progress[0];
  p.done = p.issued;
  p.waiters = 1;
  rig.arbiter.Observe(0, 0, p);
  const Nanos before = rig.arbiter.StatsOf(1, 0).used;
  rig.Run(milliseconds(500));
  EXPECT_TRUE(rig.arbiter.StatsOf(0, 0).stalled);
  EXPECT_GT(Ms(rig.arbiter.StatsOf(1, 0).used - before), 500 * .95);
  rig.present = {0, 1};  // and continues
  const Nanos then = rig.arbiter.StatsOf(0, 0).used;
  rig.Run(milliseconds(500));
  EXPECT_GT(Ms(rig.arbiter.StatsOf(0, 0).used - then), 230);
}

TEST(Arbiter, AnAuditsDebitIsRepaid) {
  Rig rig(2);
  rig.Join(0);
  rig.Join(1);
  rig.Run(milliseconds(100));
  const Nanos before = rig.arbiter.StatsOf(1, 0).used;
  rig.arbiter.Debit(0, 0, milliseconds(100));
  rig.Run(milliseconds(100));
  EXPECT_GT(Ms(rig.arbiter.StatsOf(1, 0).used - before), 90);
}

TEST(Arbiter, TimeThatGoesBackIsIgnored) {
  Rig rig(1);
  rig.Join(0);
  rig.Run(milliseconds(10));
  const Nanos used = rig.arbiter.StatsOf(0, 0).used;
  rig.arbiter.Tick(0, milliseconds(1));
  EXPECT_EQ(rig.arbiter.StatsOf(0, 0).used, used);
}

TEST(Arbiter, SteadyStateDoesNotAllocate) {
  Rig rig(64);
  for (TenantIndex t = 0; t < 64; ++t) rig.Join(t);
  rig.Run(milliseconds(100));
  const long before = allocations;
  rig.Run(milliseconds(500));
  EXPECT_EQ(allocations, before);
}

TEST(Fold, StreamsBecomeProgress) {
  auto fold = [](std::initializer_list<StreamSample> streams) {
    Progress p{.paused = true};
    for (const StreamSample& s : streams) Fold(s, p);
    return p;
  };
  const auto kDone = MarkerKind::kDone, kStart = MarkerKind::kStart, kPaused = MarkerKind::kPaused;
  // Queued behind others: the start marker has not landed.
  Progress p = fold({{.issued = 7, .start = 5, .marker = MarkerWord(5, kDone)}});
  EXPECT_EQ(p.issued, 7u);
  EXPECT_EQ(p.done, 5u);
  EXPECT_FALSE(p.begun);
  EXPECT_FALSE(p.paused);
  EXPECT_TRUE(fold({{7, 5, MarkerWord(5, kStart)}}).begun);
  EXPECT_TRUE(fold({{7, 5, MarkerWord(6, kDone)}}).begun) << "more work follows in its stretch";
  EXPECT_TRUE(fold({{7, 5, MarkerWord(6, kPaused)}}).paused);
  EXPECT_FALSE(fold({{7, 5, MarkerWord(6, kPaused)}, {3, 0, MarkerWord(0, kStart)}}).paused);
  EXPECT_FALSE(fold({{7, 5, MarkerWord(7, kDone)}}).begun);
  // What contradicts itself.
  EXPECT_TRUE(fold({{7, 5, MarkerWord(8, kDone)}}).garbage);
  EXPECT_TRUE(fold({{7, 9, MarkerWord(6, kDone)}}).garbage);
  EXPECT_TRUE(fold({{7, 5, 6 << 2 | 3}}).garbage);
  EXPECT_TRUE(fold({{uint64_t{1} << 60, 5, MarkerWord(6, kDone)}}).garbage);
}

// One of class latency that says it waits and submits nothing, with pauses, so that no single
// stretch is long enough to be billed.
TEST(Arbiter, HoldingBackWithoutRunningIsBilledHoweverItIsParted) {
  Rig rig(2);
  rig.Join(0, {.weight = 75});
  ASSERT_TRUE(rig.arbiter.Join(1, 0, {.weight = 5, .cls = TenantClass::kLatency}, rig.now).ok());
  for (Nanos stretch : {microseconds(3500), microseconds(450), microseconds(150)}) {
    const Nanos before = rig.arbiter.StatsOf(0, 0).used, began = rig.now;
    Progress forged;
    while (rig.now - began < std::chrono::seconds(2)) {
      forged.waiters = 1;
      for (const Nanos end = rig.now + stretch; rig.now < end;) {
        ++forged.waits;
        rig.arbiter.Observe(1, 0, forged);
        rig.Run(microseconds(50));
      }
      forged.waiters = 0;
      rig.arbiter.Observe(1, 0, forged);
      rig.Run(stretch / 3);
    }
    const Nanos elapsed = rig.now - began;
    EXPECT_GT(rig.arbiter.StatsOf(0, 0).used - before, elapsed * 7 / 10) << stretch.count();
  }
}

TEST(Arbiter, ADebtEndsWithItsCap) {
  Rig rig(2);
  rig.Join(0, {.cap = .02});
  rig.arbiter.Debit(0, 0, std::chrono::seconds(4));
  rig.Run(milliseconds(1));
  EXPECT_EQ(rig.Open(), 0u);
  ASSERT_TRUE(rig.arbiter.SetShare(0, 0, {.cap = 1}).ok());
  rig.Run(milliseconds(100));
  EXPECT_EQ(rig.Open(), 1u);
  ASSERT_TRUE(rig.arbiter.SetShare(0, 0, {.cap = .5}).ok());
  const Nanos before = rig.arbiter.StatsOf(0, 0).used;
  rig.Run(milliseconds(200));
  EXPECT_NEAR(Ms(rig.arbiter.StatsOf(0, 0).used - before), 100, 12);
}

}  // namespace
}  // namespace divvy::arbiter
