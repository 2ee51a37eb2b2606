// The default policy: see default.h. Learn builds tables; Evaluate only adds integers from them.
#include "src/placement/policies/default.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <map>

#include "src/placement/pattern.h"
#include "src/placement/policies/expected_use.h"
#include "src/placement/policies/familiar.h"
#include "src/placement/policies/scarcity.h"

namespace divvy::placement {
namespace {

constexpr int64_t kUnit = 1024;  // score units per milli of compute

constexpr int kUseShift = ExpectedUse::kOneBits - 10;
constexpr double kHysteresis = 0.75;  // in doublings; a level change forgets all scores
constexpr int64_t kMaxBias = 1 << 30;

class Default : public Policy {
 public:
  explicit Default(const DefaultTuning& tuning) : tuning_(tuning) {}
  std::string_view name() const override { return "default"; }

  void Learn(const Mix& mix, const Hardware& hardware) override {
    const std::vector<MixEntry> entries = mix.Sorted();
    use_.Learn(entries, hardware,
               {tuning_.base, tuning_.whole, tuning_.near_part, tuning_.near_power});
    scarcity_.Learn(entries, hardware, {tuning_.plenty, tuning_.plenty_power, tuning_.safety});
    double cpu = 0, milli = 0;
    bool memory = false;
    for (const MixEntry& e : entries) {
      cpu += e.count * e.shape.cpu_milli;
      milli += e.count * static_cast<double>(e.shape.TotalMilli());
      memory |= e.shape.device_memory_mib > 0;
    }
    // The more of the cluster's CPU the mix wants once all compute is in use, the dearer it is.
    double stranded = 0, slack = 1;
    if (cpu > 0 && milli > 0 && hardware.total_cpu_milli > 0) {
      const double wanted = cpu / milli * static_cast<double>(hardware.total_milli) /
                            static_cast<double>(hardware.total_cpu_milli);
      stranded =
          std::clamp(std::pow(wanted, tuning_.cpu_power), tuning_.stranded, tuning_.stranded_most);
      slack = std::clamp(1 / wanted, 1.0, tuning_.cpu_slack);
    }
    // Compute that one milli CPU sustains, in score units times 2^8.
    compute_per_cpu_ = cpu > 0 ? std::llround(256.0 * kUnit * milli / (slack * cpu)) : 0;
    stranded_weight_ = std::lround(stranded * 1024);
    pattern_weight_ = std::lround(tuning_.pattern * kUnit);
    scarcity_weight_ = std::lround(tuning_.scarcity * kUnit);
    quantum_ = std::max(1L, std::lround(tuning_.quantum * kWholeMilli * kUnit));

    std::vector<PatternValue::Kind> kinds;
    pattern_of_pool_.clear();
    std::map<int32_t, size_t> by_memory;
    for (size_t i = 0; i < hardware.pools.size(); ++i) {
      const int32_t size = memory ? hardware.pools[i].device_memory_mib : 0;
      const auto [it, added] = by_memory.try_emplace(size, kinds.size());
      if (added) kinds.push_back({size, 0});
      kinds[it->second].count += static_cast<double>(hardware.devices[i]);
      pattern_of_pool_.push_back(it->second);
    }
    patterns_ = PatternValue::Learn(entries, kinds);
    doublings_.fill(0);
  }

  // Host memory and the allowed models decide what fits, not how well.
  Shape ScoredAs(const Shape& shape) const override {
    Shape key = shape;
    if (patterns_.empty()) return key;
    key.memory_mib = 0;
    key.models = kAnyModel;
    return key;
  }
  int32_t ScoreUnit() const override {
    return patterns_.empty() ? 1 : static_cast<int32_t>(std::min<int64_t>(quantum_, 1 << 30));
  }
  // Which of a node's devices a request for several takes depends on their order.
  bool ByState(const Shape& shape) const override {
    return !patterns_.empty() && shape.devices <= 1;
  }

  std::vector<int32_t> CpuPerWhole() const override { return scarcity_.CpuPerWhole(); }

  // A larger weight of whole nodes only lowers scores: no request leaves more of them than before.
  Adaption Adapt(const Cluster& cluster) override {
    scarcity_.Update(cluster);
    Adaption adaption;
    for (size_t pool = 0; pool < cluster.pools().size(); ++pool) {
      const double wanted = scarcity_.WholePressure()[pool];
      const double exact = std::clamp(tuning_.steepness * std::log2(std::max(wanted, 1e-6)), 0.0,
                                      static_cast<double>(tuning_.max_doublings));
      if (std::abs(exact - doublings_[pool]) <= kHysteresis) continue;
      const int before = doublings_[pool];
      doublings_[pool] = static_cast<int>(std::lround(exact));
      adaption.changed |= uint64_t{1} << pool;
      adaption.higher |= uint64_t{doublings_[pool] < before} << pool;
    }
    return adaption;
  }

  uint32_t BiasKind(const Shape& shape) override {
    return shape.devices == 0 || scarcity_.empty() ? kNoBias : scarcity_.ChoiceOf(shape);
  }
  void PoolBias(uint32_t kind, const Shape& shape, size_t pools,
                std::array<int32_t, kMaxPools>* bias) override {
    const std::array<int32_t, kMaxPools>& price = scarcity_.Price(kind);
    const int64_t taken = shape.TotalMilli() * scarcity_weight_;
    for (size_t pool = 0; pool < pools; ++pool) {
      (*bias)[pool] = static_cast<int32_t>(-std::min(taken * price[pool] >> 10, kMaxBias));
    }
  }

  Choice Evaluate(const NodeView& view, const Shape& shape) const override {
    if (patterns_.empty()) return {Fullness(view, shape), UsualDevices(view, shape)};  // as binpack
    const Node& n = view.node;
    const ExpectedUse::Row before = use_.At(n, n.cpu_left);
    const ExpectedUse::Row after = use_.At(n, n.cpu_left - shape.cpu_milli);
    const PatternValue* pattern =
        n.pool < pattern_of_pool_.size() ? &patterns_[pattern_of_pool_[n.pool]] : nullptr;
    const int doublings = doublings_[n.pool];

    int64_t idle = 0;
    Use used_before, used;
    used_before.whole = used.whole = n.whole;
    for (const Device& d : view.devices) {
      const int32_t left = std::max<int32_t>(d.compute_left, 0);  // 0 adds nothing
      idle += left;
      used_before.single += before.Of(left, d.memory_left);
      used.single += after.Of(left, d.memory_left);
    }
    const int64_t taken = shape.TotalMilli();
    int64_t growth = -taken * kUnit;  // idle compute shrinks; what can be used of it as well
    growth += used_before.Sum(before, doublings);
    growth += Stranded(idle - taken, n.cpu_left - shape.cpu_milli) - Stranded(idle, n.cpu_left);
    if (shape.devices != 1) {
      const DeviceMask devices = UsualDevices(view, shape);
      for (DeviceMask rest = devices; rest != 0; rest &= rest - 1) {
        growth += Taken(view.devices[std::countr_zero(rest)], shape, after, pattern, &used);
      }
      return {Score(growth - used.Sum(after, doublings)), devices};
    }
    // One device: the one where the node's potential grows least; the first of equals.
    int64_t best = 0;
    int chosen = -1;
    for (size_t i = 0; i < view.devices.size(); ++i) {
      const Device& d = view.devices[i];
      if (d.compute_left < shape.compute_milli || d.memory_left < shape.device_memory_mib) continue;
      if (i > 0 && d.compute_left == view.devices[i - 1].compute_left &&
          d.memory_left == view.devices[i - 1].memory_left) {
        continue;
      }
      Use with = used;
      int64_t g = Taken(d, shape, after, pattern, &with);
      g -= with.Sum(after, doublings);
      if (chosen < 0 || g < best) {
        best = g;
        chosen = static_cast<int>(i);
      }
    }
    return {Score(growth + best), DeviceMask{1} << chosen};
  }

 private:
  // What of a node's idle compute the expected requests could use.
  struct Use {
    int64_t single = 0;
    int32_t whole = 0;  // untouched devices
    int64_t Sum(const ExpectedUse::Row& row, int doublings) const {
      return (single + (row.OfWhole(whole) << doublings)) >> kUseShift;
    }
  };

  int32_t Score(int64_t growth) const {
    growth = (growth + (growth < 0 ? -quantum_ : quantum_) / 2) / quantum_ * quantum_;
    return static_cast<int32_t>(std::clamp<int64_t>(-growth, kNoFit + 1, -(int64_t{kNoFit} + 1)));
  }

  int64_t Stranded(int64_t idle, int32_t cpu_left) const {
    const int64_t without = idle * kUnit - (cpu_left * compute_per_cpu_ >> 8);
    return without > 0 ? without * stranded_weight_ >> 10 : 0;
  }

  // Growth of the device's own part of the potential if it takes the shape; updates the use.
  int64_t Taken(const Device& d, const Shape& shape, const ExpectedUse::Row& after,
                const PatternValue* pattern, Use* use) const {
    const int32_t compute = d.compute_left - shape.compute_milli;
    const int32_t memory = d.memory_left - shape.device_memory_mib;
    use->whole -= d.compute_left == kWholeMilli && compute < kWholeMilli;
    use->single -= after.Of(d.compute_left, d.memory_left);
    if (compute > 0) use->single += after.Of(compute, memory);
    if (pattern == nullptr) return 0;
    const int64_t waste_before = d.compute_left - pattern->Of(d.compute_left, d.memory_left);
    const int64_t waste_after = compute - pattern->Of(compute, memory);
    return (waste_after - waste_before) * pattern_weight_;
  }

  DefaultTuning tuning_;
  ExpectedUse use_;
  Scarcity scarcity_;
  std::vector<PatternValue> patterns_;  // one per size of device memory
  std::vector<size_t> pattern_of_pool_;
  std::array<int, kMaxPools> doublings_{};  // of the weight of whole nodes
  int64_t compute_per_cpu_ = 0;
  int64_t stranded_weight_ = 0;
  int64_t pattern_weight_ = 0;
  int64_t scarcity_weight_ = 0;
  int64_t quantum_ = 1;
};

}  // namespace

std::unique_ptr<Policy> MakeDefault(const DefaultTuning& tuning) {
  return std::make_unique<Default>(tuning);
}

}  // namespace divvy::placement
