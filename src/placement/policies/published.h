// The policies published with the fragmentation-gradient-descent paper (USENIX ATC 2023), exactly
// as its authors' simulator computes them, so that their figures can be reproduced. One file each.
#pragma once

#include <cstdint>
#include <memory>

#include "src/placement/policy.h"

namespace divvy::placement {

std::unique_ptr<Policy> MakeFgd();
std::unique_ptr<Policy> MakeBestFit();
std::unique_ptr<Policy> MakeDotProd();
std::unique_ptr<Policy> MakePacking();
std::unique_ptr<Policy> MakeClustering();
std::unique_ptr<Policy> MakeRandom(uint64_t seed);

// The largest node the authors normalise by.
inline constexpr double kMaxSpecCpuMilli = 128000;
inline constexpr double kMaxSpecDeviceMilli = 8000;
// Idle compute of a node, in milli devices.
int64_t IdleMilli(const NodeView& view);

}  // namespace divvy::placement
