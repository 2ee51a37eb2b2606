// The two shared memory segments of one tenant, and the daemon's bell, byte for byte.
//
// Sides. divvyd creates both as sealed memfds and passes them to every process of the tenant.
//   policy: written by the daemon only; the tenant maps it read-only (F_SEAL_FUTURE_WRITE).
//   usage:  written by the tenant's processes (and by the daemon in slot 0 and in `book`). The
//           daemon believes nothing in it: it copies, checks, then uses. A tenant that scribbles
//           over it harms only itself.
// Everything shared is a lock-free atomic of 4 or 8 bytes. Sizes are fixed by kLayoutVersion;
// fields are only ever added in `reserved` space.
//
// Memory orders: relaxed unless a comment names the partner.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace divvy::region {

constexpr uint32_t kPolicyMagic = 0x59504c44;  // "DLPY"
constexpr uint32_t kUsageMagic = 0x59535544;   // "DUSY"
constexpr uint32_t kLayoutVersion = 5;

constexpr unsigned kMaxDevices = 16;  // devices of one tenant, in the order of its share list
constexpr unsigned kMaxSlots = 4096;  // processes of one tenant; slot 0 is the daemon's
constexpr unsigned kMaxEvents = 256;  // refusals and faults the tenant reports, a ring
constexpr unsigned kMaxHolds = 2048;  // of memory that processes of one tenant share
constexpr unsigned kNameBytes = 64;

// Memory is booked in units of 512 bytes: 36 bits of them are 32 TiB a device.
constexpr uint64_t kUnitBytes = 512;
constexpr uint64_t kMaxUnits = (uint64_t{1} << 36) - 1;
constexpr uint64_t UnitsOf(uint64_t bytes) {
  return bytes > kMaxUnits * kUnitBytes ? kMaxUnits : (bytes + kUnitBytes - 1) / kUnitBytes;
}

using U32 = std::atomic<uint32_t>;
using U64 = std::atomic<uint64_t>;
using I64 = std::atomic<int64_t>;
static_assert(U32::is_always_lock_free && U64::is_always_lock_free);

// What an amount was taken for. Only for people (divvy ps); limits use the sum.
enum class Kind : uint8_t {
  kLinear = 0,   // cuMemAlloc, pitch
  kManaged = 1,  // cuMemAllocManaged
  kArray = 2,    // arrays, mipmaps
  kVmm = 3,      // cuMemCreate
  kPool = 4,     // stream-ordered pools (reserved memory)
  kGraph = 5,    // graph memory nodes
  kImport = 6,   // memory of another process or API
  kContext = 7,  // contexts and modules, by learned figures
  kCount = 8,
};
constexpr unsigned kKinds = static_cast<unsigned>(Kind::kCount);

// --- policy -----------------------------------------------------------------------------------

enum PolicyFlags : uint32_t {
  kFlagDenyOnFault = 1u << 0,  // DIVVY_ON_FAULT=deny: gates stay shut when the daemon is gone
  kFlagCooperative = 1u << 1,  // delivered by LD_PRELOAD only
  kFlagOvercommit = 1u << 2,   // admission was told to promise more than there is
  kFlagMeasured = 1u << 3,     // NVML gives per-process figures: overhead_bytes is measured
};

// The gate of one device (compute). `word` is a futex word; 0 is the fast path. While it is shut
// its high bits count changes, so that a waiter never misses one.
//
//   word                  what a submission does
//   0                     one load, one branch, one count; every so often (bound_us) it is metered
//   kGateMetered          metered: a marker each space_us of estimated work, bound_us in flight
//   kGateShut             waits (bounded) until the word changes, then looks again
//   + kGateBell           rings once for this value of the word (Bell), then as above
enum GateBits : uint32_t {
  kGateShut = 1u << 0,      // submissions wait (bounded) until the word changes
  kGatePaused = 1u << 1,    // an operator paused the tenant: shut and not opened by faults
  kGateMetered = 1u << 2,   // others contend: markers are wanted, in-flight work is bounded
  kGateBell = 1u << 3,      // nobody polls: the first submission rings the daemon's bell
  kGateEachOp = 1u << 4,    // recording: a marker before and after each operation
  kGateSequence = 1u << 8,  // added at each change while the word is not 0
};

struct alignas(64) PolicyGate {
  U32 word;         // GateBits; 0 = open and alone
  U32 bound_us;     // in-flight work allowed, microseconds of estimated time; one operation may
                    // always be in flight. 0 = no bound and no markers (nobody else has a share)
  U32 space_us;     // estimated work between two markers
  U32 grant;        // number of the window, for people
  U32 patience_us;  // a wait for the bound ends without progress after this and 1.5 x in flight
  U32 switch_ns;    // from another process's work to the tenant's; 0 = not known
  U64 company_ns;   // when another tenant was last seen at work on the device (CLOCK_MONOTONIC)
  uint8_t reserved[32];
};
static_assert(sizeof(PolicyGate) == 64);

struct alignas(64) PolicyDevice {
  uint8_t uuid[16];           // as cuDeviceGetUuid gives it; constant
  uint32_t nvml_index;        // host's NVML index, for people; constant
  uint32_t guaranteed_milli;  // compute percent, thousandths; informational
  U64 limit_bytes;            // what the tenant may hold
  U64 rest_bytes;             // what the device really has left for this tenant, besides its own
                              // charges; UINT64_MAX = not known. Refreshed every ~100 ms
  I64 overhead_bytes;         // driver's memory above the charges (measured); may be negative when
                              // a learned context figure was too high
  U64 context_bytes;          // charge this before a context is made
  U64 total_bytes;            // the physical device, for placing limits beyond it
  U32 cap_milli;              // compute cap percent, thousandths; 100000 = none
  // What NVML says of utilisation inside: the tenant's, of its share.
  U32 whole_milli;    // compute percent, thousandths, that it sees as 100 %
  U32 used_permille;  // of the device's time, by the tenant in the last second; kUseNotKnown
  U32 past_newest;    // number of the newest whole half second in `past`; 0 = none
  U64 past[6];        // percent of the share in each of the last 48 half seconds, one byte each
  PolicyGate gate;
};
constexpr uint32_t kUseNotKnown = UINT32_MAX;
// Half seconds of CLOCK_MONOTONIC, numbered; number n stands in byte n % 48.
constexpr uint64_t kPastNs = 500'000'000;
constexpr unsigned kPast = 48;
constexpr uint8_t kPastNotKnown = 255;
constexpr uint8_t PastByte(uint64_t word, unsigned byte) {
  return static_cast<uint8_t>(word >> (8 * byte));
}
static_assert(sizeof(PolicyDevice) == 192);

struct Policy {
  uint32_t magic;
  uint32_t version;
  uint64_t size_bytes;  // of the whole segment
  uint64_t generation;  // of the daemon that wrote it; unique per daemon start
  U64 heartbeat_ns;     // CLOCK_MONOTONIC; the daemon is taken for dead a second later
  U32 heartbeat_word;   // futex word, changes with each limit change and heartbeat
  U32 flags;            // PolicyFlags
  uint32_t device_count;
  U32 on_full_wait_ms;      // --on-full wait=...: how long a refused allocation may wait for room
  char tenant[kNameBytes];  // zero-terminated
  uint8_t reserved[144];
  PolicyDevice device[kMaxDevices];
};
static_assert(offsetof(Policy, device) == 256);
constexpr size_t kPolicyBytes = (sizeof(Policy) + 4095) & ~size_t{4095};

// --- usage ------------------------------------------------------------------------------------

// One charge or credit in the making. Written by the slot's owner before it touches `book`, so that
// whoever buries the process knows what it was about to do (books.h has the protocol).
struct SlotOp {
  U64 word;    // 0 = none; else sequence(16) | device(8) << 16 | 1 << 63
  U64 target;  // the slot's charged units after the operation
  U64 before;  // ... and before it
};

struct SlotDevice {
  U64 charged_units;       // exact: this process's part of book[device]
  U64 kind_units[kKinds];  // for people; may be torn by a kill
};

struct alignas(64) ProcessSlot {
  U32 owner_tag;      // set by the owner at attach: the low bits of the generation; 0 = never used
  U32 ns_pid;         // pid in the process's own namespace, for people
  U64 done_sequence;  // the newest of the slot's operations known to stand in a book
  SlotOp op;
  U64 refusals;
  U64 launches;      // submissions of GPU work seen (relaxed, per process)
  U64 charges;       // UnderWay below; its low part is bumped by each charge or credit
  U32 state_flags;   // ShimState below
  U32 room_waiters;  // threads that wait for room (on_full_wait_ms); for people
  U64 answered;      // UnderWay below
  uint8_t reserved[40];
  SlotDevice device[kMaxDevices];
};
static_assert(sizeof(ProcessSlot) == 1280);

// Allocations charged that the driver has not answered yet, and frees that the driver was asked for
// and that are not credited yet. While there are any, what the driver holds may be less than what
// is charged and says nothing of how much it takes beyond the charges.
//
// Half of the count is in the high bits of `charges`, written with each charge and credit by
// whoever has the slot's turn: an allocation begins (+1), a free ends (-1). The other half is
// `answered`, written by any thread: an allocation was answered (+1), a free begins (-1).
// To say of a reading of the driver's figures that nothing was under way, look before and after it:
// at op.word (acquire: clear means that the change is counted), then `answered` (acquire: whoever
// sees an answer sees the charge before it), then `charges`. Nothing in op.word and nothing under
// way both times, and `charges` equal.
constexpr unsigned kUnderWayShift = 40;
constexpr uint64_t kUnderWayOne = uint64_t{1} << kUnderWayShift;
constexpr uint32_t UnderWay(uint64_t answered, uint64_t charges) {
  return static_cast<uint32_t>((charges >> kUnderWayShift) - answered) &
         ((1u << (64 - kUnderWayShift)) - 1);
}

enum ShimState : uint32_t {
  kShimActive = 1u << 0,
  kShimDegraded = 1u << 1,  // a fault of our own: counted, visible, calls go on
  kShimForked = 1u << 2,
};

// What the tenant tells about one refusal or fault of its own.
struct alignas(64) UsageEvent {
  U64 sequence;  // 0 = never written; odd while being written, even when whole
  uint64_t time_ns;
  uint64_t bytes;   // asked for
  uint64_t in_use;  // the tenant's charges then
  uint64_t limit;
  uint32_t slot;
  uint16_t device;
  uint16_t cause;   // EventCause
  uint32_t symbol;  // index into the driver table, of the call that met it
  uint32_t reserved;
};
static_assert(sizeof(UsageEvent) == 64);

enum class EventCause : uint16_t {
  kOutOfShare = 1,     // over limit_bytes
  kDeviceFull = 2,     // within the limit, but the device has no memory left
  kForeignDevice = 3,  // a device without a share was asked for
  kDriverRefused = 4,  // charged, but the driver said no
  kDegraded = 5,       // a fault of the shim's own
  kDenied = 6,         // a call that Divvy refuses to tenants
};

// One stream's work as the GPU and the shim report it; src/arbiter/progress.h folds it. A lane is
// given to a stream and, once it is idle, to another: its counts only grow.
struct alignas(32) Lane {
  U64 marker;  // GPU-written: arbiter::MarkerWord(operations before it, kind)
  U64 issued;  // operations submitted
  U64 start;   // `issued` when the newest start marker of an idle stream was queued
  U64 marked;  // operations before the newest marker queued: what lies above it has no marker yet
};
static_assert(sizeof(Lane) == 32);
constexpr unsigned kLanes = 60;  // streams with work outstanding at once; more share the last one

// Waits by their length: one count for each bound, one for what is longer. In microseconds.
constexpr uint32_t kWaitBoundsUs[] = {100, 250, 500, 1000, 2500, 5000, 10'000, 50'000, 250'000};
constexpr unsigned kWaitBuckets = 10;

// Markers and submission counters of one process on one device (compute). The owner registers its
// slot's pages with the driver, so that the GPU can write the lanes.
struct alignas(64) Meter {
  U32 waiters;        // threads waiting at the gate or for their bound
  U32 lanes;          // lanes ever used; the daemon looks at so many
  U64 waits;          // waits begun or renewed: a waiter that lives makes it grow
  U64 operations;     // metered submissions; ProcessSlot::launches counts all
  U64 in_flight_ns;   // estimated
  U64 gate_wait_ns;   // time spent waiting for the gate to open, summed over threads
  U64 bound_wait_ns;  // ... for the bound
  U64 forced;         // waits that ended by time: the submission went through and is billed
  U64 ran_ns;         // lengths by the GPU's clock of operations that have ended; only grows
  U64 copied_bytes;   // host <-> device, by asynchronous and blocking copies
  U64 copies;
  U64 copy_ns;                     // time in blocking ones, summed over threads
  U32 wait_buckets[kWaitBuckets];  // waits that have ended, at the gate or for the bound; may wrap
  Lane lane[kLanes];
};
static_assert(sizeof(Meter) == 2048);
struct alignas(4096) MeterPages {
  Meter device[kMaxDevices];
};
static_assert(sizeof(MeterPages) == 32768);

// What `divvy record` reads: one entry per operation while a gate says kGateEachOp. Lengths and
// gaps only, no data. Units: 100 ns, saturating.
struct OperationRecord {
  U64 sequence;  // 0 = never written; the writer's ticket + 1, stored last (release)
  U32 length;    // between its start and its done marker, as the shim saw them
  U32 gap;       // host time between the end of the last submission and this one, same thread
  U32 key;       // hash of function and grid, or of the graph: which operations are alike
  uint16_t device;
  uint8_t kind;    // 0 kernel, 1 graph, 2 memset or device copy, 3 host-device copy
  uint8_t synced;  // the host waited for the device in the gap
};
static_assert(sizeof(OperationRecord) == 24);
constexpr unsigned kMaxRecords = 4096;

// One process's part in memory that several processes of the tenant have: its exporter's, or that
// of one that opened it. Each is charged for it; shared_memory.h counts what is charged more than
// once.
struct SharedHold {
  U64 word;    // 0 = free; else HoldState | device << 8 | slot << 16
  U64 object;  // the same for all parts in one piece of memory; never used for another piece
  U64 handle;  // exporter: hash of the bytes that it hands out; 0 = opened
  U64 units;   // of the slot's charge, what stands for this
  U64 local;   // the owner's own: where the memory is in its process
};
static_assert(sizeof(SharedHold) == 40);
enum HoldState : uint8_t {
  kHoldFree = 0,
  kHoldChanging = 1,  // its charge is being made or taken back: does not count
  kHoldCounted = 2,   // its charge stands
  kHoldOpen = 3,      // and it is an exporter's, whose memory others may open
};

struct Usage {
  uint32_t magic;
  uint32_t version;
  uint64_t size_bytes;
  uint64_t generation;
  U64 event_head;  // events ever written
  U64 freed_word;  // bumped by each credit: waiters for room look again
  U32 freed_futex;
  U32 freed_waiters;  // 0 = nobody to wake
  U32 holds_top;      // parts in shared memory lie below this; never falls
  uint8_t reserved[204];
  // One cache line each: book[8 * device], and beside it the most units that it ever had, how many
  // of its units are charged more than once (as last counted, for people), and how many parts in
  // shared memory have ended.
  alignas(64) U64 book[kMaxDevices * 8];
  UsageEvent event[kMaxEvents];
  alignas(64) U64 record_head;  // operation records ever written
  OperationRecord record[kMaxRecords];
  alignas(64) SharedHold hold[kMaxHolds];
  ProcessSlot slot[kMaxSlots];
  MeterPages meter[kMaxSlots];
};
static_assert(offsetof(Usage, book) == 256);
static_assert(offsetof(Usage, meter) % 4096 == 0);
constexpr size_t kUsageBytes = sizeof(Usage);  // mostly never touched: costs what is used

// --- bell -------------------------------------------------------------------------------------

// One page of the daemon's, the same for all its tenants, mapped writable by each. While no device
// is contended nobody polls; a submission that meets kGateBell adds one to `rung` and wakes it
// (FUTEX_WAKE, shared). It is a page and not a descriptor because a program may close and reuse any
// descriptor number. The daemon only takes it for "look now", at a limited rate: a tenant that
// rings without end, or never, harms nobody but itself.
struct Bell {
  U32 rung;
};
constexpr size_t kBellBytes = 4096;

inline U64& BookOf(Usage& usage, unsigned device) { return usage.book[8 * device]; }
inline U64& PeakOf(Usage& usage, unsigned device) { return usage.book[8 * device + 1]; }
inline U64& DoubledOf(Usage& usage, unsigned device) { return usage.book[8 * device + 2]; }
inline U64& EndsOf(Usage& usage, unsigned device) { return usage.book[8 * device + 3]; }

}  // namespace divvy::region
