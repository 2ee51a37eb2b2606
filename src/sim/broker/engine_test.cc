// The devices' time model. Where its rules come from: in-order streams, concurrent kernels and copy
// engines: CUDA C++ Programming Guide, "Asynchronous Concurrent Execution"; time slices between
// processes without MPS: NVIDIA MPS documentation, "CUDA contexts from different processes
// time-slice"; the switch when a queue runs dry and its cost: this project's arbiter model.
#include "src/sim/broker/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace divvy::sim {
namespace {

constexpr uint64_t kUs = 1000, kMs = 1'000'000;

struct Key {
  uint32_t process, stream;
  uint64_t seq;
  auto operator<=>(const Key&) const = default;
};

class Log : public EngineListener {
 public:
  std::map<OpSlot*, Key> names;
  std::map<Key, uint64_t> started, ended, told;
  std::map<uint32_t, uint64_t> busy;  // by process
  uint64_t copy_busy = 0;
  std::vector<Key> dropped;

  void Started(EngineOp& op, uint64_t at, bool final) override {
    if (final) started[names.at(op.slot)] = at;
  }
  void Ended(EngineOp& op, uint64_t at, bool final) override {
    (final ? ended : told)[names.at(op.slot)] = at;
  }
  void Dropped(EngineOp& op) override { dropped.push_back(names.at(op.slot)); }
  void Busy(uint32_t, uint32_t process, uint64_t from, uint64_t to) override {
    busy[process] += to - from;
  }
  void CopyBusy(uint32_t, uint64_t from, uint64_t to) override { copy_busy += to - from; }
};

class EngineTest : public testing::Test {
 protected:
  EngineTest() : engine_({2, kMs, 60 * kUs, 0}, &log_) {}

  Key Put(uint32_t process, uint32_t stream, EngineOp op) {
    Key key{process, stream, ++seq_[{process, stream}]};
    op.seq = key.seq;
    // The engine only passes the slot on: any distinct pointer will do.
    op.slot = reinterpret_cast<OpSlot*>(++next_slot_ * sizeof(OpSlot));
    log_.names[op.slot] = key;
    engine_.Submit(process, stream, op);
    return key;
  }
  static EngineOp Kernel(uint64_t ns, uint64_t submit = 0, uint16_t sms = 1000,
                         uint8_t device = 0) {
    EngineOp op;
    op.kind = OpKind::kCompute;
    op.duration_ns = ns;
    op.submit_ns = submit;
    op.sm_permille = sms;
    op.device = device;
    return op;
  }
  static EngineOp Copy(OpKind kind, uint64_t ns) {
    EngineOp op = Kernel(ns);
    op.kind = kind;
    return op;
  }
  static EngineOp Wait(Key on) {
    EngineOp op;
    op.kind = OpKind::kWaitOp;
    op.wait_stream = on.stream;
    op.wait_seq = on.seq;
    return op;
  }
  uint64_t End(Key k) {
    EXPECT_TRUE(log_.ended.count(k)) << k.process << "/" << k.stream << "/" << k.seq;
    return log_.ended[k];
  }

  Log log_;
  Engine engine_;
  std::map<std::pair<uint32_t, uint32_t>, uint64_t> seq_;
  uintptr_t next_slot_ = 0;
};

TEST_F(EngineTest, StreamsRunInOrderWithoutGaps) {
  Key a = Put(1, 1, Kernel(5 * kUs)), b = Put(1, 1, Kernel(7 * kUs));
  Key c = Put(1, 1, Kernel(5 * kUs, 100 * kUs));
  engine_.Commit(kMs);
  EXPECT_EQ(End(a), 5 * kUs);
  EXPECT_EQ(End(b), 12 * kUs);
  EXPECT_EQ(End(c), 105 * kUs);  // the device was idle in between
  EXPECT_TRUE(engine_.idle());
  EXPECT_EQ(log_.busy[1], 17 * kUs);
}

TEST_F(EngineTest, WorkThatIsTakenInLateIsBusyFromItsBeginning) {
  for (uint64_t i = 0; i < 10; ++i) {
    engine_.Commit((i * 100 + 60) * kUs);  // looked, and nothing was there yet
    Key a = Put(1, 1, Kernel(20 * kUs, (i * 100 + 50) * kUs));
    engine_.Commit((i * 100 + 65) * kUs);
    engine_.Commit((i * 100 + 90) * kUs);
    EXPECT_EQ(End(a), (i * 100 + 70) * kUs);
  }
  EXPECT_EQ(log_.busy[1], 200 * kUs);
}

TEST_F(EngineTest, KernelsThatFitRunTogetherAndNoneOvertakes) {
  Key a = Put(1, 1, Kernel(100 * kUs, 0, 600)), b = Put(1, 2, Kernel(100 * kUs, 1, 300));
  Key wide = Put(1, 3, Kernel(10 * kUs, 2, 500)), thin = Put(1, 4, Kernel(10 * kUs, 3, 100));
  engine_.Commit(kMs);
  EXPECT_EQ(End(a), 100 * kUs);
  EXPECT_EQ(End(b), 100 * kUs + 1);
  EXPECT_EQ(End(wide), 110 * kUs);  // 500 fit once the 600 are free
  EXPECT_EQ(End(thin), 110 * kUs);  // would have fitted before, but waits in line
}

TEST_F(EngineTest, ProcessesTakeTurnsOfASliceAndPayForSwitches) {
  Key a = Put(1, 1, Kernel(3 * kMs)), b = Put(2, 1, Kernel(3 * kMs));
  engine_.Commit(20 * kMs);
  // 1: 0..1, 2: 1.06..2.06, 1: 2.12..3.12, 2: 3.18..4.18, 1: 4.24..5.24 ends, 2: 5.30..6.30.
  EXPECT_EQ(End(a), 5 * kMs + 240 * kUs);
  EXPECT_EQ(End(b), 6 * kMs + 300 * kUs);
  EXPECT_EQ(log_.busy[1], 3 * kMs);
  EXPECT_EQ(log_.busy[2], 3 * kMs);
}

TEST_F(EngineTest, DeviceSwitchesAtOnceWhenAQueueRunsDry) {
  Key a = Put(1, 1, Kernel(200 * kUs)), b = Put(2, 1, Kernel(100 * kUs));
  engine_.Commit(20 * kMs);
  EXPECT_EQ(End(a), 200 * kUs);
  EXPECT_EQ(End(b), 360 * kUs);
}

TEST_F(EngineTest, NewcomerWaitsForTheEndOfTheSliceOfALoneProcess) {
  Put(1, 1, Kernel(10 * kMs));
  engine_.Commit(2 * kMs + 300 * kUs);
  Key b = Put(2, 1, Kernel(50 * kUs, 2 * kMs + 300 * kUs));
  engine_.Commit(20 * kMs);
  EXPECT_EQ(End(b), 3 * kMs + 60 * kUs + 50 * kUs);
}

TEST_F(EngineTest, CopiesRunBesideKernelsOnePerDirection) {
  Key k = Put(1, 1, Kernel(500 * kUs));
  Key in1 = Put(1, 2, Copy(OpKind::kCopyH2D, 100 * kUs));
  Key in2 = Put(2, 1, Copy(OpKind::kCopyH2D, 100 * kUs));
  Key out = Put(1, 3, Copy(OpKind::kCopyD2H, 100 * kUs));
  engine_.Commit(kMs);
  EXPECT_EQ(End(k), 500 * kUs);
  EXPECT_EQ(End(out), 100 * kUs);
  EXPECT_EQ(std::min(End(in1), End(in2)), 100 * kUs);
  EXPECT_EQ(std::max(End(in1), End(in2)), 200 * kUs);
  EXPECT_EQ(log_.copy_busy, 200 * kUs);
}

TEST_F(EngineTest, WaitsHoldAStreamAlsoAcrossDevices) {
  Key a = Put(1, 1, Kernel(300 * kUs, 0, 1000, 1));
  Put(1, 2, Wait(a));
  Key b = Put(1, 2, Kernel(10 * kUs));
  engine_.Commit(kMs);
  EXPECT_EQ(End(b), 310 * kUs);
}

TEST_F(EngineTest, ExternalOpsEndWhenTheyAreReleased) {
  EngineOp host;
  host.kind = OpKind::kExternal;
  Key h = Put(1, 1, host);
  Key after = Put(1, 1, Kernel(10 * kUs));
  engine_.Commit(100 * kUs);
  EXPECT_EQ(log_.started[h], 0u);
  EXPECT_FALSE(log_.ended.count(h));
  EXPECT_TRUE(engine_.Release(1, 1, h.seq, 150 * kUs));
  engine_.Commit(kMs);
  EXPECT_EQ(End(h), 150 * kUs);
  EXPECT_EQ(End(after), 160 * kUs);
}

TEST_F(EngineTest, AWaitingKernelHoldsTheDeviceOnlyForItsSlices) {
  EngineOp spin = Kernel(0);
  spin.kind = OpKind::kExternalCompute;
  Key w = Put(1, 1, spin);
  Key other = Put(2, 1, Kernel(100 * kUs));
  Key same = Put(1, 2, Kernel(10 * kUs));  // behind it: the device is full
  engine_.Commit(5 * kMs);
  EXPECT_EQ(End(other), kMs + 160 * kUs);
  EXPECT_FALSE(log_.ended.count(same));
  EXPECT_TRUE(engine_.Release(1, 1, w.seq, 5 * kMs));
  engine_.Commit(6 * kMs);
  EXPECT_EQ(End(w), 5 * kMs);
  EXPECT_EQ(End(same), 5 * kMs + 10 * kUs);
}

TEST_F(EngineTest, PriorityDecidesWhoStartsNext) {
  Put(1, 1, Kernel(100 * kUs));
  EngineOp low = Kernel(10 * kUs, 1), high = Kernel(10 * kUs, 2);
  high.priority = -5;
  Key l = Put(1, 2, low), h = Put(1, 3, high);
  engine_.Commit(kMs);
  EXPECT_EQ(End(h), 110 * kUs);
  EXPECT_EQ(End(l), 120 * kUs);
}

TEST_F(EngineTest, AbortDropsOnlyTheStreamsNamed) {
  Put(1, 1, Kernel(kMs));
  Put(1, 1, Kernel(kMs));
  Key other = Put(1, 2, Kernel(10 * kUs));
  engine_.Commit(100 * kUs);
  engine_.Abort(1, 1, 1);
  engine_.Commit(kMs);
  EXPECT_EQ(log_.dropped.size(), 2u);
  EXPECT_EQ(End(other), engine_.clock_ns());
  EXPECT_TRUE(engine_.idle());
}

TEST_F(EngineTest, ADeadProcessFreesTheDevice) {
  Put(1, 1, Kernel(kMs * 1000));
  Key b = Put(2, 1, Kernel(100 * kUs));
  engine_.Commit(500 * kUs);
  engine_.RemoveProcess(1);
  engine_.Commit(10 * kMs);
  EXPECT_LE(End(b), 700 * kUs);
}

// What Predict tells is what Commit makes of it, whenever nothing is submitted in between; and all
// time that kernels took is accounted once.
TEST_F(EngineTest, PredictionsComeTrue) {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    Log log;
    Engine engine({2, kMs, 60 * kUs, kUs}, &log);
    std::mt19937 random(seed);
    std::map<std::pair<uint32_t, uint32_t>, uint64_t> seq;
    std::vector<Key> all;
    uintptr_t slot = 0;
    uint64_t kernel_ns = 0, now = 0;
    for (int step = 0; step < 12; ++step) {
      for (int i = 0; i < 8; ++i) {
        uint32_t process = random() % 3, stream = 1 + random() % 3;
        EngineOp op = Kernel(5 * kUs + random() % (700 * kUs), now, uint16_t(1 + random() % 1000),
                             uint8_t(random() % 2));
        unsigned what = random() % 10;
        if (what == 0) op.kind = OpKind::kCopyH2D;
        if (what == 1) op.kind = OpKind::kInstant;
        if (what == 2 && !all.empty()) {
          Key on = all[random() % all.size()];
          if (on.process == process && on.stream != stream) {
            op = Wait(on);
            op.submit_ns = now;
          }
        }
        if (op.kind == OpKind::kCompute) kernel_ns += op.duration_ns;
        op.seq = ++seq[{process, stream}];
        op.slot = reinterpret_cast<OpSlot*>(++slot * sizeof(OpSlot));
        Key key{process, stream, op.seq};
        log.names[op.slot] = key;
        all.push_back(key);
        engine.Submit(process, stream, op);
      }
      log.told.clear();
      auto outlook = engine.Predict(now + 400 * kUs, now, 100000);
      EXPECT_EQ(outlook.known_ns, now + 400 * kUs);
      now += 400 * kUs;
      engine.Commit(now);
      for (auto [key, at] : log.told) {
        ASSERT_TRUE(log.ended.count(key)) << "seed " << seed;
        ASSERT_EQ(log.ended[key], at) << "seed " << seed;
      }
    }
    engine.Commit(now + 1000 * kMs);
    ASSERT_TRUE(engine.idle()) << "seed " << seed;
    for (Key k : all) ASSERT_TRUE(log.ended.count(k)) << "seed " << seed;
    uint64_t busy = 0;
    for (auto [process, ns] : log.busy) busy += ns;
    ASSERT_LE(busy, kernel_ns) << "seed " << seed;  // kernels side by side count once
    ASSERT_GT(busy, kernel_ns / 4) << "seed " << seed;
  }
}

}  // namespace
}  // namespace divvy::sim
