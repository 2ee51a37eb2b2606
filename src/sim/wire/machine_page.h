// The machine page: one memfd that the broker makes and every client of a simulated machine maps.
//   MachinePage | ClientRow[kMaxClients] | History[kMaxClients][kMaxDevices] (touched with lag
//   only)
// It holds what the devices are and the memory books. Clients book for themselves: a device's
// robust lock is held, the client's own row is written first, the device's sum second, so that a
// client killed in between is repaired from the rows by whoever locks next. The broker alone makes
// and clears rows. This is a test double: clients are trusted with the whole page.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>

#include "src/sim/wire/profile.h"

namespace divvy::sim {

inline constexpr uint64_t kMachineMagic = 0x31304d4953565644;  // "DVVSIM01"
inline constexpr uint32_t kMaxClients = 2048;
inline constexpr uint32_t kHistory = 32;
inline constexpr uint32_t kUtilBuckets = 64;

inline constexpr uint64_t kUtilWindowNs = 200'000'000;

enum ClientState : uint32_t {
  kClientFree = 0,
  kClientLive = 1,
  kClientLeaving = 2,  // its process is gone, its memory not yet given back
};

// Books of one client on one device; written under the device's lock, read by anyone.
struct DeviceRow {
  std::atomic<uint64_t> used_bytes;  // contexts included, multiples of kBlockBytes
  std::atomic<uint64_t> context_bytes;
  std::atomic<uint32_t> contexts;  // NVML lists the process while > 0
  uint32_t pad;
  std::atomic<uint64_t> busy_ns;  // device time its work has taken; the timeline writes
  // The same by windows of kUtilWindowNs: the one being written and the one before it.
  struct {
    std::atomic<uint64_t> number, busy_ns;
  } window[2];
};

struct alignas(64) ClientRow {
  std::atomic<uint32_t> state;
  std::atomic<uint32_t> generation;  // +1 each time the row is given out
  std::atomic<int32_t> pid;          // as the broker sees it
  std::atomic<uint32_t> flags;
  char process_name[48];
  DeviceRow dev[kMaxDevices];
};

struct History {
  std::atomic<uint32_t> next;
  uint32_t pad;
  struct {
    std::atomic<uint64_t> at_ns;
    std::atomic<uint64_t> used_bytes;
  } at[kHistory];
};

struct alignas(64) DeviceHead {
  pthread_mutex_t lock;              // process-shared, robust
  std::atomic<uint64_t> used_bytes;  // sum over rows
  std::atomic<uint64_t> busy_ns;     // device time taken by anybody
  std::atomic<uint64_t> copy_busy_ns;
  // Busy time per bucket of util_bucket_ns; bucket number b lies in slot b % kUtilBuckets.
  struct {
    std::atomic<uint64_t> number;
    std::atomic<uint64_t> busy_ns;
    std::atomic<uint64_t> copy_ns;
  } util[kUtilBuckets];
  unsigned char uuid[16];
  uint32_t pci_bus;
};

// An event that several processes share: how often it was recorded, and which record was reached.
inline constexpr uint32_t kIpcEvents = 1024;
struct IpcEvent {
  std::atomic<uint32_t> users;  // 0: free
  uint32_t pad;
  std::atomic<uint64_t> recorded, done;
};

// What NVML answers for per-process memory.
enum class NvmlMode : uint32_t { kTruth = 0, kNotAvailable = 1 };

struct alignas(64) MachinePage {
  uint64_t magic;
  uint32_t version;
  uint32_t device_count;
  uint32_t dilation;
  uint32_t nvml_mode;
  uint64_t usable_bytes;  // of each device: what contexts and allocations may share
  uint64_t nvml_lag_ns;
  uint64_t util_bucket_ns;
  char profile_key[32];
  alignas(64) std::atomic<uint32_t> bell;  // futex: clients ring when they have submitted
  std::atomic<uint32_t> timeline_asleep;   // 1 while the timeline waits on `bell`
  alignas(64) std::atomic<uint64_t> dirty[kMaxClients / 64];  // clients with new submissions
  std::atomic<uint32_t> rows_high;                            // rows at or above were never used
  DeviceHead device[kMaxDevices];
  IpcEvent ipc_event[kIpcEvents];
  ClientRow row[kMaxClients];
  History history[kMaxClients][kMaxDevices];
};

static_assert(std::atomic<uint64_t>::is_always_lock_free);

uint64_t NowNs();  // CLOCK_MONOTONIC

// Holds a device's lock; repairs the device's sum when the last holder died inside.
class DeviceLock {
 public:
  DeviceLock(MachinePage* page, uint32_t device);
  ~DeviceLock();
  DeviceLock(const DeviceLock&) = delete;
  DeviceLock& operator=(const DeviceLock&) = delete;

 private:
  DeviceHead* head_;
};

void InitDeviceLock(DeviceHead* head);  // once, by the broker

const Profile* ProfileOf(const MachinePage* page);

// Books `bytes` for client `row` on `device`; false (and nothing booked) when the device is full.
bool Book(MachinePage* page, uint32_t row, uint32_t device, uint64_t bytes);
bool BookContext(MachinePage* page, uint32_t row, uint32_t device, uint64_t bytes);
void Unbook(MachinePage* page, uint32_t row, uint32_t device, uint64_t bytes);
void UnbookContext(MachinePage* page, uint32_t row, uint32_t device, uint64_t bytes);
// Moves `bytes` from one client's row to another's: shared memory that outlives its maker.
void MoveBooking(MachinePage* page, uint32_t from, uint32_t to, uint32_t device, uint64_t bytes);
// Everything client `row` holds on all devices is given back (the broker, after its end).
void ClearBooks(MachinePage* page, uint32_t row);

// A client's bytes on a device as they were `nvml_lag_ns` ago.
uint64_t LaggedUsed(const MachinePage* page, uint32_t row, uint32_t device, uint64_t now_ns);

}  // namespace divvy::sim
