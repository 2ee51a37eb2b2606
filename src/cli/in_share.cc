#include "src/cli/in_share.h"

#include <sys/prctl.h>

#include "src/cli/app.h"
#include "src/cli/process/keeper.h"

namespace divvy::cli {
namespace {

int StatusOfLaunch(const Error& error) {
  if (error.code == ErrorCode::kNotFound) return kNoCommand;
  return error.code == ErrorCode::kDenied ? kCannotRun : kRunFailed;
}

}  // namespace

InShare::InShare(const Tenancy& tenancy, const std::vector<std::string>& command)
    : tenancy_(tenancy) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  const Result<pid_t> child = Launch(
      command, [&] { return Prepare(tenancy.delivery); }, &watch_);
  if (!child.ok()) {
    DropTenant(tenancy);
    Fail(child.error(), StatusOfLaunch(child.error()));
  }
  pid_ = *child;
}

Ended InShare::Await() const {
  const DaemonKeeper keeper(tenancy_.machine);
  return watch_.WaitFor(pid_);
}

}  // namespace divvy::cli
