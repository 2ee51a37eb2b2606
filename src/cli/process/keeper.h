// Keeps the daemon of a running command's machine alive: starts the next one when a private daemon
// dies, so that new processes of the command still find their share. The runner's side of
// `divvy run`; a thread of its own, asleep until something ends.
//
// One that dies over and over is started less and less often, but for a process that needs it.
//
// A daemon that was told to end is left alone (its socket is gone, a dead one's is not), and so is
// one that somebody else runs: a service manager starts it again.
#pragma once

#include <thread>

#include "src/base/unique_fd.h"
#include "src/cli/machines.h"

namespace divvy::cli {

class DaemonKeeper {
 public:
  // To be made when the command runs, with the signals that the main thread waits for blocked.
  explicit DaemonKeeper(Machine machine);
  ~DaemonKeeper();
  DaemonKeeper(const DaemonKeeper&) = delete;
  DaemonKeeper& operator=(const DaemonKeeper&) = delete;

 private:
  void Keep();
  bool Await(int fd, int timeout_ms) const;  // false: it is time to end
  bool AwaitAnother() const;
  bool AwaitNeed(int back_off_ms) const;

  const Machine machine_;
  UniqueFd stop_;  // an eventfd
  std::thread thread_;
};

}  // namespace divvy::cli
