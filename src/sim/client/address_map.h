// AddressMap: every range of addresses the driver knows in this process: device memory of all kinds
// and pinned or registered host memory. Readers share; look-ups return copies. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <shared_mutex>

#include "src/sim/client/context.h"

namespace divvy::sim {

struct MemHandle;

enum class RangeKind : uint8_t {
  kDevice,    // cuMemAlloc, cuMemAllocPitch
  kGlobal,    // a module's variables
  kPool,      // cuMemAllocAsync and friends
  kGraph,     // graph memory nodes
  kReserved,  // cuMemAddressReserve
  kMapped,    // cuMemMap: lies inside a kReserved range
  kManaged,
  kHost,  // cuMemHostAlloc
  kRegistered,
  kImported,  // cuIpcOpenMemHandle
  kExternal,  // buffer of an imported external memory
};

struct Range {
  uint64_t base = 0, bytes = 0;
  RangeKind kind = RangeKind::kDevice;
  Device* device = nullptr;    // null: host memory
  Context* context = nullptr;  // that it was made in
  uint64_t offset = 0;         // in the device's arena; own memory only
  uint64_t block_bytes = 0;    // whole blocks taken for it; 0: part of shared blocks
  uint64_t import_id = 0;      // of another process's memory
  unsigned opened = 0;         // times it was opened: kImported
  unsigned flags = 0;
  uint64_t id = 0;  // CU_POINTER_ATTRIBUTE_BUFFER_ID
  Pool* pool = nullptr;
  MemHandle* physical = nullptr;  // kMapped
  bool writable = true, readable = true;
  bool sync_memops = false;
};

class AddressMap {
 public:
  static AddressMap& Get();

  // Sets r.id. Ranges of one layer never overlap: kMapped ranges lie in a layer above kReserved.
  void Insert(Range r);
  // The range that contains `address`, the mapped one before the reserved one.
  std::optional<Range> Find(uint64_t address) const;
  // The range that begins there, of that kind; removed.
  std::optional<Range> Remove(uint64_t base, RangeKind kind);
  std::optional<Range> FindExact(uint64_t base, RangeKind kind) const;
  // Changes the range that begins at `base`; false when there is none.
  template <typename F>
  bool Update(uint64_t base, RangeKind kind, F change) {
    std::unique_lock lock(mu_);
    auto& layer = LayerOf(kind);
    auto it = layer.find(base);
    if (it == layer.end() || it->second.kind != kind) return false;
    change(it->second);
    return true;
  }
  template <typename F>
  void ForEach(F visit) const {
    std::shared_lock lock(mu_);
    for (const auto* layer : {&bottom_, &mapped_}) {
      for (const auto& [base, range] : *layer) visit(range);
    }
  }
  // Whether any range of the layer of `kind` overlaps.
  bool Overlaps(uint64_t base, uint64_t bytes, RangeKind kind) const;

 private:
  using Layer = std::map<uint64_t, Range>;
  Layer& LayerOf(RangeKind k) { return k == RangeKind::kMapped ? mapped_ : bottom_; }
  const Layer& LayerOf(RangeKind k) const { return k == RangeKind::kMapped ? mapped_ : bottom_; }

  mutable std::shared_mutex mu_;
  uint64_t next_id_ = 1;
  Layer bottom_, mapped_;
};

}  // namespace divvy::sim
