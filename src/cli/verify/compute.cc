#include "src/cli/verify/compute.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>

#include "src/base/paths.h"
#include "src/base/sim_spec.h"
#include "src/cli/tenancy.h"
#include "src/cli/verify/hardware.h"
#include "src/cli/verify/mix_run.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

constexpr unsigned kRepeats = 3;
constexpr unsigned kLanes = 4;             // simulated devices at work at once: repeats, and native
constexpr uint32_t kDefaultDilation = 10;  // two noisy cores: their jitter is a tenth of itself
// Who works on several devices by turns loses whatever the host is late each time. For the others
// this would leave too few windows in the measured time.
constexpr uint32_t kTurnsDilation = 30;
constexpr double kWindowUs = 10'000;  // of the arbiter, the longest

struct Setup {
  MixMachine machine;
  std::vector<unsigned> devices;  // to run on
  std::optional<Tenancy> holder;  // keeps the simulated machine while nothing else does
  std::string runtime_dir;        // made for it; "" = none
  double warm_s = 1, measure_s = 2.5, solo_s = 1.5;

  Setup() = default;
  Setup(const Setup&) = delete;
  Setup& operator=(const Setup&) = delete;
  // What is done from here on is done on this machine.
  void Enter() const {
    if (!runtime_dir.empty()) ::setenv("DIVVY_RUNTIME_DIR", runtime_dir.c_str(), 1);
  }
  ~Setup() {
    Enter();
    if (holder) DropTenant(*holder);
    if (runtime_dir.empty()) return;
    // The daemon ends by itself with its last tenant, and wants its folder until then.
    static_cast<void>(MachineOf(machine.sim).api.Post("/v1/shutdown", json::object()).ok());
    std::error_code ignored;
    std::filesystem::remove_all(runtime_dir, ignored);
  }
};

// A machine of its own for --sim: nobody else's tenants, and a device more than runs, on which the
// holder is.
Status Simulate(const std::string& sim, uint32_t usual_dilation, Setup& setup) {
  const Result<SimSpec> spec = ParseSimSpec(sim);
  if (!spec.ok()) return spec.error();
  const uint32_t dilation = sim.find('@') == std::string::npos ? usual_dilation : spec->dilation;
  const std::string name =
      std::string(spec->model) + "x" + std::to_string(kLanes + 1) + "@x" + std::to_string(dilation);
  char dir[] = "/tmp/divvy-verify-XXXXXX";
  if (::mkdtemp(dir) == nullptr) return IoError("cannot make a folder in /tmp", errno);
  setup.runtime_dir = dir;
  setup.Enter();
  setup.machine.sim = name;
  setup.machine.dilation = dilation;
  Result<Tenancy> holder = MakeTenant({.sim = name,
                                       .name = "verify",
                                       .gpus = {std::to_string(kLanes)},
                                       .mem = Bytes{1 << 30},
                                       .command = {"divvy", "verify", "compute"}});
  if (!holder.ok()) return holder.error();
  setup.holder = std::move(*holder);
  setup.machine.sim_dir = setup.holder->delivery.sim_dir;
  for (unsigned d = 0; d < kLanes; ++d) setup.devices.push_back(d);
  setup.measure_s = 6;
  setup.solo_s = 2;
  return {};
}

Status Prepare(const VerifyComputeOptions& options, uint32_t usual_dilation, Setup& setup) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  Status s;
  if (!options.sim.empty())
    s = Simulate(options.sim, usual_dilation, setup);
  else
    setup.devices = {static_cast<unsigned>(std::atoi(options.gpu.c_str()))};
  if (options.seconds > 0) setup.measure_s = options.seconds;
  return s;
}

// A label for tenants' names: "20us/3ms 75:25" -> "20us-3ms-75-25".
std::string Label(const std::string& name, const std::string& more) {
  std::string out = name.substr(0, 36) + "." + more;
  for (char& c : out)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '.') c = '-';
  return out;
}

struct Solo {
  double percent = 0, p99_us = 0;
};

class Verifier {
 public:
  explicit Verifier(Setup& setup) : setup_(setup) {}

  Result<std::vector<ComputeRow>> Run(const Case& c) {
    if (const Status s = RunSolos(c); !s.ok()) return s.error();
    // The same devices for all runs of a case, one after another if there are too few.
    std::vector<MixPlan> plans;
    for (unsigned r = 0; r <= kRepeats; ++r)
      plans.push_back({.tenants = &c.tenants,
                       .shared = r > 0,
                       .label = Label(c.name, r == 0 ? "native" : std::to_string(r))});
    auto results = RunAll(plans, c.devices, setup_.measure_s * c.length);
    if (!results.ok()) return results.error();
    return Rows(c, *results);
  }

 private:
  Result<std::vector<std::vector<MixResult>>> RunAll(std::vector<MixPlan> plans, unsigned devices,
                                                     double seconds) {
    const size_t at_once = std::max<size_t>(1, setup_.devices.size() / devices);
    std::vector<std::vector<MixResult>> all;
    for (size_t first = 0; first < plans.size(); first += at_once) {
      std::vector<MixPlan> now(
          plans.begin() + static_cast<ptrdiff_t>(first),
          plans.begin() + static_cast<ptrdiff_t>(std::min(first + at_once, plans.size())));
      for (size_t i = 0; i < now.size(); ++i)
        for (unsigned d = 0; d < devices; ++d)
          now[i].devices.push_back(setup_.devices[i * devices + d]);
      auto results = RunMixes(setup_.machine, now, setup_.warm_s, seconds);
      if (!results.ok()) return results.error();
      for (auto& one : *results) all.push_back(std::move(one));
    }
    return all;
  }

  static std::string Key(const CaseTenant& t) {
    return json{t.kernel_us, t.vary,   t.graph_us,    t.copy_mib, t.sync_every,    t.think_us,
                t.rate,      t.stream, t.cooperative, t.several,  t.devices.size()}
        .dump();
  }

  Status RunSolos(const Case& c) {
    std::vector<const CaseTenant*> missing;
    for (const CaseTenant& t : c.tenants) {
      const auto same = [&](const CaseTenant* m) { return Key(*m) == Key(t); };
      if (!solos_.contains(Key(t)) && std::none_of(missing.begin(), missing.end(), same))
        missing.push_back(&t);
    }
    std::vector<std::vector<CaseTenant>> alone;
    for (const CaseTenant* t : missing) {
      alone.push_back({*t});
      alone.back()[0].meets = -1;  // alone there is nobody to wait for
    }
    std::vector<MixPlan> plans;
    for (const auto& tenants : alone)
      plans.push_back({.tenants = &tenants, .shared = false, .label = "solo"});
    // A percentile is compared with that of the same requests.
    const bool by_clock = std::any_of(missing.begin(), missing.end(),
                                      [](const CaseTenant* t) { return t->rate > 0; });
    const auto results =
        RunAll(plans, c.devices, by_clock ? setup_.measure_s * c.length : setup_.solo_s);
    if (!results.ok()) return results.error();
    for (size_t i = 0; i < missing.size(); ++i)
      solos_[Key(*missing[i])] = {(*results)[i][0].gpu_percent, (*results)[i][0].latency_p99_us};
    return {};
  }

  double ErrorOf(const Case& c, size_t i, const std::vector<MixResult>& run) const {
    const CaseTenant& t = c.tenants[i];
    const double got = run[i].gpu_percent, solo = solos_.at(Key(t)).percent;
    const auto of = [](double part, double whole) { return whole > 0 ? 100 * part / whole : 0; };
    switch (c.kind) {
      case CaseKind::kLike:
      case CaseKind::kSaturating: {
        double sum = 0, promised = 0;
        for (const MixResult& r : run) sum += r.gpu_percent;
        for (const CaseTenant& other : c.tenants) promised += other.percent;
        const double due = t.percent / promised;
        return sum > 0 ? of(std::abs(got / sum - due), due) : 100;
      }
      case CaseKind::kLight:
        return std::max(0.0, of(Due(t) - got, Due(t)));
      case CaseKind::kCap:
        return of(std::abs(got - t.max_percent), t.max_percent);
      case CaseKind::kAlone:
        return std::max(0.0, of(solo - got, solo));
    }
    return 0;
  }
  // What it may count on: its guarantee, or less when it cannot use that much even alone. A batch
  // tenant counts on nothing.
  double Due(const CaseTenant& t) const {
    return t.cls == "batch" ? 0 : std::min(t.percent, solos_.at(Key(t)).percent);
  }

  double Budget(const Case& c, const CaseTenant& t) const {
    const double device_us = setup_.measure_s * c.length * 1e6 / setup_.machine.dilation;
    double longest = 0;
    for (const CaseTenant& other : c.tenants) longest = std::max(longest, other.OperationUs());
    const double part = t.percent / 100;
    switch (c.kind) {
      case CaseKind::kLike:
        return 0.5 + 100 * kWindowUs / (part * device_us);
      case CaseKind::kSaturating:
        return 1 + 100 * (kWindowUs + longest) / (part * device_us);
      default:
        return t.cls == "batch" || t.rate > 0 ? 0 : c.budget_percent;
    }
  }

  std::vector<ComputeRow> Rows(const Case& c, const std::vector<std::vector<MixResult>>& runs) {
    std::vector<ComputeRow> rows;
    for (size_t i = 0; i < c.tenants.size(); ++i) {
      const CaseTenant& t = c.tenants[i];
      const Solo& solo = solos_.at(Key(t));
      const auto ratio = [](double a, double b) { return b > 0 ? a / b : 0; };
      const auto spread = [&](auto&& value) {
        std::vector<double> v;
        for (unsigned r = 1; r <= kRepeats; ++r) v.push_back(value(runs[r]));
        std::sort(v.begin(), v.end());
        return Spread{v[v.size() / 2], v.front(), v.back()};
      };
      ComputeRow row{.of = &c,
                     .tenant = t.name,
                     .dilation = setup_.machine.dilation,
                     .solo_percent = solo.percent};
      row.wanted_percent = c.kind == CaseKind::kAlone ? solo.percent
                           : c.kind == CaseKind::kCap ? t.max_percent
                                                      : t.percent;
      row.got_percent = spread([&](const auto& run) { return run[i].gpu_percent; });
      row.error_percent = spread([&](const auto& run) { return ErrorOf(c, i, run); });
      row.progress =
          spread([&](const auto& run) { return ratio(run[i].gpu_percent, solo.percent); });
      row.native_progress = ratio(runs[0][i].gpu_percent, solo.percent);
      row.native_error_percent = ErrorOf(c, i, runs[0]);
      if (t.sync_every > 0) {
        row.latency_p99_ratio =
            spread([&](const auto& run) { return ratio(run[i].latency_p99_us, solo.p99_us); });
        row.native_latency_p99_ratio = ratio(runs[0][i].latency_p99_us, solo.p99_us);
      }
      row.budget_percent = Budget(c, t);
      row.p99_budget = i == 0 ? c.p99_budget : 0;
      rows.push_back(row);
    }
    return rows;
  }

  Setup& setup_;
  std::map<std::string, Solo> solos_;
};

double Rounded(double x) { return std::round(x * 1000) / 1000; }

}  // namespace

Result<ComputeReport> VerifyCompute(
    const VerifyComputeOptions& options,
    const std::function<void(const std::vector<ComputeRow>&)>& done) {
  Setup setup, turns_setup;
  if (const Status s = Prepare(options, kDefaultDilation, setup); !s.ok()) return s.error();
  ComputeReport report{.machine = setup.machine.sim.empty() ? "real" : "sim/" + setup.machine.sim,
                       .dilation = setup.machine.dilation,
                       .seconds = setup.measure_s};
  Verifier verifier(setup), turns_verifier(turns_setup);
  const bool chooses = !options.sim.empty() && options.sim.find('@') == std::string::npos;
  for (const Case* c : options.cases) {
    const bool turns = chooses && std::any_of(c->tenants.begin(), c->tenants.end(), [](auto& t) {
                         return std::string(t.several) == "alternate";
                       });
    if (turns && !turns_setup.holder)
      if (const Status s = Prepare(options, kTurnsDilation, turns_setup); !s.ok()) return s.error();
    (turns ? turns_setup : setup).Enter();
    if (c->devices > setup.devices.size()) {
      report.skipped.push_back(c->name + ": needs " + std::to_string(c->devices) + " devices");
      continue;
    }
    auto rows = (turns ? turns_verifier : verifier).Run(*c);
    if (!rows.ok()) return Error{rows.error().code, c->name + ": " + rows.error().message};
    done(*rows);
    report.rows.insert(report.rows.end(), rows->begin(), rows->end());
  }
  return report;
}

Result<json> VerifyHardware(const VerifyComputeOptions& options) {
  Setup setup;
  if (const Status s = Prepare(options, kDefaultDilation, setup); !s.ok()) return s.error();
  Result<json> out =
      MeasureHardware(setup.machine, setup.devices[0], options.seconds > 0 ? options.seconds : 1.5);
  if (!out.ok()) return out;
  std::string command = "'" + paths::BinDir() + "/divvy' load --write-value --device " +
                        std::to_string(setup.devices[0]);
  if (!setup.machine.sim.empty())
    command = "LD_LIBRARY_PATH='" + paths::SimLibDir() + "' DIVVY_SIM_DIR='" +
              setup.machine.sim_dir + "' " + command;
  std::string text;
  if (FILE* from = ::popen(command.c_str(), "r")) {
    char buffer[4096];
    while (const size_t n = std::fread(buffer, 1, sizeof buffer, from)) text.append(buffer, n);
    ::pclose(from);
  }
  const json said = json::parse(text, nullptr, false);
  (*out)["write_value"] = said.is_object() ? said.value("write_value", json()) : json();
  (*out)["machine"] = setup.machine.sim.empty() ? "real" : "sim/" + setup.machine.sim;
  (*out)["simulated"] = !setup.machine.sim.empty();
  (*out)["dilation"] = setup.machine.dilation;
  return out;
}

json ToJson(const ComputeRow& row) {
  const bool shortfall = row.of->kind == CaseKind::kLight || row.of->kind == CaseKind::kAlone;
  json out{{"case", row.of->name},
           {"tenant", row.tenant},
           {"dilation", row.dilation},
           {"wanted_percent", Rounded(row.wanted_percent)},
           {"solo_percent", Rounded(row.solo_percent)},
           {"got_percent", Rounded(row.got_percent.median)},
           {"got_percent_spread", {Rounded(row.got_percent.least), Rounded(row.got_percent.most)}},
           {"share_error_percent", nullptr},
           {"shortfall_percent", nullptr},
           {"error_spread", {Rounded(row.error_percent.least), Rounded(row.error_percent.most)}},
           {"native_error_percent", Rounded(row.native_error_percent)},
           {"budget_percent", row.budget_percent > 0 ? json(Rounded(row.budget_percent)) : json()},
           {"within", row.Within()},
           {"progress", Rounded(row.progress.median)},
           {"native_progress", Rounded(row.native_progress)},
           {"latency_p99_ratio", nullptr},
           {"latency_p99_spread", nullptr},
           {"latency_p99_budget", row.p99_budget > 0 ? json(row.p99_budget) : json()},
           {"native_latency_p99_ratio", nullptr}};
  out[shortfall ? "shortfall_percent" : "share_error_percent"] = Rounded(row.error_percent.median);
  if (row.latency_p99_ratio.median > 0) {
    out["latency_p99_ratio"] = Rounded(row.latency_p99_ratio.median);
    out["latency_p99_spread"] = {Rounded(row.latency_p99_ratio.least),
                                 Rounded(row.latency_p99_ratio.most)};
    out["native_latency_p99_ratio"] = Rounded(row.native_latency_p99_ratio);
  }
  return out;
}

json ToJson(const ComputeReport& report) {
  json rows = json::array();
  size_t within = 0, with_budget = 0;
  for (const ComputeRow& row : report.rows) {
    rows.push_back(ToJson(row));
    with_budget += (row.budget_percent > 0) + (row.p99_budget > 0);
    within += (row.budget_percent > 0 && row.SharesWithin()) +
              (row.p99_budget > 0 && row.LatencyWithin());
  }
  return {{"machine", report.machine},   {"simulated", report.machine != "real"},
          {"dilation", report.dilation}, {"seconds", report.seconds},
          {"repeats", kRepeats},         {"rows", rows},
          {"skipped", report.skipped},   {"with_budget", with_budget},
          {"within_budget", within}};
}

}  // namespace divvy::cli
