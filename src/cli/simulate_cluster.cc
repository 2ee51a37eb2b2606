// divvy simulate cluster: reads node and pod lists, runs the placement engine over them with one or
// more policies, prints figures. All logic is in src/placement; this is files, options and tables.
#include "src/cli/simulate_cluster.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "src/cli/app.h"
#include "src/cli/table.h"
#include "src/placement/input/kube_json.h"
#include "src/placement/input/openb_csv.h"
#include "src/placement/policies/policies.h"
#include "src/placement/sim/order.h"
#include "src/placement/sim/protocol.h"
#include "src/placement/sim/svg.h"

namespace divvy::cli {
namespace {

namespace fs = std::filesystem;
using placement::ChurnResult;
using placement::InflateResult;
using placement::Inventory;
using placement::Order;

struct Options {
  std::string nodes, pods, orders, plot, decisions;
  std::vector<std::string> policies = {"default", "fgd", "bestfit"};
  std::vector<std::string> protocols = {"inflate"};
  std::string seeds = "42";
  double load = 0.95;
  uint32_t replicate = 1;
  Format format = Format::kText;
};

struct Run {
  std::string policy;
  uint64_t seed = 0;
  bool published_order = false;
  std::optional<InflateResult> inflate;
  std::optional<ChurnResult> churn;
};

Result<std::string> ReadFile(const std::string& path) {
  std::error_code ignored;
  std::ifstream in(path, std::ios::binary);
  if (!in || fs::is_directory(path, ignored)) {
    return NotFound(path + ": cannot be read (a file of the trace? set DIVVY_TRACE_DIR)");
  }
  return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}

Result<void> WriteFile(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  if (!out) return Error{ErrorCode::kIo, path + ": cannot be written"};
  return {};
}

// A file as named, or in the folder that DIVVY_TRACE_DIR names.
std::string Locate(const std::string& name) {
  std::error_code ignored;
  const char* dir = std::getenv("DIVVY_TRACE_DIR");
  if (dir == nullptr || fs::exists(name, ignored)) return name;
  const fs::path there = fs::path(dir) / name;
  return fs::exists(there, ignored) ? there.string() : name;
}

// "42", "42,45", "42-51".
Result<std::vector<uint64_t>> ParseSeeds(const std::string& text) {
  const Error bad = Invalid("--seed: \"" + text + "\" is not a number, list or range (42-51)");
  std::vector<uint64_t> seeds;
  const char* p = text.c_str();
  for (;;) {
    char* end = nullptr;
    if (*p < '0' || *p > '9') return bad;
    const uint64_t first = std::strtoull(p, &end, 10);
    uint64_t last = first;
    if (*end == '-') {
      if (end[1] < '0' || end[1] > '9') return bad;
      last = std::strtoull(end + 1, &end, 10);
    }
    if (last < first || last - first >= 1000 || last == UINT64_MAX || seeds.size() > 10000)
      return bad;
    for (uint64_t s = first; s <= last; ++s) seeds.push_back(s);
    if (*end == '\0') return seeds;
    if (*end != ',') return bad;
    p = end + 1;
  }
}

Inventory Load(const Options& o) {
  Inventory inventory;
  for (const bool nodes : {true, false}) {
    const std::string path = Locate(nodes ? o.nodes : o.pods);
    const std::string text = OrFail(ReadFile(path));
    const bool json = placement::LooksLikeJson(text);
    if (nodes) {
      OrFail(json ? placement::ReadKubeNodes(text, path, &inventory)
                  : placement::ReadOpenbNodes(text, path, &inventory));
    } else {
      OrFail(json ? placement::ReadKubePods(text, path, &inventory)
                  : placement::ReadOpenbPods(text, path, &inventory));
    }
  }
  OrFail(placement::CheckInventory(inventory));
  return inventory;
}

// The order file of a pod list: openb_pod_list_X.csv -> openb_X_SEED.txt in --orders, or in the
// folder "fixtures" beside the list. Without one the order is drawn.
Order FindOrder(const Options& o, const Inventory& inventory, uint64_t seed) {
  const fs::path pods = Locate(o.pods);
  std::string name = pods.stem().string();
  if (const size_t at = name.find("pod_list_"); at != std::string::npos) name.erase(at, 9);
  name += "_" + std::to_string(seed) + ".txt";
  std::vector<fs::path> places;
  if (!o.orders.empty()) places.emplace_back(o.orders);
  places.push_back(pods.parent_path() / "fixtures");
  for (const fs::path& folder : places) {
    std::error_code ignored;
    const std::string path = (folder / name).string();
    if (!fs::exists(path, ignored)) continue;
    auto order = placement::ParseOrder(OrFail(ReadFile(path)), path, inventory);
    // A published order beside the pods is for the published nodes; with others it is drawn.
    if (!order.ok() && folder != fs::path(o.orders)) continue;
    return OrFail(std::move(order));
  }
  return placement::DrawOrder(inventory, seed, placement::kInflateRatio);
}

// A line on the terminal that shows how far the runs are; nothing when stderr is no terminal.
class Progress {
 public:
  explicit Progress(size_t runs) : runs_(runs), on_(isatty(STDERR_FILENO) != 0) {}
  ~Progress() {
    if (on_) std::fputs("\r\033[K", stderr);
  }
  void Start(const std::string& what) {
    what_ = what;
    ++started_;
  }
  void Show(double part) const {
    if (!on_) return;
    const double done = (static_cast<double>(started_ - 1) + part) / static_cast<double>(runs_);
    const int bars = static_cast<int>(done * 30);
    std::fprintf(stderr, "\r%-28s [%.*s%*s] %3.0f %%\033[K", what_.c_str(), bars,
                 "##############################", 30 - bars, "", 100 * done);
    std::fflush(stderr);
  }

 private:
  size_t runs_;
  bool on_;
  size_t started_ = 0;
  std::string what_;
};

// One line per decision, for tools/replay_check.py.
class DecisionLog {
 public:
  DecisionLog(const std::string& path, const Inventory& inventory)
      : path_(path), inventory_(inventory), out_(path, std::ios::binary) {
    out_ << "what,instance,pod,node,devices\n";
  }
  void Write(const placement::Event& e) {
    using What = placement::Event::What;
    const std::string& pod = inventory_.pods[e.pod].name;
    if (e.what == What::kLeave) {
      out_ << "leave," << e.instance << ",,,\n";
    } else if (e.what == What::kRefuse) {
      out_ << "refuse," << e.instance << ',' << pod << ",,\n";
    } else {
      const size_t nodes = inventory_.nodes.size();
      out_ << "place," << e.instance << ',' << pod << ',' << inventory_.nodes[e.node % nodes].name;
      if (e.node >= nodes) out_ << '#' << e.node / nodes;
      out_ << ',';
      bool first = true;
      for (int d = 0; d < placement::kMaxDevices; ++d) {
        if ((e.devices >> d & 1) == 0) continue;
        out_ << (first ? "" : "|") << d;
        first = false;
      }
      out_ << '\n';
    }
  }
  Result<void> Close() {
    out_.close();
    if (!out_) return Error{ErrorCode::kIo, path_ + ": cannot be written"};
    return {};
  }

 private:
  std::string path_;
  const Inventory& inventory_;
  std::ofstream out_;
};

Run RunOne(const Options& o, const Inventory& inventory, const std::string& policy, uint64_t seed,
           Progress* progress) {
  Run run{policy, seed, false, {}, {}};
  const Order order = FindOrder(o, inventory, seed);
  run.published_order = order.published;
  for (const std::string& protocol : o.protocols) {
    std::optional<DecisionLog> log;
    placement::Watch watch;
    if (!o.decisions.empty()) {
      log.emplace(o.decisions, inventory);
      watch.event = [&log](const placement::Event& e) { log->Write(e); };
    }
    progress->Start(policy + " " + std::to_string(seed) + " " + protocol);
    watch.progress = [progress](double part) { progress->Show(part); };
    auto made = placement::MakePolicy(policy, seed);
    if (protocol == "inflate") {
      run.inflate = placement::RunInflate(inventory, order, o.replicate, std::move(made), watch);
    } else {
      run.churn =
          placement::RunChurn(inventory, order, seed, o.load, o.replicate, std::move(made), watch);
    }
    if (log) OrFail(log->Close());
  }
  return run;
}

// The figures of one run, or the means of several; null where the protocol was not run.
nlohmann::ordered_json Figures(const std::vector<const Run*>& runs) {
  const auto mean = [&](auto get) -> nlohmann::ordered_json {
    double sum = 0;
    for (const Run* r : runs) {
      const std::optional<double> v = get(*r);
      if (!v) return nullptr;
      sum += *v;
    }
    return std::round(1e4 * sum / static_cast<double>(runs.size())) / 1e4;
  };
  const auto inflate = [&](double InflateResult::*field) {
    return mean([field](const Run& r) {
      return r.inflate ? std::optional((*r.inflate).*field) : std::nullopt;
    });
  };
  const auto churn = [&](double ChurnResult::*field) {
    return mean([field](const Run& r) {
      return r.churn ? std::optional((*r.churn).*field) : std::nullopt;
    });
  };
  nlohmann::ordered_json out;
  out["allocated_percent"] = inflate(&InflateResult::allocated_percent);
  out["fragmentation_percent_of_total"] = inflate(&InflateResult::fragmentation_percent_of_total);
  out["rejected_before_95_percent"] = inflate(&InflateResult::rejected_before_95_percent);
  out["multi_gpu_accepted_percent"] = inflate(&InflateResult::multi_gpu_accepted_percent);
  out["churn_accepted_percent"] = churn(&ChurnResult::accepted_percent);
  out["churn_multi_gpu_accepted_percent"] = churn(&ChurnResult::multi_gpu_accepted_percent);
  return out;
}

std::string Cell(const nlohmann::ordered_json& value) {
  if (value.is_null()) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", value.get<double>());
  return text;
}

void Print(const Options& o, const Inventory& inventory, const std::vector<Run>& runs,
           size_t seeds) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  nlohmann::ordered_json means = nlohmann::ordered_json::array();
  for (const Run& r : runs) {
    nlohmann::ordered_json one = {{"policy", r.policy},
                                  {"seed", r.seed},
                                  {"order", r.published_order ? "published" : "drawn"}};
    one.update(Figures({&r}));
    all.push_back(one);
  }
  for (const std::string& policy : o.policies) {
    std::vector<const Run*> of;
    for (const Run& r : runs) {
      if (r.policy == policy) of.push_back(&r);
    }
    nlohmann::ordered_json one = {{"policy", policy}, {"seeds", of.size()}};
    one.update(Figures(of));
    means.push_back(one);
  }
  if (o.format == Format::kJson) {
    const nlohmann::ordered_json out = {
        {"simulated", true},
        {"nodes", inventory.nodes.size() * o.replicate},
        {"gpus", inventory.TotalMilli() * o.replicate / placement::kWholeMilli},
        {"pods", inventory.pods.size()},
        {"load", o.load},
        {"runs", all},
        {"means", means}};
    std::printf("%s\n", out.dump(2).c_str());
    return;
  }
  std::printf("%zu nodes, %lld GPUs, %zu pods in the list (simulated; all figures in percent)\n",
              inventory.nodes.size() * o.replicate,
              static_cast<long long>(inventory.TotalMilli() * o.replicate / placement::kWholeMilli),
              inventory.pods.size());
  Table table({"POLICY", "SEED", "ALLOCATED", "FRAGMENTS", "REJECTED<95", "MULTI-GPU ACCEPTED",
               "CHURN ACCEPTED"});
  const auto add = [&table](const nlohmann::ordered_json& r, const std::string& seed) {
    table.Add({r["policy"].get<std::string>(), seed, Cell(r["allocated_percent"]),
               Cell(r["fragmentation_percent_of_total"]), Cell(r["rejected_before_95_percent"]),
               Cell(r["multi_gpu_accepted_percent"]), Cell(r["churn_accepted_percent"])});
  };
  for (const auto& r : all) add(r, std::to_string(r["seed"].get<uint64_t>()));
  if (seeds > 1) {
    for (const auto& r : means) add(r, "mean");
  }
  std::fputs(table.ToString().c_str(), stdout);
}

void WritePlot(const Options& o, const std::vector<Run>& runs) {
  std::vector<placement::PlotLine> lines;
  std::set<std::string> seen;
  for (const Run& r : runs) {  // the first seed of each policy
    if (r.inflate && seen.insert(r.policy).second) lines.push_back({r.policy, r.inflate->curve});
  }
  const std::string title = fs::path(o.pods).filename().string() + ", seed " +
                            std::to_string(runs.front().seed) + " (simulated)";
  OrFail(WriteFile(o.plot, placement::PlotSvg(title, lines)));
}

void Simulate(const Options& o) {
  for (const std::string& policy : o.policies) {
    if (placement::MakePolicy(policy, 0) == nullptr) {
      std::string names;
      for (const auto& p : placement::Policies()) names += " " + std::string(p.name);
      Fail(Invalid("no policy \"" + policy + "\"; there are" + names));
    }
  }
  const std::vector<uint64_t> seeds = OrFail(ParseSeeds(o.seeds));
  if (!o.decisions.empty() && o.policies.size() * seeds.size() * o.protocols.size() > 1) {
    Fail(Invalid("--decisions takes one policy, one seed and one protocol"));
  }
  if (!o.plot.empty() && o.protocols.front() != "inflate") {
    Fail(Invalid("--plot shows the inflate protocol"));
  }
  const Inventory inventory = Load(o);
  std::vector<Run> runs;
  {
    Progress progress(o.policies.size() * seeds.size() * o.protocols.size());
    for (const std::string& policy : o.policies) {
      for (const uint64_t seed : seeds) {
        runs.push_back(RunOne(o, inventory, policy, seed, &progress));
      }
    }
  }
  if (!o.plot.empty()) WritePlot(o, runs);
  Print(o, inventory, runs, seeds.size());
}

}  // namespace

void AddSimulateCluster(CLI::App& simulate) {
  std::string about =
      "place a list of pods on a list of nodes with one or more policies, and compare\n\n"
      "Lists are the openb trace's CSV files, or `kubectl get nodes|pods -A -o json`. A file that\n"
      "is not there is looked for in DIVVY_TRACE_DIR. Policies:\n";
  for (const auto& p : placement::Policies()) {
    char line[160];
    std::snprintf(line, sizeof line, "  %-12s%s\n", std::string(p.name).c_str(),
                  std::string(p.summary).c_str());
    about += line;
  }
  CLI::App* verb = simulate.add_subcommand("cluster", about);
  auto o = std::make_shared<Options>();
  verb->add_option("--nodes", o->nodes, "node list")->required();
  verb->add_option("--pods", o->pods, "pod list")->required();
  verb->add_option("--policy", o->policies, "policies, separated by commas")
      ->delimiter(',')
      ->capture_default_str();
  verb->add_option("--protocol", o->protocols,
                   "inflate: pods arrive and stay, up to 130 % of capacity; churn: they come and "
                   "go; both with a comma")
      ->delimiter(',')
      ->check(CLI::IsMember({"inflate", "churn"}))
      ->capture_default_str();
  verb->add_option("--seed", o->seeds, "order of arrival: a number, list or range (42-51)")
      ->capture_default_str();
  verb->add_option("--load", o->load, "offered GPU load of churn, as a part of capacity")
      ->check(CLI::Range(0.01, 10.0))
      ->capture_default_str();
  verb->add_option("--replicate", o->replicate, "copies of the nodes, and of the demand")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  verb->add_option(
      "--orders", o->orders,
      "folder of arrival orders (tools/openb_order); else \"fixtures\" beside the pods, "
      "else drawn");
  verb->add_option("--plot", o->plot, "write an SVG of allocation and fragments against arrivals");
  verb->add_option("--decisions", o->decisions,
                   "write every decision as CSV, for tools/replay_check.py");
  AddFormat(*verb, o->format);
  verb->callback([o] { Simulate(*o); });
}

}  // namespace divvy::cli
