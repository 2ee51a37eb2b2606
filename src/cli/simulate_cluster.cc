// divvy simulate cluster: reads node and pod lists, runs the placement engine over them with one or
// more policies, prints figures. All logic is in src/placement; this is files, options and tables.
#include "src/cli/simulate_cluster.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/visible.h"
#include "src/cli/app.h"
#include "src/cli/simulate_cluster_log.h"
#include "src/cli/simulate_cluster_report.h"
#include "src/placement/input/kube_json.h"
#include "src/placement/input/openb_csv.h"
#include "src/placement/policies/policies.h"
#include "src/placement/sim/bench.h"
#include "src/placement/sim/order.h"
#include "src/placement/sim/protocol.h"
#include "src/placement/sim/svg.h"

namespace divvy::cli {
namespace {

namespace fs = std::filesystem;
using placement::Handling;
using placement::Inventory;
using placement::Order;
using placement::SomePods;

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

// To stderr, one line, whatever names it holds.
void Note(const std::string& text) { std::fprintf(stderr, "divvy: %s\n", Visible(text).c_str()); }

Result<std::string> ReadFile(const std::string& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return Invalid(path + ": is a folder, not a file");
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    const std::string why = errno != 0 ? std::strerror(errno) : "not readable";
    return NotFound(path + ": cannot be read: " + why +
                    (errno == ENOENT ? " (a file of the trace? set DIVVY_TRACE_DIR)" : ""));
  }
  std::string text;
  for (std::vector<char> part(1 << 16); in;) {
    in.read(part.data(), static_cast<std::streamsize>(part.size()));
    text.append(part.data(), static_cast<size_t>(in.gcount()));
  }
  if (in.bad()) return Error{ErrorCode::kIo, path + ": reading it failed"};
  return text;
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

// "42", "42,45", "42-51"; each seed once.
Result<std::vector<uint64_t>> ParseSeeds(const std::string& text) {
  constexpr uint64_t kMost = 1000;
  const Error bad = Invalid("--seed: \"" + VisibleName(text) +
                            "\" is not a number up to 2^64-1, list or range (42-51)");
  std::vector<uint64_t> seeds;
  std::set<uint64_t> seen;
  const char* p = text.data();
  const char* const end = p + text.size();
  const auto number = [&](uint64_t* to) {
    const auto [next, ec] = std::from_chars(p, end, *to);
    p = next;
    return ec == std::errc();
  };
  for (;;) {
    uint64_t first = 0;
    if (!number(&first)) return bad;
    uint64_t last = first;
    if (p != end && *p == '-') {
      ++p;
      if (!number(&last) || last < first) return bad;
    }
    if (last - first >= kMost - seeds.size()) {
      return Invalid("--seed: more than " + std::to_string(kMost) + " seeds");
    }
    for (uint64_t i = 0; i <= last - first; ++i) {
      seeds.push_back(first + i);
      if (!seen.insert(seeds.back()).second) {
        return Invalid("--seed: " + std::to_string(seeds.back()) + " is named twice");
      }
    }
    if (p == end) return seeds;
    if (*p++ != ',') return bad;
  }
}

// What a list of options may name only once.
void RefuseTwice(const char* option, const std::vector<std::string>& names) {
  std::set<std::string_view> seen;
  for (const std::string& name : names) {
    if (!seen.insert(name).second) {
      Fail(Invalid(std::string(option) + ": " + VisibleName(name) + " is named twice"));
    }
  }
}

// "3 pods WHAT: default/a, default/b, ... " with the line of the first.
std::string About(const Options& o, const Inventory& inventory, const SomePods& pods,
                  const std::string& what) {
  const std::vector<std::string> names = NamesOf(inventory, pods);
  std::string text = Locate(o.pods) + ":" + std::to_string(inventory.pods[pods.first[0]].line) +
                     ": " + std::to_string(pods.count) + (pods.count == 1 ? " pod " : " pods ") +
                     what + ": ";
  for (size_t i = 0; i < names.size(); ++i) text += (i > 0 ? ", " : "") + names[i];
  return text + (pods.count > names.size() ? ", ..." : "");
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
  for (const std::string& warning : inventory.warnings) Note("warning: " + warning);
  return inventory;
}

// Which pods have no place whatever is decided; says so.
WithoutPlace FindWithoutPlace(const Options& o, const Inventory& inventory) {
  const WithoutPlace found{placement::FindUnplaceable(inventory),
                           placement::PodsWithoutRoom(inventory)};
  const auto say = [&](const SomePods& pods, const std::string& what) {
    if (pods.count > 0) Note("warning: " + About(o, inventory, pods, what));
  };
  say(found.ever.on_any_node, "that fit on no node, not even an empty one, and are always refused");
  say(found.ever.in_cluster,
      "that ask, alone or as a gang, for more compute than all nodes have, and do not arrive");
  say(found.ever.on_unknown_node, "that run on nodes that the node list lacks, and are left out");
  say(found.in_room, "that run on nodes without room for them, and are left out");
  return found;
}

// The order file of a pod list: openb_pod_list_X.csv -> openb_X_SEED.txt in --orders, or in the
// folder "fixtures" beside the list. No value: there is none for these lists. A damaged one is an
// error.
std::optional<Order> ReadOrder(const Options& o, const Inventory& inventory, uint64_t seed,
                               bool say) {
  const fs::path pods = Locate(o.pods);
  std::string name = pods.stem().string();
  if (const size_t at = name.find("pod_list_"); at != std::string::npos) name.erase(at, 9);
  name += "_" + std::to_string(seed) + ".txt";
  std::vector<fs::path> places;
  if (!o.orders.empty()) places.emplace_back(o.orders);
  places.push_back(pods.parent_path() / "fixtures");
  bool found = false;
  for (const fs::path& folder : places) {
    std::error_code error;
    const std::string path = (folder / name).string();
    if (!fs::exists(path, error)) {
      if (error) Fail(NotFound(path + ": cannot be read: " + error.message()));
      continue;
    }
    found = true;
    Result<Order> order = placement::ParseOrder(OrFail(ReadFile(path)), path, inventory);
    if (order.ok()) return std::move(*order);
    if (order.error().code != ErrorCode::kNotFound) Fail(order.error());
    if (say) Note("warning: not used: " + order.error().message);
  }
  if (say && found) Note("the order of seed " + std::to_string(seed) + " is drawn");
  if (say && !found && !o.orders.empty()) {
    Note("warning: no " + name + " in " + o.orders + ": the order is drawn");
  }
  return std::nullopt;
}

ClusterRun RunOne(const Options& o, const Inventory& inventory, const Handling& handling,
                  const std::string& policy, uint64_t seed, Progress* progress) {
  ClusterRun run;
  run.policy = policy;
  run.seed = seed;
  std::optional<Order> read = ReadOrder(o, inventory, seed, /*say=*/false);
  const Order order =
      read ? std::move(*read) : placement::DrawOrder(inventory, seed, placement::kInflateRatio);
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
  const Error bad = Invalid("--quota: \"" + VisibleName(text) +
                            "\" is not NAMESPACE=LIMIT[:GUARANTEE[:WEIGHT]] in GPUs");
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
  if (part[1] > part[0] || part[2] != std::floor(part[2])) {
    Fail(Invalid("--quota: \"" + VisibleName(text) +
                 "\": the guarantee is at most the limit, the weight a whole number"));
  }
  placement::SpaceQuota quota;
  quota.limit_milli = std::llround(part[0] * placement::kWholeMilli);
  quota.guaranteed_milli = std::llround(part[1] * placement::kWholeMilli);
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
    if (std::count_if(handling.quotas.begin(), handling.quotas.end(),
                      [&](const auto& q) { return q.first == name; }) > 1) {
      Fail(Invalid("--quota: " + VisibleName(name) + " is named twice"));
    }
    if (std::find(inventory.spaces.begin(), inventory.spaces.end(), name) ==
        inventory.spaces.end()) {
      Fail(Invalid("--quota: no pod is in namespace \"" + VisibleName(name) + "\""));
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

// That `path` can be written (as far as can be told before the run), and is none of the lists.
void CheckOutput(const Options& o, const std::string& path) {
  if (path.empty()) return;
  std::error_code error;
  for (const std::string& list : {Locate(o.nodes), Locate(o.pods)}) {
    if (fs::equivalent(path, list, error)) Fail(Invalid(path + ": is a list that is read"));
  }
  errno = 0;
  if (!std::ofstream(path, std::ios::binary | std::ios::app)) {
    Fail(Error{ErrorCode::kIo, path + ": cannot be written: " + std::strerror(errno)});
  }
}

void Simulate(const Options& o) {
  for (const std::string& policy : o.policies) {
    if (placement::MakePolicy(policy, 0) == nullptr) {
      std::string names;
      for (const auto& p : placement::Policies()) names += " " + std::string(p.name);
      Fail(Invalid("no policy \"" + VisibleName(policy) + "\"; there are" + names));
    }
  }
  RefuseTwice("--policy", o.policies);
  RefuseTwice("--protocol", o.protocols);
  RefuseTwice("--refusal", o.ways);
  const std::vector<uint64_t> seeds = OrFail(ParseSeeds(o.seeds));
  if (!o.decisions.empty() && o.policies.size() * seeds.size() * o.protocols.size() > 1) {
    Fail(Invalid("--decisions takes one policy, one seed and one protocol"));
  }
  if (!o.plot.empty() &&
      std::find(o.protocols.begin(), o.protocols.end(), "inflate") == o.protocols.end()) {
    Fail(Invalid("--plot shows the inflate protocol"));
  }
  if (std::error_code error; !o.orders.empty() && !fs::is_directory(o.orders, error)) {
    Fail(NotFound("--orders: " + o.orders + ": no such folder"));
  }
  const Inventory inventory = Load(o);
  const Handling handling = ParseHandling(o, inventory);
  for (const std::string* out : {&o.plot, &o.decisions}) CheckOutput(o, *out);
  const WithoutPlace without = FindWithoutPlace(o, inventory);
  for (const uint64_t seed : seeds) ReadOrder(o, inventory, seed, /*say=*/true);
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
  for (const ClusterRun& r : runs) {
    constexpr int kWanted = 130;
    if (!r.inflate || r.inflate->arrived_percent >= kWanted) continue;
    Note("warning: " + r.policy + " " + std::to_string(r.seed) + ": demand reached only " +
         std::to_string(r.inflate->arrived_percent) + " % of capacity, not " +
         std::to_string(kWanted) + " %: the allocation and fragments are those at that demand");
  }
  PrintClusterRuns({o.format, inventory, o.policies, o.replicate, o.load, seeds.size(),
                    !o.quotas.empty(), without},
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
  const CLI::Validator named(
      [](const std::string& text) { return text.empty() ? "is empty" : std::string(); }, "");
  verb->add_option("--nodes", o->nodes, "node list")->required()->check(named);
  verb->add_option("--pods", o->pods, "pod list")->required()->check(named);
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
  verb->add_option("--orders", o->orders,
                   "folder of arrival orders (tools/openb_order); else \"fixtures\" beside the "
                   "pods, else drawn")
      ->check(named);
  verb->add_option("--plot", o->plot, "write an SVG of allocation and fragments against arrivals")
      ->check(named);
  verb->add_option("--decisions", o->decisions,
                   "write every decision as CSV, for tools/replay_check.py")
      ->check(named);
  AddFormat(*verb, o->format);
  verb->callback([o] { Simulate(*o); });
}

}  // namespace divvy::cli
