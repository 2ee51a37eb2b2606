#include "src/cli/delivery/isolation.h"

#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "src/base/delivery.h"
#include "src/base/paths.h"
#include "src/base/unique_fd.h"
#include "src/region/wire.h"

namespace divvy::cli {
namespace {

using delivery::kLib;
using delivery::kPreload;
using delivery::kReal;
using delivery::kRoot;
using delivery::kSimMachine;
constexpr char kCache[] = "/etc/ld.so.cache";

Status MakeDir(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) return IoError("mkdir " + path, errno);
  return {};
}

Status MakeFile(const std::string& path, const std::string& text = "") {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  if (!fd.valid()) return IoError("cannot create " + path, errno);
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return IoError("cannot write " + path, errno);
  return {};
}

Status Bind(const std::string& from, const std::string& to) {
  if (::mount(from.c_str(), to.c_str(), nullptr, MS_BIND, nullptr) != 0)
    return IoError("cannot bind " + from + " over " + to, errno);
  return {};
}

Status BindNewFile(const std::string& from, const std::string& to) {
  if (const Status s = MakeFile(to); !s.ok()) return s;
  return Bind(from, to);
}

// A folder as it is now, whatever is mounted over its path later.
struct Held {
  UniqueFd fd;
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd.get()); }
};

Result<Held> Hold(const std::string& dir) {
  UniqueFd fd(::open(dir.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return IoError(dir, errno);
  return Held{std::move(fd)};
}

// The machine's own entries stay; ours comes first, so that its symbols do.
Status DeliverPreload() {
  std::ifstream old(kPreload);
  const std::string kept((std::istreambuf_iterator<char>(old)), std::istreambuf_iterator<char>());
  const std::string file = std::string(kRoot) + "/ld.so.preload";
  const std::string ours = std::string(kLib) + "/libdivvy.so";
  if (const Status s = BindNewFile(paths::ShimLibrary(), ours); !s.ok()) return s;
  if (const Status s = MakeFile(file, delivery::MergedPreload(ours, kept)); !s.ok()) return s;
  // A mount point is needed; an empty file changes nothing for the rest of the machine.
  if (::access(kPreload, F_OK) != 0)
    if (const Status s = MakeFile(kPreload); !s.ok()) return s;
  return Bind(file, kPreload);
}

// The forwarder takes every copy's place; the first one stays reachable for it.
Status DeliverForwarder(const Delivery& delivery) {
  const bool sim = !delivery.sim_dir.empty();
  const std::vector<std::string> copies = FindCopies(
      "libcuda.so.1", sim ? std::vector{paths::SimLibDir()} : std::vector<std::string>{});
  if (copies.empty())
    return Unavailable("no libcuda.so.1 on this machine; is the driver installed?");
  const std::string real = sim ? paths::SimLibDir() + "/libcuda.so.1" : copies.front();
  if (const Status s = BindNewFile(real, kReal); !s.ok()) return s;
  for (const std::string& copy : copies)
    if (const Status s = Bind(paths::ForwarderLibrary(), copy); !s.ok()) return s;
  return {};
}

// A cache of its own makes the simulated driver a system library: found without LD_LIBRARY_PATH.
Status BuildCache() {
  const std::string conf = std::string(kRoot) + "/ld.so.conf";
  const std::string cache = std::string(kRoot) + "/ld.so.cache";
  const std::string text = std::string(kLib) + "\ninclude /etc/ld.so.conf\n";
  if (const Status s = MakeFile(conf, text); !s.ok()) return s;
  const char* argv[] = {"ldconfig", "-X", "-i", "-f", conf.c_str(), "-C", cache.c_str(), nullptr};
  char* envp[] = {nullptr};
  pid_t pid = 0;
  int status = 0;
  const int err =
      ::posix_spawn(&pid, "/sbin/ldconfig", nullptr, nullptr, const_cast<char* const*>(argv), envp);
  if (err != 0) return IoError("cannot run /sbin/ldconfig", err);
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (status != 0) return Internal("/sbin/ldconfig could not build a cache");
  return Bind(cache, kCache);
}

Status DeliverSimulator(const Held& machine) {
  const std::string lib = kLib, nvml = paths::SimLibDir() + "/libnvidia-ml.so.1";
  if (const Status s = BindNewFile(paths::ForwarderLibrary(), lib + "/libcuda.so.1"); !s.ok())
    return s;
  if (const Status s = BindNewFile(nvml, lib + "/libnvidia-ml.so.1"); !s.ok()) return s;
  for (const std::string& copy : FindCopies("libnvidia-ml.so.1", {}))
    if (const Status s = Bind(nvml, copy); !s.ok()) return s;
  if (const Status s = Bind(machine.path(), kSimMachine); !s.ok()) return s;
  return BuildCache();
}

// Whether a runtime directory has nothing in it but what daemons and divvy put there.
bool IsOursAlone(const std::string& runtime_dir) {
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator(runtime_dir, ec)) {
    const std::string name = entry.path().filename();
    if (name != "tenants" && name != "sim" && name != "start.lock" && name != ".new" &&
        name.rfind("divvyd.", 0) != 0 && name.rfind("state.json", 0) != 0)
      return false;
  }
  return !ec;
}

// Hides other tenants and the daemon where the runtime directory is not /run/divvy, which the tmpfs
// hides already.
Status HideRuntime(const std::string& runtime_dir) {
  if (runtime_dir == kRoot || runtime_dir.rfind(std::string(kRoot) + "/", 0) == 0) return {};
  const std::string nothing = std::string(kRoot) + "/nothing";
  if (const Status s = MakeDir(nothing); !s.ok()) return s;
  // As a whole, for a daemon that starts again makes its socket anew, and what is bound over a file
  // goes with the file. In parts only where the folder is also somebody else's.
  if (IsOursAlone(runtime_dir)) return Bind(nothing, runtime_dir);
  for (const char* part : {"/tenants", "/sim"}) {
    const std::string dir = runtime_dir + part;
    if (::access(dir.c_str(), F_OK) != 0) continue;
    if (const Status s = Bind(nothing, dir); !s.ok()) return s;
  }
  const std::string api = paths::ApiSocket(runtime_dir);
  return ::access(api.c_str(), F_OK) == 0 ? Bind("/dev/null", api) : Status{};
}

Status MakeRoot() {
  if (::mount("divvy", kRoot, "tmpfs", MS_NOSUID, "size=4m,mode=0755") != 0)
    return IoError(std::string("cannot mount a tmpfs at ") + kRoot, errno);
  for (const char* dir : {"/run/divvy/self", "/run/divvy/real", "/run/divvy/lib"})
    if (const Status s = MakeDir(dir); !s.ok()) return s;
  const UniqueFd marker(::open(wire::kNamespaceMarker, O_CREAT | O_WRONLY | O_CLOEXEC, 0444));
  return marker.valid() ? Status{} : IoError("cannot write the share's marker", errno);
}

}  // namespace

Status Isolate(const Delivery& delivery) {
  const bool sim = !delivery.sim_dir.empty();
  // Mount points on the host, before the namespace is ours.
  for (const char* dir : {kRoot, sim ? kSimMachine : kRoot})
    if (const Status s = MakeDir(dir); !s.ok()) return s;
  if (::unshare(CLONE_NEWNS) != 0) return IoError("cannot make a mount namespace", errno);
  // Slave: what the machine mounts later is seen here, what is mounted here stays here.
  if (::mount("none", "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0)
    return IoError("cannot make the mount namespace private", errno);
  // In this namespace, and before anything is mounted over their paths.
  const Result<Held> tenant = Hold(delivery.tenant_dir);
  if (!tenant.ok()) return tenant.error();
  const Result<Held> machine = Hold(sim ? delivery.sim_dir : delivery.tenant_dir);
  if (!machine.ok()) return machine.error();
  if (const Status s = MakeRoot(); !s.ok()) return s;
  if (const Status s = Bind(tenant->path(), "/run/divvy/self"); !s.ok()) return s;
  if (const Status s = DeliverForwarder(delivery); !s.ok()) return s;
  if (sim)
    if (const Status s = DeliverSimulator(*machine); !s.ok()) return s;
  if (const Status s = HideRuntime(delivery.runtime_dir); !s.ok()) return s;
  return DeliverPreload();
}

}  // namespace divvy::cli
