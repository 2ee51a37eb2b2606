// What a tenant's programs are told of utilisation: the tenant's own, of its share. Written to its
// policy after each reading of a device; the shim's NVML answers from there.
//
// Side: the daemon, under the node's lock; one writer for each share. Pure but for the stores.
#pragma once

#include <cstdint>
#include <optional>

#include "src/base/percent.h"
#include "src/region/layout.h"

namespace divvy::daemon {

// What it sees as 100 %: its cap where it has one, else its guarantee, else the whole device.
Percent WholeOf(Percent guaranteed, Percent cap);

// Parts of the device's time, 0 to 1.
struct UseNow {
  double last_second = 0, last_half = 0;
};
// `use`: nothing where it is not measured (the tenant has the device to itself).
void TellUse(region::PolicyDevice& policy, Percent whole, const std::optional<UseNow>& use,
             uint64_t now_ns);

}  // namespace divvy::daemon
