// The protocols: see protocol.h.
#include "src/placement/sim/protocol.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <queue>
#include <unordered_map>

#include "src/placement/fragmentation.h"

namespace divvy::placement {
namespace {

constexpr double kEarlyPercent = 95;
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

// Per text: how many others stand before it.
std::vector<uint32_t> RanksByText(const std::vector<std::string>& texts) {
  std::vector<uint32_t> order(texts.size()), rank(texts.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return texts[a] < texts[b]; });
  for (uint32_t i = 0; i < order.size(); ++i) rank[order[i]] = i;
  return rank;
}

}  // namespace

Bench::Bench(const Inventory& inventory, const std::vector<uint32_t>& node_rank, uint32_t replicate,
             std::unique_ptr<Policy> policy)
    : engine_(std::make_unique<Engine>(std::move(policy))) {
  const std::vector<uint32_t> by_name = NodesByName(inventory);
  std::vector<uint32_t> by_rank(by_name.size());
  for (size_t i = 0; i < by_name.size(); ++i) by_rank[node_rank[i]] = by_name[i];
  const auto nodes = static_cast<uint32_t>(inventory.nodes.size());
  for (uint32_t copy = 0; copy < replicate; ++copy) {
    for (const uint32_t at : by_rank) {
      const NodeId id = engine_->cluster().AddNode(inventory.nodes[at]);
      if (inventory.closed[at]) engine_->cluster().SetClosed(id, true);
      origin_.push_back(at + copy * nodes);
    }
  }
  const std::vector<uint32_t> rank = RanksByText(inventory.spellings);
  for (const Pod& p : inventory.pods) {
    mix_.Add(p.request.shape, 1, p.spelling < rank.size() ? rank[p.spelling] : 0);
  }
  engine_->Learn(mix_);
  shape_of_.reserve(inventory.pods.size());
  for (const Pod& p : inventory.pods) shape_of_.push_back(engine_->Intern(p.request.shape));

  // Pods that already run take their places in every copy; one that no longer fits is left out.
  std::unordered_map<std::string_view, uint32_t> node_at;
  for (uint32_t i = 0; i < nodes; ++i) node_at[inventory.nodes[i].name] = i;
  std::vector<std::vector<NodeId>> copies(nodes);
  for (NodeId id = 0; id < origin_.size(); ++id) copies[origin_[id] % nodes].push_back(id);
  for (uint32_t pod = 0; pod < inventory.pods.size(); ++pod) {
    const auto it = node_at.find(inventory.pods[pod].node);
    if (inventory.pods[pod].node.empty() || it == node_at.end()) continue;
    const Shape& shape = inventory.pods[pod].request.shape;
    for (const NodeId id : copies[it->second]) {
      const bool closed = inventory.closed[it->second];
      if (closed) engine_->cluster().SetClosed(id, false);
      const NodeView view = engine_->cluster().View(id);
      if (Fits(view, shape)) {
        engine_->PlaceAt(shape_of_[pod], inventory.pods[pod].request, id,
                         UsualDevices(view, shape));
      }
      if (closed) engine_->cluster().SetClosed(id, true);
    }
  }
}

InflateResult RunInflate(const Inventory& inventory, const Order& order, uint32_t replicate,
                         std::unique_ptr<Policy> policy, const Watch& watch) {
  Bench bench(inventory, order.node_rank, replicate, std::move(policy));
  Engine& engine = bench.engine();
  const std::vector<uint32_t> by_name = PodsByName(inventory);
  ClusterFragmentation fragmentation(engine.cluster(), bench.mix());
  const auto capacity = static_cast<double>(engine.cluster().total_milli());

  InflateResult result;
  struct Sum {
    uint64_t n = 0;
    double allocated = 0, fragmentation = 0, of_idle = 0;
  };
  std::vector<Sum> sums;
  double arrived = 0, early_arrived = 0, early_refused = 0, multi = 0, multi_refused = 0;
  // With K copies of the cluster each arrival comes K times, so that demand grows alike.
  const uint64_t total = uint64_t{replicate} * order.arrivals.size();
  for (uint64_t i = 0; i < total; ++i) {
    const uint32_t pod = by_name[order.arrivals[i / replicate]];
    const Request& request = inventory.pods[pod].request;
    const auto milli = static_cast<double>(request.shape.TotalMilli());
    const TenantId id = engine.Place(bench.ShapeOf(pod), request);
    ++result.arrivals;
    arrived += milli;
    const bool early = Percent(arrived, capacity) < kEarlyPercent;
    if (early) early_arrived += milli;
    if (early && request.shape.devices > 1) multi += milli;
    if (id == kNoTenant) {
      ++result.refused;
      if (early) early_refused += milli;
      if (early && request.shape.devices > 1) multi_refused += milli;
    } else {
      fragmentation.Update(engine.tenant(id).node);
    }
    if (watch.event) {
      const bool placed = id != kNoTenant;
      watch.event({placed ? Event::What::kPlace : Event::What::kRefuse, i, pod,
                   placed ? bench.Origin(engine.tenant(id).node) : 0,
                   placed ? engine.tenant(id).devices : 0});
    }
    const auto percent = static_cast<size_t>(std::nearbyint(Percent(arrived, capacity)));
    if (sums.size() <= percent) sums.resize(percent + 1);
    Sum& sum = sums[percent];
    ++sum.n;
    const auto used = static_cast<double>(engine.cluster().used_milli());
    sum.allocated += Percent(used, capacity);
    sum.fragmentation += Percent(fragmentation.sum(), capacity);
    sum.of_idle += Percent(fragmentation.sum(), capacity - used);
    if (watch.progress && i % kProgressStep == 0) {
      watch.progress(static_cast<double>(i) / static_cast<double>(total));
    }
  }
  for (size_t p = 0; p < sums.size(); ++p) {
    const auto n = static_cast<double>(sums[p].n);
    if (sums[p].n == 0) continue;
    result.curve.push_back({static_cast<int>(p), sums[p].allocated / n, sums[p].fragmentation / n});
    result.allocated_percent = sums[p].allocated / n;
    result.fragmentation_percent_of_total = sums[p].fragmentation / n;
    result.fragmentation_percent_of_idle = sums[p].of_idle / n;
  }
  result.rejected_before_95_percent = Percent(early_refused, early_arrived);
  result.multi_gpu_accepted_percent = Accepted(multi_refused, multi);
  return result;
}

ChurnResult RunChurn(const Inventory& inventory, const Order& order, uint64_t seed, double load,
                     uint32_t replicate, std::unique_ptr<Policy> policy, const Watch& watch) {
  constexpr double kWarmUp = 4, kMeasured = 6;  // in mean lifetimes
  Bench bench(inventory, order.node_rank, replicate, std::move(policy));
  Engine& engine = bench.engine();
  const std::vector<uint32_t> by_name = PodsByName(inventory);
  const auto capacity = static_cast<double>(engine.cluster().total_milli());
  double demand = 0;
  for (const Pod& p : inventory.pods) demand += static_cast<double>(p.request.shape.TotalMilli());
  // Arrivals per mean lifetime: so many that, were all accepted, `load` of the capacity is in use.
  const auto pods = static_cast<double>(inventory.pods.size());
  const double most = static_cast<double>(kMostPerDevice) * capacity / kWholeMilli;
  const double rate = demand > 0 ? std::min(load * capacity * pods / demand, most) : pods;

  struct Departure {
    double at;
    TenantId id;
    uint64_t instance;
    uint32_t pod;
    bool operator>(const Departure& o) const {
      return at != o.at ? at > o.at : instance > o.instance;
    }
  };
  std::priority_queue<Departure, std::vector<Departure>, std::greater<>> departures;
  Rng rng(seed ^ 0xC0FFEEull);
  ChurnResult result;
  double now = 0, offered = 0, refused = 0, multi = 0, multi_refused = 0, area = 0, last = kWarmUp;
  const auto account = [&](double until) {  // allocation over time, after the warm-up
    if (until <= last) return;
    area += static_cast<double>(engine.cluster().used_milli()) * (until - last);
    last = until;
  };
  for (uint64_t i = 0;; ++i) {
    now += rng.Exponential() / rate;
    if (now > kWarmUp + kMeasured) break;
    while (!departures.empty() && departures.top().at <= now) {
      const Departure d = departures.top();
      departures.pop();
      account(d.at);
      if (watch.event) watch.event({Event::What::kLeave, d.instance, d.pod, 0, 0});
      engine.Release(d.id);
    }
    account(now);
    const uint32_t pod = by_name[rng.Below(by_name.size())];
    const double lifetime = rng.Exponential();
    const Request& request = inventory.pods[pod].request;
    const auto milli = static_cast<double>(request.shape.TotalMilli());
    const TenantId id = engine.Place(bench.ShapeOf(pod), request);
    const bool counts = now >= kWarmUp;
    result.arrivals += counts;
    if (counts) offered += milli;
    if (counts && request.shape.devices > 1) multi += milli;
    if (id != kNoTenant) {
      departures.push({now + lifetime, id, i, pod});
    } else if (counts) {
      ++result.refused;
      refused += milli;
      if (request.shape.devices > 1) multi_refused += milli;
    }
    if (watch.event) {
      const bool placed = id != kNoTenant;
      watch.event({placed ? Event::What::kPlace : Event::What::kRefuse, i, pod,
                   placed ? bench.Origin(engine.tenant(id).node) : 0,
                   placed ? engine.tenant(id).devices : 0});
    }
    if (watch.progress && i % kProgressStep == 0) watch.progress(now / (kWarmUp + kMeasured));
  }
  account(kWarmUp + kMeasured);
  result.accepted_percent = Accepted(refused, offered);
  result.multi_gpu_accepted_percent = Accepted(multi_refused, multi);
  result.allocated_percent = Percent(area / kMeasured, capacity);
  return result;
}

}  // namespace divvy::placement
