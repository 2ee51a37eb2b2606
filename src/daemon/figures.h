// What the node's figures are at one moment, as plain values: what the metrics page, the watch and
// the history are made from, outside of the node's lock.
//
// Side: the daemon. Node::CollectFigures fills it (node_figures.cc). Names are those of
// docs/api.md.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace divvy::daemon {

struct DeviceFigures {
  std::string uuid, name, pci_bus_id;
  unsigned index = 0;
  uint64_t total_bytes = 0, used_bytes = 0, free_bytes = 0, driver_bytes = 0, outside_bytes = 0;
  uint64_t promised_bytes = 0, leaving_bytes = 0, free_to_promise_bytes = 0;
  double compute_promised_percent = 0;
  uint64_t readings = 0;
  unsigned outside_processes = 0;
  unsigned tenants = 0;
  std::string fault;                  // "" = healthy
  std::string cordon;                 // why it takes no new tenants; "" = it does
  std::map<uint64_t, uint64_t> xids;  // how often which
};

struct ShareFigures {
  unsigned device = 0;  // into Figures::devices
  uint64_t limit_bytes = 0, promised_bytes = 0, used_bytes = 0, charged_bytes = 0;
  uint64_t charged_peak_bytes = 0;
  uint64_t contexts_bytes = 0, leaving_bytes = 0, nvml_bytes = 0, unattached_bytes = 0;
  int64_t overhead_bytes = 0;
  bool measured = false, over = false;
  bool shut_by_audit = false, shut_by_cap = false;
  // Compute
  double part_percent = 0;
  bool metered = false;  // false: nobody else has a share, there are no markers
  bool known = false;    // what it uses is: by its markers, or the driver tells
  double used_percent_1s = 0, used_percent_60s = 0, gate_wait_percent = 0;
  double wanted_percent_1s = 0, wanted_percent_60s = 0;
  uint64_t used_ns = 0, billed_ns = 0;
  double guaranteed_s = 0;
  double gate_wait_s = 0, bound_wait_s = 0;
  uint64_t windows = 0, overruns = 0, waits = 0, forced = 0, operations = 0, launches = 0;
  uint64_t copied_bytes = 0, faults = 0;
  std::array<uint64_t, 10> wait_buckets{};  // region::kWaitBoundsUs; not cumulative
  bool distrusted = false, entangled = false, stalled = false, light = false;  // now
};

struct FindingFigures {
  std::string code, device;  // UUID
};

struct TenantFigures {
  uint64_t id = 0;  // never used again
  std::string name, command;
  const char* share_class = "";
  const char* state = "";
  bool cooperative = false, paused = false;
  unsigned processes = 0;         // live ones
  uint64_t waiting_for_room = 0;  // threads of theirs
  double guaranteed_percent = 0, cap_percent = 0;
  uint32_t weight = 0;
  std::map<std::string, uint64_t> refusals;  // by cause
  std::vector<FindingFigures> findings;      // those that are still so
  std::vector<ShareFigures> shares;
};

struct Figures {
  double time = 0;  // seconds since the epoch
  std::string driver_version;
  std::vector<DeviceFigures> devices;
  std::vector<TenantFigures> tenants;
};

}  // namespace divvy::daemon
