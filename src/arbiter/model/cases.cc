// The standard cases in data. Times are microseconds.
#include "src/arbiter/model/cases.h"

#include <cmath>
#include <string>

namespace divvy::arbiter::model {
namespace {

Step Kernel(double us, uint32_t repeat = 1, double launch_us = 4, double spread = 0) {
  Step s;
  s.duration = spread > 0 ? Duration::Lognormal(us, spread) : Duration::Constant(us);
  s.repeat = repeat;
  s.launch = Duration::Constant(launch_us);
  return s;
}
Step OnDevice(Step s, DeviceIndex device) {
  s.device = device;
  return s;
}
Step Of(StepKind kind, Duration d = {}) {
  Step s;
  s.kind = kind;
  s.duration = d;
  return s;
}
Step Sync() { return Of(StepKind::kSync); }
Step Think(double us) { return Of(StepKind::kThink, Duration::Constant(us)); }
Step Copy(double us) { return Of(StepKind::kCopy, Duration::Constant(us)); }

// Requests of a small model: kernels, then the host waits for the answer.
Program RequestResponse() { return {{Kernel(50, 30, 5, .2), Sync(), Think(200)}}; }
// 50 us of GPU work behind 400 us of host work: 30 % or less of a device, bound by its host.
Program CpuBound() { return {{Kernel(50, 3, 4), Sync(), Think(330)}}; }
Program LaunchBound() { return {{Kernel(20, 1, 50)}}; }
Program SmallSteps() { return {{Kernel(50, 1, 4), Sync(), Think(400)}}; }
Program Training() {
  return {{Kernel(60, 200, 5, .5), Copy(400), Kernel(250, 40, 5, .3), Sync(), Think(600)}};
}
Program Serving(double kernel_us, uint32_t kernels, double load) {
  return {{Of(StepKind::kArrive, Duration::Exponential(kernel_us * kernels / load)),
           Kernel(kernel_us, kernels, 5, .1), Sync()}};
}

Mix Make(std::string name, std::vector<MixTenant> tenants) {
  Mix m;
  m.name = std::move(name);
  m.tenants = std::move(tenants);
  return m;
}

void Saturated(std::vector<Mix>& out) {
  auto pair = [&](const char* name, Program a, Program b, double wa, double wb) {
    out.push_back(Make(name, {Tenant("a", wa, a), Tenant("b", wb, b)}));
  };
  pair("50us/50us 75:25", Saturating(50), Saturating(50), 75, 25);
  pair("20us/3ms 50:50", Saturating(20), Saturating(3000), 50, 50);
  pair("20us/3ms 75:25", Saturating(20), Saturating(3000), 75, 25);
  pair("50us/25ms graph 50:50", Saturating(50), Saturating(25000), 50, 50);
  out.push_back(Make("50us 200us 8ms 20:30:50",
                     {Tenant("a", 20, Saturating(50)), Tenant("b", 30, Saturating(200)),
                      Tenant("c", 50, Saturating(8000))}));
  Mix eight = Make("8 equal 100us", {});
  for (int i = 0; i < 8; ++i) {
    eight.tenants.push_back(Tenant(("t" + std::to_string(i)).c_str(), 1, Saturating(100)));
  }
  out.push_back(eight);
  pair("heavy tail/50us", Saturating(200, 3), Saturating(50), 50, 50);
  Program cheat = Saturating(1000);
  cheat.steps[0].estimate = .05;
  pair("cheating estimates", cheat, Saturating(100), 50, 50);
  Program unknown = Saturating(300);
  unknown.steps[0].known = false;
  pair("no estimates", unknown, Saturating(100), 50, 50);
}

void Light(std::vector<Mix>& out) {
  auto many = [&](const char* name, Program p, std::vector<double> weights) {
    Mix m = Make(name, {});
    for (size_t i = 0; i < weights.size(); ++i) {
      m.tenants.push_back(Tenant(("t" + std::to_string(i)).c_str(), weights[i], p));
    }
    out.push_back(m);
  };
  many("launch-bound x2", LaunchBound(), {50, 50});
  many("launch-bound x3", LaunchBound(), {1, 1, 1});
  many("launch-bound x4", LaunchBound(), {1, 1, 1, 1});
  many("launch-bound 75:25", LaunchBound(), {75, 25});
  many("50us per 400us x4", SmallSteps(), {1, 1, 1, 1});
  many("50us per 400us 75:25", SmallSteps(), {75, 25});
  many("CPU-bound x4", CpuBound(), {1, 1, 1, 1});
  out.push_back(Make("CPU-bound + saturating",
                     {Tenant("light", 50, CpuBound()), Tenant("heavy", 50, Saturating(200))}));
  out.push_back(Make("CPU-bound + 2 saturating",
                     {Tenant("light", 34, CpuBound()), Tenant("heavy1", 33, Saturating(200)),
                      Tenant("heavy2", 33, Saturating(1000))}));
  out.push_back(Make("launch-bound + saturating",
                     {Tenant("light", 50, LaunchBound()), Tenant("heavy", 50, Saturating(200))}));
  out.push_back(Make("request/response + saturating", {Tenant("light", 50, RequestResponse()),
                                                       Tenant("heavy", 50, Saturating(200))}));
  out.push_back(Make("bursty 10% + saturating",
                     {Tenant("bursty", 30, {{Kernel(50, 200, 4), Sync(), Think(90000)}}),
                      Tenant("heavy", 70, Saturating(200))}));
  out.push_back(Make("training x2", {Tenant("a", 50, Training()), Tenant("b", 50, Training())}));
}

void Mixed(std::vector<Mix>& out) {
  out.push_back(
      Make("copies + kernels", {Tenant("copies", 50, {{Copy(1000), Kernel(100, 3), Sync()}}),
                                Tenant("kernels", 50, Saturating(200))}));
  out.push_back(
      Make("never syncs + saturating", {Tenant("never", 50, {{Kernel(100, 8, 4), Think(150)}}),
                                        Tenant("heavy", 50, Saturating(200))}));
  auto alternating = [](double ms) {
    const auto n = uint32_t(ms * 10);
    return Program{{Kernel(100, n), Sync(), OnDevice(Kernel(100, n), 1), OnDevice(Sync(), 1)}};
  };
  for (double ms : {2.0, 6.0}) {
    Program heavy1 = Saturating(200);
    heavy1.steps[0].device = 1;
    Mix m = Make(ms < 3 ? "alternating 2ms, 2 devices" : "alternating 6ms, 2 devices",
                 {Tenant("alternating", 50, alternating(ms)), Tenant("on0", 50, Saturating(200)),
                  Tenant("on1", 50, heavy1)});
    m.machine.devices = 2;
    out.push_back(m);
  }
  {
    auto rank = [](DeviceIndex d) {
      Step c = Of(StepKind::kCollective, Duration::Constant(100));
      c.device = d;
      return Program{{OnDevice(Kernel(100, 4), d), c}};
    };
    MixTenant sharded = Tenant("sharded", 50, rank(0));
    sharded.threads.push_back(rank(1));
    Program heavy1 = Saturating(200);
    heavy1.steps[0].device = 1;
    Mix m = Make("collectives, 2 devices",
                 {sharded, Tenant("on0", 50, Saturating(200)), Tenant("on1", 50, heavy1)});
    m.machine.devices = 2;
    out.push_back(m);
  }
  {
    Step meet = Of(StepKind::kMeet, Duration::Constant(50));
    MixTenant a = Tenant("a", 50, {{Kernel(200, 10), meet}});
    MixTenant b = a;
    a.partner = 1;
    b.name = "b";
    b.partner = 0;
    out.push_back(Make("mutual wait", {a, b}));
  }
}

void LatencyAndCaps(std::vector<Mix>& out) {
  const std::pair<const char*, double> batches[] = {
      {"200us", 200}, {"1ms", 1000}, {"3ms", 3000}, {"25ms graphs", 25000}};
  for (const auto& [name, us] : batches) {
    out.push_back(Make(std::string("latency 20% + batch ") + name,
                       {Tenant("latency", 50, Serving(50, 100, .2), TenantClass::kLatency),
                        Tenant("batch", 50, Saturating(us), TenantClass::kBatch)}));
  }
  for (double us : {200.0, 3000.0}) {
    MixTenant t = Tenant("capped", 50, Saturating(us));
    t.share.cap = .3;
    out.push_back(Make(us < 1000 ? "cap 30% 200us" : "cap 30% 3ms", {t}));
  }
  out.push_back(Make("idle neighbour",
                     {Tenant("busy", 50, Saturating(50)), Tenant("idle", 50, {{Think(1e6)}})}));
  out.push_back(Make("alone", {Tenant("busy", 50, Saturating(50))}));
}

}  // namespace

Program Saturating(double us, double spread) { return {{Kernel(us, 1, 4, spread)}}; }

MixTenant Tenant(const char* name, double weight, Program program, TenantClass cls) {
  MixTenant t;
  t.name = name;
  t.share.weight = weight;
  t.share.cls = cls;
  t.threads.push_back(std::move(program));
  return t;
}

std::vector<Mix> StandardCases() {
  std::vector<Mix> out;
  Saturated(out);
  Light(out);
  Mixed(out);
  LatencyAndCaps(out);
  return out;
}

Mix RandomMix(uint64_t seed) {
  Random random(seed * 2654435761u + 99);
  Mix m = Make("random " + std::to_string(seed), {});
  const int n = 2 + int(random.Below(7));
  for (int i = 0; i < n; ++i) {
    const double us = 10 * std::pow(1000, random.Unit());
    const bool spread = random.Unit() < .3;
    const double weight = double(5 + random.Below(45));
    m.tenants.push_back(
        Tenant(("t" + std::to_string(i)).c_str(), weight, Saturating(us, spread ? .5 : 0)));
  }
  return m;
}

}  // namespace divvy::arbiter::model
