// The machine: kernel, rights, cgroups, namespaces, limits.
#include <cstdio>

#include "src/base/bytes.h"
#include "src/cli/doctor/checks.h"

namespace divvy::cli::doctor {
namespace {

constexpr unsigned kLeastMajor = 5, kLeastMinor = 3;          // pidfd_open, F_SEAL_FUTURE_WRITE
constexpr uint64_t kFilesByProcess = 4, kFilesBeside = 1024;  // of divvyd
constexpr uint64_t kFewFiles = 4096;

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

void Kernel(const World& world, std::vector<Finding>& out) {
  unsigned major = 0, minor = 0;
  if (std::sscanf(world.kernel.c_str(), "%u.%u", &major, &minor) != 2) return;
  if (major > kLeastMajor || (major == kLeastMajor && minor >= kLeastMinor))
    out.push_back({"kernel", Level::kOk, "Linux " + world.kernel, "", ""});
  else
    out.push_back({"kernel", Level::kStop,
                   "Linux " + world.kernel + " has no pidfds; Divvy needs 5.3 or newer",
                   "install a newer kernel and restart", ""});
}

void Container(const World& world, std::vector<Finding>& out) {
  const bool docker = world.Exists("/.dockerenv"), podman = world.Exists("/run/.containerenv"),
             pod = !world.Env("KUBERNETES_SERVICE_HOST").empty();
  if (!docker && !podman && !pod) return;
  out.push_back(
      {"container", Level::kNote,
       std::string("this is inside of a container") + (pod ? " of Kubernetes" : ""),
       "divvyd tells tenants by their pids: run it outside, or with the machine's pid namespace "
       "(docker run --pid=host, hostPID: true); shares for what runs in this container work either "
       "way",
       ""});
}

void Rights(const World& world, std::vector<Finding>& out) {
  if (world.can_isolate) {
    out.push_back({"rights", Level::kOk,
                   "may make mount namespaces: shares hold for everything that a command starts",
                   "", ""});
    return;
  }
  out.push_back({"rights", Level::kWarning,
                 world.uid == 0
                     ? "root without the right to make a mount namespace (CAP_SYS_ADMIN), "
                       "or /run or /etc cannot be written"
                     : "not root: shares are delivered by LD_PRELOAD, and a program that "
                       "drops its environment leaves them (divvy ps: cooperative)",
                 "run divvy as root; in a container give it CAP_SYS_ADMIN",
                 "sudo divvy run --mem 4GiB -- CMD"});
}

void Cgroups(const World& world, std::vector<Finding>& out) {
  if (world.can_cgroup) {
    out.push_back({"cgroups", Level::kOk, "each command gets a cgroup (v2) of its own", "", ""});
    return;
  }
  const bool v2 = world.Exists("/sys/fs/cgroup/cgroup.controllers") ||
                  world.Exists("/sys/fs/cgroup/unified/cgroup.controllers");
  out.push_back(
      {"cgroups", Level::kNote,
       v2 ? "this user may not make cgroups: processes that outlive their parents before they use "
            "the GPU lose their share"
          : "there is no cgroup v2 hierarchy: processes that outlive their parents before they use "
            "the GPU lose their share",
       v2 ? "run as root, or below a delegated cgroup" : "boot with cgroup v2",
       v2 ? "systemd-run --user --scope -p Delegate=yes divvy run --mem 4GiB -- CMD"
          : "grubby --update-kernel=ALL --args=systemd.unified_cgroup_hierarchy=1"});
}

void UserNamespaces(const World& world, std::vector<Finding>& out) {
  const std::string most = FirstLine(world.Text("/proc/sys/user/max_user_namespaces")),
                    clone = FirstLine(world.Text("/proc/sys/kernel/unprivileged_userns_clone")),
                    apparmor = FirstLine(
                        world.Text("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"));
  const bool off = most == "0" || clone == "0" || apparmor == "1";
  out.push_back({"user-namespaces", off && world.uid != 0 ? Level::kNote : Level::kOk,
                 off ? "users may not make user namespaces: rootless containers do not start here"
                     : "rootless containers can be made; divvyd sees their processes by host pids",
                 off && world.uid != 0 ? "only needed for rootless podman or docker" : "",
                 off && world.uid != 0
                     ? (apparmor == "1" ? "sysctl kernel.apparmor_restrict_unprivileged_userns=0"
                        : clone == "0"  ? "sysctl kernel.unprivileged_userns_clone=1"
                                        : "sysctl user.max_user_namespaces=15000")
                     : ""});
}

void Limits(const World& world, std::vector<Finding>& out) {
  bool good = true;
  const uint64_t processes =
      world.open_files > kFilesBeside ? (world.open_files - kFilesBeside) / kFilesByProcess : 0;
  if (world.open_files < kFewFiles) {
    good = false;
    out.push_back({"limits", Level::kWarning,
                   "at most " + std::to_string(world.open_files) +
                       " open files: divvyd holds four for each process of its tenants, so about " +
                       std::to_string(processes) + " processes",
                   "raise the hard limit for whoever starts divvyd (LimitNOFILE= in a unit)",
                   "ulimit -Hn 65536"});
  }
  if (world.locked_memory < (64_KiB).n) {
    good = false;
    out.push_back({"limits", Level::kNote,
                   "at most " + ToString(Bytes{world.locked_memory}) +
                       " of locked memory: RDMA and programs that lock host memory may fail",
                   "raise it for programs that need it", "ulimit -l unlimited"});
  }
  if (good)
    out.push_back({"limits", Level::kOk,
                   std::to_string(world.open_files) + " open files: about " +
                       std::to_string(processes) + " processes of tenants",
                   "", ""});
}

}  // namespace divvy::cli::doctor
