// What /proc says of a process: identity that survives pid reuse, parents, cgroup, command.
//
// Side: the daemon. Everything read here may be stale a moment later; a pidfd (OpenPidfd) is what
// pins a process. Threads: any; system calls, no locks.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "src/base/clock.h"
#include "src/base/result.h"
#include "src/base/unique_fd.h"

namespace divvy::daemon {

// A pid and when that process started: together they never name two processes in one boot.
struct ProcessId {
  pid_t pid = 0;
  uint64_t start_ticks = 0;  // field 22 of /proc/PID/stat
  auto operator<=>(const ProcessId&) const = default;
};

struct ProcStat {
  pid_t parent = 0;
  uint64_t start_ticks = 0;
  char state = '?';   // 'Z': a zombie, gone for our purposes
  int exit_code = 0;  // of a zombie, where we may know it: as wait() has it
};

// Parses one line of /proc/PID/stat; the command in it may hold spaces, parentheses and newlines.
std::optional<ProcStat> ParseStat(const std::string& line);
std::optional<ProcStat> ReadStat(pid_t pid);

// The process's identity, if it lives (a zombie does not).
std::optional<ProcessId> IdentityOf(pid_t pid);
bool Alive(const ProcessId& id);

// A descriptor that becomes readable when the process ends. kNotFound when it has.
Result<UniqueFd> OpenPidfd(pid_t pid);

// How a process that is gone ended, as wait() has it (WIFSIGNALED ...). From its pidfd where the
// kernel tells (6.15), else while it is a zombie; nullopt: its parent has been told, nobody else
// is.
std::optional<int> EndOf(int pidfd, const ProcessId& id);
std::string DescribeEnd(int wait_status);  // "was ended by SIGSEGV", "exited with status 3"

std::string CommandOf(pid_t pid);  // its command line, cut to 200 bytes, printable
std::string CgroupOf(pid_t pid);   // the v2 path, else the first v1 path; "" when unknown
std::string EnvironmentOf(pid_t pid, const std::string& name);  // at its exec; "" when unset

// Whether the process maps the file of which `file` is the stat; nullopt: it cannot be told (not
// allowed, gone). Reads a line for each of its mappings.
std::optional<bool> MapsFile(pid_t pid, const struct stat& file);

// False in a container: there NVML's pids and SO_PEERCRED's would not be the same numbers.
bool InInitialPidNamespace();

double WallClock();  // seconds since the epoch

}  // namespace divvy::daemon
