// Inventory: see inventory.h.
#include "src/placement/input/inventory.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <tuple>
#include <unordered_set>

#include "src/base/visible.h"

namespace divvy::placement {

Result<uint8_t> Models::Intern(std::string_view name) {
  const auto it = std::find(names_.begin(), names_.end(), name);
  if (it != names_.end()) return static_cast<uint8_t>(it - names_.begin());
  if (names_.size() >= kMaxModels) {
    return Invalid("more than " + std::to_string(kMaxModels) + " device models");
  }
  names_.emplace_back(name);
  return static_cast<uint8_t>(names_.size() - 1);
}

int64_t Inventory::TotalMilli() const {
  int64_t total = 0;
  for (const NodeSpec& n : nodes) total += int64_t{n.devices} * kWholeMilli;
  return total;
}

std::vector<int64_t> Inventory::ArrivingMilli() const {
  uint32_t last = 0;
  for (const Pod& p : pods) last = std::max(last, p.request.gang);
  std::vector<int64_t> of_gang(last + size_t{1}), milli(pods.size());
  for (const Pod& p : pods) {
    if (p.node.empty()) of_gang[p.request.gang] += p.request.shape.TotalMilli();
  }
  for (size_t i = 0; i < pods.size(); ++i) {
    const Request& r = pods[i].request;
    if (pods[i].node.empty()) milli[i] = r.gang != 0 ? of_gang[r.gang] : r.shape.TotalMilli();
  }
  return milli;
}

void SomePods::Add(uint32_t pod) {
  if (++count <= 5) first.push_back(pod);
}

Status CheckInventory(const Inventory& inventory, const std::string& nodes_file,
                      const std::string& pods_file) {
  if (inventory.TotalMilli() == 0)
    return Invalid(nodes_file + ":1: no node of the node list has a GPU");
  if (!inventory.device_memory_known) {
    for (const Pod& p : inventory.pods) {
      if (p.request.shape.device_memory_mib > 0) {
        return Invalid(pods_file + ":" + std::to_string(p.line) + ": pod " + VisibleName(p.name) +
                       " asks for GPU memory, but the node list does not say how much the GPUs "
                       "have (column gpu_memory_mib, or label nvidia.com/gpu.memory)");
      }
    }
  }
  return {};
}

int64_t Inventory::ClosedMilli() const {
  int64_t total = 0;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (closed[i]) total += int64_t{nodes[i].devices} * kWholeMilli;
  }
  return total;
}

SomePods PodsWithoutDemand(const Inventory& inventory) {
  SomePods found;
  for (uint32_t i = 0; i < inventory.pods.size(); ++i) {
    const Shape& s = inventory.pods[i].request.shape;
    if (s.devices > 0 && s.compute_milli == 0) found.Add(i);
  }
  return found;
}

Unplaceable FindUnplaceable(const Inventory& inventory) {
  using Kind = std::tuple<int32_t, int32_t, int32_t, uint8_t, int32_t, int32_t>;
  std::set<Kind> kinds;
  for (size_t i = 0; i < inventory.nodes.size(); ++i) {
    const NodeSpec& n = inventory.nodes[i];
    if (inventory.closed[i]) continue;
    int32_t linked = n.link_group.empty() ? n.devices : 0;  // the most devices of one group
    for (const uint8_t group : n.link_group) {
      linked = std::max(linked, static_cast<int32_t>(
                                    std::count(n.link_group.begin(), n.link_group.end(), group)));
    }
    kinds.insert({n.cpu_milli, n.memory_mib, n.devices, n.model, n.device_memory_mib, linked});
  }
  const auto holds = [](const Kind& kind, const Shape& s) {
    const auto& [cpu, memory, devices, model, device_memory, linked] = kind;
    return cpu >= s.cpu_milli && memory >= s.memory_mib &&
           (s.link == Link::kRequire ? linked : devices) >= s.devices &&
           (s.devices == 0 || ((s.models >> model & 1) != 0 &&
                               (s.device_memory_mib == 0 || device_memory >= s.device_memory_mib)));
  };
  std::unordered_set<std::string_view> names;
  for (const NodeSpec& n : inventory.nodes) names.insert(n.name);
  const int64_t capacity = inventory.TotalMilli();
  const std::vector<int64_t> arriving = inventory.ArrivingMilli();
  Unplaceable found;
  for (uint32_t i = 0; i < inventory.pods.size(); ++i) {
    const Pod& p = inventory.pods[i];
    if (arriving[i] > capacity) {
      found.in_cluster.Add(i);
    } else if (!p.node.empty()) {
      if (!names.contains(p.node)) found.on_unknown_node.Add(i);
    } else if (std::none_of(kinds.begin(), kinds.end(),
                            [&](const Kind& kind) { return holds(kind, p.request.shape); })) {
      found.on_any_node.Add(i);
    }
  }
  return found;
}

}  // namespace divvy::placement
