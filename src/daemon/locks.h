// One daemon per machine directory, one arbiter per device: advisory locks that tell who holds them
// and vanish with their holder.
#pragma once

#include <string>
#include <vector>

#include "src/base/result.h"
#include "src/base/unique_fd.h"

namespace divvy::daemon {

// Takes `path` for as long as the descriptor lives and writes `holder` into it. kExists when
// another process has it; the message is `taken` followed by what that one wrote.
Result<UniqueFd> TakeLock(const std::string& path, const std::string& holder,
                          const std::string& taken, mode_t mode);

// Where the locks of real devices lie: /run/lock/divvy when it can be had, else /tmp/divvy-locks.
Result<std::string> DeviceLockDir();

}  // namespace divvy::daemon
