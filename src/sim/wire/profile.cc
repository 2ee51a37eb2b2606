// The table of simulated GPU models. See profile.h.
#include "src/sim/wire/profile.h"

#include <iterator>

#include "src/base/device_timing.h"

namespace divvy::sim {
namespace {

constexpr uint64_t kMiB = 1ull << 20;

constexpr Profile kProfiles[] = {
    {.key = "h100",
     .name = "NVIDIA H100 80GB HBM3",
     .nvml_total_bytes = 81559 * kMiB,
     .reserved_bytes = 551 * kMiB,
     .context_bytes = 498 * kMiB,
     .extra_context_bytes = 316 * kMiB,
     .module_bytes = 2 * kMiB,
     .pool_step_bytes = 32 * kMiB,
     .slice_ns = 1'000'000,
     .switch_ns = 60'000,
     .launch_ns = 1'000,
     .copy_latency_ns = 4'000,
     .h2d_gbps = 52.0,
     .d2h_gbps = 52.0,
     .dram_gbps = 2600.0,
     .cc_major = 9,
     .cc_minor = 0,
     .sm_count = 132,
     .threads_per_sm = 2048,
     .clock_khz = 1'980'000,
     .mem_clock_khz = 2'619'000,
     .bus_width_bits = 5120,
     .l2_bytes = 50 * kMiB,
     .shared_per_sm_bytes = 233'472,
     .shared_per_block_optin_bytes = 232'448,
     .pci_device_id = 0x233010DE,
     .pci_subsystem_id = 0x16C110DE,
     .power_limit_mw = 700'000,
     .nvlink = true},
    {.key = "a100",
     .name = "NVIDIA A100-PCIE-40GB",
     .nvml_total_bytes = 40960 * kMiB,
     .reserved_bytes = 576 * kMiB,
     .context_bytes = 418 * kMiB,
     .extra_context_bytes = 280 * kMiB,
     .module_bytes = 2 * kMiB,
     .pool_step_bytes = 32 * kMiB,
     .slice_ns = 1'000'000,
     .switch_ns = 80'000,
     .launch_ns = 1'000,
     .copy_latency_ns = 5'000,
     .h2d_gbps = 24.0,
     .d2h_gbps = 24.0,
     .dram_gbps = 1200.0,
     .cc_major = 8,
     .cc_minor = 0,
     .sm_count = 108,
     .threads_per_sm = 2048,
     .clock_khz = 1'410'000,
     .mem_clock_khz = 1'215'000,
     .bus_width_bits = 5120,
     .l2_bytes = 40 * kMiB,
     .shared_per_sm_bytes = 167'936,
     .shared_per_block_optin_bytes = 166'912,
     .pci_device_id = 0x20F110DE,
     .pci_subsystem_id = 0x145F10DE,
     .power_limit_mw = 250'000,
     .nvlink = false},
    {.key = "t4",
     .name = "Tesla T4",
     .nvml_total_bytes = 15360 * kMiB,
     .reserved_bytes = 450 * kMiB,
     .context_bytes = 104 * kMiB,
     .extra_context_bytes = 74 * kMiB,
     .module_bytes = 2 * kMiB,
     .pool_step_bytes = 32 * kMiB,
     .slice_ns = 1'000'000,
     .switch_ns = 140'000,
     .launch_ns = 1'500,
     .copy_latency_ns = 6'000,
     .h2d_gbps = 12.0,
     .d2h_gbps = 12.0,
     .dram_gbps = 250.0,
     .cc_major = 7,
     .cc_minor = 5,
     .sm_count = 40,
     .threads_per_sm = 1024,
     .clock_khz = 1'590'000,
     .mem_clock_khz = 5'001'000,
     .bus_width_bits = 256,
     .l2_bytes = 4 * kMiB,
     .shared_per_sm_bytes = 65'536,
     .shared_per_block_optin_bytes = 65'536,
     .pci_device_id = 0x1EB810DE,
     .pci_subsystem_id = 0x12A210DE,
     .power_limit_mw = 70'000,
     .nvlink = false},
};

}  // namespace

// Every name that may be given has its model here.
static_assert([] {
  for (const std::string_view model : kSimModels) {
    bool known = false;
    for (const Profile& p : kProfiles) known = known || model == p.key;
    if (!known) return false;
  }
  return std::size(kSimModels) == std::size(kProfiles);
}());

// divvyd takes the models for what their names say.
static_assert([] {
  for (const Profile& p : kProfiles) {
    const DeviceTiming timing = TimingOf(p.name);
    if (timing.switch_us * 1000 != p.switch_ns) return false;
    if (timing.slice_us * 1000 * 19 > p.slice_ns * 20 || p.slice_ns > timing.slice_us * 1000)
      return false;
  }
  return true;
}());

const Profile* FindProfile(std::string_view key) {
  for (const Profile& p : kProfiles) {
    if (key == p.key) return &p;
  }
  return nullptr;
}

std::string ProfileNames() {
  std::string names;
  for (const std::string_view m : kSimModels) names += (names.empty() ? "" : ", ") + std::string(m);
  return names;
}

Result<MachineSpec> ParseMachineSpec(std::string_view text) {
  const auto spec = ParseSimSpec(text);
  if (!spec.ok()) return spec.error();
  return MachineSpec{FindProfile(spec->model), spec->count, spec->dilation};
}

}  // namespace divvy::sim
