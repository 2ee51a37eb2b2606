// Words of the compute arbiter: what a tenant holds of one device, and the gate it is given. Plain
// values; the daemon copies a Gate into the tenant's policy segment, the model reads it directly.
#pragma once

#include <chrono>
#include <cstdint>

namespace divvy::arbiter {

using Nanos = std::chrono::nanoseconds;

using TenantIndex = uint16_t;
using DeviceIndex = uint8_t;
constexpr TenantIndex kNoTenant = UINT16_MAX;

enum class TenantClass : uint8_t {
  kLatency,   // served first as long as it keeps to its share
  kStandard,  //
  kBatch,     // what the others leave
};

// The compute part of a share of one device.
struct ComputeShare {
  double weight = 1;  // part of the device under contention, relative to the other tenants' weights
  double cap = 1;     // used time <= cap * elapsed time; 1 = no cap
  TenantClass cls = TenantClass::kStandard;
};

// How much the tenant may have in flight, in estimated time. Tunables::Bound and ::Space give the
// figures. Whatever the bound, one operation may always be in flight.
enum class GateMode : uint8_t {
  kShut,        // submissions wait until the gate changes
  kBound,       // others contend
  kLightBound,  // light tenants are about: the queue must run dry often
  kLone,        // nobody else wants the device
};

struct Gate {
  uint32_t sequence = 0;  // grows by one with each change of mode
  GateMode mode = GateMode::kLone;

  bool open() const { return mode != GateMode::kShut; }
  bool operator==(const Gate&) const = default;
};

}  // namespace divvy::arbiter
