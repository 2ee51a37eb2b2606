// Inventory: see inventory.h.
#include "src/placement/input/inventory.h"

#include <algorithm>
#include <set>
#include <tuple>

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

Status CheckInventory(const Inventory& inventory) {
  if (inventory.TotalMilli() == 0) return Invalid("no node of the node list has a GPU");
  if (!inventory.device_memory_known) {
    for (const Pod& p : inventory.pods) {
      if (p.request.shape.device_memory_mib > 0) {
        return Invalid("pod " + p.name +
                       " asks for GPU memory, but the node list does not say how much the GPUs "
                       "have (column gpu_memory_mib, or label nvidia.com/gpu.memory)");
      }
    }
  }
  return {};
}

Unplaceable FindUnplaceable(const Inventory& inventory) {
  using Kind = std::tuple<int32_t, int32_t, int32_t, uint8_t, int32_t>;
  std::set<Kind> kinds;
  for (const NodeSpec& n : inventory.nodes) {
    kinds.insert({n.cpu_milli, n.memory_mib, n.devices, n.model, n.device_memory_mib});
  }
  const auto holds = [](const Kind& kind, const Shape& s) {
    const auto& [cpu, memory, devices, model, device_memory] = kind;
    return cpu >= s.cpu_milli && memory >= s.memory_mib && devices >= s.devices &&
           (s.devices == 0 || ((s.models >> model & 1) != 0 &&
                               (s.device_memory_mib == 0 || device_memory >= s.device_memory_mib)));
  };
  Unplaceable found;
  for (const Pod& p : inventory.pods) {
    if (std::any_of(kinds.begin(), kinds.end(),
                    [&](const Kind& kind) { return holds(kind, p.request.shape); })) {
      continue;
    }
    if (found.pods++ == 0) found.first = p.name;
  }
  return found;
}

}  // namespace divvy::placement
