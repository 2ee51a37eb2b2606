// What a marker costs: cuStreamWriteValue64 into pinned host memory. Used by `divvy load
// --write-value`, for `divvy verify hardware`.
#pragma once

#include <nlohmann/json.hpp>

#include "src/base/result.h"
#include "src/cli/load/driver.h"

namespace divvy::cli {

// {host_ns: of one call, visible_ns: from a call on an idle stream until the host sees the value},
// medians. kUnavailable where the driver has no stream memory operations.
Result<nlohmann::json> MeasureWriteValue(const Driver& driver);

}  // namespace divvy::cli
