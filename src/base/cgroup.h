// A cgroup of the v2 hierarchy that holds one tenant's processes: `divvy run` makes it, divvyd asks
// it whether anything of the tenant still lives and removes it with the tenant.
//
// Paths are as /proc/PID/cgroup has them ("/user.slice/divvy-run-7"), folders where the hierarchy
// is mounted. Threads: any; no state. Cost: a few system calls each.
#pragma once

#include <string>

#include "src/base/unique_fd.h"

namespace divvy::cgroup {

// What the names of those that Divvy makes begin with; only these are ever removed.
constexpr char kPrefix[] = "divvy-run-";

std::string V2Mount();                          // "" = there is none
std::string OwnPath();                          // of this process
std::string FolderOf(const std::string& path);  // "" = no such cgroup, or none is mounted
bool IsPopulated(const std::string& path);      // a process lives in it, or in one below

// cgroup.events of `path`: polls as EPOLLPRI when the cgroup becomes populated or empty, until it
// is read again (IsPopulatedBy). Invalid when there is no such cgroup.
UniqueFd OpenEvents(const std::string& path);
bool IsPopulatedBy(int events);

// Ends every process in it (Linux 5.14).
void Kill(const std::string& path);
// Removes one that Divvy made and that is empty; anything else stays.
void Remove(const std::string& path);

}  // namespace divvy::cgroup
