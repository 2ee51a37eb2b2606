// A process takes memory and is killed; while the driver still tears it down, another one is born
// with the same pid and takes memory too. `pid_reuse`. Needs the right to set the next pid.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "tests/attacks/attack.h"

namespace {

bool SetNextPid(pid_t pid) {
  const int fd = ::open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const std::string text = std::to_string(pid - 1);
  const bool set = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  ::close(fd);
  return set;
}

attack::Holding Child(pid_t& pid, int& hold) {
  int up[2], down[2];
  if (::pipe(up) != 0 || ::pipe(down) != 0) return {};
  pid = ::fork();
  if (pid == 0) {
    ::close(down[1]);
    const attack::Holding mine = attack::EnterAndTake(attack::Driver(attack::ByName()));
    if (::write(up[1], &mine.held, sizeof(mine.held)) < 0) ::_exit(1);
    char c;
    while (::read(down[0], &c, 1) > 0) {
    }
    ::_exit(0);
  }
  attack::Holding its;
  ::close(up[1]);
  if (::read(up[0], &its.held, sizeof(its.held)) < 0) its.held = 0;
  hold = down[1];
  return its;
}

}  // namespace

int main() {
  pid_t first = 0, second = 0;
  int hold = -1;
  const attack::Holding before = Child(first, hold);
  ::kill(first, SIGKILL);
  ::waitpid(first, nullptr, 0);
  attack::Holding after;
  for (int tries = 0; tries < 20; ++tries) {
    if (!SetNextPid(first)) return attack::Report({.note = "may not choose a pid"});
    const pid_t probe = ::fork();  // is the number free for us now?
    if (probe == 0) ::_exit(0);
    ::waitpid(probe, nullptr, 0);
    if (probe != first || !SetNextPid(first)) continue;
    after = Child(second, hold);
    if (second == first) break;
    ::kill(second, SIGKILL);
    ::waitpid(second, nullptr, 0);
  }
  after.note = "first " + std::to_string(before.held >> 20) + " MiB, " +
               (second == first ? "pid used again" : "pid not used again");
  return attack::Report(after);
}
