// A node as it would be without some of its tenants. Scratch paper of the planners.
#pragma once

#include <array>
#include <vector>

#include "src/placement/engine.h"

namespace divvy::placement {

class Draft {
 public:
  Draft(const Engine& engine, NodeId id);

  NodeView view() const {
    return {id_, node_, {devices_.data(), node_.device_count}, engine_.cluster().View(id_).kinds};
  }
  const std::vector<TenantId>& tenants() const { return tenants_; }
  void Remove(const Tenant& t) { Move(t, 1); }
  void PutBack(const Tenant& t) { Move(t, -1); }
  // More compute on a device, as if tenants on it were squeezed.
  void Loosen(int device, int32_t milli);

 private:
  void Move(const Tenant& t, int sign);
  void Summarise();

  const Engine& engine_;
  NodeId id_;
  Node node_;
  std::array<Device, kMaxDevices> devices_;
  std::vector<TenantId> tenants_;
};

// Could the shape ever be placed on this node, were it empty?
bool CouldHold(const Node& node, const Shape& shape);
// Milli devices a tenant holds.
int64_t HeldMilli(const Tenant& t);

}  // namespace divvy::placement
