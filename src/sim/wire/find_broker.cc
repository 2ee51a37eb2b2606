// Finding or starting a broker. See find_broker.h.
#include "src/sim/wire/find_broker.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mutex>
#include <string>

#include "src/base/unique_fd.h"

namespace divvy::sim {
namespace {

// Beside the library in a build tree or an installation, or named by DIVVY_SIM_BROKER.
std::string BrokerProgram() {
  if (const char* named = getenv("DIVVY_SIM_BROKER")) return named;
  Dl_info info;
  std::string at = "/usr/lib/divvy/divvy-sim-broker";
  if (dladdr(reinterpret_cast<void*>(&FindMachineDir), &info) != 0 && info.dli_fname != nullptr) {
    std::string lib = info.dli_fname;
    std::string folder = lib.substr(0, lib.find_last_of('/') + 1);
    for (const char* up : {"../", "../../bin/", "../../../bin/", "../bin/", "../../../../bin/"}) {
      std::string candidate = folder + up + "divvy-sim-broker";
      if (access(candidate.c_str(), X_OK) == 0) return candidate;
    }
  }
  return at;
}

Result<std::string> StartPrivate(const std::string& profile) {
  auto tmp = [] {
    const char* t = getenv("TMPDIR");
    return std::string(t != nullptr && *t == '/' ? t : "/tmp") + "/divvy-sim.XXXXXX";
  }();
  if (mkdtemp(tmp.data()) == nullptr) return IoError(tmp, errno);
  std::string program = BrokerProgram(), starter = std::to_string(getpid());
  const char* argv[] = {program.c_str(), "--profile",     profile.c_str(), "--dir",
                        tmp.c_str(),     "--daemonize",   "--starter",     starter.c_str(),
                        "--seed",        profile.c_str(), "--remove-dir",  nullptr};
  // The broker is no part of the program: nothing preloaded, no shim.
  std::string path = "PATH=/usr/bin:/bin";
  char* envp[] = {path.data(), nullptr};
  posix_spawnattr_t attr;
  posix_spawnattr_init(&attr);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attr, &none);
  posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
  pid_t pid;
  int err = posix_spawn(&pid, program.c_str(), nullptr, &attr, const_cast<char**>(argv), envp);
  posix_spawnattr_destroy(&attr);
  if (err != 0) {
    rmdir(tmp.c_str());
    return IoError(program, err);
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  // A program that ignores SIGCHLD gets ECHILD above; the socket tells the truth later.
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) {
    return Unavailable(program + " --profile " + profile + " failed");
  }
  setenv("DIVVY_SIM_DIR", tmp.c_str(), 1);
  return tmp;
}

}  // namespace

Result<std::string> FindMachineDir() {
  static std::mutex& mu = *new std::mutex;
  std::lock_guard lock(mu);
  const char* dir = getenv("DIVVY_SIM_DIR");
  if (dir != nullptr && *dir != '\0') return std::string(dir);
  const char* profile = getenv("DIVVY_SIM");
  if (profile != nullptr && *profile != '\0') return StartPrivate(profile);
  return std::string(kDefaultDir);
}

std::string ProgramPath() {
  char path[4096];
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  return n > 0 ? std::string(path, size_t(n)) : std::string("?");
}

}  // namespace divvy::sim
