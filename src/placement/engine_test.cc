// The engine: what fits, ties, transactions, health, and that cached scores equal fresh ones.
#include "src/placement/engine.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "src/placement/policies/policies.h"
#include "src/placement/sim/order.h"

namespace divvy::placement {
namespace {

NodeSpec MakeNode(int devices, int cpu = 64000, int memory = 100000, uint8_t model = 0) {
  NodeSpec n;
  n.name = "n";
  n.cpu_milli = cpu;
  n.memory_mib = memory;
  n.devices = devices;
  n.model = model;
  n.device_memory_mib = 40960;
  return n;
}

Request Ask(int devices, int compute, int cpu = 1000, int device_memory = 0,
            uint64_t models = kAnyModel) {
  Request r;
  r.shape = {cpu, 1000, devices, compute, device_memory, Link::kAny, models};
  return r;
}

TEST(Engine, RefusesWhatFitsNowhereAndSaysNothingChanged) {
  Engine e(MakePolicy("bestfit", 1));
  e.cluster().AddNode(MakeNode(2));
  EXPECT_EQ(e.Place(Ask(3, 1000)), kNoTenant);
  EXPECT_EQ(e.Place(Ask(1, 500, 64001)), kNoTenant);
  EXPECT_EQ(e.Place(Ask(1, 500, 1000, 40961)), kNoTenant);
  EXPECT_EQ(e.Place(Ask(1, 500, 1000, 0, 1 << 1)), kNoTenant);
  EXPECT_EQ(e.cluster().used_milli(), 0);
  EXPECT_EQ(e.tenants(), 0u);
}

TEST(Engine, DeviceMemoryLimitsSharing) {
  Engine e(MakePolicy("bestfit", 1));
  e.cluster().AddNode(MakeNode(1));
  EXPECT_NE(e.Place(Ask(1, 100, 100, 30000)), kNoTenant);
  EXPECT_EQ(e.Place(Ask(1, 100, 100, 30000)), kNoTenant);
  EXPECT_NE(e.Place(Ask(1, 100, 100, 10000)), kNoTenant);
}

TEST(Engine, TiesGoToTheFirstNode) {
  Engine e(MakePolicy("bestfit", 1));
  for (int i = 0; i < 600; ++i) e.cluster().AddNode(MakeNode(4));
  const TenantId id = e.Place(Ask(4, 1000));
  EXPECT_EQ(e.tenant(id).node, 0u);
  EXPECT_EQ(e.tenant(e.Place(Ask(4, 1000))).node, 1u);
  e.Release(id);
  EXPECT_EQ(e.tenant(e.Place(Ask(4, 1000))).node, 0u);
}

TEST(Engine, ASickDeviceThatIsWellAgainLeavesTheCountsAsTheyWere) {
  Engine e(MakePolicy("default", 1));
  e.cluster().AddNode(MakeNode(4));
  const int64_t left = e.cluster().LeftMilli(0);
  const uint32_t whole = e.cluster().NodesWithWhole(0, 4);
  e.cluster().SetHealthy(0, 2, false);
  EXPECT_EQ(e.cluster().LeftMilli(0), left - 1000);
  e.cluster().SetHealthy(0, 2, true);
  EXPECT_EQ(e.cluster().LeftMilli(0), left);
  EXPECT_EQ(e.cluster().NodesWithWhole(0, 4), whole);
}

TEST(Engine, MoreSizesThanAByteCounts) {
  Engine e(MakePolicy("fgd", 1));
  e.cluster().AddNode(MakeNode(8));
  Mix mix;
  for (int milli = 1; milli <= 300; ++milli) mix.Add(Ask(1, milli).shape, 1);
  e.Learn(mix);
  for (int milli = 1; milli <= 300; milli += 99) EXPECT_NE(e.Place(Ask(1, milli)), kNoTenant);
}

TEST(Engine, ClosedNodesAndSickDevicesTakeNothing) {
  Engine e(MakePolicy("bestfit", 1));
  e.cluster().AddNode(MakeNode(1));
  e.cluster().AddNode(MakeNode(2));
  e.cluster().SetClosed(0, true);
  e.cluster().SetHealthy(1, 0, false);
  const TenantId id = e.Place(Ask(1, 600));
  ASSERT_NE(id, kNoTenant);
  EXPECT_EQ(e.tenant(id).node, 1u);
  EXPECT_EQ(e.tenant(id).devices, 2u);
  EXPECT_EQ(e.Place(Ask(1, 600)), kNoTenant);
  e.cluster().SetHealthy(1, 1, false);
  e.Release(id);  // what a sick device gives back is not offered
  EXPECT_EQ(e.Place(Ask(1, 600)), kNoTenant);
  e.cluster().SetHealthy(1, 1, true);
  EXPECT_NE(e.Place(Ask(1, 1000)), kNoTenant);
}

TEST(Engine, LinkRequiredStaysInOneGroup) {
  Engine e(MakePolicy("bestfit", 1));
  NodeSpec n = MakeNode(4);
  n.link_group = {0, 1, 0, 1};
  e.cluster().AddNode(n);
  Request two = Ask(2, 1000);
  two.shape.link = Link::kRequire;
  EXPECT_EQ(e.tenant(e.Place(two)).devices, 0b0101u);
  e.Place(Ask(1, 1000));
  EXPECT_EQ(e.Place(two), kNoTenant);
  two.shape.link = Link::kPrefer;
  EXPECT_EQ(e.Place(two), kNoTenant);  // one device left only
}

// Everything a caller can see of the cluster.
std::vector<int64_t> Snapshot(const Engine& e) {
  std::vector<int64_t> out;
  for (NodeId id = 0; id < e.cluster().size(); ++id) {
    const NodeView v = e.cluster().View(id);
    out.insert(out.end(), {v.node.cpu_left, v.node.memory_left, v.node.slots_left});
    for (const Device& d : v.devices) out.insert(out.end(), {d.compute_left, d.memory_left});
    for (TenantId t = e.FirstOn(id); t != kNoTenant; t = e.tenant(t).next) ++out.back();
  }
  out.push_back(e.cluster().used_milli());
  out.push_back(static_cast<int64_t>(e.tenants()));
  return out;
}

TEST(Engine, RollbackRestoresEverything) {
  Engine e(MakePolicy("bestfit", 1));
  for (int i = 0; i < 4; ++i) e.cluster().AddNode(MakeNode(4));
  Rng rng(7);
  std::vector<TenantId> live;
  for (int i = 0; i < 6; ++i) live.push_back(e.Place(Ask(1, 300 + 100 * (i % 3))));
  for (int round = 0; round < 200; ++round) {
    const std::vector<int64_t> before = Snapshot(e);
    const std::vector<TenantId> live_before = live;
    e.Begin();
    for (int i = 0; i < 8; ++i) {
      if (!live.empty() && rng.Below(2) == 0) {
        const size_t at = rng.Below(live.size());
        e.Release(live[at]);
        live.erase(live.begin() + static_cast<ptrdiff_t>(at));
      } else if (!live.empty() && rng.Below(3) == 0) {
        e.Resize(live[rng.Below(live.size())], 50);
      } else if (const TenantId id = e.Place(Ask(1, 100 + 100 * int(rng.Below(9))));
                 id != kNoTenant) {
        live.push_back(id);
      }
      if (i == 3) {  // a nested transaction that is undone leaves the outer one as it was
        const std::vector<int64_t> middle = Snapshot(e);
        e.Begin();
        e.Place(Ask(2, 1000));
        e.Rollback();
        ASSERT_EQ(Snapshot(e), middle);
      }
    }
    if (round % 3 == 0) {
      e.Commit();
    } else {
      e.Rollback();
      live = live_before;
      ASSERT_EQ(Snapshot(e), before);
    }
  }
}

// The decision that a look at every node gives.
Decision Fresh(Engine& e, const Shape& shape) {
  std::array<int32_t, kMaxPools> bias{};
  const uint32_t kind = e.policy().BiasKind(shape);
  if (kind != Policy::kNoBias) {
    e.policy().PoolBias(kind, shape, e.cluster().pools().size(), &bias);
  }
  Decision best;
  for (NodeId id = 0; id < e.cluster().size(); ++id) {
    const NodeView view = e.cluster().View(id);
    if (!Fits(view, shape)) continue;
    Choice c = e.policy().Evaluate(view, shape);
    c.score += bias[view.node.pool];
    if (c.score > best.score) best = {id, c.devices, c.score};
  }
  return best;
}

// More shapes than the engine keeps scores of: the oldest are forgotten and come back right.
TEST(Engine, VeryManyShapesTakeBoundedMemory) {
  Engine e(MakePolicy("bestfit", 1));
  for (int i = 0; i < 40; ++i) e.cluster().AddNode(MakeNode(8));
  size_t most = 0;
  Rng rng(5);
  for (int i = 0; i < 4000; ++i) {
    const Request r = Ask(1, 1 + int(rng.Below(40)), 1 + int(rng.Below(100)));
    const Decision want = Fresh(e, r.shape);
    const std::optional<Decision> got = e.Decide(e.Intern(r.shape));
    ASSERT_EQ(got ? got->node : kNoNode, want.node);
    if (got) e.PlaceAt(e.Intern(r.shape), r, got->node, got->devices);
    if (i == 2000) most = e.BytesUsed();
  }
  EXPECT_GT(e.shapes(), 1500u);
  EXPECT_LE(e.BytesUsed(), most + 100000);  // tenants, not scores
}

// The cached decision must be the one a fresh look at every node gives.
TEST(Engine, CachedScoresEqualFreshOnes) {
  for (const PolicyInfo& info : Policies()) {
    if (info.name == "random") continue;
    Engine e(MakePolicy(info.name, 1));
    Rng rng(11);
    for (int i = 0; i < 700; ++i) {
      e.cluster().AddNode(MakeNode(1 << rng.Below(4), 16000 + 16000 * int(rng.Below(4)), 200000,
                                   uint8_t(rng.Below(3))));
    }
    std::vector<Request> kinds;
    Mix mix;
    for (int i = 0; i < 12; ++i) {
      const int devices = rng.Below(4) == 0 ? 1 << rng.Below(4) : 1;
      kinds.push_back(Ask(devices, devices > 1 ? 1000 : 100 * int(1 + rng.Below(10)),
                          500 * int(rng.Below(20)), 0, rng.Below(3) ? kAnyModel : 0b101));
      mix.Add(kinds.back().shape, double(1 + rng.Below(50)));
    }
    e.Learn(mix);
    std::vector<TenantId> live;
    for (int step = 0; step < 3000; ++step) {
      if (!live.empty() && rng.Below(3) == 0) {
        const size_t at = rng.Below(live.size());
        e.Release(live[at]);
        live[at] = live.back();
        live.pop_back();
      }
      if (step % 500 == 499) e.cluster().AddNode(MakeNode(8));
      if (step % 700 == 699) e.cluster().SetClosed(NodeId(rng.Below(700)), true);
      const Request& r = kinds[rng.Below(kinds.size())];
      const ShapeId shape = e.Intern(r.shape);
      const std::optional<Decision> got = e.Decide(shape);
      const Decision want = Fresh(e, r.shape);
      ASSERT_EQ(got ? got->node : kNoNode, want.node) << info.name << " step " << step;
      if (!got) continue;
      ASSERT_EQ(got->devices, want.devices);
      ASSERT_EQ(std::popcount(got->devices), r.shape.devices);
      live.push_back(e.PlaceAt(shape, r, got->node, got->devices));
    }
  }
}

// Two engines on the same requests; one learns, the other goes on placing while a thread learns,
// and then takes that policy over.
TEST(Engine, AdoptingWhatAThreadLearntIsLearning) {
  Engine here(MakePolicy("default", 1)), beside(MakePolicy("default", 1));
  Rng rng(5);
  for (int i = 0; i < 400; ++i) {
    const NodeSpec node = MakeNode(1 << rng.Below(4), 16000 + 16000 * int(rng.Below(4)), 200000,
                                   static_cast<uint8_t>(rng.Below(3)));
    here.cluster().AddNode(node);
    beside.cluster().AddNode(node);
  }
  const auto next = [&rng] {
    return Ask(1, 100 * int(1 + rng.Below(10)), 500 * int(rng.Below(20)), 0,
               rng.Below(3) ? kAnyModel : 0b101);
  };
  Mix mix;
  for (int i = 0; i < 300; ++i) mix.Add(next().shape);
  mix.Add(Ask(8, 1000).shape, 5);
  const auto place = [&](int requests) {
    int placed = 0;
    for (int i = 0; i < requests; ++i) {
      const Request r = next();
      const TenantId a = here.Place(r), b = beside.Place(r);
      EXPECT_EQ(a, b);
      if (a == kNoTenant || b == kNoTenant) continue;
      EXPECT_EQ(here.tenant(a).node, beside.tenant(b).node) << i;
      EXPECT_EQ(here.tenant(a).devices, beside.tenant(b).devices) << i;
      ++placed;
    }
    return placed;
  };
  std::unique_ptr<Policy> fresh = MakePolicy("default", 1);
  std::thread learns(
      [&fresh, &mix, hardware = beside.cluster().hardware()] { fresh->Learn(mix, hardware); });
  EXPECT_GT(place(300), 0);
  learns.join();
  here.Learn(mix);
  const Policy* const learnt = fresh.get();
  const std::unique_ptr<Policy> old = beside.Adopt(std::move(fresh));
  EXPECT_EQ(&beside.policy(), learnt);
  EXPECT_NE(old, nullptr);
  EXPECT_GT(place(1500), 500);
}

// Shapes that differ in host memory or allowed models share what is known of scores; more kinds of
// hardware than pools, so that pools hold nodes of other models; memory that runs out before
// devices do; demand for whole nodes that comes and goes, so that their weight rises and falls.
TEST(Engine, SharedScoresEqualFreshOnesWhereNodesOfAPoolDiffer) {
  Engine e(MakePolicy("default", 1));
  Rng rng(23);
  const auto any = [&](int kinds) { return static_cast<int>(rng.Below(uint64_t(kinds))); };
  for (int i = 0; i < 600; ++i) {
    e.cluster().AddNode(MakeNode(1 << any(4), 8000 + 500 * any(60), 40000 + 1000 * any(30),
                                 static_cast<uint8_t>(any(5))));
  }
  ASSERT_EQ(e.cluster().pools().size(), size_t{kMaxPools});
  std::vector<Request> kinds;
  Mix mix;
  for (int i = 0; i < 60; ++i) {
    const int devices = i % 5 == 0 ? 1 << any(4) : 1;
    Request r = Ask(devices, devices > 1 ? 1000 : 250 * (1 + any(4)), 500 * any(5), 0,
                    any(3) == 0 ? kAnyModel : 1 + uint64_t(any(31)));
    r.shape.memory_mib = 4000 * any(6);
    kinds.push_back(r);
    mix.Add(r.shape, double(1 + any(50)));
  }
  e.Learn(mix);
  std::vector<TenantId> live;
  int placed = 0;
  for (int step = 0; step < 6000; ++step) {
    const bool draining = step / 1500 % 2 == 1;
    while (!live.empty() && (draining ? any(3) != 0 : any(8) == 0)) {
      const auto at = static_cast<size_t>(any(static_cast<int>(live.size())));
      e.Release(live[at]);
      live[at] = live.back();
      live.pop_back();
    }
    const Request& r = kinds[static_cast<size_t>(any(60))];
    const ShapeId shape = e.Intern(r.shape);
    const std::optional<Decision> got = e.Decide(shape);
    const Decision want = Fresh(e, r.shape);
    ASSERT_EQ(got ? got->node : kNoNode, want.node) << "step " << step;
    if (!got) continue;
    ASSERT_EQ(got->devices, want.devices);
    live.push_back(e.PlaceAt(shape, r, got->node, got->devices));
    ++placed;
  }
  EXPECT_GT(placed, 1000);
}

}  // namespace
}  // namespace divvy::placement
