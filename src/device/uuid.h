// Uuid: the one lasting name of a device. NVML writes it as GPU-xxxxxxxx-xxxx-..., the driver API
// as 16 bytes in the same order.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "src/base/result.h"

namespace divvy::device {

struct Uuid {
  std::array<uint8_t, 16> bytes{};
  auto operator<=>(const Uuid&) const = default;
};

// Reads "GPU-" or "MIG-" and 32 hexadecimal digits, dashes where they please.
Result<Uuid> ParseUuid(std::string_view text);
std::string ToString(const Uuid& uuid);  // "GPU-..."

}  // namespace divvy::device
