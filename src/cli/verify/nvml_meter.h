// What NVML says a process and its descendants hold on one device: the measure of `divvy verify
// memory` that owes nothing to Divvy. Outside the tenant, outside the shim. One thread.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "src/base/bytes.h"
#include "src/base/result.h"
#include "src/device/source.h"

namespace divvy::cli {

class NvmlMeter {
 public:
  // Loads NVML (the simulated one of `sim_dir`, or the driver's when it is empty) and finds the
  // device by UUID. kUnavailable when the driver gives no figures per process (MIG, some virtual
  // machines).
  static Result<NvmlMeter> Open(const std::string& sim_dir, const std::string& uuid);

  // The largest figure seen until it has not changed for a while: NVML may lag by 200 ms.
  Result<Bytes> Settled(pid_t root);

  struct Device {
    std::string name;
    Bytes total, free;
  };
  Result<Device> Look();

 private:
  Result<Bytes> Once(pid_t root);

  std::unique_ptr<device::Source> source_;
  unsigned index_ = 0;
};

}  // namespace divvy::cli
