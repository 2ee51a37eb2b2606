#include "src/cli/machines.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "src/base/paths.h"
#include "src/base/unique_fd.h"
#include "src/cli/delivery/delivery.h"

namespace divvy::cli {
namespace {

constexpr int kStartTimeoutMs = 20'000;

// In the grandchild: becomes the daemon. Never returns. The daemon must not hold the caller's
// terminal, pipes or share.
[[noreturn]] void ExecDaemon(const Machine& machine, const std::string& runtime, int ready_fd) {
  ::setsid();
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null = ::open("/dev/null", O_RDWR);
  for (const int fd : {0, 1, 2}) ::dup2(null, fd);
  constexpr int kReadyFd = 3;
  if (ready_fd != kReadyFd) ::dup2(ready_fd, kReadyFd);
  ::close_range(kReadyFd + 1, ~0u, 0);
  if (::chdir("/") != 0) ::_exit(127);
  for (const char* name : {"LD_PRELOAD", "DIVVY_SOCKET", "DIVVY_SIM_DIR"}) ::unsetenv(name);
  const std::string exe = paths::BinDir() + "/divvyd";
  std::vector<const char*> argv{exe.c_str(),     "--private",  "--runtime-dir",
                                runtime.c_str(), "--ready-fd", "3"};
  if (!machine.sim.empty()) {
    argv.push_back("--sim");
    argv.push_back(machine.sim.c_str());
  }
  argv.push_back(nullptr);
  ::execv(exe.c_str(), const_cast<char* const*>(argv.data()));
  const std::string line = "cannot start " + exe + "\n";
  if (::write(kReadyFd, line.data(), line.size()) < 0) ::_exit(126);
  ::_exit(127);
}

// What the daemon wrote to its ready descriptor: "ready" or its reason.
Result<std::string> ReadLine(int fd) {
  std::string line;
  char c;
  for (;;) {
    pollfd p{fd, POLLIN, 0};
    const int n = ::poll(&p, 1, kStartTimeoutMs);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Unavailable("divvyd did not become ready within 20 s");
    if (::read(fd, &c, 1) <= 0) break;
    if (c == '\n') return line;
    line += c;
  }
  return line;
}

Status Spawn(const Machine& machine) {
  const std::string runtime = paths::RuntimeDir();  // may be told relative to where this process is
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return IoError("pipe", errno);
  UniqueFd read_end(ends[0]), write_end(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return IoError("fork", errno);
  if (child == 0) {
    // Twice, so that the daemon is nobody's child: not a descendant of a runner, whose descendants
    // are its tenant's processes.
    const pid_t again = ::fork();
    if (again == 0) ExecDaemon(machine, runtime, write_end.get());
    ::_exit(again < 0 ? 1 : 0);
  }
  write_end.reset();
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  const Result<std::string> line = ReadLine(read_end.get());
  if (!line.ok()) return line.error();
  if (*line == "ready") return {};
  if (line->rfind("error: ", 0) == 0) return Unavailable(line->substr(7));
  return Unavailable(
      line->empty() ? "divvyd ended while starting; see " + machine.dir + "/divvyd.log" : *line);
}

}  // namespace

Machine MachineOf(const std::string& sim_profile) {
  const std::string dir = paths::MachineDir(paths::RuntimeDir(), sim_profile);
  return {sim_profile, dir, ApiClient(paths::ApiSocket(dir))};
}

namespace {

Error NotOurs(const std::string& dir) {
  struct stat st;
  const bool known = ::stat(dir.c_str(), &st) == 0;
  return {ErrorCode::kDenied,
          dir +
              (known ? " belongs to another user (uid " + std::to_string(st.st_uid) + ")"
                     : std::string(" lies in another user's folder")) +
              ", this one may not look into it: ask as that user, or set DIVVY_RUNTIME_DIR to a "
              "folder of your own"};
}

// Every machine that this runtime directory has a folder of, the real one first.
std::vector<Machine> KnownMachines(const std::string& sim_profile) {
  std::vector<Machine> found;
  if (sim_profile.empty()) found.push_back(MachineOf(""));
  std::vector<std::string> profiles;
  std::error_code ec;
  std::filesystem::directory_iterator at(paths::RuntimeDir() + "/sim", ec);
  for (; !ec && at != std::filesystem::directory_iterator(); at.increment(ec))
    profiles.push_back(at->path().filename());
  std::sort(profiles.begin(), profiles.end());
  for (const std::string& profile : profiles)
    if (sim_profile.empty() || profile == paths::Sanitized(sim_profile))
      found.push_back(MachineOf(profile));
  return found;
}

}  // namespace

Status CheckFolder(const std::string& sim_profile) {
  const auto check = [](const std::string& dir) -> Status {
    struct stat st;
    const bool seen = ::stat(dir.c_str(), &st) == 0;
    if (!seen && errno != EACCES) return {};  // there is none
    if (seen && ::euidaccess(dir.c_str(), R_OK | X_OK) == 0) return {};
    return NotOurs(dir);
  };
  const std::string dir = paths::RuntimeDir();
  for (const std::string& folder : {dir, dir + "/sim"})
    if (const Status may = check(folder); !may.ok()) return may;
  for (const Machine& machine : KnownMachines(sim_profile)) {
    if (const Status may = check(machine.dir); !may.ok()) return may;
    if (machine.api.Denied()) return NotOurs(machine.dir);
  }
  return {};
}

std::vector<Machine> RunningMachines(const std::string& sim_profile) {
  std::vector<Machine> all = KnownMachines(sim_profile);
  std::erase_if(all, [](const Machine& m) { return !m.api.Alive(); });
  return all;
}

Remains RemainsOf(const Machine& machine) {
  std::ifstream file(machine.dir + "/state.json");
  const auto state = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!state.is_object()) return {};
  const auto tenants = state.find("tenants");
  const auto is_private = state.find("private");
  return {.tenants = tenants != state.end() && tenants->is_array() ? tenants->size() : 0,
          .private_daemon = is_private != state.end() && is_private->is_boolean() && *is_private};
}

Machines MachinesWithTenants(const std::string& sim_profile) {
  Machines found;
  if (const Status outside = CheckOutside(); !outside.ok()) {
    found.lost.push_back(outside.error());
    return found;
  }
  if (const Status may = CheckFolder(sim_profile); !may.ok()) {
    found.lost.push_back(may.error());
    return found;
  }
  for (Machine& machine : KnownMachines(sim_profile)) {
    Status up;
    if (!machine.api.Alive()) {
      const Remains remains = RemainsOf(machine);
      if (remains.tenants == 0) continue;
      const std::string gone = "the divvyd of " + machine.dir + " is gone, and its " +
                               std::to_string(remains.tenants) + " shares with it";
      up = remains.private_daemon ? EnsureDaemon(machine)
                                  : Unavailable(
                                        "it was not divvy run that started it: start it "
                                        "again (divvyd, or its service)");
      if (!up.ok()) up = Error{up.error().code, gone + ": " + up.error().message};
    }
    if (up.ok()) {
      found.live.push_back(std::move(machine));
    } else {
      found.lost.push_back(up.error());
    }
  }
  return found;
}

Status CheckOutside() {
  const std::string own = NamespaceTenant();
  if (own.empty()) return {};
  return Unavailable(
      "this is inside of the share '" + own +
      "', from where only the share itself can be seen: nvidia-smi and the program's "
      "own calls show it. Ask from outside of it");
}

Status EnsureDaemon(const Machine& machine) {
  if (const Status outside = CheckOutside(); !outside.ok()) return outside;
  if (machine.api.Alive()) return {};
  if (const Status may = CheckFolder(machine.sim); !may.ok()) return may;
  // The longest name below it is a tenant's socket, tenants/NAME/tenant.sock.
  constexpr size_t kBelow = sizeof("/tenants/12345678/tenant.sock"),
                   kMost = sizeof(sockaddr_un::sun_path);
  if (machine.dir.size() + kBelow > kMost)
    return Invalid(
        "the runtime folder " + machine.dir + " has a name too long for sockets in it; " +
        "set DIVVY_RUNTIME_DIR to one below " + std::to_string(kMost - kBelow) + " characters");
  if (const Status made = paths::MakeRuntimeDir(machine.dir); !made.ok()) return made;
  const std::string lock = paths::StartLock(machine.dir);
  const UniqueFd fd(::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.valid()) return IoError("cannot write " + lock, errno);
  // Another divvy may be starting it. Bounded: it may also have been stopped in the midst of it.
  constexpr timespec kBetween{0, 10'000'000};
  for (int looks = 0; ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0; ++looks) {
    if (errno != EWOULDBLOCK && errno != EINTR) return IoError("cannot lock " + lock, errno);
    if (machine.api.Alive()) return {};
    if (looks > kStartTimeoutMs / 10)
      return Unavailable("another process holds " + lock +
                         " and does not come to an end with starting divvyd; `fuser` names it");
    ::nanosleep(&kBetween, nullptr);
  }
  if (machine.api.Alive()) return {};
  return Spawn(machine);
}

Result<Machine> FindTenant(const std::string& name, const std::string& sim_profile) {
  Machines machines = MachinesWithTenants(sim_profile);
  std::vector<Machine> having;
  for (Machine& machine : machines.live) {
    const auto tenant = machine.api.Get("/v1/tenants/" + name);
    if (tenant.ok()) {
      having.push_back(std::move(machine));
    } else if (tenant.error().code != ErrorCode::kNotFound && machine.api.Alive()) {
      machines.lost.push_back(tenant.error());
    }
  }
  if (having.size() == 1) return having.front();
  if (having.size() > 1)
    return Invalid("several machines have a tenant '" + name + "'; say which with --sim PROFILE");
  if (!machines.lost.empty()) return machines.lost.front();
  return NotFound("no tenant is called '" + name + "'; `divvy ps` lists those there are");
}

}  // namespace divvy::cli
