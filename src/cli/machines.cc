#include "src/cli/machines.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
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
[[noreturn]] void ExecDaemon(const Machine& machine, int ready_fd) {
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
  const std::string runtime = paths::RuntimeDir();
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
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return IoError("pipe", errno);
  UniqueFd read_end(ends[0]), write_end(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return IoError("fork", errno);
  if (child == 0) {
    // Twice, so that the daemon is nobody's child: not a descendant of a runner, whose descendants
    // are its tenant's processes.
    const pid_t again = ::fork();
    if (again == 0) ExecDaemon(machine, write_end.get());
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

// Every machine that this runtime directory has a folder of, the real one first.
std::vector<Machine> KnownMachines(const std::string& sim_profile) {
  std::vector<Machine> found;
  if (sim_profile.empty()) found.push_back(MachineOf(""));
  std::vector<std::string> profiles;
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator(paths::RuntimeDir() + "/sim", ec))
    profiles.push_back(entry.path().filename());
  std::sort(profiles.begin(), profiles.end());
  for (const std::string& profile : profiles)
    if (sim_profile.empty() || profile == paths::Sanitized(sim_profile))
      found.push_back(MachineOf(profile));
  return found;
}

}  // namespace

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
