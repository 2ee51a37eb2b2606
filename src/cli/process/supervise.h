// Runs a command as if Divvy were not there: same process group and terminal, its signals
// forwarded, its stops and its exit status passed on. The runner's side of `divvy run` and of
// `verify`.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "src/base/result.h"

namespace divvy::cli {

// How a command ended, as a shell would say it: 0..255, 128 + n after signal n.
struct Ended {
  int status = 0;
  int signal = 0;  // what killed it, 0 = it exited
};

// Forks; in the child runs `prepare` (namespaces, environment), then execs `command` by PATH.
// An error of `prepare` or of exec comes back here, with nothing left running: kNotFound when the
// command does not exist, kDenied when it cannot be executed, otherwise prepare's own.
// Blocks this thread's signals until WaitFor is through. The child is killed if this process dies.
Result<pid_t> Launch(const std::vector<std::string>& command,
                     const std::function<Status()>& prepare);

// Waits for `child`. Forwards signals that another process sent to this one alone (the terminal
// sends its own to both); stops when the child is stopped by the terminal and continues it again.
// Reaps orphans that this process, as subreaper, inherits.
Ended WaitFor(pid_t child);

}  // namespace divvy::cli
