// A cgroup of its own for a tenant, on the v2 hierarchy wherever that is mounted.
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "src/cli/delivery/delivery.h"

namespace divvy::cli {
namespace {

constexpr char kPrefix[] = "divvy-run-";

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

// Runners leave theirs behind when processes outlive them; whoever comes later clears up.
void RemoveStale(const std::string& parent) {
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator(parent, ec)) {
    const std::string name = entry.path().filename();
    if (name.rfind(kPrefix, 0) != 0) continue;
    const std::string pid = name.substr(sizeof(kPrefix) - 1);
    if (::access(("/proc/" + pid).c_str(), F_OK) != 0) ::rmdir(entry.path().c_str());
  }
}

}  // namespace

Cgroup MakeCgroup() {
  const std::string mount = V2Mount(), own = OwnV2Path();
  if (mount.empty() || own.empty()) return {};
  Cgroup made;
  const std::string parent = own == "/" ? "" : own;
  RemoveStale(mount + parent);
  made.path = parent + "/" + kPrefix + std::to_string(::getpid());
  made.folder = mount + made.path;
  if (::mkdir(made.folder.c_str(), 0755) != 0) return {};
  return made;
}

void RemoveCgroup(const Cgroup& cgroup) {
  // Fails while orphans of the command live on in it.
  if (!cgroup.folder.empty()) ::rmdir(cgroup.folder.c_str());
}

}  // namespace divvy::cli
