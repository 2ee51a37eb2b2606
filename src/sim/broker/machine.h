// Machine: makes and owns the machine page of the simulated machine: devices, UUIDs, client rows.
// The broker's server thread calls it; the page itself is shared with every client.
#pragma once

#include <sys/types.h>

#include <string>

#include "src/base/result.h"
#include "src/base/unique_fd.h"
#include "src/sim/wire/machine_page.h"

namespace divvy::sim {

struct MachineOptions {
  MachineSpec spec;
  std::string seed;  // UUIDs are a function of this and the index
  uint64_t nvml_lag_ns = 0;
  NvmlMode nvml_mode = NvmlMode::kTruth;
};

class Machine {
 public:
  static Result<Machine> Make(const MachineOptions& options);

  MachinePage* page() const { return page_; }
  int fd() const { return fd_.get(); }

  // A cleared row for a new client; kNoRoom when 2048 are in use.
  Result<uint32_t> AddRow(pid_t pid, const char* name);
  void FreeRow(uint32_t row);

 private:
  UniqueFd fd_;
  MachinePage* page_ = nullptr;
};

}  // namespace divvy::sim
