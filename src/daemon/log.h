// Opens the daemon's log: what spdlog is given goes to a file (rotated at 10 MiB, two old ones
// kept) or to stderr, through a LogQueue. Called once, before the first line.
#pragma once

#include <memory>
#include <string>

#include "src/daemon/log_queue.h"

namespace divvy::daemon {

// `file`: "" = stderr. A file that cannot be opened: no log, and nullptr.
std::shared_ptr<LogQueue> OpenLog(const std::string& file);

}  // namespace divvy::daemon
