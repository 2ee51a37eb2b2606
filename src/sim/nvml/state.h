// What the NVML look-alike knows: the machine page of the simulated machine, mapped while NVML is
// initialised, and how a handle names a device. One immortal object; thread-safe.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "src/abi/nvml.h"
#include "src/base/unique_fd.h"
#include "src/sim/wire/machine_page.h"

struct nvmlDevice_st {
  unsigned index;  // on the machine
};

namespace divvy::sim {

class Nvml {
 public:
  static Nvml& Get();

  nvmlReturn_t Init();
  nvmlReturn_t Shutdown();
  // Null while not initialised. The page stays mapped for good once it was.
  MachinePage* page() const { return inits_ > 0 ? page_ : nullptr; }
  nvmlDevice_t handle(unsigned index) { return &device_[index]; }
  // Whether the broker has ended: the machine is gone. Looks at most once in 20 ms.
  bool lost();

 private:
  std::mutex mu_;
  std::atomic<int> inits_{0};
  std::atomic<bool> lost_{false};
  std::atomic<uint64_t> looked_ns_{0};
  UniqueFd sock_;
  MachinePage* page_ = nullptr;
  nvmlDevice_st device_[kMaxDevices];
};

// A device that a caller's handle names.
struct Gpu {
  MachinePage* page;
  unsigned index;
  DeviceHead* head;
  const Profile* profile;
  std::string Uuid() const;      // "GPU-..."
  std::string PciBusId() const;  // "00000000:04:00.0"
};
nvmlReturn_t FindGpu(nvmlDevice_t device, Gpu* gpu);

// Device memory in use, the driver's own included, as NVML would say now (lag applied).
uint64_t UsedBytes(const Gpu& gpu);

struct ProcessUse {
  unsigned pid;
  uint64_t used_bytes;
};
// Processes with a context on the device, each once, in the order of their pids.
std::vector<ProcessUse> Processes(const Gpu& gpu);

// Copies `text` into a caller's buffer; NVML_ERROR_INSUFFICIENT_SIZE when it does not fit.
nvmlReturn_t CopyText(const std::string& text, char* out, unsigned length);

}  // namespace divvy::sim
