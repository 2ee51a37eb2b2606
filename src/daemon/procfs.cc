#include "src/daemon/procfs.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>

namespace divvy::daemon {
namespace {

// The whole of a small /proc file, at most `limit` bytes.
std::string ReadSmall(const std::string& path, size_t limit = 4096) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string out;
  char buffer[4096];
  while (fd.valid() && out.size() < limit) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n <= 0) break;
    out.append(buffer, static_cast<size_t>(n));
  }
  return out;
}

std::string ProcPath(pid_t pid, const char* file) {
  return "/proc/" + std::to_string(pid) + "/" + file;
}

}  // namespace

std::optional<ProcStat> ParseStat(const std::string& line) {
  const size_t close = line.rfind(')');  // the command is the user's; what follows is not
  if (close == std::string::npos) return std::nullopt;
  ProcStat stat;
  unsigned long long start = 0;
  const int n = std::sscanf(line.c_str() + close + 1,
                            " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d "
                            "%*d %*d %llu",
                            &stat.state, &stat.parent, &start);
  if (n != 3) return std::nullopt;
  stat.start_ticks = start;
  if (stat.state == 'Z')  // the last field
    stat.exit_code = std::atoi(line.c_str() + line.find_last_of(' ') + 1);
  return stat;
}

std::optional<ProcStat> ReadStat(pid_t pid) {
  if (pid <= 0) return std::nullopt;
  const std::string line = ReadSmall(ProcPath(pid, "stat"));
  return line.empty() ? std::nullopt : ParseStat(line);
}

std::optional<ProcessId> IdentityOf(pid_t pid) {
  const std::optional<ProcStat> stat = ReadStat(pid);
  if (!stat || stat->state == 'Z' || stat->state == 'X') return std::nullopt;
  return ProcessId{pid, stat->start_ticks};
}

bool Alive(const ProcessId& id) {
  const std::optional<ProcessId> now = IdentityOf(id.pid);
  return now && *now == id;
}

Result<UniqueFd> OpenPidfd(pid_t pid) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (fd.valid()) return fd;
  if (errno == ESRCH || errno == EINVAL)
    return NotFound("there is no process " + std::to_string(pid));
  return IoError("cannot watch process " + std::to_string(pid), errno);
}

namespace {

// linux/pidfd.h of 6.15; older headers lack it.
struct PidfdInfo {
  uint64_t mask;
  uint64_t cgroup;
  uint32_t ids[11];  // pid, tgid, ppid, and four uids and gids
  int32_t exit_code;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr uint64_t kPidfdInfoExit = 1 << 3;
const unsigned long kPidfdGetInfo = _IOWR(0xff, 11, PidfdInfo);

std::optional<int> EndByPidfd(int pidfd) {
  PidfdInfo info{};
  info.mask = kPidfdInfoExit;
  if (::ioctl(pidfd, kPidfdGetInfo, &info) != 0 || (info.mask & kPidfdInfoExit) == 0)
    return std::nullopt;
  return info.exit_code;
}

}  // namespace

std::optional<int> EndOf(int pidfd, const ProcessId& id) {
  if (const auto end = EndByPidfd(pidfd)) return end;
  const std::optional<ProcStat> stat = ReadStat(id.pid);
  if (stat && stat->state == 'Z' && stat->start_ticks == id.start_ticks) return stat->exit_code;
  return EndByPidfd(pidfd);  // its parent took it in between
}

std::string DescribeEnd(int wait_status) {
  if (!WIFSIGNALED(wait_status))
    return "exited with status " + std::to_string(WEXITSTATUS(wait_status));
  const int signal = WTERMSIG(wait_status);
  const char* name = ::sigabbrev_np(signal);
  return "was ended by " +
         (name != nullptr ? "SIG" + std::string(name) : "signal " + std::to_string(signal));
}

std::string CommandOf(pid_t pid) {
  std::string line = ReadSmall(ProcPath(pid, "cmdline"), 200);
  while (!line.empty() && line.back() == '\0') line.pop_back();
  if (line.empty()) {
    line = ReadSmall(ProcPath(pid, "comm"), 64);
    while (!line.empty() && line.back() == '\n') line.pop_back();
  }
  if (line.size() > 200) line.resize(200);
  for (char& c : line)
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) c = ' ';
  return line;
}

std::string CgroupOf(pid_t pid) {
  const std::string text = ReadSmall(ProcPath(pid, "cgroup"), 16384);
  std::string first;
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    const size_t second_colon = line.find(':', line.find(':') + 1);
    if (second_colon == std::string::npos) continue;
    const std::string path = line.substr(second_colon + 1);
    if (line.starts_with("0::")) {
      if (path != "/") return path;
    } else if (first.empty() && path != "/") {
      first = path;
    }
  }
  return first;
}

std::string EnvironmentOf(pid_t pid, const std::string& name) {
  const std::string all = ReadSmall(ProcPath(pid, "environ"), 1 << 20);
  const std::string wanted = name + "=";
  for (size_t at = 0; at < all.size();) {
    size_t end = all.find('\0', at);
    if (end == std::string::npos) end = all.size();
    if (all.compare(at, wanted.size(), wanted) == 0)
      return all.substr(at + wanted.size(), end - at - wanted.size());
    at = end + 1;
  }
  return "";
}

std::optional<bool> MapsFile(pid_t pid, const struct stat& file) {
  std::ifstream maps(ProcPath(pid, "maps"));
  std::string line;
  bool any = false;
  while (std::getline(maps, line)) {
    unsigned major = 0, minor = 0;
    unsigned long long inode = 0;
    if (std::sscanf(line.c_str(), "%*s %*s %*s %x:%x %llu", &major, &minor, &inode) != 3) continue;
    any = true;
    if (inode == file.st_ino && ::makedev(major, minor) == file.st_dev) return true;
  }
  if (!any) return std::nullopt;
  return false;
}

bool InInitialPidNamespace() {
  // PROC_PID_INIT_INO of the kernel (include/linux/proc_ns.h): the first namespace's inode number
  // is fixed.
  char text[64];
  const ssize_t n = ::readlink("/proc/self/ns/pid", text, sizeof text);
  return n > 0 && std::string(text, static_cast<size_t>(n)) == "pid:[4026531836]";
}

double WallClock() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace divvy::daemon
