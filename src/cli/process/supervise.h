// Runs a command as if Divvy were not there: same process group and terminal, its signals
// forwarded, its stops and its exit status passed on. The runner's side of `divvy run` and of
// `verify`.
#pragma once

#include <signal.h>
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

// While it lives, signals to this process wait to be forwarded instead of acting. Made before the
// command is launched, so that none is lost in between.
class SignalWatch {
 public:
  SignalWatch();
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

  // Waits for `child`. Forwards signals that another process sent to this one alone (the terminal
  // sends its own to both); stops when the child is stopped by the terminal and continues it again.
  // Reaps orphans that this process, as subreaper, inherits.
  Ended WaitFor(pid_t child) const;

  const sigset_t& mask_before() const { return before_; }

 private:
  sigset_t before_;
};

// Forks; in the child runs `prepare` (namespaces, environment), then execs `command` by PATH, with
// the signals that the caller had before `watch`. An error of `prepare` or of exec comes back here,
// with nothing left running: kNotFound when the command does not exist, kDenied when it cannot be
// executed, otherwise prepare's own. The child is killed if this process dies.
Result<pid_t> Launch(const std::vector<std::string>& command,
                     const std::function<Status()>& prepare, const SignalWatch* watch = nullptr);

// Waits for a child without watching signals.
Ended Reap(pid_t child);

}  // namespace divvy::cli
