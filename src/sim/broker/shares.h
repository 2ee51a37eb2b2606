// Shared: memory that one client exported and others imported (IPC handles, VMM handles and pools
// by file descriptor). Booked once, to its exporter while that holds it, then to the client that
// imported it last; given back with the last one. Server thread only.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "src/base/unique_fd.h"
#include "src/sim/wire/machine_page.h"

namespace divvy::sim {

struct Exported {
  uint32_t device;
  uint64_t offset, bytes;
  uint32_t exporter;  // row whose arena holds the contents
  bool held_by_exporter = true;
  uint32_t booked_to;  // row that pays
  std::shared_ptr<UniqueFd> arena;
  std::vector<uint32_t> importers;  // rows, once per import
};

class SharedMemory {
 public:
  explicit SharedMemory(MachinePage* page) : page_(page) {}

  // The exporter's range gets an id; the same range asked twice gets the same id.
  uint64_t Export(uint32_t row, uint32_t device, uint64_t offset, uint64_t bytes,
                  std::shared_ptr<UniqueFd> arena);
  const Exported* Import(uint64_t id, uint32_t row);
  bool Unexport(uint64_t id, uint32_t row);
  bool Unimport(uint64_t id, uint32_t row);
  // The client is gone: what it exported moves on, what it imported is let go. Before ClearBooks.
  void Drop(uint32_t row);

 private:
  // Gives the range back or books it to an importer once its exporter no longer holds it.
  void Settle(std::map<uint64_t, Exported>::iterator it);

  MachinePage* page_;
  uint64_t next_ = 1;
  std::map<uint64_t, Exported> by_id_;
};

}  // namespace divvy::sim
