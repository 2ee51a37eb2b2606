// Outlives its command before its first CUDA call, then takes all it can.
//   outlive exit   a daemonised child of a command that ends
//   outlive kill   the same, but the child ends `divvy run` by SIGKILL, and that ends the command
// Goes on when a line comes: the suite knows when the daemon has seen the end.
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>

#include "tests/attacks/attack.h"

namespace {

void WaitForEndOf(pid_t pid, int pidfd) {
  if (pidfd < 0) return;  // it is gone
  pollfd end{pidfd, POLLIN, 0};
  while (::kill(pid, 0) == 0 && ::poll(&end, 1, -1) < 1) {
  }
  ::close(pidfd);
}

}  // namespace

int main(int, char** argv) {
  const pid_t command = ::getpid(), runner = ::getppid();
  const int its_end = static_cast<int>(::syscall(SYS_pidfd_open, command, 0));
  if (::fork() != 0) {
    if (std::string(argv[1]) == "exit") return 0;
    for (;;) ::pause();
  }
  ::setsid();
  if (std::string(argv[1]) == "kill") ::kill(runner, SIGKILL);
  WaitForEndOf(command, its_end);
  char c;
  if (::read(STDIN_FILENO, &c, 1) != 1) return 1;
  return attack::Report(attack::EnterAndTake(attack::Driver(attack::ByName())));
}
