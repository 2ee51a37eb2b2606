// PatternValue: see pattern.h. Revised simplex on patterns, an exact knapsack to price them.
#include "src/placement/pattern.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace divvy::placement {
namespace {

constexpr size_t kMaxItems = 72;  // sizes beyond are rounded up to coarser ones
constexpr int kMaxRounds = 4000;  // of column generation; it ends long before
constexpr double kEpsilon = 1e-9;

struct Item {
  int32_t compute, memory;  // in grid units
  double demand;
};

// best[c][m]: the largest sum of prices of items that fit into (c, m); pick: the item taken last.
struct Knapsack {
  int32_t compute, memory;
  std::vector<double> best;
  std::vector<int16_t> pick;

  size_t At(int32_t c, int32_t m) const {
    return static_cast<size_t>(c) * static_cast<size_t>(memory + 1) + static_cast<size_t>(m);
  }
  void Solve(const std::vector<Item>& items, const std::vector<double>& price) {
    const size_t n = static_cast<size_t>(compute + 1) * static_cast<size_t>(memory + 1);
    best.assign(n, 0);
    pick.assign(n, -1);
    for (size_t i = 0; i < items.size(); ++i) {
      if (price[i] <= kEpsilon) continue;
      const Item& item = items[i];
      for (int32_t c = item.compute; c <= compute; ++c) {
        for (int32_t m = item.memory; m <= memory; ++m) {
          const double with = best[At(c - item.compute, m - item.memory)] + price[i];
          if (with > best[At(c, m)] + kEpsilon) {
            best[At(c, m)] = with;
            pick[At(c, m)] = static_cast<int16_t>(i);
          }
        }
      }
    }
  }
  std::vector<double> Pattern(const std::vector<Item>& items) const {
    std::vector<double> count(items.size(), 0);
    for (int32_t c = compute, m = memory; pick[At(c, m)] >= 0;) {
      const Item& item = items[static_cast<size_t>(pick[At(c, m)])];
      ++count[static_cast<size_t>(pick[At(c, m)])];
      c -= item.compute;
      m -= item.memory;
    }
    return count;
  }
};

// Dual prices of: min sum x_p, sum_p a_ip x_p >= demand_i. Leaves the last knapsack solved.
std::vector<double> Prices(const std::vector<Item>& items, Knapsack* knapsack) {
  const size_t n = items.size();
  std::vector<std::vector<double>> inverse(n, std::vector<double>(n, 0));  // of the basis
  std::vector<double> x(n), price(n);
  for (size_t i = 0; i < n; ++i) {  // basis: devices with one size only
    const int32_t by_compute = items[i].compute > 0 ? knapsack->compute / items[i].compute : 1000;
    const int32_t by_memory = items[i].memory > 0 ? knapsack->memory / items[i].memory : 1000;
    const double fit = std::max(1, std::min(by_compute, by_memory));
    inverse[i][i] = 1 / fit;
    x[i] = items[i].demand / fit;
  }
  std::vector<double> direction(n);
  for (int round = 0; round < kMaxRounds; ++round) {
    for (size_t i = 0; i < n; ++i) {
      price[i] = 0;
      for (size_t b = 0; b < n; ++b) price[i] += inverse[b][i];
      price[i] = std::max(0.0, price[i]);
    }
    knapsack->Solve(items, price);
    if (knapsack->best.back() <= 1 + 1e-7) break;
    const std::vector<double> column = knapsack->Pattern(items);
    size_t leave = n;
    double step = 0;
    for (size_t b = 0; b < n; ++b) {
      direction[b] = 0;
      for (size_t i = 0; i < n; ++i) direction[b] += inverse[b][i] * column[i];
      if (direction[b] <= kEpsilon) continue;
      const double ratio = x[b] / direction[b];
      if (leave == n || ratio < step - 1e-12) {
        leave = b;
        step = ratio;
      }
    }
    if (leave == n) break;
    const double pivot = direction[leave];
    for (double& v : inverse[leave]) v /= pivot;
    for (size_t b = 0; b < n; ++b) {
      if (b == leave || direction[b] == 0) continue;
      for (size_t i = 0; i < n; ++i) inverse[b][i] -= direction[b] * inverse[leave][i];
      x[b] -= direction[b] * step;
    }
    x[leave] = step;
  }
  return price;
}

}  // namespace

PatternValue PatternValue::Learn(const std::vector<MixEntry>& entries, int32_t device_memory_mib) {
  PatternValue result;
  result.memory_mib_ = device_memory_mib;
  const int32_t compute_units = device_memory_mib == 0 ? kWholeMilli : kGrid;
  const int32_t memory_units = device_memory_mib == 0 ? 0 : kGrid;

  // Sizes in grid units, rounded up; coarser while there are too many of them.
  std::map<std::pair<int32_t, int32_t>, double> sizes;
  for (int32_t grain = 1;; grain *= 2) {
    sizes.clear();
    const auto round_up = [&](int64_t amount, int64_t whole, int32_t units) {
      if (units == 0 || whole == 0) return int32_t{0};
      const int64_t exact = (amount * units + whole - 1) / whole;
      return static_cast<int32_t>(std::min<int64_t>(units, (exact + grain - 1) / grain * grain));
    };
    for (const MixEntry& e : entries) {
      if (!e.shape.Shared() || e.shape.device_memory_mib > device_memory_mib * (memory_units > 0)) {
        if (!e.shape.Shared() || memory_units > 0) continue;
      }
      const int32_t c = round_up(e.shape.compute_milli, kWholeMilli, compute_units);
      const int32_t m = round_up(e.shape.device_memory_mib, device_memory_mib, memory_units);
      if (c + m > 0) sizes[{c, m}] += e.count;
    }
    if (sizes.size() <= kMaxItems) break;
  }
  std::vector<Item> items;
  for (const auto& [size, count] : sizes) items.push_back({size.first, size.second, count});

  Knapsack knapsack{compute_units, memory_units, {}, {}};
  const std::vector<double> price = Prices(items, &knapsack);
  knapsack.Solve(items, price);
  result.value_.resize(knapsack.best.size());
  for (size_t i = 0; i < knapsack.best.size(); ++i) {
    result.value_[i] = static_cast<int32_t>(std::lround(std::min(1.0, knapsack.best[i]) * 1000));
  }
  result.value_.back() = 1000;  // an untouched device is worth one, whatever is asked for
  return result;
}

}  // namespace divvy::placement
