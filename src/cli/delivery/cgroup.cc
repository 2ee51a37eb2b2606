// A cgroup of its own for a tenant, on the v2 hierarchy wherever that is mounted.
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "src/cli/delivery/delivery.h"

namespace divvy::cli {
namespace {

std::string V2Mount() {
  std::ifstream mounts("/proc/self/mounts");
  for (std::string line; std::getline(mounts, line);) {
    std::stringstream fields(line);
    std::string device, point, type;
    fields >> device >> point >> type;
    if (type == "cgroup2") return point;
  }
  return "";
}

std::string OwnV2Path() {
  std::ifstream own("/proc/self/cgroup");
  for (std::string line; std::getline(own, line);)
    if (line.rfind("0::", 0) == 0) return line.substr(3);
  return "";
}

}  // namespace

Cgroup MakeCgroup() {
  const std::string mount = V2Mount(), own = OwnV2Path();
  if (mount.empty() || own.empty()) return {};
  Cgroup made;
  made.path = (own == "/" ? "" : own) + "/divvy-run-" + std::to_string(::getpid());
  made.folder = mount + made.path;
  if (::mkdir(made.folder.c_str(), 0755) != 0) return {};
  return made;
}

void RemoveCgroup(const Cgroup& cgroup) {
  // Fails while orphans of the command live on in it.
  if (!cgroup.folder.empty()) ::rmdir(cgroup.folder.c_str());
}

}  // namespace divvy::cli
