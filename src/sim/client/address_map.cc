// The ranges of addresses that the driver knows. See address_map.h.
#include "src/sim/client/address_map.h"

#include <mutex>

namespace divvy::sim {
namespace {

const Range* FindIn(const std::map<uint64_t, Range>& layer, uint64_t address) {
  auto it = layer.upper_bound(address);
  if (it == layer.begin()) return nullptr;
  --it;
  return address - it->first < it->second.bytes ? &it->second : nullptr;
}

}  // namespace

AddressMap& AddressMap::Get() {
  static AddressMap& m = *new AddressMap;
  return m;
}

void AddressMap::Insert(Range r) {
  std::unique_lock lock(mu_);
  r.id = next_id_++;
  LayerOf(r.kind)[r.base] = r;
}

std::optional<Range> AddressMap::Find(uint64_t address) const {
  std::shared_lock lock(mu_);
  for (const Layer* layer : {&mapped_, &bottom_}) {
    if (const Range* r = FindIn(*layer, address)) return *r;
  }
  return std::nullopt;
}

std::optional<Range> AddressMap::FindExact(uint64_t base, RangeKind kind) const {
  std::shared_lock lock(mu_);
  auto& layer = LayerOf(kind);
  auto it = layer.find(base);
  if (it == layer.end() || it->second.kind != kind) return std::nullopt;
  return it->second;
}

std::optional<Range> AddressMap::Remove(uint64_t base, RangeKind kind) {
  std::unique_lock lock(mu_);
  auto& layer = LayerOf(kind);
  auto it = layer.find(base);
  if (it == layer.end() || it->second.kind != kind) return std::nullopt;
  Range r = it->second;
  layer.erase(it);
  return r;
}

bool AddressMap::Overlaps(uint64_t base, uint64_t bytes, RangeKind kind) const {
  std::shared_lock lock(mu_);
  auto& layer = LayerOf(kind);
  auto it = layer.upper_bound(base);
  if (it != layer.end() && it->first < base + bytes) return true;
  if (it == layer.begin()) return false;
  --it;
  return it->first + it->second.bytes > base;
}

}  // namespace divvy::sim
