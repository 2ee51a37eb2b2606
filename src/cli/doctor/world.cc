#include "src/cli/doctor/world.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "src/base/paths.h"
#include "src/base/unique_fd.h"
#include "src/cli/delivery/delivery.h"

extern char** environ;

namespace divvy::cli::doctor {
namespace {

constexpr size_t kMostText = 1 << 20;
constexpr int kInitTimeoutMs = 20'000;

// In a child: cuInit of a sick driver may hang, or end the process.
std::optional<int> AskCuInit(const std::string& library) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return std::nullopt;
  UniqueFd from(ends[0]), to(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return std::nullopt;
  if (child == 0) {
    void* driver = ::dlopen(library.c_str(), RTLD_NOW);
    auto* init = driver == nullptr ? nullptr
                                   : reinterpret_cast<int (*)(unsigned)>(::dlsym(driver, "cuInit"));
    const int answer = init == nullptr ? -1 : init(0);
    if (::write(to.get(), &answer, sizeof answer) < 0) ::_exit(1);
    ::_exit(0);
  }
  to.reset();
  int answer = -1;
  pollfd waits{from.get(), POLLIN, 0};
  if (::poll(&waits, 1, kInitTimeoutMs) <= 0 ||
      ::read(from.get(), &answer, sizeof answer) != sizeof answer)
    answer = -1;
  ::kill(child, SIGKILL);
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return answer;
}

DaemonFacts ReadDaemon(const Machine& machine) {
  DaemonFacts facts;
  facts.dir = machine.dir;
  struct stat st {};
  facts.dir_exists = ::stat(machine.dir.c_str(), &st) == 0;
  facts.dir_foreign = facts.dir_exists && st.st_uid != ::geteuid();
  // Where it will be made, until it is.
  std::filesystem::path at = machine.dir;
  std::error_code unknown;  // a name too long, a folder that is not to be looked into: not there
  while (at.has_relative_path() && !std::filesystem::exists(at, unknown)) at = at.parent_path();
  facts.dir_writable =
      std::filesystem::is_directory(at, unknown) && ::access(at.c_str(), W_OK | X_OK) == 0;
  struct statvfs space {};
  if (::statvfs(at.c_str(), &space) == 0) facts.dir_free_bytes = space.f_bavail * space.f_frsize;
  facts.dir_too_long =
      machine.dir.size() + sizeof("/tenants/12345678/tenant.sock") > sizeof(sockaddr_un::sun_path);
  facts.socket_exists = ::access(machine.api.socket_path().c_str(), F_OK) == 0;
  facts.answers = machine.api.Alive();
  if (!facts.answers) {
    const Remains remains = RemainsOf(machine);
    facts.tenants_left = remains.tenants;
    facts.left_private = remains.private_daemon;
    return facts;
  }
  const auto ask = [&](const char* path, nlohmann::json& into) {
    auto answer = machine.api.Get(path);
    if (answer.ok())
      into = std::move(*answer);
    else if (facts.error.empty())
      facts.error = answer.error().message;
  };
  ask("/v1/status", facts.status);
  ask("/v1/devices", facts.devices);
  ask("/v1/tenants", facts.tenants);
  return facts;
}

}  // namespace

bool World::Exists(const std::string& path) const {
  return ::access((root + path).c_str(), F_OK) == 0;
}

std::string World::Text(const std::string& path) const {
  std::ifstream file(root + path);
  std::string text(kMostText, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  return text;
}

std::vector<std::string> World::Names(const std::string& folder) const {
  std::vector<std::string> names;
  std::error_code ec;
  std::filesystem::directory_iterator at(root + folder, ec);
  for (; !ec && at != std::filesystem::directory_iterator(); at.increment(ec))
    names.push_back(at->path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

bool World::IsSocket(const std::string& path) const {
  struct stat st {};
  return ::stat((root + path).c_str(), &st) == 0 && S_ISSOCK(st.st_mode);
}

bool World::MayReadAndWrite(const std::string& path) const {
  struct stat st {};
  if (::stat((root + path).c_str(), &st) != 0) return false;
  if (uid == 0) return true;
  if (root.empty() && ::access(path.c_str(), R_OK | W_OK) == 0) return true;  // also by an ACL
  const bool member = std::find(groups.begin(), groups.end(), st.st_gid) != groups.end();
  const unsigned bits = st.st_uid == uid ? st.st_mode >> 6 : member ? st.st_mode >> 3 : st.st_mode;
  return (bits & 6) == 6;
}

std::string World::Env(const std::string& name) const {
  const auto found = env.find(name);
  return found == env.end() ? "" : found->second;
}

Result<World> ReadWorld(const std::string& sim) {
  const Machine machine = MachineOf(sim);
  World world;
  world.sim = !sim.empty();
  if (world.sim)
    if (const Status up = EnsureDaemon(machine); !up.ok()) return up.error();
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const size_t equals = text.find('=');
    if (equals != std::string::npos) world.env[text.substr(0, equals)] = text.substr(equals + 1);
  }
  world.uid = ::geteuid();
  std::vector<gid_t> groups(static_cast<size_t>(std::max(0, ::getgroups(0, nullptr))));
  if (::getgroups(static_cast<int>(groups.size()), groups.data()) < 0) groups.clear();
  world.groups.assign(groups.begin(), groups.end());
  world.groups.push_back(::getegid());
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) world.open_files = limit.rlim_max;
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) == 0) world.locked_memory = limit.rlim_cur;
  utsname system{};
  if (::uname(&system) == 0) world.kernel = system.release;
  world.can_isolate = CanIsolate();
  const Cgroup cgroup = MakeCgroup();
  world.can_cgroup = !cgroup.path.empty();
  RemoveCgroup(cgroup);
  world.version = DIVVY_VERSION;
  Delivery delivery;
  delivery.isolated = world.can_isolate;
  if (world.sim) delivery.sim_dir = paths::SimDir(machine.dir);
  if (const Status there = CheckInstalled(delivery); !there.ok())
    world.missing_file = there.error().message;
  if (world.sim) {
    ::setenv("DIVVY_SIM_DIR", delivery.sim_dir.c_str(), 1);
    world.cuda_copies = {paths::SimLibDir() + "/libcuda.so.1"};
    world.nvml_copies = {paths::SimLibDir() + "/libnvidia-ml.so.1"};
  } else {
    world.cuda_copies = FindCopies("libcuda.so.1", {});
    world.nvml_copies = FindCopies("libnvidia-ml.so.1", {});
  }
  if (!world.nvml_copies.empty())
    world.nvml = ReadNvml(world.sim ? world.nvml_copies.front() : "libnvidia-ml.so.1");
  if (!world.cuda_copies.empty())
    world.cuda_init = AskCuInit(world.sim ? world.cuda_copies.front() : "libcuda.so.1");
  world.daemon = ReadDaemon(machine);
  return world;
}

}  // namespace divvy::cli::doctor
