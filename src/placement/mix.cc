// Mix: see mix.h.
#include "src/placement/mix.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace divvy::placement {

void Mix::Add(const Shape& shape, double count, uint32_t spelling) {
  counts_[{shape, spelling}] += count;
  total_ += count;
}

void Mix::Decay(double factor) {
  total_ = 0;
  for (auto it = counts_.begin(); it != counts_.end();) {
    it->second *= factor;
    if (it->second < 1e-6) {
      it = counts_.erase(it);
    } else {
      total_ += it->second;
      ++it;
    }
  }
}

std::vector<MixEntry> Mix::Sorted() const {
  std::vector<MixEntry> out;
  out.reserve(counts_.size());
  for (const auto& [key, count] : counts_) out.push_back({key.first, count, key.second});
  const auto key = [](const MixEntry& e) {
    return std::tuple(e.count, e.shape.cpu_milli, e.shape.compute_milli, e.shape.devices,
                      e.spelling, e.shape.models, e.shape.device_memory_mib, e.shape.memory_mib,
                      e.shape.link);
  };
  std::sort(out.begin(), out.end(),
            [&](const MixEntry& a, const MixEntry& b) { return key(a) > key(b); });
  return out;
}

double Mix::Drift(const Mix& a, const Mix& b) {
  if (a.total_ <= 0 || b.total_ <= 0) return a.total_ == b.total_ ? 0 : 1;
  double sum = 0;
  for (const auto& [key, count] : a.counts_) {
    const auto it = b.counts_.find(key);
    sum += std::abs(count / a.total_ - (it == b.counts_.end() ? 0 : it->second / b.total_));
  }
  for (const auto& [key, count] : b.counts_) {
    if (!a.counts_.contains(key)) sum += count / b.total_;
  }
  return sum / 2;
}

}  // namespace divvy::placement
