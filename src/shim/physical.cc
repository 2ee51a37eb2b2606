// Reference-counted physical memory; see physical.h.
#include "src/shim/physical.h"

#include <string.h>
#include <sys/stat.h>

#include "src/shim/pages.h"

namespace divvy::shim {

struct ExportedFd {
  int fd;
  uint64_t device, inode;
  bool is_device;  // a character device: its inode says nothing about which memory it is
};
constexpr unsigned kExportsPerRecord = 4;

struct PhysicalRecord {
  uint64_t units;
  uint32_t handles, mappings;  // both 0 and exports 0: free
  uint32_t next_free;          // index + 1
  uint8_t device, kind;
  uint8_t exports;
  bool used;
  ExportedFd exported[kExportsPerRecord];
};

namespace {

bool Identify(int fd, ExportedFd* out) noexcept {
  struct stat s;
  if (fd < 0 || fstat(fd, &s) != 0) return false;
  *out = {fd, s.st_dev, s.st_ino, S_ISCHR(s.st_mode)};
  return true;
}

bool SameFile(const ExportedFd& a, const ExportedFd& b) noexcept {
  return a.device == b.device && a.inode == b.inode && (!a.is_device || a.fd == b.fd);
}

// Drops exports whose descriptor has been closed. Under records_lock; system calls, rare.
void ForgetClosed(PhysicalRecord& r) noexcept {
  for (unsigned i = 0; i < r.exports;) {
    ExportedFd now;
    if (Identify(r.exported[i].fd, &now) && SameFile(now, r.exported[i]))
      ++i;
    else
      r.exported[i] = r.exported[--r.exports];
  }
}

// Under records_lock. Frees the record if nothing refers to it; returns what is to be credited.
uint64_t Settle(uint32_t index) noexcept {
  PhysicalRecord& r = g_process.records[index];
  if (r.handles != 0 || r.mappings != 0) return 0;
  if (r.exports != 0) ForgetClosed(r);
  if (r.exports != 0) {
    g_process.records_kept.store(1, std::memory_order_relaxed);
    return 0;
  }
  const uint64_t units = r.units;
  r.used = false;
  r.next_free = g_process.records_free;
  g_process.records_free = index + 1;
  return units;
}

bool GrowRecords() noexcept {
  const uint32_t old = g_process.records_capacity;
  const uint32_t capacity = old == 0 ? kRecords : old * 2;
  auto* bigger = static_cast<PhysicalRecord*>(MapPages(sizeof(PhysicalRecord) * capacity));
  if (bigger == nullptr) return false;
  if (old != 0) {
    memcpy(static_cast<void*>(bigger), g_process.records, sizeof(PhysicalRecord) * old);
    UnmapPages(g_process.records, sizeof(PhysicalRecord) * old);
  }
  g_process.records = bigger;
  g_process.records_capacity = capacity;
  return true;
}

bool Valid(uint32_t record) noexcept {
  return record < g_process.records_capacity && g_process.records[record].used;
}

}  // namespace

uint32_t AddRecord(unsigned device, Kind kind, uint64_t units) noexcept {
  if (!g_process.records_lock.Lock()) return kNoRecord;
  uint32_t index = kNoRecord;
  if (g_process.records_free != 0) {
    index = g_process.records_free - 1;
    g_process.records_free = g_process.records[index].next_free;
  } else if (g_process.records_used < g_process.records_capacity || GrowRecords()) {
    index = g_process.records_used++;
  }
  if (index != kNoRecord)
    g_process.records[index] = {
        units, 1, 0, 0, static_cast<uint8_t>(device), static_cast<uint8_t>(kind), 0, true, {}};
  g_process.records_lock.Unlock();
  return index;
}

void RefRecord(uint32_t record, RecordRef ref) noexcept {
  if (!g_process.records_lock.Lock()) return;
  if (Valid(record))
    ++(ref == RecordRef::kHandle ? g_process.records[record].handles
                                 : g_process.records[record].mappings);
  g_process.records_lock.Unlock();
}

void UnrefRecord(uint32_t record, RecordRef ref) noexcept {
  if (!g_process.records_lock.Lock()) return Degrade(3);
  uint64_t units = 0;
  unsigned device = 0;
  Kind kind = Kind::kVmm;
  if (Valid(record)) {
    PhysicalRecord& r = g_process.records[record];
    uint32_t& count = ref == RecordRef::kHandle ? r.handles : r.mappings;
    if (count > 0) --count;
    device = r.device;
    kind = static_cast<Kind>(r.kind);
    units = Settle(record);
  }
  g_process.records_lock.Unlock();
  Credit(device, units, kind);
}

Verdict GrowRecord(uint32_t record, uint64_t units, DriverSymbol symbol) noexcept {
  if (!g_process.records_lock.Lock()) return Verdict::kNotReady;
  uint64_t more = 0;
  unsigned device = 0;
  Kind kind = Kind::kVmm;
  if (Valid(record) && g_process.records[record].units < units) {
    PhysicalRecord& r = g_process.records[record];
    more = units - r.units;
    device = r.device;
    kind = static_cast<Kind>(r.kind);
    r.units = units;  // claimed at once, so that another thread's mapping does not charge it again
  }
  g_process.records_lock.Unlock();
  if (more == 0) return Verdict::kGranted;
  const Verdict v = Charge(device, more, kind, symbol);
  if (v != Verdict::kGranted && g_process.records_lock.Lock()) {
    if (Valid(record)) g_process.records[record].units -= more;
    g_process.records_lock.Unlock();
  }
  return v;
}

unsigned RecordDevice(uint32_t record) noexcept {
  if (!g_process.records_lock.Lock()) return 0;
  const unsigned device = Valid(record) ? g_process.records[record].device : 0;
  g_process.records_lock.Unlock();
  return device;
}

void RecordExported(uint32_t record, int fd) noexcept {
  ExportedFd file;
  if (!Identify(fd, &file) || !g_process.records_lock.Lock()) return;
  if (Valid(record)) {
    PhysicalRecord& r = g_process.records[record];
    if (r.exports == kExportsPerRecord) ForgetClosed(r);
    // One open descriptor is as good as five: the newest takes the last place.
    if (r.exports == kExportsPerRecord) --r.exports;
    r.exported[r.exports++] = file;
  }
  g_process.records_lock.Unlock();
}

uint32_t FindExported(int fd) noexcept {
  ExportedFd file;
  if (!Identify(fd, &file) || !g_process.records_lock.Lock()) return kNoRecord;
  uint32_t found = kNoRecord;
  for (uint32_t i = 0; i < g_process.records_used && found == kNoRecord; ++i) {
    const PhysicalRecord& r = g_process.records[i];
    for (unsigned e = 0; r.used && e < r.exports; ++e)
      if (SameFile(r.exported[e], file)) found = i;
  }
  if (found != kNoRecord) ++g_process.records[found].handles;
  g_process.records_lock.Unlock();
  return found;
}

void BindToArray(uint32_t record, uint64_t array) noexcept {
  const LiveEntry entry{
      array ^ uint64_t{record} << 48, Family::kArrayBinding, 0, 0, 0, record, 0, array};
  if (g_process.live.Find(Family::kArrayBinding, entry.key, nullptr)) return;
  RefRecord(record, RecordRef::kMapping);
  g_process.live.Insert(entry);
  g_process.arrays_bound.store(1, std::memory_order_relaxed);
}

void UnbindArray(uint64_t array) noexcept {
  if (g_process.arrays_bound.load(std::memory_order_relaxed) == 0) return;
  constexpr unsigned kMost = 256;
  uint32_t record[kMost];
  unsigned count;
  do {
    count = 0;
    g_process.live.Sweep([&](const LiveEntry& entry) {
      if (entry.family != Family::kArrayBinding || entry.aux != array || count == kMost)
        return false;
      record[count++] = entry.owner;
      return true;
    });
    for (unsigned i = 0; i < count; ++i) UnrefRecord(record[i], RecordRef::kMapping);
  } while (count == kMost);
}

void SweepExports() noexcept {
  if (g_process.records_kept.load(std::memory_order_relaxed) == 0) return;
  uint64_t units[kLocalDevices][region::kKinds] = {};
  if (!g_process.records_lock.Lock()) return;
  g_process.records_kept.store(0, std::memory_order_relaxed);  // Settle sets it again
  for (uint32_t i = 0; i < g_process.records_used; ++i) {
    PhysicalRecord& r = g_process.records[i];
    if (!r.used || r.exports == 0 || r.handles != 0 || r.mappings != 0) continue;
    const unsigned device = r.device % kLocalDevices, kind = r.kind % region::kKinds;
    units[device][kind] += Settle(i);
  }
  g_process.records_lock.Unlock();
  for (unsigned d = 0; d < kLocalDevices; ++d)
    for (unsigned k = 0; k < region::kKinds; ++k) Credit(d, units[d][k], static_cast<Kind>(k));
}

}  // namespace divvy::shim
