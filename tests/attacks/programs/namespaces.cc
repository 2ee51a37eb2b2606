// As root inside the tenant's mount namespace: takes away what was mounted there, then starts anew.
//   namespaces umount_self     the tenant's folder      namespaces umount_preload  the preload file
//   namespaces umount_driver   the forwarder            namespaces umount_all      all of them
//   namespaces leave           enters the machine's own mount namespace
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "tests/attacks/attack.h"

namespace {

// The mount points of this namespace, the last mounted first.
std::vector<std::string> Mounts() {
  std::vector<std::string> points;
  std::ifstream mounts("/proc/self/mounts");
  for (std::string line; std::getline(mounts, line);) {
    std::stringstream fields(line);
    std::string device, point;
    fields >> device >> point;
    points.insert(points.begin(), point);
  }
  return points;
}

bool Ends(const std::string& text, const std::string& with) {
  return text.size() >= with.size() &&
         text.compare(text.size() - with.size(), with.size(), with) == 0;
}

}  // namespace

int main(int, char** argv) {
  const std::string way = argv[1];
  std::vector<std::string> environment = attack::MachineEnvironment();
  if (way == "leave") {
    // `divvy run` itself, the parent, lives in the machine's own name space.
    const std::string parent = "/proc/" + std::to_string(::getppid()) + "/ns/mnt";
    const int host = ::open(parent.c_str(), O_RDONLY | O_CLOEXEC);
    if (host < 0 || ::setns(host, CLONE_NEWNS) != 0)
      return attack::Report({.note = std::strerror(errno)});
    // On the machine's own file system the (simulated) driver lies where it was installed.
    if (const char* dir = std::getenv("ATTACK_SIM_LIB"))
      environment.push_back("LD_LIBRARY_PATH=" + std::string(dir));
    if (const char* dir = std::getenv("ATTACK_SIM_DIR"))
      environment.push_back("DIVVY_SIM_DIR=" + std::string(dir));
    attack::Exec("grab", {}, environment);
  }
  unsigned undone = 0;
  const bool all = way == "umount_all";
  for (const std::string& point : Mounts()) {
    const bool wanted = ((all || way == "umount_self") && point == "/run/divvy/self") ||
                        ((all || way == "umount_preload") && point == "/etc/ld.so.preload") ||
                        ((all || way == "umount_driver") && Ends(point, "libcuda.so.1") &&
                         point != "/run/divvy/real/libcuda.so.1");
    if (wanted && ::umount2(point.c_str(), MNT_DETACH) == 0) ++undone;
  }
  if (undone == 0) return attack::Report({.note = "nothing could be unmounted"});
  if (way != "umount_self")
    if (const char* dir = std::getenv("ATTACK_SIM_LIB"))
      environment.push_back("LD_LIBRARY_PATH=" + std::string(dir));
  attack::Exec("grab", {}, environment);
}
