// What each familiar policy promises its users, on clusters small enough to see.
#include "src/placement/policies/policies.h"

#include <gtest/gtest.h>

#include "src/placement/engine.h"
#include "src/placement/pattern.h"

namespace divvy::placement {
namespace {

NodeSpec MakeNode(int devices, std::vector<uint8_t> groups = {}, int cpu = 64000) {
  NodeSpec n;
  n.cpu_milli = cpu;
  n.memory_mib = 100000;
  n.devices = devices;
  n.device_memory_mib = 40000;
  n.link_group = std::move(groups);
  return n;
}

Request Ask(int devices, int compute, int device_memory = 0, int cpu = 1000) {
  Request r;
  r.shape = {cpu, 1000, devices, compute, device_memory, Link::kAny, kAnyModel};
  return r;
}

TEST(Policies, NamesAreUniqueAndMade) {
  for (const PolicyInfo& info : Policies()) {
    const auto policy = MakePolicy(info.name, 1);
    ASSERT_NE(policy, nullptr);
    EXPECT_EQ(policy->name(), info.name);
  }
  EXPECT_EQ(MakePolicy("nonsense", 1), nullptr);
}

TEST(Binpack, FillsOneNodeAndOneDeviceFirst) {
  Engine e(MakePolicy("binpack", 1));
  for (int i = 0; i < 3; ++i) e.cluster().AddNode(MakeNode(2));
  for (int i = 0; i < 4; ++i) {
    const Tenant& t = e.tenant(e.Place(Ask(1, 250)));
    EXPECT_EQ(t.node, 0u);
    EXPECT_EQ(t.devices, 1u);
  }
  EXPECT_EQ(e.tenant(e.Place(Ask(1, 250))).devices, 2u);
}

TEST(Spread, TakesTheEmptiestNodeAndDevices) {
  Engine e(MakePolicy("spread", 1));
  for (int i = 0; i < 2; ++i) e.cluster().AddNode(MakeNode(2));
  EXPECT_EQ(e.tenant(e.Place(Ask(1, 250))).node, 0u);
  EXPECT_EQ(e.tenant(e.Place(Ask(1, 250))).node, 1u);
  EXPECT_EQ(e.tenant(e.Place(Ask(1, 250))).devices, 2u);
  EXPECT_EQ(e.tenant(e.Place(Ask(2, 100))).devices, 3u);
}

TEST(Topology, KeepsDevicesTogetherAndGroupsWhole) {
  Engine e(MakePolicy("topology", 1));
  e.cluster().AddNode(MakeNode(4, {0, 1, 0, 1}));
  e.cluster().AddNode(MakeNode(4, {0, 0, 0, 0}));
  // A pair goes where its group is exactly a pair, not into the group of four.
  EXPECT_EQ(e.tenant(e.Place(Ask(2, 1000))).node, 0u);
  // A single one breaks the group that is smallest.
  EXPECT_EQ(e.tenant(e.Place(Ask(1, 500))).node, 0u);
  EXPECT_EQ(e.tenant(e.Place(Ask(1, 500))).devices, 2u);
  EXPECT_EQ(e.tenant(e.Place(Ask(4, 1000))).node, 1u);
}

TEST(Default, PutsTogetherSizesThatFillADevice) {
  Engine e(MakePolicy("default", 1));
  for (int i = 0; i < 4; ++i) e.cluster().AddNode(MakeNode(1));
  Mix mix;
  mix.Add(Ask(1, 700).shape, 10);
  mix.Add(Ask(1, 300).shape, 10);
  mix.Add(Ask(1, 600).shape, 10);
  mix.Add(Ask(1, 400).shape, 10);
  e.Learn(mix);
  const NodeId seven = e.tenant(e.Place(Ask(1, 700))).node;
  const NodeId six = e.tenant(e.Place(Ask(1, 600))).node;
  EXPECT_NE(seven, six);
  EXPECT_EQ(e.tenant(e.Place(Ask(1, 400))).node, six);
  EXPECT_EQ(e.tenant(e.Place(Ask(1, 300))).node, seven);
}

TEST(Default, LeavesScarceModelsToThoseWhoNeedThem) {
  Engine e(MakePolicy("default", 1));
  for (int i = 0; i < 10; ++i) {
    NodeSpec n = MakeNode(1);
    n.model = i < 5 ? 1 : 0;
    e.cluster().AddNode(n);
  }
  Request only = Ask(1, 1000);
  only.shape.models = 1 << 1;
  Mix mix;
  mix.Add(Ask(1, 1000).shape, 50);
  mix.Add(only.shape, 50);
  e.Learn(mix);
  for (int i = 0; i < 5; ++i) {
    EXPECT_GE(e.tenant(e.Place(Ask(1, 1000))).node, 5u) << i;
  }
  for (int i = 0; i < 5; ++i) EXPECT_NE(e.Place(only), kNoTenant);
}

TEST(Default, WorksBeforeItLearntAnything) {
  Engine e(MakePolicy("default", 1));
  e.cluster().AddNode(MakeNode(8));
  EXPECT_NE(e.Place(Ask(1, 300, 1000)), kNoTenant);
  EXPECT_NE(e.Place(Ask(4, 1000)), kNoTenant);
  EXPECT_NE(e.Place(Ask(0, 0)), kNoTenant);
  e.cluster().AddNode(MakeNode(8));
  EXPECT_EQ(e.tenant(e.Place(Ask(1, 300))).devices, 1u);  // until then it packs
  Mix mix;
  mix.Add(Ask(1, 300).shape);
  e.Learn(mix);
  e.cluster().AddNode(MakeNode(3));  // hardware that Learn did not see
  for (int i = 0; i < 4; ++i) EXPECT_NE(e.Place(Ask(3, 1000)), kNoTenant);
  EXPECT_EQ(e.Place(Ask(3, 1000)), kNoTenant);
}

MixEntry Entry(int compute, int memory, double count) {
  return {Ask(1, compute, memory).shape, count};
}

PatternValue LearnOne(const std::vector<MixEntry>& entries, int32_t memory) {
  return PatternValue::Learn(entries, {{memory, 1}}).front();
}

TEST(Pattern, OneDimensionalPricesAreTheCuttingStockDuals) {
  // 600 fills a device alone with 400 beside it: both patterns are perfect, every milli counts.
  const PatternValue perfect = LearnOne({Entry(600, 0, 10), Entry(400, 0, 10)}, 0);
  EXPECT_EQ(perfect.Of(1000, 0), 1000);
  EXPECT_EQ(perfect.Of(600, 0) + perfect.Of(400, 0), 1000);
  // 700 alone: what is left beside it, 300, is worth nothing.
  const PatternValue wasteful = LearnOne({Entry(700, 0, 10)}, 0);
  EXPECT_EQ(wasteful.Of(700, 0), 1000);
  EXPECT_EQ(wasteful.Of(699, 0), 0);
  EXPECT_EQ(wasteful.Of(0, 0), 0);
  EXPECT_EQ(wasteful.Of(-1000, 0), 0);
}

TEST(Pattern, TwoDimensionalNeedsBoth) {
  // Half the compute and all of the memory: nothing fits beside it.
  const PatternValue value = LearnOne({Entry(500, 40000, 10)}, 40000);
  EXPECT_EQ(value.Of(1000, 40000), 1000);
  EXPECT_EQ(value.Of(500, 40000), 1000);
  EXPECT_EQ(value.Of(500, 0), 0);
  EXPECT_EQ(value.Of(1000, 39000), 0);
}

TEST(Pattern, SizesOfDeviceMemoryArePricedTogether) {
  // Of the large ones two fit a large device, one a small one; the small ones fit beside it.
  const std::vector<MixEntry> mix = {Entry(450, 12000, 30), Entry(450, 3000, 10)};
  const std::vector<PatternValue> value = PatternValue::Learn(mix, {{16000, 10}, {24000, 10}});
  const auto loss = [&](int kind, int compute, int memory, int taken) {
    return value[kind].Of(compute, memory) - value[kind].Of(compute - 450, memory - taken);
  };
  // A small one belongs beside a large one on a small device, not on a device of its own.
  EXPECT_LT(loss(0, 550, 4000, 3000), loss(1, 1000, 24000, 3000));
  EXPECT_LE(loss(1, 1000, 24000, 12000), loss(0, 1000, 16000, 12000));
  EXPECT_EQ((value[0].Of(1000, 16000) + value[1].Of(1000, 24000)) / 2, 1000);
}

TEST(Pattern, ManySizesTakeNoExcessiveTime) {
  std::vector<MixEntry> entries;
  for (int i = 0; i < 2000; ++i)
    entries.push_back(Entry(1 + i % 999, 1 + 17 * i % 40000, 1 + i % 7));
  for (const int memory : {0, 40000}) {
    const PatternValue value = LearnOne(entries, memory);
    EXPECT_EQ(value.Of(1000, memory), 1000);
    for (int c = 1; c <= 1000; ++c) EXPECT_GE(value.Of(c, memory), value.Of(c - 1, memory));
  }
}

}  // namespace
}  // namespace divvy::placement
