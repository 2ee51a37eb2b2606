// Who pays for memory that several processes map. See shares.h.
#include "src/sim/broker/shares.h"

#include <fcntl.h>

#include <algorithm>

namespace divvy::sim {

uint64_t SharedMemory::Export(uint32_t row, uint32_t device, uint64_t offset, uint64_t bytes,
                              std::shared_ptr<UniqueFd> arena) {
  for (auto& [id, e] : by_id_) {
    if (e.exporter == row && e.held_by_exporter && e.device == device && e.offset == offset) {
      return id;
    }
  }
  by_id_[next_] = Exported{device, offset, bytes, row, true, row, std::move(arena), {}};
  return next_++;
}

const Exported* SharedMemory::Import(uint64_t id, uint32_t row) {
  auto it = by_id_.find(id);
  if (it == by_id_.end()) return nullptr;
  it->second.importers.push_back(row);
  return &it->second;
}

void SharedMemory::Settle(std::map<uint64_t, Exported>::iterator it) {
  Exported& e = it->second;
  if (e.held_by_exporter) return;
  if (e.importers.empty()) {
    Unbook(page_, e.booked_to, e.device, e.bytes);
    fallocate(e.arena->get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t(e.offset),
              off_t(e.bytes));
    by_id_.erase(it);
  } else if (std::find(e.importers.begin(), e.importers.end(), e.booked_to) == e.importers.end()) {
    MoveBooking(page_, e.booked_to, e.importers.back(), e.device, e.bytes);
    e.booked_to = e.importers.back();
  }
}

bool SharedMemory::Unexport(uint64_t id, uint32_t row) {
  auto it = by_id_.find(id);
  if (it == by_id_.end() || it->second.exporter != row || !it->second.held_by_exporter) {
    return false;
  }
  it->second.held_by_exporter = false;
  Settle(it);
  return true;
}

bool SharedMemory::Unimport(uint64_t id, uint32_t row) {
  auto it = by_id_.find(id);
  if (it == by_id_.end()) return false;
  auto& v = it->second.importers;
  auto mine = std::find(v.begin(), v.end(), row);
  if (mine == v.end()) return false;
  v.erase(mine);
  Settle(it);
  return true;
}

void SharedMemory::Drop(uint32_t row) {
  for (auto it = by_id_.begin(); it != by_id_.end();) {
    auto next = std::next(it);
    Exported& e = it->second;
    bool touched = std::erase(e.importers, row) > 0;
    if (e.exporter == row && e.held_by_exporter) {
      e.held_by_exporter = false;
      touched = true;
    }
    if (touched) Settle(it);
    it = next;
  }
}

}  // namespace divvy::sim
