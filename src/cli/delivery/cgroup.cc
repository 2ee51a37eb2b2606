// A cgroup of its own for a tenant, below the caller's.
#include "src/base/cgroup.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "src/cli/delivery/delivery.h"

namespace divvy::cli {
namespace {

constexpr unsigned kMostNames = 16;

// The daemon removes a tenant's; those of tenants that no daemon saw the end of are cleared up by
// whoever comes later.
void RemoveStale(const std::string& parent) {
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator(parent, ec)) {
    const std::string name = entry.path().filename();
    if (name.rfind(cgroup::kPrefix, 0) != 0) continue;
    const std::string pid = name.substr(sizeof(cgroup::kPrefix) - 1);
    if (::access(("/proc/" + pid.substr(0, pid.find('.'))).c_str(), F_OK) != 0)
      ::rmdir(entry.path().c_str());
  }
}

}  // namespace

Cgroup MakeCgroup() {
  const std::string mount = cgroup::V2Mount(), own = cgroup::OwnPath();
  if (mount.empty() || own.empty()) return {};
  const std::string parent = own == "/" ? "" : own;
  RemoveStale(mount + parent);
  const std::string first = parent + "/" + cgroup::kPrefix + std::to_string(::getpid());
  for (unsigned n = 0; n < kMostNames; ++n) {
    Cgroup made;
    made.path = n == 0 ? first : first + "." + std::to_string(n);
    made.folder = mount + made.path;
    if (::mkdir(made.folder.c_str(), 0755) == 0) return made;
    if (errno != EEXIST) return {};
    // Of a runner that had this pid before. Empty: ours now; else its processes live on in it.
    if (::rmdir(made.folder.c_str()) == 0 && ::mkdir(made.folder.c_str(), 0755) == 0) return made;
  }
  return {};
}

void RemoveCgroup(const Cgroup& cgroup) {
  // Fails while orphans of the command live on in it; then the daemon does it after them.
  if (!cgroup.folder.empty()) ::rmdir(cgroup.folder.c_str());
}

}  // namespace divvy::cli
