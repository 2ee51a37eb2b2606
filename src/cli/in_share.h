// A command in the share of a tenancy, from its start to its end: what `run` and `advise` do alike.
// Signals to this process are the command's while this lives; the command's orphans stay this
// process', so that they can be told from others. Main thread.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "src/cli/process/supervise.h"
#include "src/cli/tenancy.h"

namespace divvy::cli {

class InShare {
 public:
  // Starts it. When that fails, the promise ends and with it the verb: kNoCommand, kCannotRun or
  // kRunFailed.
  InShare(const Tenancy& tenancy, const std::vector<std::string>& command);

  pid_t pid() const { return pid_; }
  // Until the command has ended; starts the next daemon meanwhile if a private one dies.
  Ended Await() const;

 private:
  const Tenancy& tenancy_;
  const SignalWatch watch_;
  pid_t pid_ = 0;
};

}  // namespace divvy::cli
