#include "src/cli/process/supervise.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "src/base/unique_fd.h"

namespace divvy::cli {
namespace {

constexpr int kForwarded[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT, SIGUSR1,
                              SIGUSR2, SIGALRM, SIGTSTP, SIGCONT, SIGWINCH};

sigset_t Watched() {
  sigset_t set;
  sigemptyset(&set);
  for (const int s : kForwarded) sigaddset(&set, s);
  sigaddset(&set, SIGCHLD);
  return set;
}

// What the child tells its parent when it does not become the command.
struct Failure {
  int code;  // ErrorCode
  char message[500];
};

[[noreturn]] void Report(int fd, const Error& error) {
  Failure failure{};
  failure.code = static_cast<int>(error.code);
  std::strncpy(failure.message, error.message.c_str(), sizeof(failure.message) - 1);
  const ssize_t n = ::write(fd, &failure, sizeof(failure));
  ::_exit(n == sizeof(failure) ? 125 : 124);
}

[[noreturn]] void BecomeCommand(const std::vector<std::string>& command,
                                const std::function<Status()>& prepare, int report_fd, pid_t parent,
                                const SignalWatch* watch) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(125);
  if (const Status ready = prepare(); !ready.ok()) Report(report_fd, ready.error());
  if (watch != nullptr) ::sigprocmask(SIG_SETMASK, &watch->mask_before(), nullptr);
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::execvp(argv[0], argv.data());
  const int err = errno;
  if (err == ENOENT)
    Report(report_fd, NotFound("'" + command[0] +
                               "' was not found; give a path or a command that "
                               "is in PATH"));
  Report(report_fd, {ErrorCode::kDenied, "cannot run '" + command[0] + "': " + strerror(err)});
}

Ended EndedAs(int status) {
  if (WIFSIGNALED(status)) return {128 + WTERMSIG(status), WTERMSIG(status)};
  return {WEXITSTATUS(status), 0};
}

// Whether the signal was meant for the runner alone. What the terminal sends (SI_KERNEL) and what
// a whole process group gets reaches the command by itself; of these only the first can be told.
bool SentToUs(const siginfo_t& info) {
  return info.si_code == SI_USER || info.si_code == SI_QUEUE || info.si_code == SI_TKILL;
}

}  // namespace

SignalWatch::SignalWatch() {
  const sigset_t watched = Watched();
  ::sigprocmask(SIG_BLOCK, &watched, &before_);
}

SignalWatch::~SignalWatch() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }

Result<pid_t> Launch(const std::vector<std::string>& command,
                     const std::function<Status()>& prepare, const SignalWatch* watch) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return IoError("pipe", errno);
  UniqueFd read_end(ends[0]), write_end(ends[1]);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) BecomeCommand(command, prepare, write_end.get(), parent, watch);
  if (child < 0) return IoError("fork", errno);
  write_end.reset();
  Failure failure{};
  ssize_t n;
  while ((n = ::read(read_end.get(), &failure, sizeof(failure))) < 0 && errno == EINTR) {
  }
  if (n != sizeof(failure)) return child;  // exec closed the pipe: it is the command now
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return Error{static_cast<ErrorCode>(failure.code), failure.message};
}

Ended Reap(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return EndedAs(status);
}

Ended SignalWatch::WaitFor(pid_t child) const {
  const sigset_t watched = Watched();
  for (;;) {
    int status = 0;
    const pid_t who = ::waitpid(-1, &status, WNOHANG | WUNTRACED);
    if (who == child && (WIFEXITED(status) || WIFSIGNALED(status))) return EndedAs(status);
    if (who == child && WIFSTOPPED(status)) {
      // ^Z and background terminal access: the shell must see the job stop. A SIGSTOP that somebody
      // sent to the command alone is its own affair.
      const int by = WSTOPSIG(status);
      if (by == SIGTSTP || by == SIGTTIN || by == SIGTTOU) {
        ::raise(SIGSTOP);
        ::kill(child, SIGCONT);
      }
    }
    if (who > 0) continue;
    siginfo_t info;
    const int got = ::sigwaitinfo(&watched, &info);
    if (got > 0 && got != SIGCHLD && SentToUs(info)) ::kill(child, got);
  }
}

}  // namespace divvy::cli
