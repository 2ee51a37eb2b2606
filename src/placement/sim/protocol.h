// The two protocols that measure a policy. Inflate: pods arrive one by one and stay, until demand
// is 1.3 times the capacity (the published benchmark). Churn: Poisson arrivals at a given load,
// exponential lifetimes, a refused pod is lost. Pure: no I/O; progress goes to a callback.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/placement/engine.h"
#include "src/placement/input/inventory.h"
#include "src/placement/sim/order.h"

namespace divvy::placement {

inline constexpr double kInflateRatio = 1.3;

// One decision, for the replay checker.
struct Event {
  enum class What : uint8_t { kPlace, kRefuse, kLeave } what;
  uint64_t instance;  // number of the arrival
  uint32_t pod;       // index into Inventory::pods
  uint32_t node;      // index into Inventory::nodes, plus replica * nodes.size()
  DeviceMask devices;
};

struct Watch {
  std::function<void(double part_done)> progress;  // may be empty
  std::function<void(const Event&)> event;         // may be empty
};

// Mean over the arrivals that brought demand to this percent of capacity.
struct CurvePoint {
  int arrived_percent = 0;
  double allocated_percent = 0;
  double fragmentation_percent = 0;  // of all compute
};

struct InflateResult {
  double allocated_percent = 0;
  double fragmentation_percent_of_total = 0;
  double fragmentation_percent_of_idle = 0;
  double rejected_before_95_percent = 0;  // GPU demand refused / arrived, before 95 % arrival
  double multi_gpu_accepted_percent = 0;  // of requests for several GPUs, by GPU, before 95 %
  uint64_t arrivals = 0;
  uint64_t refused = 0;
  std::vector<CurvePoint> curve;
};

struct ChurnResult {
  double accepted_percent = 0;  // of the GPU demand offered after the warm-up
  double multi_gpu_accepted_percent = 0;
  double allocated_percent = 0;  // mean over time
  uint64_t arrivals = 0;
  uint64_t refused = 0;
};

// An engine with the inventory's nodes (in order of rank, `replicate` times), which has learnt the
// pods' mix and holds the pods that already run.
class Bench {
 public:
  Bench(const Inventory& inventory, const std::vector<uint32_t>& node_rank, uint32_t replicate,
        std::unique_ptr<Policy> policy);
  Engine& engine() { return *engine_; }
  // Index of an engine's node: position in Inventory::nodes + replica * nodes.size().
  uint32_t Origin(NodeId id) const { return origin_[id]; }
  ShapeId ShapeOf(uint32_t pod) const { return shape_of_[pod]; }
  const Mix& mix() const { return mix_; }

 private:
  std::unique_ptr<Engine> engine_;
  std::vector<uint32_t> origin_;
  std::vector<ShapeId> shape_of_;
  Mix mix_;
};

InflateResult RunInflate(const Inventory& inventory, const Order& order, uint32_t replicate,
                         std::unique_ptr<Policy> policy, const Watch& watch);
ChurnResult RunChurn(const Inventory& inventory, const Order& order, uint64_t seed, double load,
                     uint32_t replicate, std::unique_ptr<Policy> policy, const Watch& watch);

}  // namespace divvy::placement
