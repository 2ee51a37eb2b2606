// The policies that users of Kubernetes and HAMi know. One file each.
#pragma once

#include <memory>

#include "src/placement/policy.h"

namespace divvy::placement {

std::unique_ptr<Policy> MakeBinpack();
std::unique_ptr<Policy> MakeSpread();
std::unique_ptr<Policy> MakeTopology();

// How full the node is once it holds the shape, 0 to 10000. For requests for devices: the mean of
// compute, device memory (if it is counted) and devices in use; for others: of CPU and memory.
int32_t Fullness(const NodeView& view, const Shape& shape);

}  // namespace divvy::placement
