// The two protocols that measure a policy. Inflate: pods arrive one by one and stay, until demand
// is 1.3 times the capacity (the published benchmark). Churn: Poisson arrivals at a given load,
// exponential lifetimes, a refused pod is lost unless it may wait. Gangs come whole. Pure: no I/O;
// progress goes to a callback.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "src/placement/input/inventory.h"
#include "src/placement/sim/bench.h"
#include "src/placement/sim/desk.h"
#include "src/placement/sim/order.h"

namespace divvy::placement {

// Mean over the arrivals that brought demand to this percent of capacity.
struct CurvePoint {
  int arrived_percent = 0;
  double allocated_percent = 0;
  double fragmentation_percent = 0;  // of all compute
};

struct InflateResult {
  // Demand that the next three are figures of: 130, or what was reached where that is less.
  int arrived_percent = 0;
  double allocated_percent = 0;
  double fragmentation_percent_of_total = 0;
  double fragmentation_percent_of_idle = 0;
  // False: no such demand arrived before 95 %, the figure of it means nothing.
  bool any_early = false, any_multi_gpu = false;
  double rejected_before_95_percent = 0;  // GPU demand refused / arrived, before 95 % arrival
  double multi_gpu_accepted_percent = 0;  // of requests for several GPUs, by GPU, before 95 %
  uint64_t arrivals = 0;
  uint64_t refused = 0;
  std::vector<CurvePoint> curve;
};

struct ChurnResult {
  double load =
      0;  // offered: what was asked for, less where the arrivals are too many (see order.h)
  bool any = false, any_multi_gpu = false;  // false: no such demand was offered after the warm-up
  double accepted_percent = 0;              // of the GPU demand offered after the warm-up
  double multi_gpu_accepted_percent = 0;
  double allocated_percent = 0;  // mean over time
  uint64_t arrivals = 0;
  uint64_t refused = 0;
};

// What the desk did about refusals, and how the namespaces stand at the end.
struct HandlingResult {
  DeskTotals totals;
  size_t still_waiting = 0;
  double mean_wait = 0;                         // of those placed later, in mean lifetimes (churn)
  std::vector<int64_t> used_milli, fair_milli;  // per namespace
};

InflateResult RunInflate(const Inventory& inventory, const Order& order, uint32_t replicate,
                         std::unique_ptr<Policy> policy, const Watch& watch,
                         const Handling& handling = {}, HandlingResult* handled = nullptr);
ChurnResult RunChurn(const Inventory& inventory, const Order& order, uint64_t seed, double load,
                     uint32_t replicate, std::unique_ptr<Policy> policy, const Watch& watch,
                     const Handling& handling = {}, HandlingResult* handled = nullptr);

}  // namespace divvy::placement
