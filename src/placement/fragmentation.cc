// Fragmentation: see fragmentation.h.
#include "src/placement/fragmentation.h"

#include <algorithm>
#include <limits>

namespace divvy::placement {
namespace {
// The kinds of fragment are summed apart, then together, in this order.
enum {
  kLackBoth,
  kLackDevice,
  kLackCpu,
  kCpuOnlyFits,
  kCpuOnlyLacksCpu,
  kNoAccess,
  kFragmentKinds
};

constexpr size_t kMaxTypical = 512;
constexpr int32_t kCpuGrain = 50, kComputeGrain = 1;  // doubled until the typical are few enough

// Shapes that differ only in what the measure does not look at are one.
Mix Merge(const std::vector<MixEntry>& entries, int32_t grain) {
  Mix merged;
  const auto up = [grain](int32_t amount, int32_t step, int32_t most) {
    if (grain == 0 || amount >= most) return amount;
    const int64_t unit = int64_t{step} * grain;
    return static_cast<int32_t>(std::min<int64_t>((amount + unit - 1) / unit * unit, most));
  };
  for (const MixEntry& e : entries) {
    Shape s = e.shape;
    s.memory_mib = 0;
    s.device_memory_mib = 0;
    s.link = Link::kAny;
    s.cpu_milli = up(s.cpu_milli, kCpuGrain, std::numeric_limits<int32_t>::max());
    s.compute_milli = up(s.compute_milli, kComputeGrain, kWholeMilli);
    merged.Add(s, e.count, e.spelling);
  }
  return merged;
}
}  // namespace

void Fragmentation::Learn(const Mix& mix) {
  typical_.clear();
  sizes_.clear();
  const std::vector<MixEntry> all = mix.Sorted();
  Mix merged;
  std::vector<MixEntry> entries;
  double covered = 0;
  size_t taken = 0;
  for (int32_t grain = 0;; grain = grain == 0 ? 1 : 2 * grain) {
    merged = Merge(all, grain);
    entries = merged.Sorted();
    covered = 0;
    taken = 0;
    while (taken < entries.size() && covered < 95 * merged.total() / 100.0) {
      covered += entries[taken++].count;
    }
    // Constraints are never rounded: a mix of very many of them stays as it is.
    if (taken <= kMaxTypical || grain > 1 << 14) break;
  }
  for (size_t i = 0; i < taken; ++i) {
    const Shape& s = entries[i].shape;
    double share = entries[i].count / merged.total();
    if (taken < entries.size()) share /= covered / merged.total();
    typical_.push_back(
        {s.cpu_milli, s.devices, 0, s.compute_milli == 0 || s.devices == 0, s.models, share});
    if (s.devices > 0) sizes_.push_back(s.compute_milli);
  }
  std::sort(sizes_.begin(), sizes_.end());
  sizes_.erase(std::unique(sizes_.begin(), sizes_.end()), sizes_.end());
  for (size_t i = 0; i < taken; ++i) {
    if (typical_[i].cpu_only) continue;
    typical_[i].size_index = static_cast<int>(
        std::lower_bound(sizes_.begin(), sizes_.end(), entries[i].shape.compute_milli) -
        sizes_.begin());
  }
  for (int32_t r = 0; r <= kWholeMilli; ++r) {
    sizes_fitting_[r] =
        static_cast<uint16_t>(std::upper_bound(sizes_.begin(), sizes_.end(), r) - sizes_.begin());
  }
}

double Fragmentation::Of(int32_t cpu_left, uint64_t model_bit, const int16_t* left,
                         size_t devices) const {
  // Per size: how many devices can take it, and how much is idle on those that cannot.
  // There are at most as many sizes as milli, 0 to kWholeMilli.
  int32_t fitting[kWholeMilli + 2];
  int32_t idle_upto[kWholeMilli + 2];
  const size_t n = sizes_.size();
  std::fill(fitting, fitting + n + 1, 0);
  std::fill(idle_upto, idle_upto + n + 1, 0);
  int64_t idle = 0;
  for (size_t d = 0; d < devices; ++d) {
    if (left[d] <= 0) continue;
    idle += left[d];
    const int k = sizes_fitting_[left[d]];
    ++fitting[k];
    idle_upto[k] += left[d];
  }
  for (size_t i = n; i > 0; --i) fitting[i - 1] += fitting[i];  // now: devices with >= i sizes
  for (size_t i = 1; i <= n; ++i) idle_upto[i] += idle_upto[i - 1];

  double amount[kFragmentKinds] = {};
  for (const Typical& m : typical_) {
    const bool cpu = cpu_left >= m.cpu_milli;
    if (m.cpu_only) {
      amount[cpu ? kCpuOnlyFits : kCpuOnlyLacksCpu] += m.share * static_cast<double>(idle);
    } else if ((m.models & model_bit) == 0) {
      amount[kNoAccess] += m.share * static_cast<double>(idle);
    } else if (fitting[m.size_index + 1] >= m.devices) {
      if (cpu) {
        amount[kLackDevice] += m.share * static_cast<double>(idle_upto[m.size_index]);
      } else {
        amount[kLackCpu] += m.share * static_cast<double>(idle);
      }
    } else {
      amount[cpu ? kLackDevice : kLackBoth] += m.share * static_cast<double>(idle);
    }
  }
  double sum = 0;
  for (const double a : amount) sum += a;
  return sum;
}

double Fragmentation::Of(const NodeView& view) const {
  int16_t left[kMaxDevices];
  for (size_t d = 0; d < view.devices.size(); ++d) left[d] = view.devices[d].compute_left;
  return Of(view.node.cpu_left, uint64_t{1} << view.node.model, left, view.devices.size());
}

}  // namespace divvy::placement
