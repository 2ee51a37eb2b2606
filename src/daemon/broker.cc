#include "src/daemon/broker.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "src/base/paths.h"
#include "src/base/unique_fd.h"
#include "src/daemon/socket.h"

extern char** environ;

namespace divvy::daemon {
namespace {

bool Accepts(const std::string& socket_path) { return CanConnect(socket_path, SOCK_SEQPACKET); }

}  // namespace

Status EnsureBroker(const std::string& dir, const std::string& profile) {
  if (Accepts(dir + "/broker.sock")) return {};
  const std::string program = paths::HelperProgram("divvy-sim-broker");
  if (::access(program.c_str(), X_OK) != 0)
    return Unavailable("the simulator's broker is missing: " + program +
                       " (of the package divvy-sim)");
  // It outlives this daemon while tenants use it, so that a restart finds the same devices.
  const std::string starter = std::to_string(::getpid());
  const char* const arguments[] = {program.c_str(), "--profile",   profile.c_str(),
                                   "--dir",         dir.c_str(),   "--starter",
                                   starter.c_str(), "--daemonize", nullptr};
  int said[2];
  if (::pipe2(said, O_CLOEXEC | O_NONBLOCK) != 0) return IoError("cannot make a pipe", errno);
  const UniqueFd read_end(said[0]);
  UniqueFd write_end(said[1]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, write_end.get(), 2);
  // The daemon's blocked and ignored signals are not for the broker.
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none, pipe_signal;
  ::sigemptyset(&none);
  ::sigemptyset(&pipe_signal);
  ::sigaddset(&pipe_signal, SIGPIPE);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &pipe_signal);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t child = 0;
  const int failed = ::posix_spawn(&child, program.c_str(), &actions, &attributes,
                                   const_cast<char* const*>(arguments), environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  write_end.reset();
  if (failed != 0) return IoError("cannot start " + program, failed);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  if (Accepts(dir + "/broker.sock")) return {};  // another one was quicker
  char text[512];
  const ssize_t n = ::read(read_end.get(), text, sizeof text);
  std::string why(text, n > 0 ? static_cast<size_t>(n) : 0);
  while (!why.empty() && why.back() == '\n') why.pop_back();
  return Unavailable("cannot start the simulated machine '" + profile + "'" +
                     (why.empty() ? "" : ": " + why));
}

}  // namespace divvy::daemon
