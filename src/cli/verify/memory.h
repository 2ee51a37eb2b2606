// `divvy verify memory`: every memory path against the limit of a share made for it, measured by
// NVML from outside. The verb is in verify.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "src/base/result.h"
#include "src/cli/tenancy.h"

namespace divvy::cli {

// Beyond a block of the driver (2 MiB) a path counts as broken.
constexpr int64_t kToleranceBytes = 2 << 20;

struct MemoryRow {
  std::string path;
  uint64_t granted_bytes = 0;     // held when it was refused (as measured, for contexts)
  uint64_t refused_at_bytes = 0;  // the least amount that was refused; 0 = never refused
  int64_t over_limit_bytes = 0;   // NVML's figure for the whole share, contexts included, - limit
  uint64_t again_bytes = 0;       // granted once more after everything was given back
  std::string note;               // why a path could not be tried, or what it was refused with
  bool tried = false;             // something was granted, or could have been refused and was not

  bool Passed() const;
};

// Makes the share, runs each of `names` in a process of its own, ends the share. `done` is called
// after each row.
Result<std::vector<MemoryRow>> VerifyMemory(const ShareRequest& request,
                                            const std::vector<std::string>& names,
                                            const std::function<void(const MemoryRow&)>& done);

}  // namespace divvy::cli
