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
  void Learn(const std::vector<MixEntry>& entries, const Cluster& cluster, const Plenty& plenty);
  bool empty() const { return groups_.empty(); }

  // Per pool: the CPU per device that requests for several devices with the least choice want.
  const std::vector<int32_t>& CpuPerWhole() const { return cpu_per_whole_; }
  // How scarce the whole nodes of each pool are for requests for several devices, as Update saw it:
  // above 1 they are no longer plenty.
  const std::array<double, kMaxPools>& WholePressure() const { return whole_pressure_; }

  // Looks at what is left; prices hold until the next call.
  void Update(const Cluster& cluster);
  // Per pool, in 1/1024 per milli: pressure ^ 4, where pressure is the part of what is left that
  // requests with less choice than `shape` will want until the cluster is full.
  const std::array<int32_t, kMaxPools>& Price(const Shape& shape);

 private:
  struct Group {  // requests with the same choice
    uint64_t pools;
    int32_t devices;      // > 1: they need so many untouched ones
    double share;         // of all expected compute
    int32_t cpu_milli;    // per device, the most any of them wants
    double pressure = 0;  // share of what is left / room
  };
  uint64_t PoolsOf(const Shape& shape) const;

  Plenty plenty_{};
  std::vector<Pool> pools_;
  uint64_t present_ = 0;             // pools with devices
  std::vector<Group> groups_;        // for one device or less
  std::vector<Group> multi_groups_;  // for several; here `share` includes groups within this one
  std::vector<int32_t> cpu_per_whole_;
  std::array<double, kMaxPools> whole_pressure_{};
  std::unordered_map<uint64_t, std::array<int32_t, kMaxPools>> prices_;  // by PoolsOf
};

}  // namespace divvy::placement
