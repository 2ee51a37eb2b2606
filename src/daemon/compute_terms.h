// What a tenant was promised of a device's compute, and what follows from all promises together:
// the arbiter's weights, and whether one more promise fits. Pure arithmetic; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/arbiter/types.h"
#include "src/base/percent.h"
#include "src/base/result.h"

namespace divvy::daemon {

struct ComputeTerms {
  Percent guaranteed;    // 0 = none: a part of what nobody was promised
  Percent cap{100'000};  // 100 % = none
  uint32_t weight = 0;   // for that part, relative to the others'; 0 = not said
  arbiter::TenantClass cls = arbiter::TenantClass::kStandard;

  bool operator==(const ComputeTerms&) const = default;
};

// The weights of one device's tenants, in percent. A guaranteed percent is its own weight. What
// nobody was promised goes to those without a guarantee, and to those that named a weight, in
// proportion to their weights (100 where none was said). Where everything is promised a thousandth
// of the device is left for them: they run when the others leave something.
std::vector<double> Weights(const std::vector<ComputeTerms>& tenants);

// May `wanted` be promised besides `promises`? kNoRoom naming every holder, largest first;
// `overcommit` lifts it.
struct ComputePromise {
  std::string tenant;
  Percent guaranteed;
};
Percent FreeToPromise(const std::vector<ComputePromise>& promises);
Status AdmitCompute(unsigned device_index, std::vector<ComputePromise> promises, Percent wanted,
                    bool overcommit);

}  // namespace divvy::daemon
