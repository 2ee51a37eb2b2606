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

std::string MakeCgroup(const std::string& tenant) {
  const std::string mount = V2Mount(), own = OwnV2Path();
  if (mount.empty() || own.empty()) return "";
  const std::string path =
      mount + (own == "/" ? "" : own) + "/divvy-" + tenant + "-" + std::to_string(::getpid());
  if (::mkdir(path.c_str(), 0755) != 0) return "";
  return path;
}

void RemoveCgroup(const std::string& path) {
  if (!path.empty()) ::rmdir(path.c_str());  // fails while orphans of the command live on in it
}

}  // namespace divvy::cli
