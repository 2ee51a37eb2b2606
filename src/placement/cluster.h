// The cluster's state: what every node and device has left, and a log of which nodes changed.
// Owned by the Engine; policies read it. Pure: no I/O, clock, thread or randomness.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "src/placement/model.h"

namespace divvy::placement {

// One node as a policy sees it. Valid until the next change of the cluster.
struct NodeView {
  NodeId id;
  const Node& node;
  std::span<const Device> devices;
  const std::array<uint16_t, kKinds>& kinds;
};

// An entry of the change log: the node, and what tells quickly that a shape does not fit, so that
// who reads the log in order need not look at the node itself.
struct Change {
  static constexpr uint8_t kClosed = 0xFF;
  NodeId id = kNoNode;
  int32_t cpu_left = 0;
  int32_t memory_left = 0;
  int16_t most_left = 0;
  uint8_t whole = 0;
  uint8_t model = kClosed;  // kClosed: takes nothing new
  uint64_t state = 0;       // StateOf the node
};
static_assert(sizeof(Change) == 24 && kMaxModels <= Change::kClosed);

inline uint64_t Scramble(uint64_t x) {
  x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93ull;
  x = (x ^ (x >> 29)) * 0x9FB21C651E98DF25ull;
  return x ^ (x >> 32);
}
// Stands for what a policy sees of a node apart from host memory, slots, kinds and the order of its
// devices: its pool, CPU and the rests of its devices. The pool is in the highest bits.
inline constexpr int kStatePoolShift = 58;
static_assert(kMaxPools <= 1 << (64 - kStatePoolShift));
inline uint64_t StateOf(const Node& n) {
  const uint64_t rest = Scramble(n.rests + uint64_t{static_cast<uint32_t>(n.cpu_left)});
  return uint64_t{n.pool} << kStatePoolShift | rest >> (64 - kStatePoolShift);
}

// What policies learn from beside the mix: the hardware, not what is free of it. Refers to nothing:
// may be used on another thread.
struct Hardware {
  std::vector<Pool> pools;
  std::vector<int64_t> devices;  // per pool
  int64_t total_milli = 0;
  int64_t total_cpu_milli = 0;
};

class Cluster {
 public:
  NodeId AddNode(const NodeSpec& spec);
  // A closed node keeps its tenants and takes no new ones. A removed node is a closed one.
  void SetClosed(NodeId node, bool closed);
  void SetHealthy(NodeId node, int device, bool healthy);

  // Takes (sign +1) or gives back (sign -1) a shape, with `compute_milli` on each of `devices`.
  // The caller has checked that it fits, or that it is there.
  void Take(NodeId node, const Shape& shape, DeviceMask devices, int32_t compute_milli);
  void Give(NodeId node, const Shape& shape, DeviceMask devices, int32_t compute_milli);

  NodeView View(NodeId id) const {
    const Node& n = nodes_[id];
    return {id, n, {devices_.data() + n.first_device, n.device_count}, kinds_[id]};
  }
  const Node& node(NodeId id) const { return nodes_[id]; }
  size_t size() const { return nodes_.size(); }
  int64_t total_milli() const { return total_milli_; }  // compute of all devices, healthy or not
  int64_t used_milli() const { return used_milli_; }
  int64_t total_cpu_milli() const { return total_cpu_milli_; }
  const std::vector<Pool>& pools() const { return pools_; }
  Hardware hardware() const { return {pools_, devices_of_pool_, total_milli_, total_cpu_milli_}; }
  // Pools whose nodes may have an allowed model; all of them if the shape asks for no device.
  uint64_t PoolsOf(const Shape& shape) const;
  // What the open nodes of a pool have left: compute, and how many nodes have so many untouched
  // devices.
  int64_t LeftMilli(size_t pool) const { return left_milli_[pool]; }
  uint32_t NodesWithWhole(size_t pool, int whole) const { return whole_nodes_[pool][whole]; }
  // From now on an untouched device counts there only if the node has CPU left for it: so much in
  // each pool (pools that are not named: none).
  void SetCpuPerWhole(std::vector<int32_t> cpu_milli);

  // The change log: entries [log_begin, log_end) name the nodes changed, oldest first. Only a
  // node's newest entry counts. The log forgets; who lags behind log_begin must look at every node.
  uint64_t log_begin() const { return log_end_ > log_.size() ? log_end_ - log_.size() : 0; }
  uint64_t log_end() const { return log_end_; }
  const Change& Changed(uint64_t entry) const { return log_[entry & log_mask_]; }
  // Which of the 64 entries from `entry` (a multiple of 64) on count: bits.
  uint64_t Counting(uint64_t entry) const { return counting_[(entry & log_mask_) / 64]; }
  void Prefetch(NodeId id) const {
    __builtin_prefetch(&nodes_[id]);
    __builtin_prefetch(reinterpret_cast<const char*>(&nodes_[id] + 1) - 1);
  }
  void PrefetchDevices(NodeId id) const {
    const Device* d = devices_.data() + nodes_[id].first_device;
    __builtin_prefetch(d);
    __builtin_prefetch(reinterpret_cast<const char*>(d + nodes_[id].device_count) - 1);
  }
  void PrefetchChange(NodeId id) const {  // of a node at hand
    PrefetchDevices(id);
    __builtin_prefetch(&kinds_[id], 1);
    __builtin_prefetch(&log_[nodes_[id].last_change & log_mask_], 1);
  }
  // True if nothing was ever taken, or all was given back, and the pool says all about it: such
  // nodes of a pool score alike.
  bool Untouched(NodeId id) const;
  // Bits for 64 nodes from id 64 * word on: 0 where the node was untouched ever since it came.
  uint64_t Touched(size_t word) const { return touched_[word]; }
  bool EverTouched(NodeId id) const { return (touched_[id / 64] >> id % 64 & 1) != 0; }

 private:
  void Log(NodeId id);
  void Touch(NodeId id) { touched_[id / 64] |= uint64_t{1} << id % 64; }
  uint8_t PoolOf(const Pool& pool);
  void Summarise(NodeId id);        // sets the node's left, most_left and whole
  void Count(NodeId id, int sign);  // in left_milli_ and whole_nodes_
  size_t WholeWithCpu(const Node& n) const;
  void Move(NodeId node, const Shape& shape, DeviceMask devices, int32_t compute_milli, int sign);

  std::vector<Node> nodes_;
  std::vector<Device> devices_;
  std::vector<std::array<uint16_t, kKinds>> kinds_;
  std::vector<Change> log_ = std::vector<Change>(4096);  // ring, size a power of two
  std::vector<uint64_t> counting_ = std::vector<uint64_t>(log_.size() / 64);
  uint64_t log_mask_ = log_.size() - 1;
  uint64_t log_end_ = 0;
  std::vector<bool> exact_pool_;  // per node: the pool is its own, not a substitute
  std::vector<uint64_t> touched_;
  std::vector<Pool> pools_;
  uint64_t mixed_pools_ = 0;            // pools that also hold nodes of other hardware
  std::vector<int32_t> cpu_per_whole_;  // per pool
  std::vector<int64_t> devices_of_pool_;
  std::vector<int64_t> left_milli_;                                 // per pool
  std::vector<std::array<uint32_t, kMaxDevices + 1>> whole_nodes_;  // per pool
  int64_t total_milli_ = 0;
  int64_t used_milli_ = 0;
  int64_t total_cpu_milli_ = 0;
};

// True if the node can take the shape now.
bool Fits(const NodeView& view, const Shape& shape);
inline Change ChangeOf(NodeId id, const Node& n) {
  const bool open = !n.closed && n.slots_left >= 1;
  return {id, n.cpu_left, n.memory_left, n.most_left, n.whole, open ? n.model : Change::kClosed, 0};
}
// False if the node certainly cannot; looks at no device.
inline bool MayFit(const Change& n, const Shape& s) {
  return n.cpu_left >= s.cpu_milli && n.memory_left >= s.memory_mib && n.model != Change::kClosed &&
         (s.devices == 0 || ((s.models >> n.model & 1) != 0 && n.most_left >= s.compute_milli &&
                             (s.compute_milli < kWholeMilli || n.whole >= s.devices)));
}
inline bool MayFit(const Node& n, const Shape& s) { return MayFit(ChangeOf(kNoNode, n), s); }
// The devices that can each take the shape's part.
DeviceMask FittingDevices(const NodeView& view, const Shape& shape);

}  // namespace divvy::placement
