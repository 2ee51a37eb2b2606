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
    const bool could = (s.models >> p.model & 1) != 0 && p.cpu_milli >= s.cpu_milli &&
                       p.memory_mib >= s.memory_mib && p.devices >= s.devices &&
                       p.device_memory_mib >= s.device_memory_mib && p.devices > 0;
    mask |= uint64_t{could} << i;
  }
  return mask;
}

void Scarcity::Learn(const std::vector<MixEntry>& entries, const Hardware& hardware,
                     const Plenty& plenty) {
  plenty_ = plenty;
  pools_ = hardware.pools;
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
  choices_.clear();
}

void Scarcity::Update(const Cluster& cluster) {
  if (++version_ == 0) ++version_;
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

uint32_t Scarcity::ChoiceOf(const Shape& shape) {
  const uint64_t pools = PoolsOf(shape);
  const auto [it, added] = choices_.try_emplace(pools, static_cast<uint32_t>(prices_.size()));
  if (added) prices_.push_back({pools});
  return it->second;
}

void Scarcity::Compute(Prices* prices) const {
  std::array<double, kMaxPools> pressure{};
  for (const Group& g : groups_) {
    if ((prices->pools & ~g.pools) == 0) continue;  // the shapes have no more choice than these
    for (uint64_t rest = g.pools; rest != 0; rest &= rest - 1) {
      pressure[static_cast<size_t>(std::countr_zero(rest))] += g.pressure;
    }
  }
  for (size_t i = 0; i < pools_.size(); ++i) {
    const double p = std::min(pressure[i], kMaxPressure);
    prices->of_pool[i] = static_cast<int32_t>(kOne * p * p * p * p);
  }
  prices->version = version_;
}

}  // namespace divvy::placement
