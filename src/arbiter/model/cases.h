// The standard cases (also the benchmark of compute shares) and random saturating mixes.
#pragma once

#include <cstdint>
#include <vector>

#include "src/arbiter/model/mix.h"

namespace divvy::arbiter::model {

std::vector<Mix> StandardCases();
// 2 to 8 saturating tenants, operations of 10 us to 10 ms (30 % lognormal), weights 5 to 49.
Mix RandomMix(uint64_t seed);

// Programs, for tests too.
Program Saturating(double us, double spread = 0);
MixTenant Tenant(const char* name, double weight, Program program,
                 TenantClass cls = TenantClass::kStandard);

}  // namespace divvy::arbiter::model
