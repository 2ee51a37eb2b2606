// Scarcity: see scarcity.h.
#include "src/placement/policies/scarcity.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <utility>

namespace divvy::placement {
namespace {
constexpr double kMaxPressure = 4;
constexpr double kOne = 1024;
}  // namespace

uint64_t Scarcity::PoolsOf(const Shape& s) const {
  uint64_t mask = 0;
  for (size_t i = 0; i < pools_.size(); ++i) {
    const Pool& p = pools_[i];
    // No branches: asked in every decision, and which pools could is hard to predict.
    const bool could = ((s.models >> p.model & 1) != 0) & (p.cpu_milli >= s.cpu_milli) &
                       (p.memory_mib >= s.memory_mib) & (p.devices >= s.devices) &
                       (p.device_memory_mib >= s.device_memory_mib) & (p.devices > 0);
    mask |= uint64_t{could} << i;
  }
  return mask;
}

void Scarcity::Learn(const std::vector<MixEntry>& entries, const Cluster& cluster,
                     const Plenty& plenty) {
  plenty_ = plenty;
  pools_ = cluster.pools();
  present_ = 0;
  for (size_t i = 0; i < pools_.size(); ++i) present_ |= uint64_t{pools_[i].devices > 0} << i;
  std::map<std::pair<uint64_t, int32_t>, double> demand;
  std::map<std::pair<uint64_t, int32_t>, int32_t> cpu;
  double total = 0;
  for (const MixEntry& e : entries) {
    const double milli = e.count * static_cast<double>(e.shape.TotalMilli());
    if (milli <= 0) continue;
    total += milli;
    const uint64_t pools = PoolsOf(e.shape);
    if (pools == 0) continue;
    const std::pair key(pools, std::max(1, e.shape.devices));
    demand[key] += milli;
    cpu[key] = std::max(cpu[key], e.shape.cpu_milli / key.second);
  }
  groups_.clear();
  multi_groups_.clear();
  for (const auto& [key, milli] : demand) {
    if (key.second > 1) {
      Group g{key.first, key.second, 0, cpu[key]};
      for (const auto& [other, more] : demand) {
        if (other.second > 1 && (other.first & ~key.first) == 0) g.share += more / total;
      }
      multi_groups_.push_back(g);
    } else if (key.first != present_) {
      groups_.push_back({key.first, 1, milli / total, 0});
    }
  }
  cpu_per_whole_.assign(pools_.size(), 0);
  std::vector<int> choice(pools_.size(), kMaxPools + 1);
  for (const Group& g : multi_groups_) {
    for (uint64_t rest = g.pools; rest != 0; rest &= rest - 1) {
      const auto pool = static_cast<size_t>(std::countr_zero(rest));
      if (std::popcount(g.pools) >= choice[pool]) continue;
      choice[pool] = std::popcount(g.pools);
      cpu_per_whole_[pool] = g.cpu_milli;
    }
  }
  prices_.clear();
}

void Scarcity::Update(const Cluster& cluster) {
  prices_.clear();
  double left = 0;
  for (uint64_t rest = present_; rest != 0; rest &= rest - 1) {
    left += static_cast<double>(cluster.LeftMilli(static_cast<size_t>(std::countr_zero(rest))));
  }
  const auto each = [](uint64_t pools, auto&& f) {
    for (; pools != 0; pools &= pools - 1) f(static_cast<size_t>(std::countr_zero(pools)));
  };
  for (Group& g : groups_) {
    double room = 1;
    each(g.pools, [&](size_t pool) { room += static_cast<double>(cluster.LeftMilli(pool)); });
    g.pressure = std::min(g.share * left / room, kMaxPressure);
  }
  whole_pressure_.fill(0);
  for (const Group& g : multi_groups_) {
    double room = 1;
    each(g.pools, [&](size_t pool) {
      for (int whole = g.devices; whole <= pools_[pool].devices; ++whole) {
        room += static_cast<double>(cluster.NodesWithWhole(pool, whole)) *
                (whole / g.devices * g.devices) * kWholeMilli;
      }
    });
    // What is left of the mix arrives at random: few large requests may well be some more.
    const double mean = g.share * left;
    const double wanted = mean + plenty_.safety * std::sqrt(mean * g.devices * kWholeMilli);
    const double pressure =
        wanted / room / std::max(plenty_.least, std::pow(g.share, plenty_.power));
    each(g.pools,
         [&](size_t pool) { whole_pressure_[pool] = std::max(whole_pressure_[pool], pressure); });
  }
}

const std::array<int32_t, kMaxPools>& Scarcity::Price(const Shape& shape) {
  const uint64_t own = PoolsOf(shape);
  const auto [it, added] = prices_.try_emplace(own);
  if (!added) return it->second;
  std::array<double, kMaxPools> pressure{};
  for (const Group& g : groups_) {
    if ((own & ~g.pools) == 0) continue;  // the shape has no more choice than these
    for (uint64_t rest = g.pools; rest != 0; rest &= rest - 1) {
      pressure[static_cast<size_t>(std::countr_zero(rest))] += g.pressure;
    }
  }
  for (size_t i = 0; i < kMaxPools; ++i) {
    const double p = std::min(pressure[i], kMaxPressure);
    it->second[i] = static_cast<int32_t>(kOne * p * p * p * p);
  }
  return it->second;
}

}  // namespace divvy::placement
