// divvy simulate cluster: reads node and pod lists, runs the placement engine over them with one or
// more policies, prints figures. All logic is in src/placement; this is files, options and tables.
#include "src/cli/simulate_cluster.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/visible.h"
#include "src/cli/app.h"
#include "src/cli/simulate_cluster_files.h"
#include "src/cli/simulate_cluster_log.h"
#include "src/cli/simulate_cluster_report.h"
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
  Lists lists;
  std::string plot, decisions;
  std::vector<std::string> policies = {"default", "fgd", "bestfit"};
  std::vector<std::string> protocols = {"inflate"};
  std::string seeds = "42";
  std::vector<std::string> ways, quotas;
  int max_moves = 4;
  double load = 0.95;
  uint32_t replicate = 1;
  Format format = Format::kText;
};

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

ClusterRun RunOne(const Options& o, const Inventory& inventory, const Handling& handling,
                  const std::string& policy, uint64_t seed, Progress* progress) {
  ClusterRun run;
  run.policy = policy;
  run.seed = seed;
  std::optional<Order> read = ReadOrder(o.lists, inventory, seed, /*say=*/false);
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
  const auto plain = [](char c) { return (c >= '0' && c <= '9') || c == '.' || c == ':'; };
  const Error bad = Invalid("--quota: \"" + VisibleName(text) +
                            "\" is not NAMESPACE=LIMIT[:GUARANTEE[:WEIGHT]] in GPUs");
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0 ||
      !std::all_of(text.begin() + static_cast<ptrdiff_t>(equals) + 1, text.end(), plain)) {
    Fail(bad);
  }
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
  const std::string title = fs::path(o.lists.pods).filename().string() + ", seed " +
                            std::to_string(runs.front().seed) + " (simulated)";
  OrFail(WriteFile(o.plot, placement::PlotSvg(title, lines)));
}

// The published figure is that at 130 %; where demand ended before, it says so.
void SayWhatWasNotReached(const std::vector<ClusterRun>& runs) {
  constexpr int kWanted = 130;
  std::set<uint64_t> seeds;
  int least = kWanted;
  for (const ClusterRun& r : runs) {
    if (!r.inflate || r.inflate->arrived_percent >= kWanted) continue;
    seeds.insert(r.seed);
    least = std::min(least, r.inflate->arrived_percent);
  }
  if (seeds.empty()) return;
  std::string text = "warning: demand ended at " + std::to_string(least) + " % of capacity, not " +
                     std::to_string(kWanted) + " %, with seed " + std::to_string(*seeds.begin());
  if (seeds.size() > 1) text += " (short of it with " + std::to_string(seeds.size()) + " seeds)";
  Note(text + ": allocation and fragments are those at the demand reached");
}

// Tiny requests: the arrivals that would make up the load are too many.
void SayWhatWasNotOffered(const std::vector<ClusterRun>& runs, double load) {
  for (const ClusterRun& r : runs) {
    if (!r.churn || r.churn->load >= 0.999 * load) continue;
    char text[200];
    std::snprintf(text, sizeof text,
                  "warning: churn offered a GPU load of %.3g, not %.3g: the requests are so small "
                  "that the arrivals end at %lld per GPU and mean lifetime",
                  r.churn->load, load, static_cast<long long>(placement::kMostPerDevice));
    Note(r.churn->load > 0 ? text : "warning: churn offered no GPU load: no arrival asks for any");
    return;  // the same with each policy and seed
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
  if (std::error_code error; !o.lists.orders.empty() && !fs::is_directory(o.lists.orders, error)) {
    Fail(NotFound("--orders: " + o.lists.orders + ": no such folder"));
  }
  const Inventory inventory = Load(o.lists);
  const Handling handling = ParseHandling(o, inventory);
  CheckOutputs(o.lists, seeds, o.plot, o.decisions);
  const WithoutPlace without = FindWithoutPlace(o.lists, inventory);
  for (const uint64_t seed : seeds) ReadOrder(o.lists, inventory, seed, /*say=*/true);
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
  SayWhatWasNotReached(runs);
  SayWhatWasNotOffered(runs, o.load);
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
  verb->add_option("--nodes", o->lists.nodes, "node list")->required()->check(named);
  verb->add_option("--pods", o->lists.pods, "pod list")->required()->check(named);
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
  verb->add_option("--orders", o->lists.orders,
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
