// Hello, as bytes from a socket that anybody in the tenant can write to: checked once, here, into
// values the daemon may believe the shape of (never the truth of).
//
// Pure. Threads: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "src/base/result.h"
#include "src/device/uuid.h"
#include "src/region/wire.h"

namespace divvy::daemon {

struct HelloView {
  uint32_t ns_pid = 0;
  uint64_t last_generation = 0;
  bool forked = false;
  bool second_copy = false;
  std::string command;  // printable, at most 15 bytes
  struct Held {
    device::Uuid uuid;
    uint64_t units = 0;
    uint64_t kind_units[region::kKinds] = {};
  };
  std::vector<Held> held;  // no UUID twice
};

// kInvalid with a reason fit for Refused: wrong size, magic, type, version, counts or sums.
Result<HelloView> ParseHello(const void* data, size_t size);

wire::Refused MakeRefused(uint32_t code, const std::string& reason);

}  // namespace divvy::daemon
