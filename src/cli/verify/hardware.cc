#include "src/cli/verify/hardware.h"

#include <optional>

namespace divvy::cli {
namespace {

using nlohmann::json;

CaseTenant Load(std::string name, double kernel_us, unsigned sync_every, double think_us = 0) {
  return {.name = std::move(name),
          .kernel_us = kernel_us,
          .sync_every = sync_every,
          .think_us = think_us};
}

}  // namespace

Result<json> MeasureHardware(const MixMachine& machine, unsigned device, double seconds_each) {
  const auto run = [&](std::vector<CaseTenant> tenants, bool shared) {
    return RunMixes(machine,
                    {{.tenants = &tenants, .devices = {device}, .shared = shared, .label = "hw"}},
                    0.3, seconds_each);
  };
  json out = json::object();
  std::optional<Error> failed;
  // GPU time is in the device's own microseconds; latencies are the host's.
  const auto of = [&](std::vector<CaseTenant> tenants, bool shared = false) {
    if (!failed) {
      const auto results = run(tenants, shared);
      if (results.ok()) return results->front();
      failed = results.error();
    }
    return std::vector<MixResult>(tenants.size());
  };
  const double d = machine.dilation;
  const auto alone = of({Load("a", 50, 0)});
  const auto two = of({Load("a", 50, 0), Load("b", 50, 0)});
  const double solo = alone[0].gpu_percent;
  const double both = two[0].gpu_percent + two[1].gpu_percent;
  out["saturating_alone_percent"] = solo;
  out["saturating_two_percent"] = both;
  // Somebody who waits for each short operation meets the other's slice once in a while.
  const auto slice = of({Load("probe", 20, 1), Load("heavy", 50, 0)});
  out["slice_us"] = slice[0].latency_p99_us / d;
  out["slice_typical_us"] = slice[0].latency_p50_us / d;
  if (solo > 0 && both < solo) {
    // Two saturating programs lose one switch for each slice.
    const double lost = 1 - both / solo;
    out["switch_us"] = lost / (1 - lost) * (slice[0].latency_p99_us / d);
  }
  // One operation at a time: its queue runs dry after each. If the device switches then, the probe
  // waits for about one operation; if not, for a slice.
  const auto dry = of({Load("probe", 20, 1), Load("heavy", 200, 1)});
  const auto probe = of({Load("probe", 20, 1)});
  out["probe_alone_p50_us"] = probe[0].latency_p50_us / d;
  out["probe_beside_dry_queue_p50_us"] = dry[0].latency_p50_us / d;
  out["switches_when_dry"] = dry[0].latency_p50_us < 0.6 * slice[0].latency_p99_us;
  // Who has nothing but an event to record: is that done at once, or in its process' turn? What the
  // arbiter takes a start marker to mean stands on it.
  CaseTenant event = Load("event", 0, 1);
  event.event = true;
  const auto event_alone = of({event});
  const auto event_beside = of({event, Load("heavy", 50, 0)});
  out["event_alone_p50_us"] = event_alone[0].latency_p50_us / d;
  out["event_beside_saturating_p50_us"] = event_beside[0].latency_p50_us / d;
  out["events_wait_for_their_turn"] =
      event_beside[0].latency_p50_us > 0.3 * slice[0].latency_p50_us;
  // The gate: short kernels in requests, without Divvy, alone in a share, beside an idle tenant.
  const CaseTenant short_kernels = Load("a", 5, 200);
  const auto native = of({short_kernels});
  const auto free = of({short_kernels}, true);
  const auto lone = of({short_kernels, Load("idle", 5, 1, 3e6)}, true);
  out["native_5us_percent"] = native[0].gpu_percent;
  out["gate_alone_ratio"] =
      native[0].gpu_percent > 0 ? free[0].gpu_percent / native[0].gpu_percent : 0;
  out["gate_beside_idle_ratio"] =
      native[0].gpu_percent > 0 ? lone[0].gpu_percent / native[0].gpu_percent : 0;
  CaseTenant copies = Load("copies", 1, 4);
  copies.copy_mib = 64;
  const auto copied = of({copies});
  out["pinned_copy_gbps"] = copied[0].copied_gbps * d;
  if (failed) return *failed;
  return out;
}

}  // namespace divvy::cli
