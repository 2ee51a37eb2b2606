// divvy simulate cluster: reads node and pod lists, runs the placement engine over them with one or
// more policies, prints figures. All logic is in src/placement; this is files, options and tables.
#include "src/cli/simulate_cluster.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "src/cli/app.h"
#include "src/cli/simulate_cluster_log.h"
#include "src/cli/simulate_cluster_report.h"
#include "src/placement/input/kube_json.h"
#include "src/placement/input/openb_csv.h"
#include "src/placement/policies/policies.h"
#include "src/placement/sim/order.h"
#include "src/placement/sim/protocol.h"
#include "src/placement/sim/svg.h"

namespace divvy::cli {
namespace {

namespace fs = std::filesystem;
using placement::Handling;
using placement::Inventory;
using placement::Order;

struct Options {
  std::string nodes, pods, orders, plot, decisions;
  std::vector<std::string> policies = {"default", "fgd", "bestfit"};
  std::vector<std::string> protocols = {"inflate"};
  std::string seeds = "42";
  std::vector<std::string> ways, quotas;
  int max_moves = 4;
  double load = 0.95;
  uint32_t replicate = 1;
  Format format = Format::kText;
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
  if (const Status s = placement::CheckInventory(inventory); !s) {
    Fail(Invalid(Locate(o.nodes) + ": " + s.error().message));
  }
  std::set<std::string_view> nodes;
  for (const auto& n : inventory.nodes) nodes.insert(n.name);
  const auto gone = std::count_if(inventory.pods.begin(), inventory.pods.end(), [&](const auto& p) {
    return !p.node.empty() && !nodes.contains(p.node);
  });
  if (gone > 0) {
    inventory.warnings.push_back(Locate(o.pods) + ": " + std::to_string(gone) +
                                 " pods run on nodes that the node list lacks: left out");
  }
  if (const auto unplaceable = placement::FindUnplaceable(inventory); unplaceable.pods > 0) {
    inventory.warnings.push_back(Locate(o.pods) + ": " + std::to_string(unplaceable.pods) +
                                 " pod(s) fit on no node, not even an empty one (the first is " +
                                 unplaceable.first + "): always refused");
  }
  for (const std::string& warning : inventory.warnings) {
    std::fprintf(stderr, "divvy: warning: %s\n", warning.c_str());
  }
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

ClusterRun RunOne(const Options& o, const Inventory& inventory, const Handling& handling,
                  const std::string& policy, uint64_t seed, Progress* progress) {
  ClusterRun run;
  run.policy = policy;
  run.seed = seed;
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
    placement::HandlingResult handled;
    if (protocol == "inflate") {
      run.inflate = placement::RunInflate(inventory, order, o.replicate, std::move(made), watch,
                                          handling, &handled);
    } else {
      run.churn = placement::RunChurn(inventory, order, seed, o.load, o.replicate, std::move(made),
                                      watch, handling, &handled);
    }
    if (!o.ways.empty() || !o.quotas.empty() || !inventory.gangs.empty()) {
      run.handling = handled;
      run.handling_protocol = protocol;
    }
    if (log) OrFail(log->Close());
  }
  return run;
}

// "NAMESPACE=LIMIT[:GUARANTEE[:WEIGHT]]", in GPUs.
std::pair<std::string, placement::SpaceQuota> ParseQuota(const std::string& text) {
  const Error bad =
      Invalid("--quota: \"" + text + "\" is not NAMESPACE=LIMIT[:GUARANTEE[:WEIGHT]] in GPUs");
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0) Fail(bad);
  double part[3] = {0, 0, 1};
  const char* p = text.c_str() + equals + 1;
  for (int i = 0; i < 3; ++i) {
    char* end = nullptr;
    part[i] = std::strtod(p, &end);
    if (end == p || !(part[i] >= 0 && part[i] <= 1e9)) Fail(bad);
    p = end + (*end == ':');
    if (*end == '\0') break;
    if (*end != ':' || i == 2) Fail(bad);
  }
  placement::SpaceQuota quota;
  quota.limit_milli = static_cast<int64_t>(part[0] * placement::kWholeMilli);
  quota.guaranteed_milli = static_cast<int64_t>(part[1] * placement::kWholeMilli);
  quota.weight = static_cast<uint32_t>(part[2]);
  return {text.substr(0, equals), quota};
}

Handling ParseHandling(const Options& o, const Inventory& inventory) {
  Handling handling;
  for (const std::string& way : o.ways) {
    handling.plan.squeeze |= way == "squeeze";
    handling.plan.migrate |= way == "migrate";
    handling.plan.preempt |= way == "preempt";
    handling.reclaim |= way == "reclaim";
    handling.queue |= way == "queue";
  }
  handling.plan.max_moves = o.max_moves;
  for (const std::string& text : o.quotas) {
    handling.quotas.push_back(ParseQuota(text));
    const std::string& name = handling.quotas.back().first;
    if (std::find(inventory.spaces.begin(), inventory.spaces.end(), name) ==
        inventory.spaces.end()) {
      Fail(Invalid("--quota: no pod is in namespace \"" + name + "\""));
    }
  }
  return handling;
}

void WritePlot(const Options& o, const std::vector<ClusterRun>& runs) {
  std::vector<placement::PlotLine> lines;
  std::set<std::string> seen;
  for (const ClusterRun& r : runs) {  // the first seed of each policy
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
  if (!o.plot.empty() &&
      std::find(o.protocols.begin(), o.protocols.end(), "inflate") == o.protocols.end()) {
    Fail(Invalid("--plot shows the inflate protocol"));
  }
  const Inventory inventory = Load(o);
  const Handling handling = ParseHandling(o, inventory);
  std::vector<ClusterRun> runs;
  {
    Progress progress(o.policies.size() * seeds.size() * o.protocols.size());
    for (const std::string& policy : o.policies) {
      for (const uint64_t seed : seeds) {
        runs.push_back(RunOne(o, inventory, handling, policy, seed, &progress));
      }
    }
  }
  if (!o.plot.empty()) WritePlot(o, runs);
  PrintClusterRuns(
      {o.format, inventory, o.policies, o.replicate, o.load, seeds.size(), !o.quotas.empty()},
      runs);
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
      ->check(NumberFrom(0.01, 10))
      ->capture_default_str();
  verb->add_option("--replicate", o->replicate, "copies of the nodes, and of the demand")
      ->check(NumberFrom(1, 1000, Kind::kWhole))
      ->capture_default_str();
  verb->add_option("--refusal", o->ways,
                   "what is done when a request does not fit, in this order: squeeze elastic pods, "
                   "migrate a few, preempt lower priorities, reclaim from namespaces that hold "
                   "more than their fair share for one that holds less, queue; separated by commas")
      ->delimiter(',')
      ->check(CLI::IsMember({"squeeze", "migrate", "preempt", "reclaim", "queue"}));
  verb->add_option("--max-moves", o->max_moves, "pods that migrate for one request, at most")
      ->check(NumberFrom(1, 64, Kind::kWhole))
      ->capture_default_str();
  verb->add_option("--quota", o->quotas,
                   "NAMESPACE=LIMIT[:GUARANTEE[:WEIGHT]] in GPUs; several with commas. Guarantee "
                   "and weight make the fair shares that reclaim and queue go by")
      ->delimiter(',');
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
