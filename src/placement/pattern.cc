// PatternValue: see pattern.h. Revised simplex on patterns, an exact knapsack to price them.
#include "src/placement/pattern.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

namespace divvy::placement {
namespace {

constexpr size_t kMaxItems = 72;  // sizes beyond are rounded up to coarser ones
constexpr int kMaxRounds = 4000;  // of column generation; it ends long before
constexpr double kEpsilon = 1e-9;
constexpr float kEqual = 1e-5F;  // of prices, which are about 1 for a device

struct Item {
  int32_t compute = 0;  // in grid units
  int32_t memory_mib = 0;
  double demand = 0;
};

// What an item needs of one kind of device, in grid units; compute < 0: it does not fit.
struct Need {
  int32_t compute, memory;
};

// best[c][m]: the largest sum of prices of items that fit into (c, m).
struct Knapsack {
  int32_t compute, memory;
  std::vector<Need> needs;
  std::vector<float> best;

  size_t At(int32_t c, int32_t m) const {
    return static_cast<size_t>(c) * static_cast<size_t>(memory + 1) + static_cast<size_t>(m);
  }
  void Solve(const std::vector<float>& price) {
    best.assign(At(compute, memory) + 1, 0);
    for (int32_t c = 0; c <= compute; ++c) {
      float* row = best.data() + At(c, 0);
      for (size_t i = 0; i < needs.size(); ++i) {
        const Need& need = needs[i];
        if (need.compute <= 0 || need.compute > c || price[i] <= kEqual) continue;
        const float* from = best.data() + At(c - need.compute, 0);
        const float add = price[i];
        float* to = row + need.memory;
        const int32_t n = memory - need.memory;
        for (int32_t m = 0; m <= n; ++m) to[m] = std::max(to[m], from[m] + add);
      }
      for (size_t i = 0; i < needs.size(); ++i) {  // requests for memory alone
        const Need& need = needs[i];
        if (need.compute != 0 || price[i] <= kEqual) continue;
        for (int32_t m = need.memory; m <= memory; ++m) {
          row[m] = std::max(row[m], row[m - need.memory] + price[i]);
        }
      }
      if (c == 0) continue;
      const float* below = row - (memory + 1);
      for (int32_t m = 0; m <= memory; ++m) row[m] = std::max(row[m], below[m]);
    }
  }
  // How many of each item make the best sum.
  std::vector<double> Pattern(const std::vector<float>& price) const {
    std::vector<double> count(needs.size(), 0);
    for (int32_t c = compute, m = memory; best[At(c, m)] > kEqual;) {
      size_t closest = needs.size();
      float gap = std::numeric_limits<float>::max();
      for (size_t i = 0; i < needs.size(); ++i) {
        const Need& need = needs[i];
        if (need.compute < 0 || need.compute > c || need.memory > m || price[i] <= kEqual) continue;
        const float off =
            std::abs(best[At(c, m)] - best[At(c - need.compute, m - need.memory)] - price[i]);
        if (off < gap) {
          gap = off;
          closest = i;
        }
      }
      if (closest == needs.size()) break;
      ++count[closest];
      c -= needs[closest].compute;
      m -= needs[closest].memory;
    }
    return count;
  }
};

// max s: patterns serve s times every item's demand, with no more devices of a kind than there are.
// Rows: one per item, then one per kind. Prices: what an item, or a device of a kind, is worth.
class Programme {
 public:
  Programme(const std::vector<Item>& items, const std::vector<PatternValue::Kind>& kinds)
      : items_(items), rows_(items.size() + kinds.size()), scale_(rows_) {
    double devices = 0;
    for (const PatternValue::Kind& k : kinds) devices += k.count;
    devices = std::max(devices, 1.0);
    for (size_t r = 0; r < rows_; ++r) {
      inverse_.emplace_back(rows_, 0);
      inverse_[r][r] = 1;
      // A little of each item is given away, never as much of two: no step is then empty.
      x_.push_back(r < items.size() ? 1e-7 * static_cast<double>(1 + r)
                                    : kinds[r - items.size()].count / devices);
    }
    std::vector<double> column(rows_, 0);
    for (size_t i = 0; i < items.size(); ++i) column[i] = items[i].demand;
    scale_ = Enter(column);
  }
  double Price(size_t row) const { return inverse_[scale_][row]; }

  // Serving more than the demand, or leaving a device empty: enters where the price is negative.
  bool EnterSlack() {
    size_t worst = 0;
    for (size_t r = 1; r < rows_; ++r) {
      if (Price(r) < Price(worst)) worst = r;
    }
    if (Price(worst) > -1e-7) return false;
    std::vector<double> column(rows_, 0);
    column[worst] = 1;
    return Enter(column) < rows_;
  }
  bool EnterPattern(const std::vector<double>& count, size_t kind) {
    std::vector<double> column(rows_, 0);
    for (size_t i = 0; i < count.size(); ++i) column[i] = -count[i];
    column[items_.size() + kind] = 1;
    return Enter(column) < rows_;
  }

 private:
  // Exchanges a column for one of the basis; its place there, or rows_ if there is none.
  size_t Enter(const std::vector<double>& column) {
    std::vector<double> direction(rows_, 0);
    size_t leave = rows_;
    double step = 0;
    for (size_t b = 0; b < rows_; ++b) {
      for (size_t r = 0; r < rows_; ++r) direction[b] += inverse_[b][r] * column[r];
      if (direction[b] <= kEpsilon) continue;
      const double ratio = std::max(0.0, x_[b]) / direction[b];
      if (leave == rows_ || ratio < step) {
        leave = b;
        step = ratio;
      }
    }
    if (leave == rows_) return rows_;
    for (double& v : inverse_[leave]) v /= direction[leave];
    for (size_t b = 0; b < rows_; ++b) {
      if (b == leave || direction[b] == 0) continue;
      for (size_t r = 0; r < rows_; ++r) inverse_[b][r] -= direction[b] * inverse_[leave][r];
      x_[b] -= direction[b] * step;
    }
    x_[leave] = step;
    return leave;
  }

  const std::vector<Item>& items_;
  size_t rows_;
  size_t scale_;                              // where s stands in the basis
  std::vector<std::vector<double>> inverse_;  // of the basis
  std::vector<double> x_;
};

// The distinct sizes in the mix, rounded up, coarser while there are too many. Whole devices count.
std::vector<Item> Sizes(const std::vector<MixEntry>& entries, int32_t compute_units,
                        int32_t memory_step, int32_t most_memory) {
  std::map<std::pair<int32_t, int32_t>, double> sizes;
  for (int32_t grain = 1;; grain *= 2) {
    sizes.clear();
    const auto up = [grain](int64_t exact) { return (exact + grain - 1) / grain * grain; };
    for (const MixEntry& e : entries) {
      const Shape& s = e.shape;
      if (s.devices == 0 || (most_memory > 0 && s.device_memory_mib > most_memory)) continue;
      const int64_t c =
          up((int64_t{s.compute_milli} * compute_units + kWholeMilli - 1) / kWholeMilli);
      const int64_t m =
          memory_step == 0
              ? 0
              : up((int64_t{s.device_memory_mib} + memory_step - 1) / memory_step) * memory_step;
      if (c + m == 0) continue;
      sizes[{static_cast<int32_t>(std::min<int64_t>(c, compute_units)),
             static_cast<int32_t>(std::min<int64_t>(m, most_memory))}] += e.count * s.devices;
      if (sizes.size() > kMaxItems) break;
    }
    if (sizes.size() <= kMaxItems) break;
  }
  std::vector<Item> items;
  double total = 0;
  for (const auto& [size, count] : sizes) total += count;
  for (const auto& [size, count] : sizes) items.push_back({size.first, size.second, count / total});
  return items;
}

}  // namespace

std::vector<PatternValue> PatternValue::Learn(const std::vector<MixEntry>& entries,
                                              const std::vector<Kind>& kinds) {
  int32_t least_memory = std::numeric_limits<int32_t>::max(), most_memory = 0;
  for (const Kind& k : kinds) {
    if (k.memory_mib > 0) least_memory = std::min(least_memory, k.memory_mib);
    most_memory = std::max(most_memory, k.memory_mib);
  }
  const bool flat = most_memory == 0;
  const int32_t compute_units = flat ? kWholeMilli : kGrid;
  const int32_t step = flat ? 0 : std::max(1, least_memory / kGrid);
  const std::vector<Item> items = Sizes(entries, compute_units, step, most_memory);
  std::vector<Knapsack> knapsacks;
  for (const Kind& k : kinds) {
    Knapsack knapsack{compute_units, flat ? 0 : kGrid, {}, {}};
    for (const Item& item : items) {
      const bool fits = flat || item.memory_mib <= k.memory_mib;
      const int64_t percent =
          flat || k.memory_mib == 0
              ? 0
              : (int64_t{item.memory_mib} * kGrid + k.memory_mib - 1) / k.memory_mib;
      knapsack.needs.push_back({fits ? item.compute : -1, static_cast<int32_t>(percent)});
    }
    knapsacks.push_back(std::move(knapsack));
  }

  std::vector<float> price(items.size(), 0);
  std::vector<double> worth(kinds.size(), 0);
  if (!items.empty()) {
    Programme programme(items, kinds);
    size_t kind = 0, idle = 0;  // kinds in a row that had nothing to offer
    for (int round = 0; round < kMaxRounds && idle < kinds.size(); ++round) {
      if (programme.EnterSlack()) continue;
      for (size_t i = 0; i < items.size(); ++i) price[i] = static_cast<float>(programme.Price(i));
      Knapsack& knapsack = knapsacks[kind];
      knapsack.Solve(price);
      const double gain = knapsack.best.back() - programme.Price(items.size() + kind);
      const bool better =
          gain > kEqual * 3 && programme.EnterPattern(knapsack.Pattern(price), kind);
      idle = better ? 0 : idle + 1;
      if (!better) kind = (kind + 1) % kinds.size();
    }
    for (size_t i = 0; i < items.size(); ++i) price[i] = static_cast<float>(programme.Price(i));
    for (size_t k = 0; k < kinds.size(); ++k) worth[k] = programme.Price(items.size() + k);
  }

  // In thousandths of a device of average worth.
  double devices = 0, sum = 0;
  for (size_t k = 0; k < kinds.size(); ++k) {
    devices += kinds[k].count;
    sum += kinds[k].count * std::max(0.0, worth[k]);
  }
  const double unit = sum > 0 ? 1000 * devices / sum : 0;
  std::vector<PatternValue> values(kinds.size());
  for (size_t k = 0; k < kinds.size(); ++k) {
    knapsacks[k].Solve(price);
    values[k].memory_mib_ = flat ? 0 : std::max(1, kinds[k].memory_mib);
    for (const float best : knapsacks[k].best) {
      values[k].value_.push_back(static_cast<int32_t>(std::lround(best * unit)));
    }
    // An untouched device is worth what it can be sold for, and one if nothing is asked for.
    const int32_t untouched =
        sum > 0 ? static_cast<int32_t>(std::lround(std::max(0.0, worth[k]) * unit)) : 1000;
    values[k].value_.back() = untouched;
    if (kinds[k].memory_mib == 0 && !flat) values[k].value_.end()[-1 - kGrid] = untouched;
  }
  return values;
}

}  // namespace divvy::placement
