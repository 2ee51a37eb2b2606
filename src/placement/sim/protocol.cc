// The protocols: see protocol.h.
#include "src/placement/sim/protocol.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <queue>
#include <span>

#include "src/placement/fragmentation.h"

namespace divvy::placement {
namespace {

constexpr double kEarlyPercent = 95;
constexpr double kMostCpuOnly = 64;  // arrivals for each that brings demand, see kMostPerDevice
constexpr uint64_t kProgressStep = 512;

double Percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }
double Accepted(double refused, double offered) {
  return offered > 0 ? 100 * (offered - refused) / offered : 100;
}

// F of the whole cluster, kept up to date node by node.
class ClusterFragmentation {
 public:
  ClusterFragmentation(const Cluster& cluster, const Mix& mix) : cluster_(cluster) {
    measure_.Learn(mix);
    of_.resize(cluster.size());
    for (NodeId id = 0; id < cluster.size(); ++id) sum_ += of_[id] = measure_.Of(cluster.View(id));
  }
  void Update(NodeId id) {
    const double now = measure_.Of(cluster_.View(id));
    sum_ += now - of_[id];
    of_[id] = now;
  }
  double sum() const { return sum_; }

 private:
  const Cluster& cluster_;
  Fragmentation measure_;
  std::vector<double> of_;
  double sum_ = 0;
};

HandlingResult Report(const Desk& desk, const Inventory& inventory, int64_t capacity) {
  HandlingResult r;
  r.totals = desk.totals();
  r.still_waiting = desk.waiting();
  r.fair_milli = desk.quotas().FairShares(capacity);
  r.fair_milli.resize(inventory.spaces.size());
  for (uint32_t i = 0; i < inventory.spaces.size(); ++i) {
    r.used_milli.push_back(desk.quotas().used(i));
  }
  return r;
}

}  // namespace

InflateResult RunInflate(const Inventory& inventory, const Order& order, uint32_t replicate,
                         std::unique_ptr<Policy> policy, const Watch& watch,
                         const Handling& handling, HandlingResult* handled) {
  Bench bench(inventory, order.node_rank, replicate, std::move(policy));
  Engine& engine = bench.engine();
  Desk desk(inventory, &bench, handling, watch);
  const std::vector<uint32_t> by_name = PodsByName(inventory);
  const Units units(inventory, by_name);
  ClusterFragmentation fragmentation(engine.cluster(), bench.mix());
  const auto capacity = static_cast<double>(engine.cluster().total_milli());

  InflateResult result;
  struct Sum {
    uint64_t n = 0;
    double allocated = 0, fragmentation = 0, of_idle = 0;
  };
  std::vector<Sum> sums;
  double arrived = 0, early_arrived = 0, early_refused = 0, multi = 0, multi_refused = 0;
  const auto sample = [&] {
    const auto percent = static_cast<size_t>(std::nearbyint(Percent(arrived, capacity)));
    if (sums.size() <= percent) sums.resize(percent + 1);
    Sum& sum = sums[percent];
    ++sum.n;
    const auto used = static_cast<double>(engine.cluster().used_milli());
    sum.allocated += Percent(used, capacity);
    sum.fragmentation += Percent(fragmentation.sum(), capacity);
    sum.of_idle += Percent(fragmentation.sum(), capacity - used);
  };
  // A gang comes whole with the first of its members; the others' own turns are then skipped.
  std::vector<uint32_t> skip(inventory.pods.size(), 0);
  std::vector<bool> refused_one;  // by instance; only with a queue
  // With K copies of the cluster each arrival comes K times, so that demand grows alike.
  const uint64_t total = uint64_t{replicate} * order.arrivals.size();
  Arrival arrival;
  for (uint64_t turn = 0; turn < total; ++turn) {
    const uint32_t at = order.arrivals[turn / replicate];
    const std::span<const uint32_t> unit = units.Of(at);
    if (units.LeftOut(at)) continue;
    if (unit.size() > 1 && skip[at] > 0) {
      --skip[at];
      continue;
    }
    arrival.clear();
    for (const uint32_t member : unit) {
      arrival.push_back({result.arrivals++, by_name[member]});
      skip[member] += member != at && unit.size() > 1;
    }
    const std::vector<TenantId> placed = desk.Arrive(arrival);
    for (const Member& m : arrival) {
      const Shape& shape = inventory.pods[m.pod].request.shape;
      const auto milli = static_cast<double>(shape.TotalMilli());
      arrived += milli;
      const bool early = Percent(arrived, capacity) < kEarlyPercent;
      const bool refused = placed.empty();
      result.refused += refused;
      if (handling.queue) refused_one.push_back(refused);
      if (early) early_arrived += milli;
      if (early && shape.devices > 1) multi += milli;
      if (early && refused) early_refused += milli;
      if (early && refused && shape.devices > 1) multi_refused += milli;
    }
    desk.Retry([&](const Arrival& later, const std::vector<TenantId>&) {
      // Those that had been placed, and gave way for a while, were not refused.
      for (const Member& m : later) {
        result.refused -= m.instance < refused_one.size() && refused_one[m.instance];
      }
    });
    for (const NodeId node : desk.TakeChanged()) fragmentation.Update(node);
    sample();
    if (watch.progress && turn % kProgressStep == 0) {
      watch.progress(static_cast<double>(turn) / static_cast<double>(total));
    }
  }
  if (sums.empty()) sample();  // nothing arrived: what was there before
  for (size_t p = 0; p < sums.size(); ++p) {
    const auto n = static_cast<double>(sums[p].n);
    if (sums[p].n == 0) continue;
    result.curve.push_back({static_cast<int>(p), sums[p].allocated / n, sums[p].fragmentation / n});
    // An order may end a little beyond, with a large request or gang.
    if (p > static_cast<size_t>(std::lround(100 * kInflateRatio))) continue;
    result.arrived_percent = static_cast<int>(p);
    result.allocated_percent = sums[p].allocated / n;
    result.fragmentation_percent_of_total = sums[p].fragmentation / n;
    result.fragmentation_percent_of_idle = sums[p].of_idle / n;
  }
  result.any_early = early_arrived > 0;
  result.any_multi_gpu = multi > 0;
  result.rejected_before_95_percent = Percent(early_refused, early_arrived);
  result.multi_gpu_accepted_percent = Accepted(multi_refused, multi);
  if (handled != nullptr) *handled = Report(desk, inventory, engine.cluster().total_milli());
  return result;
}

ChurnResult RunChurn(const Inventory& inventory, const Order& order, uint64_t seed, double load,
                     uint32_t replicate, std::unique_ptr<Policy> policy, const Watch& watch,
                     const Handling& handling, HandlingResult* handled) {
  constexpr double kWarmUp = 4, kMeasured = 6;  // in mean lifetimes
  Bench bench(inventory, order.node_rank, replicate, std::move(policy));
  Engine& engine = bench.engine();
  Desk desk(inventory, &bench, handling, watch);
  const std::vector<uint32_t> by_name = PodsByName(inventory);
  const Units units(inventory, by_name);
  const auto capacity = static_cast<double>(engine.cluster().total_milli());
  double demand = 0, wanting = 0;
  const std::vector<int64_t> arriving = inventory.ArrivingMilli();
  for (const uint32_t leader : units.leaders()) {
    demand += static_cast<double>(arriving[by_name[leader]]);
    wanting += arriving[by_name[leader]] > 0;
  }
  // Arrivals per mean lifetime: so many that, were all accepted, `load` of the capacity is in use.
  // A list of tiny requests is cut off; pods for CPUs only count for that where there are very
  // many.
  const auto all = static_cast<double>(units.leaders().size());
  const double most = static_cast<double>(kMostPerDevice) * capacity / kWholeMilli *
                      std::min(all / std::max(wanting, 1.0), kMostCpuOnly);
  const double rate = demand > 0 ? std::min(load * capacity * all / demand, most) : all;

  struct Departure {
    double at;
    TenantId id;
    uint64_t instance;
    bool operator>(const Departure& o) const {
      return at != o.at ? at > o.at : instance > o.instance;
    }
  };
  std::priority_queue<Departure, std::vector<Departure>, std::greater<>> departures;
  struct Waiting {
    double lifetime, since;
    bool counts;
  };
  std::vector<Waiting> of_instance;  // only with a queue
  Rng rng(seed ^ 0xC0FFEEull);
  ChurnResult result;
  double now = 0, offered = 0, refused = 0, multi = 0, multi_refused = 0, area = 0, last = kWarmUp;
  double waited = 0;
  const auto account = [&](double until) {  // allocation over time, after the warm-up
    if (until <= last) return;
    area += static_cast<double>(engine.cluster().used_milli()) * (until - last);
    last = until;
  };
  const auto refuse = [&](const Member& m, int sign) {
    const Shape& shape = inventory.pods[m.pod].request.shape;
    result.refused += static_cast<uint64_t>(sign);
    refused += sign * static_cast<double>(shape.TotalMilli());
    if (shape.devices > 1) multi_refused += sign * static_cast<double>(shape.TotalMilli());
  };
  const auto later = [&](const Arrival& arrival, const std::vector<TenantId>& tenants) {
    for (size_t i = 0; i < arrival.size(); ++i) {
      // One that ran from the start and had to give way: no arrival of ours, and it never leaves.
      if (arrival[i].instance >= of_instance.size()) continue;
      Waiting& w = of_instance[arrival[i].instance];
      departures.push({now + w.lifetime, tenants[i], arrival[i].instance});
      waited += now - w.since;
      if (w.counts) refuse(arrival[i], -1);
      w.counts = false;
    }
  };
  uint64_t instance = 0;
  Arrival arrival;
  for (uint64_t i = 0;; ++i) {
    const double next = now + rng.Exponential() / rate;
    while (!departures.empty() && departures.top().at <= std::min(next, kWarmUp + kMeasured)) {
      const Departure d = departures.top();
      departures.pop();
      account(d.at);
      now = d.at;
      desk.Leave(d.id, d.instance);
      desk.Retry(later);
    }
    now = next;
    if (now > kWarmUp + kMeasured) break;
    account(now);
    const uint32_t leader = units.leaders()[rng.Below(units.leaders().size())];
    const double lifetime = rng.Exponential();
    arrival.clear();
    for (const uint32_t member : units.Of(leader)) {
      arrival.push_back({instance++, by_name[member]});
      if (handling.queue) of_instance.push_back({lifetime, now, false});
    }
    const std::vector<TenantId> placed = desk.Arrive(arrival);
    const bool counts = now >= kWarmUp;
    for (size_t m = 0; m < arrival.size(); ++m) {
      const Shape& shape = inventory.pods[arrival[m].pod].request.shape;
      const auto milli = static_cast<double>(shape.TotalMilli());
      result.arrivals += counts;
      if (counts) offered += milli;
      if (counts && shape.devices > 1) multi += milli;
      if (!placed.empty()) {
        departures.push({now + lifetime, placed[m], arrival[m].instance});
      } else if (counts) {
        refuse(arrival[m], 1);
        if (handling.queue) of_instance[arrival[m].instance].counts = true;
      }
    }
    desk.Retry(later);
    desk.TakeChanged();
    if (watch.progress && i % kProgressStep == 0) watch.progress(now / (kWarmUp + kMeasured));
  }
  account(kWarmUp + kMeasured);
  result.load = demand > 0 ? rate * demand / (all * capacity) : 0;
  result.any = offered > 0;
  result.any_multi_gpu = multi > 0;
  result.accepted_percent = Accepted(refused, offered);
  result.multi_gpu_accepted_percent = Accepted(multi_refused, multi);
  result.allocated_percent = Percent(area / kMeasured, capacity);
  if (handled != nullptr) {
    *handled = Report(desk, inventory, engine.cluster().total_milli());
    const uint64_t n = handled->totals.placed_later;
    handled->mean_wait = n > 0 ? waited / static_cast<double>(n) : 0;
  }
  return result;
}

}  // namespace divvy::placement
