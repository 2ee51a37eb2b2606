// The simulated machine's broker, for `divvyd --sim PROFILE`: joined when it runs, else started.
#pragma once

#include <string>

#include "src/base/result.h"

namespace divvy::daemon {

// Returns when the broker in `dir` accepts clients. kUnavailable with what it said otherwise.
Status EnsureBroker(const std::string& dir, const std::string& profile);

}  // namespace divvy::daemon
