// How much the nodes of a pool are wanted by requests that can use few others (for their device
// model, CPU, memory or number of devices), given what is left. Part of the default policy:
// requests that can go elsewhere then leave such pools to those who have no choice.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "src/placement/cluster.h"
#include "src/placement/mix.h"

namespace divvy::placement {

class Scarcity {
 public:
  // When whole nodes are plenty, see DefaultTuning.
  struct Plenty {
    double least, power, safety;
  };
  void Learn(const std::vector<MixEntry>& entries, const Hardware& hardware, const Plenty& plenty);
  bool empty() const { return groups_.empty(); }

  // Per pool: the CPU per device that requests for several devices with the least choice want.
  const std::vector<int32_t>& CpuPerWhole() const { return cpu_per_whole_; }
  // How scarce the whole nodes of each pool are for requests for several devices, as Update saw it:
  // above 1 they are no longer plenty.
  const std::array<double, kMaxPools>& WholePressure() const { return whole_pressure_; }

  // Looks at what is left; prices hold until the next call.
  void Update(const Cluster& cluster);
  // Shapes that can use the same pools have the same number, until the next Learn.
  uint32_t ChoiceOf(const Shape& shape);
  // Per pool, in 1/1024 per milli: pressure ^ 4, where pressure is the part of what is left that
  // requests with less choice than such shapes will want until the cluster is full.
  const std::array<int32_t, kMaxPools>& Price(uint32_t choice) {
    if (prices_[choice].version != version_) Compute(&prices_[choice]);
    return prices_[choice].of_pool;
  }

 private:
  struct Group {  // requests with the same choice
    uint64_t pools;
    int32_t devices;      // > 1: they need so many untouched ones
    double share;         // of all expected compute
    int32_t cpu_milli;    // per device, the most any of them wants
    double pressure = 0;  // share of what is left / room
  };
  struct Prices {
    uint64_t pools;  // that these shapes can use
    uint32_t version = 0;
    std::array<int32_t, kMaxPools> of_pool{};
  };
  uint64_t PoolsOf(const Shape& shape) const;
  void Compute(Prices* prices) const;

  Plenty plenty_{};
  std::vector<Pool> pools_;
  uint64_t present_ = 0;             // pools with devices
  std::vector<Group> groups_;        // for one device or less
  std::vector<Group> multi_groups_;  // for several; here `share` includes groups within this one
  std::vector<int32_t> cpu_per_whole_;
  std::array<double, kMaxPools> whole_pressure_{};
  std::vector<Prices> prices_;                      // by choice
  std::unordered_map<uint64_t, uint32_t> choices_;  // by PoolsOf
  uint32_t version_ = 1;                            // of what prices are computed from
};

}  // namespace divvy::placement
