// Simulated GPU models; the grammar that names a machine of them is src/base/sim_spec.h.
// Shared by the broker and both libraries; pure, no I/O. Figures are of the real cards where public
// (memory, SMs, clocks) and plausible otherwise (context cost, switch cost): src/sim/README.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "src/base/result.h"
#include "src/base/sim_spec.h"

namespace divvy::sim {

struct Profile {
  const char* key;               // as in the grammar
  const char* name;              // as cuDeviceGetName and NVML print it
  uint64_t nvml_total_bytes;     // what NVML calls total
  uint64_t reserved_bytes;       // driver's own: total minus what cuDeviceTotalMem says
  uint64_t context_bytes;        // taken by the first context of a process
  uint64_t extra_context_bytes;  // each further context of the same process
  uint64_t module_bytes;         // least cost of a loaded module
  uint64_t pool_step_bytes;      // pools grow by multiples of this
  uint64_t slice_ns;             // time slice of a process while another one wants the device
  uint64_t switch_ns;            // cost of a switch between processes
  uint64_t launch_ns;            // from submission to start on an idle device
  uint64_t copy_latency_ns;      // fixed part of a host-device copy
  double h2d_gbps;               // copy engines, GB/s
  double d2h_gbps;
  double dram_gbps;  // memsets, device-to-device copies
  int cc_major, cc_minor;
  int sm_count;
  int threads_per_sm;
  int clock_khz, mem_clock_khz, bus_width_bits;
  uint64_t l2_bytes;
  uint64_t shared_per_sm_bytes, shared_per_block_optin_bytes;
  uint32_t pci_device_id;  // (device << 16) | vendor, as NVML's pciDeviceId
  uint32_t pci_subsystem_id;
  int power_limit_mw;
  bool nvlink;
};

struct MachineSpec {
  const Profile* profile = nullptr;
  uint32_t count = 1;
  uint32_t dilation = 1;  // every duration times this
};

inline constexpr uint64_t kBlockBytes = 2ull << 20;  // physical granularity
inline constexpr uint32_t kMaxDevices = kMaxSimDevices;

const Profile* FindProfile(std::string_view key);
std::string ProfileNames();  // "h100, a100, t4"

// kInvalid for an unknown name, a count outside 1..16, a dilation outside 1..1000.
Result<MachineSpec> ParseMachineSpec(std::string_view text);

}  // namespace divvy::sim
