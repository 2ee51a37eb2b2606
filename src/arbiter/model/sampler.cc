// Tables of quantiles.
#include "src/arbiter/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace divvy::arbiter::model {
namespace {

constexpr size_t kEntries = 1024;

// The inverse of the normal distribution by bisection of erfc; set-up only.
double NormalQuantile(double p) {
  double low = -8, high = 8;
  for (int i = 0; i < 60; ++i) {
    const double mid = (low + high) / 2;
    (0.5 * std::erfc(-mid / std::sqrt(2.0)) < p ? low : high) = mid;
  }
  return low;
}

const std::vector<double>& NormalTable() {
  static const std::vector<double> table = [] {
    std::vector<double> out(kEntries);
    for (size_t i = 0; i < kEntries; ++i) out[i] = NormalQuantile((double(i) + .5) / kEntries);
    return out;
  }();
  return table;
}

double HistogramQuantile(const Duration& d, double p) {
  double total = 0;
  for (const auto& b : d.bins) total += b.count;
  double seen = 0;
  for (const auto& b : d.bins) {
    seen += b.count;
    if (p * total < seen) return b.us;
  }
  return d.bins.empty() ? 0 : d.bins.back().us;
}

}  // namespace

Sampler::Sampler(const Duration& d) {
  auto ns = [](double us) { return std::max<int64_t>(0, std::llround(us * 1000)); };
  if (d.kind == Duration::Kind::kSequence) {
    in_order_ = true;
    for (double us : d.sequence_us) table_.push_back(ns(us));
    if (table_.empty()) table_.push_back(0);
  } else if (d.kind == Duration::Kind::kConstant) {
    table_.push_back(ns(d.mean_us));
  } else {
    const double sigma2 = std::log(1 + d.spread * d.spread);
    for (size_t i = 0; i < kEntries; ++i) {
      const double p = (double(i) + .5) / kEntries;
      double us = 0;
      if (d.kind == Duration::Kind::kLognormal) {
        us = d.mean_us * std::exp(std::sqrt(sigma2) * NormalTable()[i] - sigma2 / 2);
      } else if (d.kind == Duration::Kind::kExponential) {
        us = -d.mean_us * std::log(1 - p);
      } else {
        us = HistogramQuantile(d, p);
      }
      table_.push_back(ns(us));
    }
  }
  mean_ = double(std::accumulate(table_.begin(), table_.end(), int64_t{0})) / double(table_.size());
}

}  // namespace divvy::arbiter::model
