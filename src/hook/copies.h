// The copies of libcuda that programs of a container could load: by the loader's own configuration
// (LD_LIBRARY_PATH, ld.so.cache, ld.so.conf), where the runtime mounts drivers, and where drivers
// and forward compatibility packages are known to lie.
//
// Reads the root only. One thread. A damaged or huge configuration costs copies, never more than a
// few milliseconds.
#pragma once

#include <string>
#include <vector>

#include "src/base/unique_fd.h"
#include "src/hook/container.h"
#include "src/hook/root.h"

namespace divvy::hook {

struct Copy {
  std::string path;  // in the root; links resolve to `file`
  UniqueFd file;     // O_PATH: what lies there before anything is mounted over it
};

// 64-bit x86 objects only, each file once, first what the loader would take.
std::vector<Copy> FindCopies(const Root& root, const Container& container);

// The paths that an ld.so.cache (format of glibc 2.2 and later) gives for 64-bit libraries whose
// name starts with "libcuda.so", in its order. Any bytes do.
std::vector<std::string> CachedCopies(const std::string& cache);

// Whether programs of the root are started by glibc's loader for this machine; whether 32-bit ones
// could be, too.
bool HasGlibc(const Root& root);
bool Has32BitLoader(const Root& root);

}  // namespace divvy::hook
