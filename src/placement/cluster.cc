// Cluster: see cluster.h. All changes go through Move, so every one is logged once.
#include "src/placement/cluster.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace divvy::placement {
namespace {
uint64_t RestOf(const Device& d) {
  return Scramble(uint64_t{1} << 48 | uint64_t{static_cast<uint16_t>(d.compute_left)} << 32 |
                  static_cast<uint32_t>(d.memory_left));
}
}  // namespace

NodeId Cluster::AddNode(const NodeSpec& spec) {
  const NodeId id = static_cast<NodeId>(nodes_.size());
  Node n;
  n.cpu_left = n.cpu_total = spec.cpu_milli;
  n.memory_left = n.memory_total = spec.memory_mib;
  n.slots_left = spec.slots;
  n.first_device = static_cast<uint32_t>(devices_.size());
  n.device_count = static_cast<uint8_t>(spec.devices);
  n.model = spec.model;
  n.device_memory_mib = spec.device_memory_mib;
  uint64_t layout = static_cast<uint64_t>(spec.slots);
  for (int d = 0; d < spec.devices; ++d) {
    layout = (layout ^ (spec.numa.empty() ? 0 : spec.numa[d])) * 0x9E3779B97F4A7C15ull;
    layout = (layout ^ (spec.link_group.empty() ? 0 : spec.link_group[d])) * 0xBF58476D1CE4E5B9ull;
  }
  const Pool pool{n.cpu_total,    n.memory_total, n.device_memory_mib,
                  n.device_count, n.model,        layout};
  n.pool = PoolOf(pool);
  exact_pool_.push_back(pools_[n.pool] == pool);
  mixed_pools_ |= uint64_t{!exact_pool_.back()} << n.pool;
  nodes_.push_back(n);
  for (int d = 0; d < spec.devices; ++d) {
    Device device;
    device.memory_left = spec.device_memory_mib;
    if (!spec.numa.empty()) device.numa = spec.numa[d];
    if (!spec.link_group.empty()) device.link_group = spec.link_group[d];
    devices_.push_back(device);
    nodes_.back().rests += RestOf(device);
  }
  kinds_.push_back({});
  devices_of_pool_[n.pool] += spec.devices;
  total_milli_ += int64_t{spec.devices} * kWholeMilli;
  total_cpu_milli_ += spec.cpu_milli;
  if (nodes_.size() > log_.size()) {
    log_.assign(std::bit_ceil(nodes_.size()), {});
    counting_.assign(log_.size() / 64, 0);
    log_mask_ = log_.size() - 1;
    log_end_ += log_.size();  // everybody lags: the ring was re-laid
  }
  touched_.resize(id / 64 + 1, 0);
  if (!exact_pool_.back()) Touch(id);
  Summarise(id);
  Count(id, 1);
  Log(id);
  return id;
}

uint8_t Cluster::PoolOf(const Pool& pool) {
  auto it = std::find(pools_.begin(), pools_.end(), pool);
  if (it == pools_.end() && pools_.size() == kMaxPools) {
    it = std::find_if(pools_.begin(), pools_.end(),
                      [&](const Pool& p) { return p.model == pool.model; });
    if (it == pools_.end()) it = pools_.begin();
  }
  if (it == pools_.end()) {
    pools_.push_back(pool);
    devices_of_pool_.push_back(0);
    left_milli_.push_back(0);
    whole_nodes_.push_back({});
    return static_cast<uint8_t>(pools_.size() - 1);
  }
  return static_cast<uint8_t>(it - pools_.begin());
}

uint64_t Cluster::PoolsOf(const Shape& shape) const {
  if (shape.devices == 0 || shape.models == kAnyModel) return ~uint64_t{0};
  uint64_t mask = mixed_pools_;
  for (size_t i = 0; i < pools_.size(); ++i) mask |= (shape.models >> pools_[i].model & 1) << i;
  return mask;
}

void Cluster::Summarise(NodeId id) {
  Node& n = nodes_[id];
  int16_t most = 0;
  int32_t whole = 0, sum = 0;
  for (uint32_t d = n.first_device; d < n.first_device + n.device_count; ++d) {
    const int16_t left = devices_[d].compute_left;
    most = std::max(most, left);
    whole += left == kWholeMilli;
    sum += std::max<int16_t>(left, 0);
  }
  n.most_left = most;
  n.whole = static_cast<uint8_t>(whole);
  n.left = sum;
}

void Cluster::Count(NodeId id, int sign) {
  const Node& n = nodes_[id];
  if (n.closed) return;
  left_milli_[n.pool] += sign * int64_t{n.left};
  whole_nodes_[n.pool][WholeWithCpu(n)] += static_cast<uint32_t>(sign);
}

size_t Cluster::WholeWithCpu(const Node& n) const {
  const int32_t cpu = n.pool < cpu_per_whole_.size() ? cpu_per_whole_[n.pool] : 0;
  if (cpu <= 0 || n.cpu_left >= int64_t{cpu} * n.whole)
    return n.whole;  // the usual case: no division
  return static_cast<size_t>(std::max(0, n.cpu_left / cpu));
}

void Cluster::SetCpuPerWhole(std::vector<int32_t> cpu_milli) {
  cpu_per_whole_ = std::move(cpu_milli);
  for (auto& nodes : whole_nodes_) nodes.fill(0);
  for (const Node& n : nodes_) {
    if (!n.closed) ++whole_nodes_[n.pool][WholeWithCpu(n)];
  }
}

void Cluster::SetClosed(NodeId node, bool closed) {
  Touch(node);
  Count(node, -1);
  nodes_[node].closed = closed;
  Count(node, 1);
  Log(node);
}

void Cluster::SetHealthy(NodeId node, int device, bool healthy) {
  Device& d = devices_[nodes_[node].first_device + device];
  if ((d.compute_left >= 0) == healthy) return;
  Touch(node);
  Count(node, -1);
  nodes_[node].rests -= RestOf(d);
  d.compute_left =
      static_cast<int16_t>(d.compute_left + (healthy ? kOutOfService : -kOutOfService));
  nodes_[node].rests += RestOf(d);
  Summarise(node);
  Count(node, 1);
  Log(node);
}

void Cluster::Take(NodeId node, const Shape& shape, DeviceMask devices, int32_t compute_milli) {
  Move(node, shape, devices, compute_milli, 1);
}

void Cluster::Give(NodeId node, const Shape& shape, DeviceMask devices, int32_t compute_milli) {
  Move(node, shape, devices, compute_milli, -1);
}

void Cluster::Move(NodeId node, const Shape& shape, DeviceMask devices, int32_t compute_milli,
                   int sign) {
  Node& n = nodes_[node];
  Touch(node);
  Count(node, -1);
  n.cpu_left -= sign * shape.cpu_milli;
  n.memory_left -= sign * shape.memory_mib;
  n.slots_left -= sign;
  used_milli_ += sign * int64_t{std::popcount(devices)} * compute_milli;
  for (DeviceMask rest = devices; rest != 0; rest &= rest - 1) {
    Device& d = devices_[n.first_device + std::countr_zero(rest)];
    n.rests -= RestOf(d);
    d.compute_left = static_cast<int16_t>(d.compute_left - sign * compute_milli);
    d.memory_left -= sign * shape.device_memory_mib;
    n.rests += RestOf(d);
  }
  if (const Kind kind = KindOf(shape); kind != Kind::kNone) {
    uint16_t& count = kinds_[node][static_cast<int>(kind)];
    count = static_cast<uint16_t>(count + sign);
  }
  if (devices != 0) Summarise(node);
  Count(node, 1);
  Log(node);
}

void Cluster::Log(NodeId id) {
  Node& n = nodes_[id];
  const uint64_t before = n.last_change;
  if (log_[before].id == id) counting_[before / 64] &= ~(uint64_t{1} << before % 64);
  n.last_change = static_cast<uint32_t>(log_end_++ & log_mask_);
  counting_[n.last_change / 64] |= uint64_t{1} << n.last_change % 64;
  log_[n.last_change] = ChangeOf(id, n);
  log_[n.last_change].state = StateOf(n);
}

bool Cluster::Untouched(NodeId id) const {
  const Node& n = nodes_[id];
  return n.whole == n.device_count && n.cpu_left == n.cpu_total &&
         n.memory_left == n.memory_total && !n.closed && exact_pool_[id] &&
         std::all_of(kinds_[id].begin(), kinds_[id].end(), [](uint16_t k) { return k == 0; });
}

DeviceMask FittingDevices(const NodeView& view, const Shape& shape) {
  DeviceMask mask = 0;
  for (size_t d = 0; d < view.devices.size(); ++d) {
    const Device& device = view.devices[d];
    mask |= DeviceMask{device.compute_left >= shape.compute_milli &&
                       device.memory_left >= shape.device_memory_mib}
            << d;
  }
  return mask;
}

bool Fits(const NodeView& view, const Shape& shape) {
  if (!MayFit(view.node, shape)) return false;
  if (shape.devices == 0) return true;
  if (shape.device_memory_mib == 0 && shape.link != Link::kRequire &&
      (shape.devices == 1 || shape.compute_milli == kWholeMilli)) {
    return true;
  }
  int fitting = 0;
  for (const Device& device : view.devices) {
    fitting +=
        device.compute_left >= shape.compute_milli && device.memory_left >= shape.device_memory_mib;
  }
  if (fitting < shape.devices) return false;
  if (shape.link != Link::kRequire || shape.devices == 1) return true;
  int per_group[256] = {};
  for (const Device& device : view.devices) {
    if (device.compute_left >= shape.compute_milli &&
        device.memory_left >= shape.device_memory_mib &&
        ++per_group[device.link_group] >= shape.devices) {
      return true;
    }
  }
  return false;
}

}  // namespace divvy::placement
