#include "src/cli/process/keeper.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "src/base/paths.h"

namespace divvy::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kBackOffMs = 500, kBackOffMostMs = 30'000;
// What one start waits for at least, whoever asks: a process that is new in a share waits 3 s for
// the daemon (src/shim/attach.cc), and this and a start have to fit into that.
constexpr int kLeastMs = 500;
constexpr std::chrono::seconds kHealthy{10};

// The daemon must not become a descendant of the runner, whose orphans are its tenant's: for the
// moment that the start takes, this process is no subreaper.
Status StartAnother(const Machine& machine) {
  int subreaper = 0;
  ::prctl(PR_GET_CHILD_SUBREAPER, &subreaper);
  ::prctl(PR_SET_CHILD_SUBREAPER, 0);
  const Status started = EnsureDaemon(machine);
  ::prctl(PR_SET_CHILD_SUBREAPER, subreaper);
  return started;
}

}  // namespace

DaemonKeeper::DaemonKeeper(Machine machine)
    : machine_(std::move(machine)), stop_(::eventfd(0, EFD_CLOEXEC)) {
  if (stop_.valid()) thread_ = std::thread([this] { Keep(); });
}

DaemonKeeper::~DaemonKeeper() {
  const uint64_t one = 1;
  if (stop_.valid() && ::write(stop_.get(), &one, sizeof(one)) == sizeof(one)) thread_.join();
}

bool DaemonKeeper::Await(int fd, int timeout_ms) const {
  pollfd wait[] = {{stop_.get(), POLLIN, 0}, {fd, POLLIN, 0}};
  while (::poll(wait, 2, timeout_ms) < 0 && errno == EINTR) {
  }
  return wait[0].revents == 0;
}

// Until somebody has started a daemon: something happens in the machine's folder.
bool DaemonKeeper::AwaitAnother() const {
  const UniqueFd changes(::inotify_init1(IN_CLOEXEC));
  const bool watched = ::inotify_add_watch(changes.get(), machine_.dir.c_str(), IN_MOVED_TO) >= 0;
  if (machine_.api.Alive()) return true;
  return watched ? Await(changes.get(), -1) : Await(-1, kBackOffMostMs);
}

// Between two starts of a daemon that does not live: until the back-off is over, or, if only the
// least of it is, until somebody needs the daemon: a process that finds nobody at its tenant's
// socket opens the folder that it is in.
bool DaemonKeeper::AwaitNeed(int back_off_ms) const {
  const UniqueFd opened(::inotify_init1(IN_CLOEXEC));
  const std::string tenants = paths::TenantsDir(machine_.dir);
  const bool watched =
      ::inotify_add_watch(opened.get(), tenants.c_str(), IN_OPEN | IN_ONLYDIR) >= 0;
  if (!Await(-1, std::min(kLeastMs, back_off_ms))) return false;
  return back_off_ms <= kLeastMs || Await(watched ? opened.get() : -1, back_off_ms - kLeastMs);
}

void DaemonKeeper::Keep() {
  int back_off_ms = 0;
  for (auto born = Clock::now();;) {
    const pid_t pid = machine_.api.ServerPid();
    if (pid > 0) {
      const UniqueFd end(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
      if (!end.valid() && errno != ESRCH) return;  // not ours to watch
      if (end.valid() && !Await(end.get(), -1)) return;
      continue;
    }
    const bool died = ::access(paths::ApiSocket(machine_.dir).c_str(), F_OK) == 0;
    if (!died || !RemainsOf(machine_).private_daemon) {
      if (!AwaitAnother()) return;
      continue;
    }
    // One that does not start, or dies again at once, is not started over and over.
    if (Clock::now() - born > kHealthy) back_off_ms = 0;
    if (back_off_ms != 0 && !AwaitNeed(back_off_ms)) return;
    back_off_ms = std::min(std::max(2 * back_off_ms, kBackOffMs), kBackOffMostMs);
    if (StartAnother(machine_).ok()) born = Clock::now();
  }
}

}  // namespace divvy::cli
