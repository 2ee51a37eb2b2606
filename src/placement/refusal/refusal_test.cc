// Squeeze, migrate, preempt, queue, gangs: each on a cluster small enough to know the answer, then
// at random against a full re-check.
#include <gtest/gtest.h>

#include <bit>
#include <map>

#include "src/placement/policies/policies.h"
#include "src/placement/refusal/plan.h"
#include "src/placement/sim/desk.h"
#include "src/placement/sim/order.h"

namespace divvy::placement {
namespace {

NodeSpec MakeNode(int devices) {
  NodeSpec n;
  n.cpu_milli = 64000;
  n.memory_mib = 100000;
  n.devices = devices;
  n.device_memory_mib = 40000;
  return n;
}

Request Ask(int devices, int compute, int priority = 0, int min_compute = 0) {
  Request r;
  r.shape = {1000, 1000, devices, compute, 1000, Link::kAny, kAnyModel};
  r.priority = priority;
  r.min_compute_milli = min_compute;
  return r;
}

constexpr PlanOptions kOnlySqueeze{true, false, false, 4, 16};
constexpr PlanOptions kOnlyMigrate{false, true, false, 4, 16};
constexpr PlanOptions kOnlyPreempt{false, false, true, 4, 16};
constexpr PlanOptions kNothing{false, false, false, 4, 16};

TEST(Plan, FitsNeedsNoStepAndNothingAllowedMeansQueue) {
  Engine e(MakePolicy("bestfit", 1));
  e.cluster().AddNode(MakeNode(1));
  const Plan fits = MakePlan(e, Ask(1, 600), PlanOptions{});
  EXPECT_EQ(fits.way, Way::kFits);
  EXPECT_TRUE(fits.steps.empty());
  ASSERT_NE(CarryOut(e, Ask(1, 600), fits), kNoTenant);
  const Plan wait = MakePlan(e, Ask(1, 600), kNothing);
  EXPECT_EQ(wait.way, Way::kQueue);
  EXPECT_EQ(CarryOut(e, Ask(1, 600), wait), kNoTenant);
}

TEST(Squeeze, TakesFromTheElasticInProportion) {
  Engine e(MakePolicy("bestfit", 1));
  e.cluster().AddNode(MakeNode(1));
  const TenantId rigid = e.Place(Ask(1, 200));
  const TenantId a = e.Place(Ask(1, 600, 0, 200));  // could give 400
  const TenantId b = e.Place(Ask(1, 200, 0, 100));  // could give 100
  const Plan plan = MakePlan(e, Ask(1, 100), kOnlySqueeze);
  ASSERT_EQ(plan.way, Way::kSqueeze);
  EXPECT_EQ(plan.cost, 100);
  const TenantId c = CarryOut(e, Ask(1, 100), plan);
  EXPECT_EQ(e.tenant(rigid).granted_milli, 200);
  EXPECT_EQ(e.tenant(a).granted_milli, 520);
  EXPECT_EQ(e.tenant(b).granted_milli, 180);
  EXPECT_EQ(e.cluster().used_milli(), 1000);
  // What is released comes back to those who gave.
  e.Release(c);
  EXPECT_EQ(Regrow(e, 0), 100);
  EXPECT_EQ(e.tenant(a).granted_milli, 600);
  EXPECT_EQ(e.tenant(b).granted_milli, 200);
  // More than all can give: no.
  EXPECT_EQ(MakePlan(e, Ask(1, 501), kOnlySqueeze).way, Way::kQueue);
}

TEST(Squeeze, TheRequestItselfMayBeElastic) {
  Engine e(MakePolicy("bestfit", 1));
  e.cluster().AddNode(MakeNode(1));
  e.Place(Ask(1, 700));
  const Request r = Ask(1, 500, 0, 250);
  const Plan plan = MakePlan(e, r, kOnlySqueeze);
  ASSERT_EQ(plan.way, Way::kSqueeze);
  EXPECT_EQ(plan.granted_milli, 300);
  const TenantId id = CarryOut(e, r, plan);
  EXPECT_EQ(e.tenant(id).granted_milli, 300);
  e.Release(id);
  EXPECT_EQ(e.cluster().used_milli(), 700);
  EXPECT_EQ(MakePlan(e, Ask(1, 500, 0, 400), kOnlySqueeze).way, Way::kQueue);
}

TEST(Migrate, MovesTheSmallOneOutOfTheWay) {
  Engine e(MakePolicy("spread", 1));
  e.cluster().AddNode(MakeNode(2));
  e.cluster().AddNode(MakeNode(2));
  const TenantId small = e.Place(Ask(1, 200));  // node 0
  e.Place(Ask(1, 600));                         // node 1
  ASSERT_EQ(e.tenant(small).node, 0u);
  EXPECT_EQ(MakePlan(e, Ask(2, 1000), kNothing).way, Way::kQueue);
  const Plan plan = MakePlan(e, Ask(2, 1000), kOnlyMigrate);
  ASSERT_EQ(plan.way, Way::kMigrate);
  ASSERT_EQ(plan.steps.size(), 1u);
  EXPECT_EQ(plan.steps[0].tenant, small);
  EXPECT_EQ(plan.cost, 200);
  const TenantId id = CarryOut(e, Ask(2, 1000), plan);
  EXPECT_EQ(e.tenant(id).node, 0u);
  EXPECT_EQ(e.tenant(small).node, 1u);
  EXPECT_EQ(e.cluster().used_milli(), 2800);
}

TEST(Migrate, NoMoreMovesThanAllowed) {
  Engine e(MakePolicy("spread", 1));
  e.cluster().AddNode(MakeNode(4));
  for (int i = 0; i < 4; ++i) e.Place(Ask(1, 300));  // one on each device
  e.cluster().AddNode(MakeNode(4));
  for (int i = 0; i < 4; ++i) e.Place(Ask(1, 400));
  PlanOptions three = kOnlyMigrate;
  three.max_moves = 3;
  EXPECT_EQ(MakePlan(e, Ask(4, 1000), three).way, Way::kQueue);
  const Plan plan = MakePlan(e, Ask(4, 1000), kOnlyMigrate);
  EXPECT_EQ(plan.way, Way::kMigrate);
  EXPECT_EQ(plan.steps.size(), 4u);
}

TEST(Preempt, LowestPrioritiesThenLeastHeldAndNeverItsEquals) {
  Engine e(MakePolicy("bestfit", 1));
  for (int i = 0; i < 3; ++i) e.cluster().AddNode(MakeNode(1));
  e.Place(Ask(1, 1000, 5));
  e.Place(Ask(1, 1000, 1));
  const TenantId low = e.Place(Ask(1, 900, 1));
  EXPECT_EQ(MakePlan(e, Ask(1, 500, 1), kOnlyPreempt).way, Way::kQueue);
  const Plan plan = MakePlan(e, Ask(1, 500, 2), kOnlyPreempt);
  ASSERT_EQ(plan.way, Way::kPreempt);
  ASSERT_EQ(plan.steps.size(), 1u);
  EXPECT_EQ(plan.steps[0].tenant, low);
  EXPECT_EQ(plan.cost, 900);
  EXPECT_NE(CarryOut(e, Ask(1, 500, 2), plan), kNoTenant);
}

TEST(Preempt, AGangGoesAsAWhole) {
  Engine e(MakePolicy("bestfit", 1));
  for (int i = 0; i < 2; ++i) e.cluster().AddNode(MakeNode(1));
  Request member = Ask(1, 1000, 1);
  member.gang = 7;
  ASSERT_TRUE(PlaceGang(e, {member, member}, kNothing));
  const Plan plan = MakePlan(e, Ask(1, 100, 2), kOnlyPreempt);
  EXPECT_EQ(plan.way, Way::kPreempt);
  EXPECT_EQ(plan.steps.size(), 2u);
}

Request From(uint16_t space, int devices, int32_t milli, int priority = 0) {
  Request r = Ask(devices, milli, priority);
  r.space = space;
  return r;
}

TEST(Reclaim, TakesWhatANamespaceHasTooMuchWhateverThePriority) {
  Engine e(MakePolicy("bestfit", 1));
  for (int i = 0; i < 3; ++i) e.cluster().AddNode(MakeNode(1));
  e.Place(From(1, 1, 1000, 9));
  e.Place(From(2, 1, 1000, 9));
  const TenantId small = e.Place(From(1, 1, 600, 9));
  PlanOptions options = kNothing;
  EXPECT_EQ(MakePlan(e, From(0, 1, 900), options).way, Way::kQueue);
  options.surplus_milli = {0, 600, 0};
  const Plan plan = MakePlan(e, From(0, 1, 900), options);
  ASSERT_EQ(plan.way, Way::kReclaim);
  ASSERT_EQ(plan.steps.size(), 1u);
  EXPECT_EQ(plan.steps[0].tenant, small);
  EXPECT_EQ(plan.cost, 600);
  options.surplus_milli = {0, 599, 0};
  EXPECT_EQ(MakePlan(e, From(0, 1, 900), options).way, Way::kQueue);
  options.surplus_milli = {0, 600, 0};
  EXPECT_EQ(MakePlan(e, From(1, 1, 900), options).way, Way::kQueue) << "not from its own";
}

TEST(Reclaim, AGangGoesWholeOrNotAndMembersShareTheSurplus) {
  Engine e(MakePolicy("bestfit", 1));
  for (int i = 0; i < 2; ++i) e.cluster().AddNode(MakeNode(1));
  Request member = From(1, 1, 1000);
  member.gang = 7;
  ASSERT_TRUE(PlaceGang(e, {member, member}, kNothing));
  PlanOptions options = kNothing;
  options.surplus_milli = {0, 1000};
  EXPECT_EQ(MakePlan(e, From(0, 1, 100), options).way, Way::kQueue);
  options.surplus_milli = {0, 2000};
  EXPECT_EQ(MakePlan(e, From(0, 1, 100), options).steps.size(), 2u);

  Engine f(MakePolicy("bestfit", 1));
  for (int i = 0; i < 2; ++i) f.cluster().AddNode(MakeNode(1));
  for (int i = 0; i < 2; ++i) f.Place(From(1, 1, 1000));
  Request ours = From(0, 1, 1000);
  ours.gang = 8;
  options.surplus_milli = {0, 1000};
  EXPECT_FALSE(PlaceGang(f, {ours, ours}, options)) << "the second takes what is no longer there";
  options.surplus_milli = {0, 2000};
  EXPECT_TRUE(PlaceGang(f, {ours, ours}, options));
}

TEST(Gang, AllOrNothing) {
  Engine e(MakePolicy("bestfit", 1));
  for (int i = 0; i < 2; ++i) e.cluster().AddNode(MakeNode(2));
  const Request one = Ask(1, 1000), two = Ask(2, 1000);
  EXPECT_FALSE(PlaceGang(e, {one, two, two}, kNothing));
  EXPECT_EQ(e.tenants(), 0u);
  EXPECT_EQ(e.cluster().used_milli(), 0);
  // The large one is planned first, whatever the order given.
  const auto placed = PlaceGang(e, {one, one, two}, kNothing);
  ASSERT_TRUE(placed);
  EXPECT_EQ(std::popcount(e.tenant((*placed)[2]).devices), 2);
  const auto none = PlanGang(e, {one}, kNothing);
  EXPECT_FALSE(none);
}

// Sum up what every tenant holds and compare with what the cluster says is left.
void CheckBooks(const Engine& e, const std::vector<NodeSpec>& specs) {
  for (NodeId id = 0; id < e.cluster().size(); ++id) {
    const NodeView v = e.cluster().View(id);
    std::vector<int32_t> compute(v.devices.size(), kWholeMilli);
    int32_t cpu = specs[id].cpu_milli;
    for (TenantId t = e.FirstOn(id); t != kNoTenant; t = e.tenant(t).next) {
      const Tenant& tenant = e.tenant(t);
      ASSERT_EQ(tenant.node, id);
      cpu -= e.shape(tenant.shape).cpu_milli;
      ASSERT_GE(tenant.granted_milli, std::min<int>(tenant.min_milli > 0 ? tenant.min_milli : 9999,
                                                    e.shape(tenant.shape).compute_milli));
      for (size_t d = 0; d < compute.size(); ++d) {
        if (tenant.devices >> d & 1) compute[d] -= tenant.granted_milli;
      }
    }
    ASSERT_EQ(v.node.cpu_left, cpu);
    ASSERT_GE(cpu, 0);
    for (size_t d = 0; d < compute.size(); ++d) {
      ASSERT_EQ(v.devices[d].compute_left, compute[d]);
      ASSERT_GE(compute[d], 0);
    }
  }
}

TEST(Plan, RandomPlansKeepTheBooks) {
  std::map<Way, int> seen;
  for (const char* policy : {"default", "bestfit"}) {
    Engine e(MakePolicy(policy, 1));
    std::vector<NodeSpec> specs;
    for (int i = 0; i < 12; ++i) {
      specs.push_back(MakeNode(1 << (i % 4)));
      e.cluster().AddNode(specs.back());
    }
    Rng rng(3);
    std::vector<TenantId> live;
    for (int step = 0; step < 1500; ++step) {
      const bool several = rng.Below(6) == 0;
      Request r = several ? Ask(2 << rng.Below(2), 1000) : Ask(1, 100 * int(1 + rng.Below(10)));
      r.priority = int(rng.Below(4));
      if (rng.Below(3) == 0) r.min_compute_milli = std::max(1, r.shape.compute_milli * 3 / 4);
      PlanOptions options;
      options.squeeze = rng.Below(2) == 0;
      options.preempt = rng.Below(4) == 0;
      const Plan plan = MakePlan(e, r, options);
      ++seen[plan.way];
      for (const Step& s : plan.steps) {
        if (s.what == Step::What::kPreempt) {
          ASSERT_LT(e.tenant(s.tenant).priority, r.priority);
          std::erase(live, s.tenant);
        }
      }
      if (const TenantId id = CarryOut(e, r, plan); id != kNoTenant) live.push_back(id);
      ASSERT_EQ(e.tenants(), live.size());
      if (!live.empty() && rng.Below(3) == 0) {
        const size_t at = rng.Below(live.size());
        const NodeId node = e.tenant(live[at]).node;
        e.Release(live[at]);
        Regrow(e, node);
        live.erase(live.begin() + static_cast<ptrdiff_t>(at));
      }
      CheckBooks(e, specs);
      if (HasFatalFailure()) return;
    }
  }
  for (const Way way : {Way::kFits, Way::kSqueeze, Way::kMigrate, Way::kPreempt, Way::kQueue}) {
    EXPECT_GT(seen[way], 10) << static_cast<int>(way);
  }
}

// Asking, planning and undoing leave no trace: an engine that is asked all the time decides as one
// that is not, also with policies that look at the cluster's state or draw.
TEST(Plan, WhatIsOnlyAskedChangesNoLaterDecision) {
  for (const PolicyInfo& info : Policies()) {
    Engine quiet(MakePolicy(info.name, 1)), asked(MakePolicy(info.name, 1));
    Mix mix;
    for (int i = 1; i <= 10; ++i) mix.Add(Ask(1, 100 * i).shape, 10 + i % 3);
    mix.Add(Ask(4, 1000).shape, 3);
    for (Engine* e : {&quiet, &asked}) {
      for (int i = 0; i < 24; ++i) e->cluster().AddNode(MakeNode(i % 2 != 0 ? 8 : 2));
      e->Learn(mix);
    }
    Rng rng(9), other(10);
    std::vector<TenantId> live;
    const auto request = [](Rng* from) {
      Request r = from->Below(8) == 0 ? Ask(4, 1000) : Ask(1, 100 * int(1 + from->Below(10)));
      r.priority = int(from->Below(3));
      return r;
    };
    for (int step = 0; step < 1200; ++step) {
      for (uint64_t n = other.Below(4); n > 0; --n) {
        const Request r = request(&other);
        switch (other.Below(3)) {
          case 0:
            asked.Decide(asked.Intern(r.shape));
            break;
          case 1:
            MakePlan(asked, r, PlanOptions{});
            break;
          default:
            PlanGang(asked, std::vector<Request>(20, r), PlanOptions{});
        }
      }
      if (!live.empty() && rng.Below(5) < 2) {
        const size_t at = rng.Below(live.size());
        quiet.Release(live[at]);
        asked.Release(live[at]);
        live.erase(live.begin() + static_cast<ptrdiff_t>(at));
        continue;
      }
      const Request r = request(&rng);
      const TenantId a = quiet.Place(r), b = asked.Place(r);
      ASSERT_EQ(a, b) << info.name << " step " << step;
      if (a == kNoTenant) continue;
      ASSERT_EQ(quiet.tenant(a).node, asked.tenant(b).node) << info.name << " step " << step;
      ASSERT_EQ(quiet.tenant(a).devices, asked.tenant(b).devices) << info.name;
      live.push_back(a);
    }
    EXPECT_GT(live.size(), 40u);
  }
}

TEST(Desk, AGangAcrossNamespacesNeedsRoomInTheQuotaOfEach) {
  Inventory inventory;
  inventory.nodes = {MakeNode(4)};
  inventory.closed = {false};
  inventory.spaces = {"x", "y"};
  inventory.gangs = {"g"};
  inventory.spellings = {""};
  for (const uint16_t space : {0, 1}) {
    Pod pod;
    pod.name = space == 0 ? "a" : "b";
    pod.request = Ask(1, 1000);
    pod.request.space = space;
    pod.request.gang = 1;
    inventory.pods.push_back(pod);
  }
  for (const int64_t limit : {999, 1000}) {
    Handling handling;
    SpaceQuota quota;
    quota.limit_milli = limit;
    handling.quotas = {{"y", quota}};
    Bench bench(inventory, {0}, 1, MakePolicy("bestfit", 0));
    const Watch watch;
    Desk desk(inventory, &bench, handling, watch);
    const bool placed = !desk.Arrive({{0, 0}, {1, 1}}).empty();
    EXPECT_EQ(placed, limit == 1000);
    EXPECT_EQ(desk.totals().over_quota, limit == 1000 ? 0u : 1u);
    EXPECT_EQ(desk.quotas().used(0), limit == 1000 ? 1000 : 0);
    EXPECT_EQ(desk.quotas().used(1), limit == 1000 ? 1000 : 0);
  }
}

}  // namespace
}  // namespace divvy::placement
