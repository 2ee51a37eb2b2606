// The report: see simulate_cluster_report.h.
#include "src/cli/simulate_cluster_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "src/cli/table.h"

namespace divvy::cli {
namespace {

using placement::ChurnResult;
using placement::InflateResult;
using placement::Inventory;

unsigned long long Count(uint64_t n) { return n; }

// The figures of one run, or the means of several; null where the protocol was not run.
nlohmann::ordered_json Figures(const std::vector<const ClusterRun*>& runs) {
  const auto mean = [&](auto get) -> nlohmann::ordered_json {
    double sum = 0;
    for (const ClusterRun* r : runs) {
      const std::optional<double> v = get(*r);
      if (!v) return nullptr;
      sum += *v;
    }
    return std::round(1e4 * sum / static_cast<double>(runs.size())) / 1e4;
  };
  const auto inflate = [&](double InflateResult::*field) {
    return mean([field](const ClusterRun& r) {
      return r.inflate ? std::optional((*r.inflate).*field) : std::nullopt;
    });
  };
  const auto churn = [&](double ChurnResult::*field) {
    return mean([field](const ClusterRun& r) {
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

// What was done about refusals; names of amounts in GPUs end in _gpus.
nlohmann::ordered_json Handled(const ClusterReport& o, const ClusterRun& run) {
  const placement::HandlingResult& h = *run.handling;
  const placement::DeskTotals& t = h.totals;
  const auto gpus = [](int64_t milli) {
    return static_cast<double>(milli) / placement::kWholeMilli;
  };
  nlohmann::ordered_json out = {{"protocol", run.handling_protocol},
                                {"squeezed", t.squeezed},
                                {"squeezed_gpus", gpus(t.squeezed_milli)},
                                {"migrated", t.migrated},
                                {"moves", t.moves},
                                {"moved_gpus", gpus(t.moved_milli)},
                                {"preempting", t.preempting},
                                {"reclaiming", t.reclaiming},
                                {"preempted", t.victims},
                                {"preempted_gpus", gpus(t.preempted_milli)},
                                {"reclaimed_gpus", gpus(t.reclaimed_milli)},
                                {"waited", t.waited},
                                {"placed_later", t.placed_later},
                                {"still_waiting", h.still_waiting},
                                {"mean_wait_lifetimes", h.mean_wait},
                                {"gangs_placed", t.gangs_placed},
                                {"gangs_refused", t.gangs_refused},
                                {"over_quota", t.over_quota}};
  if (o.quotas) {
    nlohmann::ordered_json spaces = nlohmann::ordered_json::array();
    for (size_t i = 0; i < o.inventory.spaces.size(); ++i) {
      spaces.push_back({{"namespace", o.inventory.spaces[i]},
                        {"used_gpus", gpus(h.used_milli[i])},
                        {"fair_share_gpus", gpus(h.fair_milli[i])}});
    }
    out["namespaces"] = spaces;
  }
  return out;
}

}  // namespace

void PrintClusterRuns(const ClusterReport& o, const std::vector<ClusterRun>& runs) {
  const Inventory& inventory = o.inventory;
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  nlohmann::ordered_json means = nlohmann::ordered_json::array();
  for (const ClusterRun& r : runs) {
    nlohmann::ordered_json one = {{"policy", r.policy},
                                  {"seed", r.seed},
                                  {"order", r.published_order ? "published" : "drawn"}};
    one.update(Figures({&r}));
    if (r.handling) one["refusals"] = Handled(o, r);
    all.push_back(one);
  }
  for (const std::string& policy : o.policies) {
    std::vector<const ClusterRun*> of;
    for (const ClusterRun& r : runs) {
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
  const auto published = std::count_if(runs.begin(), runs.end(),
                                       [](const ClusterRun& r) { return r.published_order; });
  std::printf(
      "%zu nodes, %lld GPUs, %zu pods in the list, arriving in %s (simulated; all "
      "figures in percent)\n",
      inventory.nodes.size() * o.replicate,
      static_cast<long long>(inventory.TotalMilli() * o.replicate / placement::kWholeMilli),
      inventory.pods.size(),
      published == 0                                     ? "an order drawn from the seed"
      : published == static_cast<ptrdiff_t>(runs.size()) ? "the published order"
                                                         : "published or drawn orders");
  Table table({"POLICY", "SEED", "ALLOCATED", "FRAGMENTS", "REJECTED<95", "MULTI-GPU ACCEPTED",
               "CHURN ACCEPTED"});
  const auto add = [&table](const nlohmann::ordered_json& r, const std::string& seed) {
    table.Add({r["policy"].get<std::string>(), seed, Cell(r["allocated_percent"]),
               Cell(r["fragmentation_percent_of_total"]), Cell(r["rejected_before_95_percent"]),
               Cell(r["multi_gpu_accepted_percent"]), Cell(r["churn_accepted_percent"])});
  };
  for (const auto& r : all) add(r, std::to_string(r["seed"].get<uint64_t>()));
  if (o.seeds > 1) {
    for (const auto& r : means) add(r, "mean");
  }
  std::fputs(table.ToString().c_str(), stdout);
  for (const ClusterRun& r : runs) {
    if (!r.handling) continue;
    const placement::DeskTotals& t = r.handling->totals;
    std::printf(
        "%s %llu %s: %llu placed by squeezing, %llu by %llu moves, %llu by preempting and %llu by "
        "reclaiming, which ended %llu; %llu waited, %llu of them placed later; gangs %llu placed, "
        "%llu refused; %llu over "
        "quota\n",
        r.policy.c_str(), Count(r.seed), r.handling_protocol.c_str(), Count(t.squeezed),
        Count(t.migrated), Count(t.moves), Count(t.preempting), Count(t.reclaiming),
        Count(t.victims), Count(t.waited), Count(t.placed_later), Count(t.gangs_placed),
        Count(t.gangs_refused), Count(t.over_quota));
  }
}

}  // namespace divvy::cli
