#include "src/base/cgroup.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <sstream>

namespace divvy::cgroup {

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

std::string OwnPath() {
  std::ifstream own("/proc/self/cgroup");
  for (std::string line; std::getline(own, line);)
    if (line.rfind("0::", 0) == 0) return line.substr(3);
  return "";
}

std::string FolderOf(const std::string& path) {
  if (path.empty() || path[0] != '/' || path.find("/..") != std::string::npos) return "";
  const std::string mount = V2Mount();
  if (mount.empty()) return "";
  const std::string folder = mount + path;
  return ::access((folder + "/cgroup.events").c_str(), R_OK) == 0 ? folder : "";
}

UniqueFd OpenEvents(const std::string& path) {
  const std::string folder = FolderOf(path);
  if (folder.empty()) return UniqueFd();
  return UniqueFd(::open((folder + "/cgroup.events").c_str(), O_RDONLY | O_CLOEXEC));
}

bool IsPopulatedBy(int events) {
  char text[256];
  const ssize_t n = ::pread(events, text, sizeof(text) - 1, 0);
  if (n <= 0) return false;  // ENODEV: it was removed
  text[n] = '\0';
  return std::strstr(text, "populated 1") != nullptr;
}

bool IsPopulated(const std::string& path) {
  const UniqueFd events = OpenEvents(path);
  return events.valid() && IsPopulatedBy(events.get());
}

void Kill(const std::string& path) {
  const std::string folder = FolderOf(path);
  if (folder.empty()) return;
  const UniqueFd kill(::open((folder + "/cgroup.kill").c_str(), O_WRONLY | O_CLOEXEC));
  if (kill.valid() && ::write(kill.get(), "1", 1) < 0) return;  // older than 5.14: nobody's fault
}

void Remove(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  if (name.rfind(kPrefix, 0) != 0) return;
  if (const std::string folder = FolderOf(path); !folder.empty()) ::rmdir(folder.c_str());
}

}  // namespace divvy::cgroup
