#include "src/cli/verify/compute_cases.h"

namespace divvy::cli {
namespace {

CaseTenant Kernels(std::string name, double percent, double us) {
  return {.name = std::move(name), .percent = percent, .kernel_us = us};
}
// Kernels, then the host waits for them and does something else.
CaseTenant Requests(std::string name, double percent, double us, unsigned kernels, double think) {
  CaseTenant t = Kernels(std::move(name), percent, us);
  t.sync_every = kernels;
  t.think_us = think;
  return t;
}
// A kernel of 20 us, then 50 us of the host's; it never waits.
CaseTenant LaunchBound(std::string name, double percent) {
  CaseTenant t = Kernels(std::move(name), percent, 20);
  t.think_us = 50;
  return t;
}
CaseTenant CpuBound(double percent) { return Requests("light", percent, 50, 3, 330); }
CaseTenant Graphs(std::string name, double percent, double us) {
  return {.name = std::move(name), .percent = percent, .graph_us = us};
}
CaseTenant Training(std::string name) { return Requests(std::move(name), 50, 150, 60, 600); }
CaseTenant On(CaseTenant t, std::vector<unsigned> devices, const char* several = "") {
  t.devices = std::move(devices);
  t.several = several;
  return t;
}

std::vector<Case> Saturating() {
  CaseTenant null_stream = Kernels("null", 50, 100), cooperative = Kernels("coop", 50, 100);
  null_stream.stream = "null";
  cooperative.cooperative = true;
  Case eight{.name = "8 equal 100us", .kind = CaseKind::kLike};
  for (int i = 0; i < 8; ++i) eight.tenants.push_back(Kernels("t" + std::to_string(i), 12.5, 100));
  constexpr CaseKind kMix = CaseKind::kSaturating;
  return {
      {"50us/50us 75:25", CaseKind::kLike, 0, {Kernels("a", 75, 50), Kernels("b", 25, 50)}},
      {"20us/3ms 50:50", kMix, 0, {Kernels("a", 50, 20), Kernels("b", 50, 3000)}},
      {"20us/3ms 75:25", kMix, 0, {Kernels("a", 75, 20), Kernels("b", 25, 3000)}},
      {"50us/25ms graph 50:50", kMix, 0, {Kernels("a", 50, 50), Graphs("b", 50, 25000)}},
      {"null/own stream 50:50", CaseKind::kLike, 0, {null_stream, Kernels("own", 50, 100)}},
      {"cooperative 50:50", CaseKind::kLike, 0, {cooperative, Kernels("plain", 50, 100)}},
      {"50us 200us 8ms 20:30:50",
       kMix,
       0,
       {Kernels("a", 20, 50), Kernels("b", 30, 200), Kernels("c", 50, 8000)}},
      eight,
  };
}

std::vector<Case> Light() {
  constexpr CaseKind kLight = CaseKind::kLight;
  const auto launch = [](std::vector<double> percents) {
    std::vector<CaseTenant> out;
    for (size_t i = 0; i < percents.size(); ++i)
      out.push_back(LaunchBound("t" + std::to_string(i), percents[i]));
    return out;
  };
  std::vector<CaseTenant> steps, steps2;
  for (int i = 0; i < 4; ++i) steps.push_back(Requests("t" + std::to_string(i), 25, 50, 1, 400));
  steps2 = {Requests("a", 75, 50, 1, 400), Requests("b", 25, 50, 1, 400)};
  return {
      {"launch-bound x2", kLight, 15, launch({50, 50})},
      {"launch-bound x3", kLight, 15, launch({33, 33, 33})},
      {"launch-bound x4", kLight, 15, launch({25, 25, 25, 25})},
      {"launch-bound 75:25", kLight, 15, launch({75, 25})},
      {"50us per 400us x4", kLight, 0, steps},
      {"50us per 400us 75:25", kLight, 0, steps2},
      {"CPU-bound + saturating", kLight, 35, {CpuBound(50), Kernels("heavy", 50, 200)}},
      {"CPU-bound + 2 saturating",
       kLight,
       0,
       {CpuBound(34), Kernels("heavy1", 33, 200), Kernels("heavy2", 33, 1000)}},
      {"request/response + saturating",
       kLight,
       35,
       {Requests("light", 50, 50, 30, 200), Kernels("heavy", 50, 200)}},
      {"bursty 10% + saturating",
       kLight,
       5,
       {Requests("bursty", 30, 50, 200, 90000), Kernels("heavy", 70, 200)}},
      {"training x2", CaseKind::kSaturating, 0, {Training("a"), Training("b")}},
  };
}

std::vector<Case> Mixed() {
  CaseTenant copies = Requests("copies", 50, 300, 1, 0);
  copies.copy_mib = 48;
  CaseTenant never = Kernels("never", 50, 100);
  never.think_us = 20;
  // One function, one shape, lengths from 6 to 1500 us: what the shim has learnt of it says little.
  CaseTenant cheat = Kernels("unlike", 50, 100);
  cheat.vary = 16;
  std::vector<CaseTenant> meeting{Kernels("left", 50, 200), Kernels("right", 50, 200)};
  for (int side : {0, 1}) meeting[static_cast<size_t>(side)].meets = side;
  const std::vector<CaseTenant> others = {On(Kernels("on0", 50, 200), {0}),
                                          On(Kernels("on1", 50, 200), {1})};
  const auto with = [&](CaseTenant t) {
    std::vector<CaseTenant> all{std::move(t)};
    all.insert(all.end(), others.begin(), others.end());
    return all;
  };
  return {
      {"estimates that deceive 50:50",
       CaseKind::kSaturating,
       0,
       {cheat, Kernels("honest", 50, 100)}},
      {"mutual wait", CaseKind::kLight, 0, meeting},
      {"copies + kernels", CaseKind::kLight, 35, {copies, Kernels("kernels", 50, 200)}},
      {"never syncs + saturating", CaseKind::kLight, 15, {never, Kernels("heavy", 50, 200)}},
      {"alternating 2ms, 2 devices", CaseKind::kLight, 15,
       with(On(Requests("alternating", 50, 100, 20, 0), {0, 1}, "alternate")), 2},
      {"collectives, 2 devices", CaseKind::kLight, 15,
       with(On(Requests("sharded", 50, 100, 5, 0), {0, 1}, "together")), 2},
  };
}

std::vector<Case> LatencyAndAlone() {
  CaseTenant serving = Requests("latency", 50, 50, 100, 0);
  serving.rate = 40;  // 20 % of the device
  serving.cls = "latency";
  std::vector<Case> out;
  const auto beside = [&](const char* name, CaseTenant batch, double p99_budget = 0) {
    batch.cls = "batch";
    batch.percent = 0;
    out.push_back({name, CaseKind::kLight, 15, {serving, batch}, 1, p99_budget, 2});
  };
  beside("latency 20% + batch 200us", Kernels("batch", 50, 200), 1.08);
  beside("latency 20% + batch 1ms", Kernels("batch", 50, 1000), 1.2);
  beside("latency 20% + batch 3ms", Kernels("batch", 50, 3000));
  beside("latency 20% + batch 25ms graphs", Graphs("batch", 50, 25000));
  CaseTenant capped = Kernels("capped", 30, 200);
  capped.max_percent = 30;
  out.push_back({"cap 30% 200us", CaseKind::kCap, 2, {capped}});
  out.push_back({"idle neighbour",
                 CaseKind::kAlone,
                 1,
                 {Kernels("busy", 50, 50), Requests("idle", 50, 20, 1, 3e6)}});
  out.push_back({"alone", CaseKind::kAlone, 0.5, {Kernels("busy", 0, 50)}});
  return out;
}

}  // namespace

const std::vector<Case>& StandardCases() {
  static const std::vector<Case> cases = [] {
    std::vector<Case> all;
    for (std::vector<Case> (*group)() : {Saturating, Light, Mixed, LatencyAndAlone})
      for (Case& one : group()) all.push_back(std::move(one));
    return all;
  }();
  return cases;
}

}  // namespace divvy::cli
