// The operations of `divvy load` on one device: its streams, its kernel, its graph, its buffers.
// Made and submitted by one thread; Done() may be called by another.
#pragma once

#include <memory>
#include <vector>

#include "src/cli/load/completions.h"
#include "src/cli/load/driver.h"
#include "src/cli/load/meeting.h"
#include "src/cli/load/work.h"

namespace divvy::cli {

class Operation {
 public:
  Operation(Driver driver, const WorkOptions& options)
      : driver_(driver), options_(options), ptsz_(options.stream == "ptsz") {}

  Status Prepare();  // with the device's context current, as everything below
  // Whether there is to be another operation: not if `stop`, unless somebody waits for it.
  bool More(bool stop) { return meeting_ != nullptr ? meeting_->More(stop) : !stop; }
  Status Submit();  // one operation, on the next stream
  Status Wait();    // for all streams
  uint64_t Done();  // operations known to be finished
  Driver driver() const { return driver_; }

 private:
  struct Lane {
    CUstream stream = nullptr;
    uint64_t submitted = 0, told = 0;
    std::unique_ptr<Completions> completions;
  };
  Status BuildGraph();
  Status Launch(CUstream stream);
  Status LaunchKernel(CUfunction kernel, CUstream stream, void** params);
  Status Meet(CUstream stream, unsigned half);
  uint64_t KernelNs();

  Driver driver_;
  const WorkOptions& options_;
  const bool ptsz_;
  std::vector<Lane> lanes_;
  size_t next_ = 0;
  CUfunction spin_ = nullptr, store_ = nullptr, wait_value_ = nullptr;
  uint64_t kernels_ = 0;
  std::unique_ptr<Meeting> meeting_;
  CUgraphExec exec_ = nullptr;
  CUevent event_ = nullptr;
  void* host_ = nullptr;
  CUdeviceptr target_ = 0;
};

}  // namespace divvy::cli
