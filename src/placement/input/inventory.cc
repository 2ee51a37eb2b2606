// Inventory: see inventory.h.
#include "src/placement/input/inventory.h"

#include <algorithm>

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

}  // namespace divvy::placement
