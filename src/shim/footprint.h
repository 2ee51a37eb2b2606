// What an allocation takes of the device. The driver maps blocks of 2 MiB: from one block on an
// allocation has blocks of its own, smaller ones share a block, as many as fit. A program that asks
// for 1 MiB and a byte again and again holds twice what it asked for. (Seen in NVML's figures on
// every device since Kepler; the simulator does the same.) Charged is the whole block, or the part
// of it that the allocation keeps from others of its size; what a mixture of sizes or holes between
// live allocations leave unused beyond that shows as overhead, which the daemon measures.
// Pure; some ten instructions, two divisions for sizes that are no power of two.
#pragma once

#include "src/region/layout.h"

namespace divvy::shim {

constexpr uint64_t kBlockUnits = (2 << 20) / region::kUnitBytes;

constexpr uint64_t FootprintOf(uint64_t bytes) {
  const uint64_t units = region::UnitsOf(bytes);
  if (units >= kBlockUnits) {
    const uint64_t whole = (units + kBlockUnits - 1) & ~(kBlockUnits - 1);
    return whole < region::kMaxUnits ? whole : region::kMaxUnits;
  }
  if ((units & (units - 1)) == 0) return units;  // they fill a block
  const auto fit = static_cast<uint32_t>(kBlockUnits) / static_cast<uint32_t>(units);
  return (kBlockUnits + fit - 1) / fit;
}

static_assert(FootprintOf(1) == 1 && FootprintOf(2 << 20) == kBlockUnits);
static_assert(FootprintOf((1 << 20) + 1) == kBlockUnits);
static_assert(FootprintOf((2 << 20) + 1) == 2 * kBlockUnits);
static_assert(FootprintOf(700'000) == kBlockUnits / 2);
static_assert(FootprintOf(0) == 0 && FootprintOf(UINT64_MAX) == region::kMaxUnits);

}  // namespace divvy::shim
