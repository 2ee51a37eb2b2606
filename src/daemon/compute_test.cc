// The compute part of the daemon without a thread, a clock or a GPU: fake tenants write lanes into
// real segments, a small model runs their work, time is a number.
#include "src/daemon/compute_core.h"

#include <gtest/gtest.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <deque>
#include <thread>

#include "src/daemon/bell.h"
#include "src/daemon/compute.h"

namespace divvy::daemon {
namespace {

using arbiter::GateMode;
using arbiter::MarkerKind;
using arbiter::MarkerWord;
using arbiter::Nanos;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

std::shared_ptr<Segments> NewSegments() {
  Result<std::unique_ptr<Segments>> made = Segments::Create("tenant", 1);
  return std::move(*made);
}

ComputeTerms Promised(uint32_t percent) { return {.guaranteed = Percent::Of(percent)}; }

TEST(Terms, WhatNobodyWasPromisedIsPartedByWeight) {
  EXPECT_EQ(Weights({Promised(30), Promised(20), {}, {}}), (std::vector<double>{30, 20, 25, 25}));
  EXPECT_EQ(Weights({Promised(40), {.weight = 300}, {}}), (std::vector<double>{40, 45, 15}));
  // A promise and a weight: the promise, and a part of the rest.
  EXPECT_EQ(Weights({{.guaranteed = Percent::Of(40), .weight = 100}, {}}),
            (std::vector<double>{70, 30}));
  // Everything is promised: little is left, but never nothing.
  const std::vector<double> full = Weights({Promised(60), Promised(40), {}});
  EXPECT_GT(full[2], 0);
  EXPECT_LT(full[2], 0.2);
  EXPECT_TRUE(Weights({}).empty());
}

TEST(Terms, PromisesNeverSumOverHundred) {
  const std::vector<ComputePromise> held = {
      {"web", Percent::Of(50)}, {"free", {}}, {"train", Percent{30'500}}};
  EXPECT_TRUE(AdmitCompute(1, held, Percent{19'500}, false).ok());
  EXPECT_TRUE(AdmitCompute(1, held, {}, false).ok());
  EXPECT_TRUE(AdmitCompute(1, held, Percent::Of(90), true).ok());
  const Status refused = AdmitCompute(1, held, Percent{19'501}, false);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kNoRoom);
  EXPECT_EQ(refused.error().message,
            "GPU 1 has 19.5 % of its compute left to promise, 19.501 % were asked for; held by: "
            "web 50 %, train 30.5 %. Ask for less, lower a tenant's, or say --overcommit");
}

TEST(Terms, Dilation) {
  EXPECT_EQ(DilationOf(""), 1);
  EXPECT_EQ(DilationOf("h100x4"), 1);
  EXPECT_EQ(DilationOf("h100x4@x20"), 20);
  EXPECT_EQ(DilationOf("t4@3"), 3);
}

TEST(Core, WindowsAreLongerWhereSwitchesAreDear) {
  const ComputeCore core(
      {{.slice_us = 1024, .switch_us = 60}, {.slice_us = 2000, .switch_us = 140}}, 10);
  EXPECT_EQ(core.TunablesOf(0).window_longest, milliseconds(100));
  EXPECT_EQ(core.TunablesOf(0).slice, microseconds(10240));
  EXPECT_EQ(core.TunablesOf(1).window_longest, milliseconds(200));
  EXPECT_EQ(core.TunablesOf(1).switch_cost, microseconds(1400));
}

TEST(Gate, Settings) {
  const arbiter::Tunables k;
  const auto bits = [&](const GateInputs& in) { return SettingFor(in, k).bits; };
  using namespace region;
  EXPECT_EQ(SettingFor({.free = true, .active = true}, k), GateSetting{});
  EXPECT_EQ(SettingFor({.mode = GateMode::kLone, .active = true}, k), (GateSetting{0, 2000, 500}));
  // Idle: metered, so that its first submission is seen.
  EXPECT_EQ(bits({.mode = GateMode::kLone}), kGateMetered);
  EXPECT_EQ(bits({.mode = GateMode::kLone, .bell = true}), kGateMetered | kGateBell);
  EXPECT_EQ(SettingFor({.mode = GateMode::kLone, .capped = true, .active = true}, k),
            (GateSetting{kGateMetered, 1000, 250}));
  EXPECT_EQ(SettingFor({.mode = GateMode::kLightBound, .active = true}, k),
            (GateSetting{kGateMetered, 250, 100}));
  EXPECT_EQ(bits({.mode = GateMode::kShut, .active = true}), kGateMetered | kGateShut);
  EXPECT_EQ(bits({.paused = true, .free = true}), kGateMetered | kGateShut | kGatePaused);
  EXPECT_EQ(bits({.mode = GateMode::kLone, .recording = true, .free = true, .active = true}),
            kGateMetered | kGateEachOp);
}

TEST(Gate, AWordNeverRepeatsWhileItIsNotZero) {
  region::PolicyGate gate{};
  GateWriter writer(gate, 2000, microseconds(60));
  EXPECT_EQ(gate.patience_us, 2000u);
  EXPECT_EQ(gate.switch_ns, 60000u);
  EXPECT_FALSE(writer.Write({}, 0));
  std::vector<uint32_t> seen;
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(writer.Write({region::kGateMetered, 1000, 250}, 1));
    seen.push_back(gate.word);
    EXPECT_TRUE(writer.Write({region::kGateMetered | region::kGateShut, 1000, 250}, 1));
    EXPECT_FALSE(writer.Write({region::kGateMetered | region::kGateShut, 1000, 250}, 2));
    seen.push_back(gate.word);
    EXPECT_TRUE(writer.Write({0, 2000, 500}, 1));
    EXPECT_EQ(gate.word, 0u);
    EXPECT_EQ(gate.bound_us, 2000u);
  }
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(std::unique(seen.begin(), seen.end()), seen.end());
}

TEST(History, RatesOverASpan) {
  History h;
  EXPECT_EQ(h.Rate(seconds(5), seconds(1)), 0);
  for (int tenth = 0; tenth <= 700; ++tenth)  // 2 a second, then from 60 s on 4 a second
    h.Add(milliseconds(100) * tenth, tenth < 600 ? 0.2 * tenth : 120 + 0.4 * (tenth - 600));
  EXPECT_NEAR(h.Rate(seconds(70), seconds(1)), 4, 1e-9);
  EXPECT_NEAR(h.Rate(seconds(70), seconds(60)), (160 - 20) / 60., 1e-9);
  // Nothing was added since: nothing was used.
  EXPECT_EQ(h.Rate(seconds(90), seconds(1)), 0);
  History young;
  young.Add(seconds(10), 0);
  young.Add(seconds(11), 3);
  EXPECT_NEAR(young.Rate(seconds(11), seconds(60)), 3, 1e-9);
}

TEST(History, WhatIsKnownLateIsSpreadOverWhenItWas) {
  History h;
  for (int tenth = 0; tenth <= 100; ++tenth) h.Add(milliseconds(100) * tenth, 0.05 * tenth);
  h.Spread(seconds(8), seconds(10), 1);
  EXPECT_NEAR(h.Rate(seconds(10), seconds(1)), 1, 1e-9);
  EXPECT_NEAR(h.Rate(seconds(10), seconds(4)), 0.75, 1e-9);
  h.Add(seconds(11), 7);
  EXPECT_NEAR(h.Rate(seconds(11), seconds(1)), 1, 1e-9);
}

// One tenant's process: submits kernels of one length as its gate and its bound allow.
class FakeTenant {
 public:
  FakeTenant(uint64_t id, Nanos kernel) : id_(id), kernel_(kernel) {
    segments_ = NewSegments();
    meter_ = &segments_->usage().meter[kSlot].device[0];
  }
  static constexpr uint32_t kSlot = 1;
  uint64_t id() const { return id_; }
  const std::shared_ptr<Segments>& segments() const { return segments_; }
  region::PolicyGate& gate() { return segments_->policy().device[0].gate; }
  region::Meter& meter() { return *meter_; }
  uint32_t word() { return gate().word & 0xff; }
  bool Shut() { return (gate().word & (region::kGateShut | region::kGatePaused)) != 0; }

  // As the shim does; returns true when a bell was rung.
  bool Submit() {
    bool rang = false;
    region::Lane& lane = meter_->lane[0];
    if (meter_->lanes == 0) meter_->lanes = 1;
    if (busy_) {
      meter_->waiters = Shut() ? 1 : 0;
      if (Shut()) meter_->waits = meter_->waits + 1;
    }
    while (busy_ && !Shut()) {
      const uint64_t bound_us = gate().bound_us;
      const auto in_flight = static_cast<int64_t>(issued_ - done_) * kernel_;
      if (issued_ != done_ && bound_us != 0 && in_flight + kernel_ > microseconds(bound_us)) break;
      if (bound_us == 0 && issued_ - done_ > 100) break;
      const uint32_t word = gate().word;
      rang = rang || ((word & region::kGateBell) != 0 && word != rang_for_);
      if ((word & region::kGateBell) != 0) rang_for_ = word;
      auto& launches = segments_->usage().slot[kSlot].launches;
      launches = launches + 1;
      if (word != 0 || bound_us != 0) meter_->operations = meter_->operations + 1;
      if (issued_ == done_) {
        lane.start = issued_;
        lane.marker = MarkerWord(issued_, MarkerKind::kStart);
      }
      lane.issued = ++issued_;
      lane.marked = issued_;
    }
    return rang;
  }
  // The device works on it for `dt`; returns what is left of dt.
  Nanos Run(Nanos dt) {
    while (dt.count() > 0 && issued_ != done_) {
      const Nanos rest = kernel_ - progress_;
      const Nanos step = std::min(rest, dt);
      progress_ += step;
      used_ += step;
      dt -= step;
      if (progress_ < kernel_) break;
      progress_ = Nanos(0);
      meter_->lane[0].marker = MarkerWord(++done_, MarkerKind::kDone);
    }
    return dt;
  }
  bool outstanding() const { return issued_ != done_; }
  void Want(bool busy) { busy_ = busy; }
  Nanos used() const { return used_; }

 private:
  const uint64_t id_;
  const Nanos kernel_;
  std::shared_ptr<Segments> segments_;
  region::Meter* meter_;
  bool busy_ = true;
  uint64_t issued_ = 0, done_ = 0;
  uint32_t rang_for_ = 0;
  Nanos progress_{0}, used_{0};
};

// A device that gives a slice to each tenant with work in turn, and the core that arbitrates.
class World {
 public:
  explicit World(double dilation = 1) : core(1, dilation) {}
  FakeTenant& Add(const ComputeTerms& terms, Nanos kernel = microseconds(50)) {
    tenants.emplace_back(tenants.size() + 1, kernel);
    FakeTenant& t = tenants.back();
    EXPECT_TRUE(core.Join(t.id(), t.segments(), {0}, terms, now).ok());
    core.AddProcess(t.id(), FakeTenant::kSlot);
    return t;
  }
  void RunFor(Nanos length) {
    const Nanos end = now + length;
    while (now < end) {
      if (now >= due || rung_) {
        due = core.Poll(now, rung_);
        ++polls;
      }
      rung_ = false;
      for (FakeTenant& t : tenants) rung_ = t.Submit() || rung_;
      Nanos left = step;
      for (size_t i = 0; i < tenants.size() && left.count() > 0; ++i) {
        FakeTenant& t = tenants[(turn_ + i) % tenants.size()];
        if (t.outstanding()) left = t.Run(left);
      }
      if (!tenants.empty() && (now / milliseconds(2)) != ((now + step) / milliseconds(2)))
        turn_ = (turn_ + 1) % tenants.size();
      now += step;
    }
  }
  double Percent(const FakeTenant& t, Nanos before, Nanos length) {
    return 100.0 * static_cast<double>((t.used() - before).count()) /
           static_cast<double>(length.count());
  }
  ShareView View(const FakeTenant& t) {
    core.Publish(now, views);
    return views.at(t.id()).at(0);
  }

  ComputeCore core;
  std::deque<FakeTenant> tenants;
  std::map<uint64_t, TenantView> views;
  Nanos now = seconds(100), due{0}, step = microseconds(10);
  uint64_t polls = 0;

 private:
  bool rung_ = false;
  size_t turn_ = 0;
};

TEST(Core, SharesHoldAndChangeLive) {
  World w;
  FakeTenant& a = w.Add(Promised(75));
  FakeTenant& b = w.Add(Promised(25), microseconds(80));
  w.RunFor(seconds(1));
  Nanos ua = a.used(), ub = b.used();
  w.RunFor(seconds(3));
  EXPECT_NEAR(w.Percent(a, ua, seconds(3)), 75, 1.5);
  EXPECT_NEAR(w.Percent(b, ub, seconds(3)), 25, 1.5);
  const ShareView seen = w.View(a);
  EXPECT_TRUE(seen.metered);
  EXPECT_EQ(seen.part_percent, 75);
  EXPECT_GT(seen.stats.windows, 50u);
  EXPECT_NEAR(static_cast<double>(seen.stats.used.count()), static_cast<double>(a.used().count()),
              5e7);
  // Halved while it runs: what follows is by the new promise within two windows.
  w.core.SetTerms(a.id(), Promised(50));
  w.core.SetTerms(b.id(), Promised(50));
  w.RunFor(milliseconds(50));
  ua = a.used();
  w.RunFor(seconds(2));
  EXPECT_NEAR(w.Percent(a, ua, seconds(2)), 50, 1.5);
}

// Where the time goes of everybody in a world, from its making on.
struct Books {
  explicit Books(World& world) : w(world), from(world.now) {
    w.core.PublishLedgers(rings);
    // A ring keeps the last of them only.
    for (const auto& [tenant, shares] : rings) begun[tenant] = shares.at(0).At(from);
  }
  // Runs on, and says where `t`'s time went meanwhile; all of it, whatever happened.
  Ledger After(Nanos length, const FakeTenant& t) {
    w.RunFor(length);
    w.core.PublishLedgers(rings);
    const Ledger spent = Difference(begun.at(t.id()), rings.at(t.id()).at(0).At(w.now));
    int64_t sum = 0;
    for (const int64_t ns : spent.ns) sum += ns;
    EXPECT_NEAR(static_cast<double>(sum), static_cast<double>((w.now - from).count()), 100);
    return spent;
  }
  double Percent(const Ledger& l, Part part) {
    return 100.0 * static_cast<double>(l[part]) / static_cast<double>((w.now - from).count());
  }
  World& w;
  Nanos from;
  std::map<uint64_t, std::vector<LedgerRing>> rings;
  std::map<uint64_t, Ledger> begun;
};

TEST(Ledgers, WhoWaitsKnowsForWhom) {
  World w;
  FakeTenant& a = w.Add(Promised(25));
  FakeTenant& b = w.Add(Promised(75));
  w.RunFor(seconds(1));
  Books books(w);
  const Ledger spent = books.After(seconds(3), a);
  EXPECT_NEAR(books.Percent(spent, Part::kGpu), 25, 2);
  EXPECT_NEAR(books.Percent(spent, Part::kTurn), 75, 3);
  ASSERT_FALSE(spent.waited_for.empty());
  EXPECT_EQ(spent.waited_for[0].first, b.id());
  EXPECT_GT(spent.waited_for[0].second, spent[Part::kTurn] * 9 / 10);
}

TEST(Ledgers, ACapIsACap) {
  World w;
  FakeTenant& a = w.Add({.guaranteed = Percent::Of(30), .cap = Percent::Of(30)});
  w.RunFor(seconds(1));
  Books books(w);
  const Ledger spent = books.After(seconds(3), a);
  EXPECT_NEAR(books.Percent(spent, Part::kGpu), 30, 2);
  EXPECT_NEAR(books.Percent(spent, Part::kCap), 70, 3);
}

TEST(Ledgers, AHostThatIsBusyElsewhere) {
  World w;
  FakeTenant& a = w.Add(Promised(50), microseconds(400));
  FakeTenant& b = w.Add(Promised(50));
  b.Want(false);
  w.RunFor(milliseconds(100));
  Books books(w);
  Ledger spent;
  for (int i = 0; i < 400; ++i) {
    a.Want(true);
    books.After(w.step, a);
    a.Want(false);
    spent = books.After(milliseconds(5), a);
  }
  EXPECT_GT(books.Percent(spent, Part::kHost), 50);
  EXPECT_GT(books.Percent(spent, Part::kGpu), 5);
  EXPECT_LT(books.Percent(spent, Part::kTurn) + books.Percent(spent, Part::kCap), 2);
  // In blocking copies the host asks for nothing either; the shim says how long.
  const int64_t before = spent.copying_ns;
  a.meter().copy_ns = a.meter().copy_ns + 70'000'000;
  EXPECT_EQ(books.After(milliseconds(1500), a).copying_ns - before, 70'000'000);
}

TEST(Ledgers, PausedAloneAndAbsent) {
  World w;
  FakeTenant& a = w.Add(Promised(50));
  Books alone(w);
  EXPECT_NEAR(alone.Percent(alone.After(seconds(1), a), Part::kAlone), 100, 1);
  w.Add(Promised(50)).Want(false);
  w.core.Pause(a.id(), 0, PausedBy::kOperator, true);
  w.due = w.now;  // whoever changes something rings
  w.RunFor(milliseconds(100));
  Books paused(w);
  EXPECT_GT(paused.Percent(paused.After(seconds(2), a), Part::kPaused), 95);
  w.core.Pause(a.id(), 0, PausedBy::kOperator, false);
  w.core.RemoveProcess(a.id(), FakeTenant::kSlot);
  w.due = w.now;
  w.RunFor(milliseconds(100));
  Books absent(w);
  EXPECT_GT(absent.Percent(absent.After(seconds(2), a), Part::kAbsent), 95);
}

TEST(Core, EachIsToldWhenItHadCompany) {
  World w;
  FakeTenant &a = w.Add({}), &b = w.Add({}), &idle = w.Add({});
  idle.Want(false);
  b.Want(false);
  w.RunFor(milliseconds(100));
  // Alone at work.
  EXPECT_EQ(a.gate().company_ns, 0u);
  EXPECT_EQ(a.gate().switch_ns, 60000u);
  b.Want(true);
  w.RunFor(milliseconds(100));
  const auto lately = static_cast<uint64_t>((w.now - milliseconds(15)).count());
  for (FakeTenant* t : {&a, &b, &idle}) {
    EXPECT_GT(t->gate().company_ns, lately);
    EXPECT_LE(t->gate().company_ns, static_cast<uint64_t>(w.now.count()));
  }
  // The others are told of it, it is not told of itself.
  b.Want(false);
  w.RunFor(milliseconds(50));
  const uint64_t last = a.gate().company_ns;
  w.RunFor(milliseconds(50));
  EXPECT_EQ(a.gate().company_ns, last);
}

TEST(Core, NobodyWantsItBellsAndSleep) {
  World w;
  FakeTenant& a = w.Add(Promised(50));
  FakeTenant& b = w.Add(Promised(50));
  a.Want(false);
  b.Want(false);
  w.RunFor(milliseconds(100));
  EXPECT_EQ(w.core.WatchOf(0), ComputeCore::Watch::kAsleep);
  EXPECT_EQ(a.word(), region::kGateMetered | region::kGateBell);
  EXPECT_EQ(b.word(), region::kGateMetered | region::kGateBell);
  const uint64_t polls = w.polls;
  w.RunFor(seconds(1));
  EXPECT_LE(w.polls - polls, 5u);
  // The first submission rings; its gate has no bell from then on.
  a.Want(true);
  w.RunFor(milliseconds(1));
  EXPECT_EQ(w.core.WatchOf(0), ComputeCore::Watch::kAwake);
  EXPECT_EQ(a.word(), region::kGateMetered);
  // Alone for long: the fast path, and the other one keeps its bell.
  w.RunFor(milliseconds(1500));
  EXPECT_EQ(w.core.WatchOf(0), ComputeCore::Watch::kLazy);
  EXPECT_EQ(a.gate().word, 0u);
  EXPECT_EQ(a.gate().bound_us, 2000u);
  EXPECT_EQ(b.word(), region::kGateMetered | region::kGateBell);
  const Nanos before = b.used();
  b.Want(true);
  w.RunFor(milliseconds(100));
  EXPECT_EQ(w.core.WatchOf(0), ComputeCore::Watch::kAwake);
  EXPECT_NEAR(w.Percent(b, before, milliseconds(100)), 50, 12);
}

TEST(Core, AloneItIsFreeUntilSomebodyComes) {
  World w;
  FakeTenant& a = w.Add({});
  w.RunFor(seconds(1));
  EXPECT_EQ(w.core.WatchOf(0), ComputeCore::Watch::kFree);
  EXPECT_EQ(a.gate().word, 0u);
  EXPECT_EQ(a.gate().bound_us, 0u);
  EXPECT_EQ(w.polls, 1u);
  EXPECT_FALSE(w.View(a).metered);
  // With company it is metered until its process has passed the metering path, however idle the
  // company is, and is not billed for what it ran before.
  a.Want(false);
  w.RunFor(milliseconds(50));
  FakeTenant& b = w.Add({});
  b.Want(false);
  w.due = w.now;
  w.RunFor(milliseconds(1));
  EXPECT_EQ(a.word() & region::kGateMetered, region::kGateMetered);
  EXPECT_EQ(w.View(a).part_percent, 50);
  a.Want(true);
  b.Want(true);
  w.RunFor(milliseconds(200));
  EXPECT_NEAR(static_cast<double>(w.View(a).stats.used.count()), 1e8, 2e7);
  EXPECT_NEAR(static_cast<double>(w.View(b).stats.used.count()), 1e8, 2e7);
  // And free again when the other one has left.
  w.core.Leave(b.id());
  w.tenants.pop_back();
  w.due = w.now;
  w.RunFor(milliseconds(1));
  EXPECT_EQ(a.gate().word, 0u);
  EXPECT_EQ(a.gate().bound_us, 0u);
}

double UsedPercent(World& w, const ShareView& view, Nanos span) {
  return view.used_ns.Rate(w.now, span) / 1e7;
}

TEST(Core, OfOneThatIsAloneTheDriverTells) {
  World w;
  FakeTenant& a = w.Add({});
  w.RunFor(milliseconds(100));
  EXPECT_FALSE(w.View(a).known);
  const auto tell = [&](double part, unsigned times) {
    for (unsigned i = 0; i < times; ++i) {
      const Nanos from = w.now;
      w.RunFor(milliseconds(250));
      const auto ns = static_cast<int64_t>(part * 250e6);
      w.core.Seen(a.id(), 0, Nanos(ns), from, w.now);
      w.View(a);
    }
  };
  tell(0.6, 9);  // the first only says that it tells
  EXPECT_TRUE(w.View(a).known);
  EXPECT_FALSE(w.View(a).metered);
  EXPECT_NEAR(UsedPercent(w, w.View(a), seconds(1)), 60, 1);
  EXPECT_NEAR(static_cast<double>(w.View(a).used.count()), 8 * 0.6 * 250e6, 1e6);
  EXPECT_EQ(w.View(a).stats.used, Nanos(0));
  // Beside one that idles it has the device alone as well: the markers' few words do not count
  // twice.
  FakeTenant& b = w.Add({});
  b.Want(false);
  w.due = w.now;
  w.RunFor(seconds(2));
  EXPECT_EQ(w.core.WatchOf(0), ComputeCore::Watch::kLazy);
  tell(0.6, 8);
  EXPECT_NEAR(UsedPercent(w, w.View(a), seconds(1)), 60, 3);
  EXPECT_GT(w.View(a).lone, seconds(2));
  // While both run the markers tell.
  b.Want(true);
  w.RunFor(milliseconds(100));
  tell(1, 8);
  EXPECT_EQ(w.core.WatchOf(0), ComputeCore::Watch::kAwake);
  EXPECT_NEAR(UsedPercent(w, w.View(a), seconds(1)), 50, 3);
}

TEST(Core, ADebitIsShownWhereItWasUsed) {
  World w;
  FakeTenant& a = w.Add(Promised(50));
  FakeTenant& b = w.Add(Promised(50));
  a.Want(false);
  for (int i = 0; i < 30; ++i) {
    w.RunFor(milliseconds(100));
    w.View(a);
  }
  w.core.Debit(a.id(), 0, milliseconds(2400), milliseconds(2400), w.now - seconds(3), w.now);
  w.due = w.now;
  w.RunFor(milliseconds(1));
  EXPECT_NEAR(UsedPercent(w, w.View(a), seconds(1)), 80, 2);
  EXPECT_GE(w.View(a).stats.used, milliseconds(2400));
  EXPECT_LE(UsedPercent(w, w.View(b), seconds(1)), 101);
}

TEST(Core, PauseShutsAndResumeOpens) {
  World w;
  FakeTenant& a = w.Add(Promised(50));
  FakeTenant& b = w.Add(Promised(50));
  w.RunFor(milliseconds(100));
  w.core.Pause(a.id(), 0, PausedBy::kOperator, true);
  w.core.Pause(a.id(), 0, PausedBy::kAudit, true);
  w.due = w.now;
  w.RunFor(milliseconds(5));
  EXPECT_EQ(a.word() & region::kGatePaused, region::kGatePaused);
  EXPECT_TRUE(w.View(a).paused);
  const Nanos ua = a.used(), ub = b.used();
  w.RunFor(milliseconds(500));
  EXPECT_EQ(a.used(), ua);
  EXPECT_NEAR(w.Percent(b, ub, milliseconds(500)), 100, 1);
  w.core.Pause(a.id(), 0, PausedBy::kOperator, false);
  w.due = w.now;
  w.RunFor(milliseconds(5));
  EXPECT_EQ(a.used(), ua) << "the audit's shut gate is not the operator's to open";
  w.core.Pause(a.id(), 0, PausedBy::kAudit, false);
  w.due = w.now;
  w.RunFor(milliseconds(500));
  EXPECT_NEAR(w.Percent(a, ua, milliseconds(500)), 50, 5);
}

TEST(Core, PauseOfAFreeTenant) {
  World w;
  FakeTenant& a = w.Add({});
  w.RunFor(milliseconds(10));
  w.core.Pause(a.id(), 0, PausedBy::kOperator, true);
  w.due = w.now;
  w.RunFor(milliseconds(10));
  EXPECT_EQ(a.word(), region::kGateMetered | region::kGateShut | region::kGatePaused);
  w.core.Pause(a.id(), 0, PausedBy::kOperator, false);
  w.due = w.now;
  w.RunFor(milliseconds(1));
  EXPECT_EQ(a.gate().word, 0u);
}

TEST(Core, ACapHoldsAlone) {
  World w;
  ComputeTerms terms;
  terms.cap = Percent::Of(30);
  FakeTenant& a = w.Add(terms, microseconds(200));
  w.RunFor(seconds(1));
  const Nanos before = a.used();
  w.RunFor(seconds(2));
  EXPECT_NEAR(w.Percent(a, before, seconds(2)), 30, 1);
  EXPECT_NE(a.gate().word, 0u);
}

TEST(Core, GarbageIsCountedAgainstTheGuilty) {
  World w;
  FakeTenant& a = w.Add(Promised(50));
  FakeTenant& b = w.Add(Promised(50));
  w.RunFor(milliseconds(200));
  const Nanos before = b.used();
  for (int i = 0; i < 200; ++i) {
    a.meter().lane[1].marker = ~uint64_t{0};
    a.meter().lane[1].marked = static_cast<uint64_t>(i) * 7919;
    a.meter().lanes = i % 2 == 0 ? ~0u : 2;
    w.RunFor(milliseconds(5));
  }
  EXPECT_GT(w.View(a).stats.faults, 100u);
  EXPECT_TRUE(w.View(a).stats.distrusted);
  EXPECT_EQ(w.View(b).stats.faults, 0u);
  EXPECT_GE(w.Percent(b, before, seconds(1)), 47);
}

TEST(Core, AStoppedProcessHoldsNobodyUp) {
  World w;
  FakeTenant& a = w.Add(Promised(50));
  FakeTenant& b = w.Add(Promised(50));
  w.RunFor(milliseconds(200));
  a.Want(false);
  a.meter().waiters = 3;  // as a process leaves it that is stopped while it waits
  const Nanos before = b.used();
  w.RunFor(seconds(1));
  EXPECT_GE(w.Percent(b, before, seconds(1)), 95);
}

TEST(Core, ManyTenantsOnOneDevice) {
  World w;
  w.step = microseconds(100);
  // Virtual time: a sanitizer has nothing more to see in more of it, and takes minutes for that.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr int kTenants = 32;
#else
  constexpr int kTenants = 256;
#endif
  constexpr auto kLong = milliseconds(kTenants * 31);  // some twelve windows for each
  constexpr double kPart = 100.0 / kTenants;
  for (int i = 0; i < kTenants; ++i) w.Add({});
  w.RunFor(kLong);
  double least = 1e9, most = 0;
  for (const FakeTenant& t : w.tenants) {
    least = std::min(least, w.Percent(t, Nanos(0), kLong));
    most = std::max(most, w.Percent(t, Nanos(0), kLong));
  }
  EXPECT_GT(least, kPart / 2);
  EXPECT_LT(most, kPart * 3 / 2);
}

TEST(Core, MoreTenantsThanThereCanBe) {
  ComputeCore core(1, 1);
  const auto segments = NewSegments();
  for (unsigned i = 0; i < ComputeCore::kMostTenants; ++i)
    ASSERT_TRUE(core.Join(i, segments, {0}, {}, Nanos(0)).ok());
  EXPECT_EQ(core.Join(9999, segments, {0}, {}, Nanos(0)).error().code, ErrorCode::kNoRoom);
  core.Leave(7);
  EXPECT_TRUE(core.Join(9999, segments, {0}, {}, Nanos(0)).ok());
}

TEST(Meter, ATailWithoutAMarkerEnds) {
  const auto segments = NewSegments();
  region::Meter& m = segments->usage().meter[3].device[1];
  MeterReader reader(segments->usage(), 1, milliseconds(5));
  reader.Add(3);
  m.lanes = 1;
  m.lane[0].issued = 10;
  m.lane[0].marked = 8;
  m.lane[0].marker = MarkerWord(8, MarkerKind::kDone);
  EXPECT_EQ(reader.Read(milliseconds(1)).done, 8u);
  EXPECT_TRUE(reader.moved());
  EXPECT_EQ(reader.Read(milliseconds(5)).done, 8u);
  EXPECT_FALSE(reader.moved());
  EXPECT_EQ(reader.Read(milliseconds(6)).done, 10u);
  // More work: what was taken for done stays so.
  m.lane[0].issued = 12;
  arbiter::Progress p = reader.Read(milliseconds(7));
  EXPECT_EQ(p.done, 10u);
  EXPECT_EQ(p.issued, 12u);
  m.lane[0].marked = 12;
  m.lane[0].marker = MarkerWord(12, MarkerKind::kDone);
  EXPECT_EQ(reader.Read(milliseconds(8)).done, 12u);
}

TEST(Meter, ProcessesThatEndKeepTheirTotals) {
  const auto segments = NewSegments();
  MeterReader reader(segments->usage(), 0, milliseconds(5));
  for (uint32_t slot : {1u, 2u}) {
    reader.Add(slot);
    region::Meter& m = segments->usage().meter[slot].device[0];
    m.waits = 5;
    m.lanes = 1;
    m.lane[0].issued = m.lane[0].marked = 10;
  }
  EXPECT_EQ(reader.Read(Nanos(0)).issued, 20u);
  reader.Remove(1);
  ResetMeters(segments->usage(), 1, 1);
  EXPECT_EQ(segments->usage().meter[1].device[0].lane[0].issued, 0u);
  EXPECT_EQ(reader.Read(Nanos(1)).issued, 10u);
  EXPECT_EQ(reader.Totals().waits, 10u);
  EXPECT_TRUE(reader.Read(Nanos(2)).paused == false);
}

TEST(Meter, NonsenseIsGarbage) {
  const auto segments = NewSegments();
  MeterReader reader(segments->usage(), 0, milliseconds(5));
  reader.Add(1);
  region::Meter& m = segments->usage().meter[1].device[0];
  m.lanes = 1;
  m.lane[0].issued = 5;
  m.lane[0].marked = 6;
  EXPECT_TRUE(reader.Read(Nanos(0)).garbage);
  m.lane[0].marked = 5;
  EXPECT_FALSE(reader.Read(Nanos(0)).garbage);
  m.lane[0].start = 9;
  EXPECT_TRUE(reader.Read(Nanos(0)).garbage);
  m.lane[0].start = 0;
  m.lane[0].marker = MarkerWord(6, MarkerKind::kDone);
  EXPECT_TRUE(reader.Read(Nanos(0)).garbage);
}

TEST(Bell, WakesItsListener) {
  const auto created = BellPage::Create();
  ASSERT_TRUE(created.ok());
  BellPage* bell = created->get();
  const uint32_t before = bell->rung();
  bell->Ring();
  bell->Wait(before, Nanos::max());  // it has rung since: returns at once
  EXPECT_NE(bell->rung(), before);
  bell->Wait(bell->rung(), Nanos(1));  // a time long past: returns at once
}

// The page is its tenants' to write, and futex waiters on it can be moved to a futex of theirs. The
// thread finds its own changes, and its end, all the same; a hang here is the test's time limit.
TEST(Bell, ATenantCannotPutTheArbiterToSleep) {
  Compute compute(std::vector<DeviceTiming>(1), "");
  ASSERT_TRUE(compute.Start().ok());
  void* page =
      ::mmap(nullptr, region::kBellBytes, PROT_READ | PROT_WRITE, MAP_SHARED, compute.bell_fd(), 0);
  ASSERT_NE(page, MAP_FAILED);
  auto* rung = static_cast<uint32_t*>(page);
  while (::syscall(SYS_futex, rung, FUTEX_REQUEUE, 0, reinterpret_cast<timespec*>(INT_MAX),
                   rung + 1, 0) < 1) {
  }
  auto made = Segments::Create("t", 1);
  ASSERT_TRUE(made.ok());
  const std::shared_ptr<Segments> segments(std::move(*made));
  compute.Join(1, segments, {0}, {});
  while (compute.ViewOf(1).empty()) std::this_thread::yield();
  EXPECT_TRUE(compute.Alive());
  ::munmap(page, region::kBellBytes);
}

}  // namespace
}  // namespace divvy::daemon
