// The report: see simulate_cluster_report.h.
#include "src/cli/simulate_cluster_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "src/base/visible.h"
#include "src/cli/table.h"

namespace divvy::cli {
namespace {

using placement::ChurnResult;
using placement::InflateResult;
using placement::Inventory;

unsigned long long Count(uint64_t n) { return n; }

// The figures of one run, or the means of several; null where the protocol was not run, or nothing
// arrived that the figure could be of.
nlohmann::ordered_json Figures(const std::vector<const ClusterRun*>& runs) {
  const auto mean = [&](auto get) -> nlohmann::ordered_json {
    double sum = 0;
    int n = 0;
    for (const ClusterRun* r : runs) {
      const std::optional<double> v = get(*r);
      if (!v) continue;
      sum += *v;
      ++n;
    }
    if (n == 0) return nullptr;
    return std::round(1e4 * sum / n) / 1e4 + 0.0;  // no minus before a zero
  };
  const auto inflate = [&](auto InflateResult::*field, bool InflateResult::*any = nullptr) {
    return mean([=](const ClusterRun& r) -> std::optional<double> {
      if (!r.inflate || (any != nullptr && !((*r.inflate).*any))) return std::nullopt;
      return (*r.inflate).*field;
    });
  };
  const auto churn = [&](double ChurnResult::*field, bool ChurnResult::*any) {
    return mean([=](const ClusterRun& r) -> std::optional<double> {
      if (!r.churn || (any != nullptr && !((*r.churn).*any))) return std::nullopt;
      return (*r.churn).*field;
    });
  };
  nlohmann::ordered_json out;
  out["arrived_percent"] = inflate(&InflateResult::arrived_percent);
  out["allocated_percent"] = inflate(&InflateResult::allocated_percent);
  out["fragmentation_percent_of_total"] = inflate(&InflateResult::fragmentation_percent_of_total);
  out["rejected_before_95_percent"] =
      inflate(&InflateResult::rejected_before_95_percent, &InflateResult::any_early);
  out["multi_gpu_accepted_percent"] =
      inflate(&InflateResult::multi_gpu_accepted_percent, &InflateResult::any_multi_gpu);
  out["churn_offered_load"] = churn(&ChurnResult::load, nullptr);
  out["churn_accepted_percent"] = churn(&ChurnResult::accepted_percent, &ChurnResult::any);
  out["churn_multi_gpu_accepted_percent"] =
      churn(&ChurnResult::multi_gpu_accepted_percent, &ChurnResult::any_multi_gpu);
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

nlohmann::ordered_json Some(const Inventory& inventory, const placement::SomePods& pods) {
  return {{"pods", pods.count}, {"first", NamesOf(inventory, pods)}};
}

}  // namespace

std::vector<std::string> NamesOf(const Inventory& inventory, const placement::SomePods& pods) {
  std::vector<std::string> names;
  for (const uint32_t i : pods.first) names.push_back(VisibleName(inventory.pods[i].name));
  return names;
}

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
        {"gpus_on_closed_nodes", inventory.ClosedMilli() * o.replicate / placement::kWholeMilli},
        {"pods", inventory.pods.size()},
        {"without_demand", Some(inventory, o.without.no_demand)},
        {"load", o.load},
        {"without_place",
         {{"fit_on_no_node", Some(inventory, o.without.ever.on_any_node)},
          {"larger_than_the_cluster", Some(inventory, o.without.ever.in_cluster)},
          {"run_on_unknown_nodes", Some(inventory, o.without.ever.on_unknown_node)},
          {"run_where_there_is_no_room", Some(inventory, o.without.in_room)}}},
        {"runs", all},
        {"means", means}};
    // As PrintJson does it; the keys stay in the order above.
    std::printf("%s\n",
                out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
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
  Table table({"POLICY", "SEED", "ARRIVED", "ALLOCATED", "FRAGMENTS", "REJECTED<95",
               "MULTI-GPU ACCEPTED", "CHURN ACCEPTED"});
  const auto add = [&table](const nlohmann::ordered_json& r, const std::string& seed) {
    table.Add({r["policy"].get<std::string>(), seed, Cell(r["arrived_percent"]),
               Cell(r["allocated_percent"]), Cell(r["fragmentation_percent_of_total"]),
               Cell(r["rejected_before_95_percent"]), Cell(r["multi_gpu_accepted_percent"]),
               Cell(r["churn_accepted_percent"])});
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
