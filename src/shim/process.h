// All that the shim knows of this process, in one static object that fork wipes
// (MADV_WIPEONFORK): a child, however it was made (fork, vfork's successor, a raw clone), finds
// zeros: not attached, no charges, free locks. Zero is the valid start of every member, so there
// is no constructor and no destructor; calls before and after main are safe.
//
// What is shared with other threads is atomic or under the lock that its comment names.
#pragma once

#include <atomic>
#include <cstdint>

#include "src/region/layout.h"
#include "src/region/shared_memory.h"
#include "src/shim/estimate.h"
#include "src/shim/events.h"
#include "src/shim/hello.h"
#include "src/shim/live_table.h"
#include "src/shim/lock.h"

namespace divvy::shim {

// Devices of this process are known by a local index, given out in the order in which the daemon
// first named them: it outlives a daemon whose successor lists the shares in another order.
constexpr unsigned kLocalDevices = region::kMaxDevices;
constexpr unsigned kOrdinals = 64;   // devices that the driver may show
constexpr unsigned kContexts = 512;  // context slots; 0 means none
constexpr unsigned kPools = 256;
constexpr unsigned kRecords = 4096;  // physical allocations in the first page run, grown by need

enum class Standing : uint32_t {
  kUnknown = 0,  // nothing was called yet, or this is a fresh child
  kNotTenant,    // pass everything through
  kActive,
  kNotReady,  // a tenant without its region: refuse (fail closed), try again later
};

// One generation of the region. Never unmapped while it may still have a reader: a waiter looks
// again at least once a second, and kSessions daemons do not die in that time.
struct Session {
  const region::Policy* policy;
  region::Usage* usage;
  region::Bell* bell;  // nullptr: the daemon gave none
  uint64_t generation;
  uint32_t slot;
  bool pinned;                         // the GPU may write into its pages: they stay mapped
  uint32_t sequence;                   // of our operations on the books; under Process::books
  int8_t policy_index[kLocalDevices];  // local index -> index in policy, -1: no share any more
  int8_t local_index[region::kMaxDevices];

  region::ProcessSlot& Slot() const noexcept { return usage->slot[slot]; }
};
constexpr unsigned kSessions = 4;

// A hello whose answer has not come yet: who goes on under an earlier grant does not wait for it.
struct PendingHello {
  SentHello connection;
  uint64_t since_ns;
  uint32_t looks;
  wire::Hello said;
};

struct ContextSlot {
  std::atomic<uint64_t> handle;  // CUcontext; 0 = free
  int8_t device;                 // local index, -1: none of ours
  std::atomic<uint32_t> users;   // ContextUse (contexts.h)
  uint32_t attached;             // cuCtxAttach on top of its creation
  uint64_t units;                // charged for it
};

struct DeviceState {
  uint8_t uuid[16];
  int32_t ordinal;                     // the driver's CUdevice, valid if `present`
  bool present;                        // the driver shows it
  std::atomic<bool> primary_active;    // and charged; changed under `contexts_lock`
  uint32_t primary_slot;               // under `contexts_lock`
  std::atomic<uint64_t> current_pool;  // CUmemoryPool; 0: to be asked
  std::atomic<uint32_t> graph_pool;    // index + 1 into `pools`, 0: none yet
};

struct Pool;
struct PhysicalRecord;
struct DeviceMeter;

// While `divvy record` watches: when a thread last submitted.
struct ThreadGap {
  std::atomic<uint64_t> thread, end_ns;
  std::atomic<uint32_t> synced;
};
constexpr unsigned kThreadGaps = 64;

// Where this process's markers are written; see marker.h.
struct MarkerPages {
  std::atomic<uint32_t> state;  // 0 not registered, 1 a thread is at it, 2 registered
  std::atomic<uint32_t> by_event;
  std::atomic<uint64_t> generation;     // whose pages
  std::atomic<uint64_t> device_offset;  // device address - host address
  std::atomic<uint32_t> context;        // slot of the one it was done in
};

struct alignas(4096) Process {
  // --- read by every hook ---
  std::atomic<Standing> standing;
  std::atomic<Session*> session;
  // The gate's word of the only device, or of a word that is always shut when a submission has to
  // look closer; nullptr until attached. See gate.h.
  std::atomic<const region::U32*> gate_word;
  std::atomic<region::U64*> launches;
  std::atomic<uint64_t> meter_at;  // the launch from which on one is metered, though the word is 0
  std::atomic<uint32_t> open_captures;
  std::atomic<uint32_t>
      only_device;                 // local index + 1 of the only one shared; 0: there are several
  std::atomic<uint32_t> plain;     // 1: driver bound, nothing metered: see Plain() in meter.h
  std::atomic<uint32_t> metering;  // devices (bits, local) where syncs and copies are told about

  // --- changing the books: one thread at a time ---
  alignas(64) BoundedLock books;
  std::atomic<bool (*)(unsigned device)> reclaim;  // pools: give unused memory back; may be null
  std::atomic<region::U64*> answered;              // of the slot; nullptr until attached

  // --- binding and attaching ---
  alignas(64) BoundedLock bind_lock;
  BoundedLock attach_lock;
  std::atomic<uint64_t> next_attach_ns;
  uint32_t attach_failures;  // under attach_lock
  PendingHello pending;      // under attach_lock
  unsigned session_count;    // under attach_lock
  Session sessions[kSessions];
  uint32_t pid;  // only where the kernel cannot wipe on fork

  // --- devices: written under attach_lock, then constant until a new generation adds some ---
  std::atomic<uint32_t> device_count;
  DeviceState device[kLocalDevices];
  std::atomic<bool> starting;        // a thread is inside the driver's cuInit
  std::atomic<uint32_t> enumerated;  // 1: the next three are filled
  int8_t local_of_ordinal[kOrdinals];
  uint32_t visible_count;
  int32_t visible[kLocalDevices];  // ordinals with a share, in the driver's order

  // --- contexts ---
  BoundedLock contexts_lock;
  ContextSlot context[kContexts];
  std::atomic<uint64_t> context_index[kContexts * 4];  // handle << 16 | slot, open addressing

  // --- stream-ordered pools (pools.cc) and physical allocations (vmm.cc) ---
  BoundedLock pools_lock;
  Pool* pools;
  std::atomic<uint32_t> pools_dirty;
  BoundedLock records_lock;
  PhysicalRecord* records;
  uint32_t records_capacity, records_used;
  uint32_t records_free;               // index + 1
  std::atomic<uint32_t> records_kept;  // 1: some live on as open descriptors only

  std::atomic<uint32_t> arrays_bound;       // 1: this process maps memory into sparse arrays
  std::atomic<uint32_t> graph_memory_seen;  // 1: this process makes graphs that allocate
  std::atomic<uint32_t> degraded;           // faults of our own

  // --- the meter (meter.h) ---
  std::atomic<DeviceMeter*> meter[kLocalDevices];
  BoundedLock meters_lock;
  std::atomic<EstimateTable*> estimates;
  MarkerPages marker_pages;
  EventCell event_cell[kEventCells];
  Probe probe[kProbes];
  ThreadGap thread_gap[kThreadGaps];

  LiveTable live;
  region::DoubledScratch doubled;  // under `books`
};

// The assembler label is for the hooks that are too hot for a compiler's prologue (hooks/submit.h).
extern Process g_process asm("divvy_process");

// What holds now, with attaching on the first call; the fast path is one load and one branch.
Standing StandingSlow() noexcept;
inline Standing Now() noexcept {
  const Standing s = g_process.standing.load(std::memory_order_acquire);
  return __builtin_expect(s == Standing::kActive, 1) ? s : StandingSlow();
}

// A fault of our own: counted, told to the daemon, calls go on.
void Degrade(unsigned where) noexcept;

}  // namespace divvy::shim
