// Every way in which a CUDA program can take device memory, each behind the same three calls.
// `divvy load --path` uses one, `divvy verify memory` tries them all. One thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "src/base/bytes.h"
#include "src/base/result.h"
#include "src/cli/load/driver.h"

namespace divvy::cli {

class MemoryPath {
 public:
  virtual ~MemoryPath() = default;
  // Takes `amount` more, a multiple of Multiple(). kNoRoom when it is refused for lack of memory.
  virtual Status Take(Bytes amount) = 0;
  // Gives everything back, and waits until the driver has it back.
  virtual Status ReleaseAll() = 0;
  // The smallest sensible step, a multiple of Multiple(); 0 for memory without a size argument.
  virtual Bytes Unit() const { return 2_MiB; }
  // What Take's amount must be a multiple of.
  virtual Bytes Multiple() const { return 1_B; }
  // The memory taken last, for --touch; 0 when a host call cannot write it.
  virtual CUdeviceptr Last() const { return 0; }
};

struct PathInfo {
  const char* name;
  const char* about;
  std::unique_ptr<MemoryPath> (*make)(Driver driver);
  bool sized = true;  // false: takes what it takes, Unit() is 0
};

const std::vector<PathInfo>& MemoryPaths();
// kInvalid names the paths there are.
Result<const PathInfo*> FindMemoryPath(const std::string& name);

}  // namespace divvy::cli
