// Properties of the arbiter in the model: nobody with a share starves, errors stay within their
// bound, time is conserved, cheating gains nothing, and the run is deterministic.
#include <gtest/gtest.h>

#include <numeric>

#include "src/arbiter/model/cases.h"
#include "src/arbiter/model/measure.h"

namespace divvy::arbiter::model {
namespace {

constexpr double kMs = 1e6;
const Tunables kDefault;

Mix Pair(MixTenant a, MixTenant b, double seconds) {
  Mix m;
  m.tenants = {std::move(a), std::move(b)};
  m.seconds = seconds;
  m.warmup_seconds = .2;
  return m;
}

double Part(const WorldResult& r, size_t tenant) {
  return r.tenants[tenant].useful_ns / r.seconds / 1e9;
}

TEST(Properties, RandomMixesKeepTheirBoundAndNobodyStarves) {
  for (uint64_t seed = 5000; seed < 5025; ++seed) {
    Mix mix = RandomMix(seed);
    mix.seconds = 3;
    mix.warmup_seconds = .3;
    World world(mix, seed, &kDefault);
    const WorldResult r = world.Run();
    double least = 1e9, sum = 0, longest = 0;
    for (const MixTenant& t : mix.tenants) {
      least = std::min(least, t.share.weight);
      sum += t.share.weight;
      longest = std::max(longest, t.threads[0].steps[0].duration.mean_us / 1e6);
    }
    EXPECT_LE(ShareError(mix, r), 1 + 100 * (.010 + longest) / (least / sum * mix.seconds)) << seed;
    EXPECT_GT(r.busy, .96) << seed;
    for (size_t i = 0; i < mix.tenants.size(); ++i) {
      EXPECT_GT(Part(r, i), .85 * mix.tenants[i].share.weight / sum) << seed << " tenant " << i;
    }
  }
}

TEST(Properties, TimeIsConserved) {
  for (uint64_t seed : {1, 2, 3, 4}) {
    const Mix mix = RandomMix(seed);
    World world(mix, seed, &kDefault);
    const Nanos end = std::chrono::seconds(2);
    world.RunUntil(end);
    Nanos billed{0};
    for (size_t i = 0; i < mix.tenants.size(); ++i) {
      const Nanos used = world.arbiter()->StatsOf(TenantIndex(i), 0).used;
      billed += used;
      // What is billed is what was used: the markers' lateness at both ends cancels.
      EXPECT_NEAR(double(used.count()) / double(world.useful(unsigned(i))), 1, .04)
          << seed << " " << i;
    }
    EXPECT_LE(billed, end);
    EXPECT_GT(billed, end * 95 / 100);
  }
}

TEST(Properties, SameSeedSameRun) {
  const Mix mix = RandomMix(77);
  auto run = [&](uint64_t seed) {
    World w(mix, seed, &kDefault);
    w.RunUntil(std::chrono::seconds(1));
    std::vector<int64_t> out;
    for (size_t i = 0; i < mix.tenants.size(); ++i) out.push_back(w.useful(unsigned(i)));
    return out;
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

TEST(Properties, DilationChangesNothingButTheScale) {
  Mix mix;
  mix.tenants = {Tenant("a", 75, Saturating(50)), Tenant("b", 25, Saturating(700))};
  mix.seconds = 4;
  Mix slow = mix;
  for (MixTenant& t : slow.tenants) {
    for (Step& s : t.threads[0].steps) {
      s.duration.mean_us *= 10;
      s.launch.mean_us *= 10;
    }
  }
  for (double* us : {&slow.machine.slice_us, &slow.machine.switch_us, &slow.machine.poll_late_us,
                     &slow.machine.gate_wake_us, &slow.machine.bound_wake_us,
                     &slow.machine.sync_wake_us, &slow.machine.tail_us, &slow.machine.marker_us}) {
    *us *= 10;
  }
  slow.seconds *= 10;
  slow.warmup_seconds *= 10;
  const Tunables dilated = kDefault.Dilated(10);
  const WorldResult a = World(mix, 3, &kDefault).Run(), b = World(slow, 3, &dilated).Run();
  EXPECT_LT(ShareError(slow, b), 1);
  EXPECT_NEAR(Part(a, 0), Part(b, 0), .01);
  EXPECT_NEAR(a.busy, b.busy, .005);
  EXPECT_NEAR(a.polls_per_second, 10 * b.polls_per_second, .05 * a.polls_per_second);
}

struct CheatCase {
  const char* name;
  MixTenant::Cheat cheat;
};
class Cheats : public testing::TestWithParam<CheatCase> {};
TEST_P(Cheats, HarmOnlyTheCheater) {
  MixTenant cheat = Tenant("cheat", 50, Saturating(200));
  cheat.cheat = GetParam().cheat;
  const WorldResult r =
      World(Pair(cheat, Tenant("honest", 50, Saturating(100)), 4), 1, &kDefault).Run();
  EXPECT_GT(Part(r, 1), .47) << "cheater got " << Part(r, 0);
}
INSTANTIATE_TEST_SUITE_P(All, Cheats,
                         testing::Values(CheatCase{"Garbage", MixTenant::Cheat::kGarbage},
                                         CheatCase{"DoneAhead", MixTenant::Cheat::kDoneAhead},
                                         CheatCase{"AlwaysWaits", MixTenant::Cheat::kAlwaysWaits},
                                         CheatCase{"AlwaysPaused",
                                                   MixTenant::Cheat::kAlwaysPaused}),
                         [](const auto& info) { return std::string(info.param.name); });

// Nor does noise in its own meter move the shares of a tenant that was promised little.
TEST(Properties, NoiseGainsNothing) {
  for (double weight : {2.0, 20.0}) {
    for (double us : {50.0, 200.0, 3000.0}) {
      MixTenant noise = Tenant("noise", weight, Saturating(us));
      noise.cheat = MixTenant::Cheat::kGarbage;
      World world(Pair(noise, Tenant("honest", 100 - weight, Saturating(100)), 6), 1, &kDefault);
      const WorldResult r = world.Run();
      EXPECT_LT(Part(r, 0), weight / 100 + .03) << weight << " % " << us << " us";
      EXPECT_GT(Part(r, 1), 1 - weight / 100 - .04) << weight << " % " << us << " us";
      for (TenantIndex t : {0, 1}) EXPECT_FALSE(world.arbiter()->StatsOf(t, 0).entangled);
    }
  }
}

// Operations that no gate can stop, of a tenant with 2 %: it gets its part and at most what one
// operation and eight windows put it ahead, also beside a neighbour that stops for a moment
// between its steps. Nobody is starved.
TEST(Properties, LongOperationsKeepTheirShare) {
  const Step sync{.kind = StepKind::kSync};
  Step think{.kind = StepKind::kThink};
  think.duration = Duration::Constant(100);
  Program steps = Saturating(200);
  steps.steps[0].repeat = 200;
  steps.steps.push_back(sync);
  steps.steps.push_back(think);
  for (const Program& neighbour : {Saturating(100), steps}) {
    for (double ms : {30.0, 70.0, 200.0, 2000.0}) {
      const Mix mix = Pair(Tenant("slow", 2, Saturating(ms * 1000)), Tenant("b", 98, neighbour),
                           ms < 1000 ? 25 : 200);
      const WorldResult r = World(mix, 1, &kDefault).Run();
      const double ahead = (ms / 1000 + .080) / mix.seconds;
      EXPECT_NEAR(Part(r, 0), .02, ahead + .003) << ms << " ms";
      EXPECT_GT(Part(r, 1), .97 - ahead) << ms << " ms";
    }
  }
}

// Light requests beside long operations: what has begun cannot be taken back, what has not waits.
TEST(Properties, LongOperationsOfOneWithLittleDoNotStarveALightOne) {
  Program requests = Saturating(50);
  requests.steps[0].repeat = 30;
  requests.steps.push_back({.kind = StepKind::kSync});
  requests.steps.push_back({.kind = StepKind::kThink, .duration = Duration::Constant(200)});
  const WorldResult r =
      World(Pair(Tenant("slow", 2, Saturating(70e3)), Tenant("light", 98, requests), 20), 1,
            &kDefault)
          .Run();
  EXPECT_GT(Part(r, 1), .82) << "it could use 87 %";
  EXPECT_LT(Part(r, 0), .04);
  EXPECT_GT(Part(r, 0), .01);
}

// The same on two devices, where windows are granted together.
TEST(Properties, LongOperationsOfAGangKeepTheirShare) {
  const auto on = [](Program p, DeviceIndex device) {
    p.steps[0].device = device;
    return p;
  };
  MixTenant gang = Tenant("gang", 2, Saturating(70e3));
  gang.threads.push_back(on(Saturating(70e3), 1));
  Mix mix = Pair(gang, Tenant("on0", 98, Saturating(100)), 20);
  mix.tenants.push_back(Tenant("on1", 98, on(Saturating(100), 1)));
  mix.machine.devices = 2;
  const WorldResult r = World(mix, 1, &kDefault).Run();
  for (double ns : r.tenants[0].device_ns) EXPECT_NEAR(ns / 20e9, .02, .0105);
}

// Two that wait for each other go on at the pace of the lesser part, whatever the parts.
TEST(Properties, MutualWaitsGoOn) {
  Step meet{.kind = StepKind::kMeet, .duration = Duration::Constant(50)};
  Program program = Saturating(200);
  program.steps[0].repeat = 10;
  program.steps.push_back(meet);
  for (double weight : {50.0, 10.0}) {
    MixTenant a = Tenant("a", weight, program), b = Tenant("b", 100 - weight, program);
    a.partner = 1;
    b.partner = 0;
    const WorldResult r = World(Pair(a, b, 10), 1, &kDefault).Run();
    for (size_t i : {0, 1}) EXPECT_GT(Part(r, i), weight < 50 ? .1 : .28) << weight;
  }
}

TEST(Properties, LowEstimatesAndFloodsGainNothing) {
  Program low = Saturating(1000);
  low.steps[0].estimate = .01;
  Program flood = Saturating(5);
  flood.steps[0].launch.mean_us = 1;
  flood.steps[0].estimate = 0;
  for (const Program& p : {low, flood}) {
    const WorldResult r =
        World(Pair(Tenant("cheat", 30, p), Tenant("honest", 70, Saturating(100)), 5), 1, &kDefault)
            .Run();
    EXPECT_LT(Part(r, 0), .31) << "operations of " << p.steps[0].duration.mean_us;
    EXPECT_GT(Part(r, 1), .67);
  }
}

TEST(Properties, ATenSecondKernelIsRepaid) {
  MixTenant guilty = Tenant("guilty", 50, Saturating(100));
  Step kernel;
  kernel.duration = Duration::Constant(10e6);
  guilty.threads[0].steps.insert(guilty.threads[0].steps.begin(), kernel);
  guilty.threads[0].steps[1].repeat = 1000000;
  const Mix mix = Pair(guilty, Tenant("honest", 50, Saturating(100)), 30);
  World world(mix, 1, &kDefault);
  world.RunUntil(std::chrono::seconds(10));
  EXPECT_GT(double(world.useful(1)), 4.7e9) << "even while the kernel runs";
  world.RunUntil(std::chrono::seconds(30));
  EXPECT_GT(double(world.useful(1)), 14.5e9);
  EXPECT_GT(double(world.useful(0)), 14.0e9) << "and the guilty is not punished beyond its debt";
}

// A host that is preempted for a moment now and then runs ahead of the device all the same.
TEST(Properties, HostsThatHesitateNowAndThenAreThinStill) {
  const auto launch = [](double each_us, double hesitates_us) {
    Step kernel{.kind = StepKind::kKernel, .duration = Duration::Constant(20)};
    kernel.launch = Duration::Constant(each_us);
    Program program{{kernel, kernel}};
    program.steps[0].repeat = 3000;
    program.steps[1].launch = Duration::Constant(hesitates_us);
    return program;
  };
  const auto shortfall = [&](double hesitates_us) {
    Mix mix;
    for (int i = 0; i < 3; ++i) mix.tenants.push_back(Tenant("t", 1, launch(50 + i, hesitates_us)));
    mix.seconds = 3;
    mix.warmup_seconds = 1;
    const WorldResult r = World(mix, 1, &kDefault).Run();
    double worst = 1;
    for (size_t i = 0; i < 3; ++i) worst = std::min(worst, Part(r, i));
    return 1 - 3 * worst;
  };
  EXPECT_LT(shortfall(50), .12);
  EXPECT_LT(shortfall(700), .13);
  EXPECT_LT(shortfall(3000), .15);
}

// One that waits for each answer looks thin alone, but its host stands still while others run.
TEST(Properties, HostsThatWaitForEachAnswerGetWindows) {
  const Program steps{{Saturating(100).steps[0], Step{.kind = StepKind::kSync}}};
  const Mix mix = Pair(Tenant("steps", 50, steps), Tenant("fills", 50, Saturating(200)), 4);
  const WorldResult r = World(mix, 1, &kDefault).Run();
  for (size_t i : {0, 1}) EXPECT_GT(Part(r, i), .44) << i;
}

TEST(Properties, ManyTenantsAllGetTheirTurn) {
  Mix mix;
  for (int i = 0; i < 256; ++i) mix.tenants.push_back(Tenant("t", 1, Saturating(100)));
  mix.seconds = 5;
  mix.warmup_seconds = 1;
  const WorldResult r = World(mix, 1, &kDefault).Run();
  // 1 % + (longest window + operation) / (part * length)
  const double bound = .01 + .0101 * 256 / mix.seconds;
  for (size_t i = 0; i < 256; ++i) EXPECT_NEAR(Part(r, i) * 256, 1, bound) << i;
}

TEST(Properties, ANeighbourThatNeverSynchronisesGainsNothing) {
  const Mix mix =
      Pair(Tenant("never", 50, Saturating(20)),
           Tenant("syncs", 50, {{Saturating(100).steps[0], Step{.kind = StepKind::kSync}}}), 4);
  const WorldResult r = World(mix, 1, &kDefault).Run();
  EXPECT_GT(Part(r, 1), .38);
}

TEST(Properties, AStoppedTenantGivesWay) {
  MixTenant stopped = Tenant("stopped", 50, Saturating(100));
  stopped.stops_us = 1e6;
  const Mix mix = Pair(stopped, Tenant("other", 50, Saturating(100)), 3);
  World world(mix, 1, &kDefault);
  world.RunUntil(std::chrono::seconds(1));
  const auto before = world.useful(1);
  world.RunUntil(std::chrono::seconds(3));
  EXPECT_GT(double(world.useful(1) - before), 1960 * kMs);
}

TEST(Properties, ANewcomerIsServedAtOnce) {
  MixTenant late = Tenant("late", 50, Saturating(100));
  late.joins_us = 500e3;
  const Mix mix = Pair(Tenant("early", 50, Saturating(100)), late, 1);
  World world(mix, 1, &kDefault);
  world.RunUntil(milliseconds(500));
  world.RunUntil(milliseconds(550));
  EXPECT_GT(double(world.useful(1)), 20 * kMs);
  world.RunUntil(milliseconds(1500));
  EXPECT_NEAR(double(world.useful(1)), 500 * kMs, 15 * kMs);
}

}  // namespace
}  // namespace divvy::arbiter::model
