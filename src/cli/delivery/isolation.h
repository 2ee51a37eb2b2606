// The private mount namespace of a tenant started as root. See delivery.h for what is in it.
#pragma once

#include "src/base/result.h"
#include "src/cli/delivery/delivery.h"

namespace divvy::cli {

// In the forked child, which must have one thread. On an error the child must not go on.
Status Isolate(const Delivery& delivery);

}  // namespace divvy::cli
