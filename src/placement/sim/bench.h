// The engine set up for an inventory: nodes, the learnt mix, pods that already run; and what is
// told of a run. Used by the protocols, the desk and the scale benchmark.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "src/placement/engine.h"
#include "src/placement/input/inventory.h"

namespace divvy::placement {

// One decision, for the replay checker.
struct Event {
  enum class What : uint8_t {
    kRuns,    // it was there before the run
    kLost,    // it ran on that node, says the list, but there is no room: left out
    kPlace,   // milli: compute on each device
    kRefuse,  // it fits nowhere
    kDeny,    // a gang that does not fit as a whole, or beyond a quota
    kLeave,
    kSqueeze,  // from now on it has so much (also when it grows again)
    kMigrate,
    kPreempt,
  } what;
  uint64_t instance;  // number of the arrival; kFirstRunning and up: it was there before
  uint32_t pod;       // index into Inventory::pods
  uint32_t node;      // index into Inventory::nodes, plus replica * nodes.size()
  DeviceMask devices;
  int32_t milli;
};
inline constexpr uint64_t kFirstRunning = uint64_t{1} << 62;

struct Watch {
  std::function<void(double part_done)> progress;  // may be empty
  std::function<void(const Event&)> event;         // may be empty
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
  const std::vector<std::pair<TenantId, uint32_t>>& running() const { return running_; }
  // Pods that should run on a node but do not fit there.
  const std::vector<std::pair<uint32_t, NodeId>>& lost() const { return lost_; }

 private:
  std::unique_ptr<Engine> engine_;
  std::vector<uint32_t> origin_;
  std::vector<ShapeId> shape_of_;
  Mix mix_;
  std::vector<std::pair<TenantId, uint32_t>> running_;
  std::vector<std::pair<uint32_t, NodeId>> lost_;
};

// Pods that run, says the list, but for which their nodes have no room beside those before them.
SomePods PodsWithoutRoom(const Inventory& inventory);

}  // namespace divvy::placement
