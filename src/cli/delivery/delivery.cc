#include "src/cli/delivery/delivery.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "src/base/paths.h"
#include "src/base/unique_fd.h"
#include "src/cli/delivery/isolation.h"
#include "src/region/wire.h"

namespace divvy::cli {
namespace {

Status Prepend(const char* variable, const std::string& entry) {
  const char* old = std::getenv(variable);
  const std::string value = old == nullptr || *old == '\0' ? entry : entry + ":" + old;
  if (::setenv(variable, value.c_str(), 1) != 0) return IoError(variable, errno);
  return {};
}

Status PrepareEnvironment(const Delivery& delivery) {
  ::setenv(wire::kSocketVariable, delivery.socket.c_str(), 1);
  if (!delivery.sim_dir.empty()) {
    ::setenv("DIVVY_SIM_DIR", delivery.sim_dir.c_str(), 1);
    if (const Status s = Prepend("LD_LIBRARY_PATH", paths::SimLibDir()); !s.ok()) return s;
  }
  return Prepend("LD_PRELOAD", paths::ShimLibrary());
}

void EnterCgroup(const Cgroup& cgroup) {
  if (cgroup.folder.empty()) return;
  std::ofstream procs(cgroup.folder + "/cgroup.procs");
  procs << ::getpid();  // not being let in is no reason not to run: ancestry still tells
}

}  // namespace

bool CanIsolate() {
  if (::geteuid() != 0) return false;
  // The two places outside of the namespace that it needs: a read-only system may lack them.
  if (::mkdir("/run/divvy", 0755) != 0 && errno != EEXIST) return false;
  if (::access("/etc/ld.so.preload", F_OK) != 0 && ::access("/etc", W_OK) != 0) return false;
  const pid_t child = ::fork();
  if (child == 0) {
    const bool can = ::unshare(CLONE_NEWNS) == 0 &&
                     ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                     ::mount("divvy", "/run", "tmpfs", 0, "size=4k") == 0;
    ::_exit(can ? 0 : 1);
  }
  int status = 1;
  while (child > 0 && ::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

Status CheckInstalled(const Delivery& delivery) {
  std::vector<std::string> needed{paths::ShimLibrary()};
  if (delivery.isolated) needed.push_back(paths::ForwarderLibrary());
  if (!delivery.sim_dir.empty()) {
    needed.push_back(paths::SimLibDir() + "/libcuda.so.1");
    needed.push_back(paths::SimLibDir() + "/libnvidia-ml.so.1");
  }
  for (const std::string& file : needed)
    if (::access(file.c_str(), R_OK) != 0)
      return Unavailable(file +
                         " is missing; install it (the simulator: package divvy-sim) or point "
                         "DIVVY_LIB_DIR at the libraries");
  return {};
}

Status Prepare(const Delivery& delivery) {
  EnterCgroup(delivery.cgroup);
  if (!delivery.isolated) return PrepareEnvironment(delivery);
  ::unsetenv(wire::kSocketVariable);
  ::unsetenv("DIVVY_SIM_DIR");
  return Isolate(delivery);
}

namespace {

// The name in a tenant's folder; "" = it is none.
std::string NameIn(const std::string& dir) {
  if (dir.empty() || ::access((dir + "/tenant").c_str(), F_OK) != 0) return "";
  std::ifstream file(dir + "/tenant");
  std::string name;
  std::getline(file, name);
  return name.empty() ? "?" : name;
}

}  // namespace

std::string NamespaceTenant() {
  const std::string name = NameIn(wire::kSelfDir);
  if (!name.empty()) return name;
  return ::access(wire::kNamespaceMarker, F_OK) == 0 ? "?" : "";
}

std::string OwnTenant() {
  if (std::string name = NamespaceTenant(); !name.empty()) return name;
  const char* socket = std::getenv(wire::kSocketVariable);
  const std::string path = socket == nullptr ? "" : socket;
  return NameIn(path.substr(0, path.rfind('/') == std::string::npos ? 0 : path.rfind('/')));
}

}  // namespace divvy::cli
