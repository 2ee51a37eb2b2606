// The nouns of placement: what a node has left, what a request asks for, where a tenant sits.
// Plain data without behaviour; used by the engine, every policy and the readers. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace divvy::placement {

using NodeId = uint32_t;    // position in the order of AddNode; ties go to the smallest
using ShapeId = uint32_t;   // a distinct Shape, see ShapeTable
using TenantId = uint32_t;  // a placed request
using DeviceMask = uint32_t;

inline constexpr NodeId kNoNode = ~NodeId{0};
inline constexpr int32_t kWholeMilli = 1000;  // all compute of one device
inline constexpr int kMaxDevices = 32;        // per node: bits of a DeviceMask
inline constexpr int kMaxModels = 64;         // bits of Shape::models
inline constexpr int kMaxPools = 64;          // kinds of hardware, see Pool
inline constexpr uint64_t kAnyModel = ~uint64_t{0};

// How the devices of one multi-device request must hang together.
enum class Link : uint8_t { kAny, kPrefer, kRequire };

// Service class, as everywhere in Divvy.
enum class ServiceClass : uint8_t { kLatency, kStandard, kBatch };

// Everything of a request that decides where it fits and how well. Requests of equal shape share
// one set of scores. Amounts of compute and device memory are per device.
struct Shape {
  int32_t cpu_milli = 0;
  int32_t memory_mib = 0;
  int32_t devices = 0;
  int32_t compute_milli = 0;
  int32_t device_memory_mib = 0;
  Link link = Link::kAny;
  uint64_t models = kAnyModel;  // bit m: model m is allowed

  bool operator==(const Shape&) const = default;
  int64_t TotalMilli() const { return int64_t{devices} * compute_milli; }
  bool Shared() const { return devices == 1 && compute_milli < kWholeMilli; }
};

struct ShapeHash {
  size_t operator()(const Shape& s) const {
    uint64_t h = 0x9E3779B97F4A7C15ull;
    for (uint64_t v : {uint64_t(uint32_t(s.cpu_milli)), uint64_t(uint32_t(s.memory_mib)),
                       uint64_t(uint32_t(s.devices)) << 32 | uint32_t(s.compute_milli),
                       uint64_t(uint32_t(s.device_memory_mib)) << 8 | uint64_t(s.link), s.models}) {
      h = (h ^ v) * 0xBF58476D1CE4E5B9ull;
      h ^= h >> 29;
    }
    return h;
  }
};

// One request as it arrives.
struct Request {
  Shape shape;
  int32_t min_compute_milli = 0;  // elastic down to this; 0 = not elastic
  int32_t priority = 0;           // higher may preempt lower
  ServiceClass service = ServiceClass::kStandard;
  uint16_t space = 0;  // namespace, see Quotas
  uint32_t gang = 0;   // 0 = none
};

// A device's rest. Out of service (unhealthy): compute_left is lowered by kOutOfService, so that
// it is negative whatever is released meanwhile, and nothing fits.
struct Device {
  int16_t compute_left = kWholeMilli;
  uint8_t numa = 0;
  uint8_t link_group = 0;
  int32_t memory_left = 0;
};
inline constexpr int16_t kOutOfService = 2000;

// A node's rest; its devices stand in one row at first_device.
struct Node {
  int32_t cpu_left = 0;
  int32_t memory_left = 0;
  int32_t slots_left = 0;  // how many more tenants the node may hold
  uint32_t first_device = 0;
  int16_t most_left = 0;  // compute left on the device that has most
  uint8_t whole = 0;      // devices with all compute left
  uint8_t device_count = 0;
  uint8_t model = 0;
  uint8_t pool = 0;
  bool closed = false;  // cordoned or removed: takes nothing new
  int32_t cpu_total = 0;
  int32_t memory_total = 0;
  int32_t device_memory_mib = 0;  // of each device
  int32_t left = 0;               // compute left on all its devices in service
  uint32_t last_change = 0;       // where in the change log its newest entry is
  uint64_t rests = 0;             // a hash of what each device has left, whatever their order
};

// Nodes of equal hardware form a pool. With more than kMaxPools kinds of hardware the rest joins
// the first pool of its model: pools guide policies, they do not decide what fits.
struct Pool {
  int32_t cpu_milli = 0;
  int32_t memory_mib = 0;
  int32_t device_memory_mib = 0;
  uint8_t devices = 0;
  uint8_t model = 0;
  uint64_t layout = 0;  // stands for the NUMA and link groups of the devices
  bool operator==(const Pool&) const = default;
};

// How many tenants of each kind a node holds (for the clustering policy).
enum class Kind : uint8_t { kShared, kOne, kTwo, kFour, kEight, kOther, kNone };
inline constexpr int kKinds = 6;
inline Kind KindOf(const Shape& s) {
  if (s.devices == 0) return Kind::kNone;
  if (s.Shared()) return Kind::kShared;
  switch (s.devices) {
    case 1:
      return Kind::kOne;
    case 2:
      return Kind::kTwo;
    case 4:
      return Kind::kFour;
    case 8:
      return Kind::kEight;
    default:
      return Kind::kOther;
  }
}

// What a node is before anything is placed on it.
struct NodeSpec {
  std::string name;
  int32_t cpu_milli = 0;
  int32_t memory_mib = 0;
  int32_t slots = 1001;
  int32_t devices = 0;
  uint8_t model = 0;
  int32_t device_memory_mib = 0;
  std::vector<uint8_t> numa;        // per device; empty = all 0
  std::vector<uint8_t> link_group;  // per device; empty = all 0
};

}  // namespace divvy::placement
