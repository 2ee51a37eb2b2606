// One tenant as the daemon sees it: its share of each device, its segments, its processes.
//
// Plain data; every field is guarded by the node's lock except what Segments says is atomic.
// A Process is one slot of the usage segment: a pid has a second one when a second copy of the shim
// runs in it (dlmopen), and while what it held before an exec is still leaving.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "src/base/unique_fd.h"
#include "src/daemon/overhead.h"
#include "src/daemon/request.h"
#include "src/daemon/segments.h"

namespace divvy::daemon {

struct Process {
  enum class State {
    kLive,
    kLeaving,   // dead and buried; the driver may still hold its memory
    kReplaced,  // lives, but what this slot held belongs to the image before an exec
  };
  ProcessId id;
  uid_t uid = 0;
  uint32_t slot = 0;
  uint32_t ns_pid = 0;
  std::string command;
  bool second_copy = false;
  State state = State::kLive;
  UniqueFd pidfd;
  uint64_t watch = 0;                 // loop id of pidfd
  std::vector<uint64_t> connections;  // none while it lives: exec, or all descriptors closed
  uint64_t since_ns = 0;              // of kLeaving, kReplaced, or of the last connection's end
  struct OnDevice {                   // by share index
    uint64_t held_units = 0;          // kLeaving, kReplaced: still in the book
    uint64_t nvml_bytes = 0;          // last reading
    uint64_t charges_seen = 0;        // slot's charge sequence at the last reading
    unsigned settled_readings = 0;    // equal ones in a row
  };
  std::array<OnDevice, region::kMaxDevices> device;
  struct Unsettled {        // a charge in the making, or a driver call that has not been answered
    uint64_t since_ns = 0;  // not changed since; 0 = none
    uint64_t op = 0, answered = 0, charges = 0;
    bool SameAs(const Unsettled& o) const {
      return op == o.op && answered == o.answered && charges == o.charges;
    }
  } unsettled;
};

struct Finding {
  std::string code;  // no_hello, beyond_charges, beyond_share, foreign_device, scribbled
  pid_t pid = 0;
  std::string device;  // UUID
  uint64_t bytes = 0;
  double time = 0;
  std::string action;  // what was done: warn, gate, kill
  std::string message;
  bool active = true;     // still so at the last reading
  unsigned readings = 0;  // in a row that showed it; acted on at the second
  bool seen_now = false;  // scratch of one reading
};

struct Share {
  unsigned device = 0;       // index into the node's devices
  uint64_t faults_told = 0;  // the arbiter's, when an event last said so
  uint64_t overruns_told = 0;
  struct Unseen {                // GPU time by the driver's account beside the billed one
    uint64_t began_ns = 0;       // of this comparison; 0 = none
    bool queue = false;          // of what it had queued while it was alone
    double driver_ns = 0;        // since began
    double debited_ns = 0;       // of this
    int64_t explained_then = 0;  // when it began: what the driver's figure may be without a fault
    int64_t shown_then = 0;      // ... and what people saw of it
    unsigned rounds = 0;         // comparisons in a row that disagreed by much
    std::string message;         // of the last one that did
  } unseen;
  bool used_lately = false;  // the driver's last figure of its use was above 0
  Overhead overhead;
  uint64_t unattached_bytes = 0;  // NVML's sum over its processes that have not said hello
  uint64_t nvml_bytes = 0;        // NVML's sum over all its processes
  bool measured = false;          // the last reading gave per-process figures
  bool gated = false;             // shut by the audit
  bool empty = false;             // the last reading: nothing held, charged or owed
  uint64_t contexts_seen = 0;     // charged for contexts at the last reading
  uint64_t highest_limit = 0;     // published since it was last within its limit
  int64_t highest_room = 0;       // for charges: the same of limit - overhead
  unsigned over_readings = 0;     // readings in a row that showed more than that
  uint64_t sequence_seen = 0;     // Σ charge sequences when last looked
  uint64_t changed_ns = 0;        // when it was last seen to change
};

// GPU time that was guaranteed so far: the guaranteed part times time, however often it changed.
struct Guarantee {
  double seconds = 0;  // up to since_ns
  double part = 0;     // of a device, since then
  uint64_t since_ns = 0;
  double SecondsAt(uint64_t now_ns) const {
    return seconds + part * static_cast<double>(now_ns - since_ns) / 1e9;
  }
  void Change(double new_part, uint64_t now_ns) { *this = {SecondsAt(now_ns), new_part, now_ns}; }
};

struct Tenant {
  uint64_t id = 0;  // never used again
  TenantRecord record;
  std::string saved;  // its text in the state file; "" = changed since
  std::vector<Share> shares;
  std::shared_ptr<Segments> segments;  // the arbiter's thread holds them, too
  std::string module_loading;          // CUDA_MODULE_LOADING of its newest process

  UniqueFd listener;
  uint64_t listener_watch = 0;
  UniqueFd runner_pidfd;
  uint64_t runner_watch = 0;
  bool runner_gone = false;
  UniqueFd cgroup_events;  // valid once its runner is gone and processes live in its cgroup
  uint64_t cgroup_watch = 0;

  std::map<uint32_t, Process> processes;  // by slot
  std::set<uint32_t> free_slots;          // below next_slot
  uint32_t next_slot = 1;
  uint64_t epoch = 0;              // the daemon's own changes to the books
  std::vector<ProcessId> awaited;  // adopted after a restart, not heard of since
  std::vector<Finding> findings;
  Guarantee guaranteed;
  uint64_t record_until_ns = 0;  // its operations are recorded; 0 = they are not
  bool ending = false;           // deleted by force: nobody may join, ends with its last process

  uint64_t events_seen = 0;  // usage.event_head when last harvested
  std::array<uint64_t, region::kMaxEvents> event_sequence{};
  std::map<std::string, uint64_t> refusals;  // by cause
  struct Refused {
    uint64_t at_ns = 0;  // when it was heard of
    uint64_t count = 0;
  };
  std::deque<Refused> refused;  // the last minute's, at most two a second
};

// The tenant's books at one moment.
struct BooksLook {
  // Σ of the live slots' charge sequences and the daemon's own changes: equal before and after a
  // reading of NVML means that nothing was booked in between.
  uint64_t sequence = 0;
  // No process was in the middle of a charge, and none waited for the driver's answer to what is
  // charged (region::UnderWay). With equal sequences and still before and after a reading, charges
  // and reading are of the same moment.
  bool still = true;
};
BooksLook LookAtBooks(const Tenant& tenant);
// Nobody is there to hold memory of the share, and nobody did at the last reading: nothing needs to
// be looked at, and nobody reads what is published, until a process says hello.
bool Dormant(const Tenant& tenant, unsigned share);
uint64_t BookedBytes(const Tenant& tenant, unsigned share);   // the book: what all were charged
uint64_t DoubledBytes(const Tenant& tenant, unsigned share);  // of it, for memory that they share
uint64_t ChargedBytes(const Tenant& tenant, unsigned share);  // the one less the other
uint64_t ChargedPeakBytes(const Tenant& tenant, unsigned share);  // the most there ever was
uint64_t LeavingBytes(const Tenant& tenant, unsigned share);
uint64_t KindBytes(const Tenant& tenant, unsigned share, region::Kind kind);  // all slots
// Imported memory that is nobody else's charge in the tenant.
uint64_t ImportedBytes(const Tenant& tenant, unsigned share);
bool SlotImports(const Tenant& tenant, uint32_t slot, unsigned share);
uint64_t SlotContextBytes(const Tenant& tenant, uint32_t slot, unsigned share);
// False when the book and the slots' charges differ: with nothing in flight, somebody scribbled.
bool BooksAgree(const Tenant& tenant, unsigned share);
// What the tenant holds of the device: charges and overhead, or what NVML says if that is more. A
// scribbled book claims no more than the highest limit that was in force: others' admission counts
// on this figure.
uint64_t UsedBytes(const Tenant& tenant, unsigned share);
// Threads of one process that wait for room in the share (on_full_wait_ms), as it says.
uint64_t RoomWaiters(const Tenant& tenant, const Process& process);
const char* StateOf(const Tenant& tenant);  // running, orphaned, leaving, ending
// Charges of one process, clamped: a scribbled slot must not overflow a sum.
uint64_t SlotBytes(const Tenant& tenant, uint32_t slot, unsigned share);

}  // namespace divvy::daemon
