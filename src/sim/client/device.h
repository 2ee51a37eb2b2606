// Device: this process's view of one simulated GPU: its arena (where contents live, mapped once, so
// that a device pointer is a host address), block heap, primary context and attributes.
// Thread-safe unless said otherwise.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "src/sim/client/heap.h"
#include "src/sim/client/process.h"

namespace divvy::sim {

struct Context;
class Pool;

class Device {
 public:
  Device(Process* process, uint32_t index, CUdevice ordinal);

  uint32_t index() const { return index_; }      // on the machine
  CUdevice ordinal() const { return ordinal_; }  // in this process
  const Profile& profile() const { return process_->profile(); }
  const DeviceHead& head() const { return process_->page()->device[index_]; }
  std::string PciBusId() const;  // "0000:04:00.0"
  int Attribute(CUdevice_attribute attribute, bool* known) const;

  uint64_t total_bytes() const { return process_->page()->usable_bytes; }
  uint64_t free_bytes() const;

  // Whole blocks, booked and placed: an arena offset. CUDA_ERROR_OUT_OF_MEMORY when the device is
  // full, and then nothing has changed.
  CUresult TakeBlocks(uint64_t bytes, uint64_t* offset);
  // Contents are dropped. Of blocks that were exported the broker settles who pays from now on, and
  // their place is never used again.
  void FreeBlocks(uint64_t offset, uint64_t bytes);
  // Only a place in the arena, for memory that is booked when it is used.
  CUresult TakePlace(uint64_t bytes, uint64_t* offset);
  void ReturnPlace(uint64_t offset, uint64_t bytes);
  // A name by which other processes can import these blocks, always the same; 0: failed.
  uint64_t ExportBlocks(uint64_t offset, uint64_t bytes);

  CUdeviceptr base() const { return base_; }
  int arena_fd() const { return arena_.get(); }

  // Guarded by `mu`:
  std::mutex mu;
  Context* primary = nullptr;
  unsigned primary_refs = 0;
  unsigned primary_flags = 0;
  unsigned contexts = 0;  // live ones, primary included
  Pool* default_pool = nullptr;
  Pool* current_pool = nullptr;

 private:
  bool MapArena();

  Process* process_;
  uint32_t index_;
  CUdevice ordinal_;
  std::mutex heap_mu_;
  FreeRanges blocks_;
  std::map<uint64_t, uint64_t> exported_;  // offset to name
  UniqueFd arena_;
  CUdeviceptr base_ = 0;
};

}  // namespace divvy::sim
