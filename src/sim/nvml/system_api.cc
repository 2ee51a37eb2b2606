// NVML: initialisation, versions, error texts, events (NVML API Reference, "Initialization and
// Cleanup", "System Queries", "Error reporting", "Event Handling Methods").
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "src/abi/cuda.h"
#include "src/sim/generated/nvml_functions.h"
#include "src/sim/nvml/state.h"

struct nvmlEventSet_st {
  std::string path;
  std::streamoff read = 0;
  bool unread = true;    // something may be in the file that was not read
  uint32_t devices = 0;  // bits
  divvy::UniqueFd notify;
};

namespace divvy::sim {

void enter(abi::NvmlSymbol) noexcept {}
nvmlReturn_t not_supported(abi::NvmlSymbol) noexcept {
  return Nvml::Get().page() == nullptr ? NVML_ERROR_UNINITIALIZED : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t sim_nvmlInit_v2(void) { return Nvml::Get().Init(); }
nvmlReturn_t sim_nvmlInit(void) { return Nvml::Get().Init(); }
nvmlReturn_t sim_nvmlInitWithFlags(unsigned int) { return Nvml::Get().Init(); }
nvmlReturn_t sim_nvmlShutdown(void) { return Nvml::Get().Shutdown(); }

nvmlReturn_t sim_nvmlSystemGetDriverVersion(char* version, unsigned int length) {
  if (Nvml::Get().page() == nullptr) return NVML_ERROR_UNINITIALIZED;
  return CopyText("580.95.05", version, length);  // a driver of CUDA 13.0
}
nvmlReturn_t sim_nvmlSystemGetNVMLVersion(char* version, unsigned int length) {
  return CopyText("13.580.95.05", version, length);
}
nvmlReturn_t sim_nvmlSystemGetCudaDriverVersion_v2(int* version) {
  if (version == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *version = CUDA_VERSION;
  return NVML_SUCCESS;
}
nvmlReturn_t sim_nvmlSystemGetCudaDriverVersion(int* version) {
  return sim_nvmlSystemGetCudaDriverVersion_v2(version);
}

nvmlReturn_t sim_nvmlSystemGetProcessName(unsigned int pid, char* name, unsigned int length) {
  MachinePage* page = Nvml::Get().page();
  if (page == nullptr) return NVML_ERROR_UNINITIALIZED;
  if (name == nullptr || length == 0) return NVML_ERROR_INVALID_ARGUMENT;
  for (uint32_t i = 0; i < page->rows_high.load(std::memory_order_acquire); ++i) {
    ClientRow& r = page->row[i];
    if (r.state.load(std::memory_order_acquire) == kClientFree) continue;  // pairs with AddRow
    if (unsigned(r.pid.load(std::memory_order_relaxed)) != pid) continue;
    strncpy(name, r.process_name, length - 1);  // "the process name is truncated"
    name[length - 1] = '\0';
    return NVML_SUCCESS;
  }
  return NVML_ERROR_NOT_FOUND;
}

const char* sim_nvmlErrorString(nvmlReturn_t result) {
  switch (result) {
    case NVML_SUCCESS:
      return "Success";
    case NVML_ERROR_UNINITIALIZED:
      return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT:
      return "Invalid Argument";
    case NVML_ERROR_NOT_SUPPORTED:
      return "Not Supported";
    case NVML_ERROR_NO_PERMISSION:
      return "Insufficient Permissions";
    case NVML_ERROR_NOT_FOUND:
      return "Not Found";
    case NVML_ERROR_INSUFFICIENT_SIZE:
      return "Insufficient Size";
    case NVML_ERROR_DRIVER_NOT_LOADED:
      return "Driver Not Loaded";
    case NVML_ERROR_TIMEOUT:
      return "Timeout";
    case NVML_ERROR_FUNCTION_NOT_FOUND:
      return "Function Not Found";
    case NVML_ERROR_GPU_IS_LOST:
      return "GPU is lost";
    case NVML_ERROR_OPERATING_SYSTEM:
      return "Operating System Error";
    case NVML_ERROR_ARGUMENT_VERSION_MISMATCH:
      return "Argument version mismatch";
    default:
      return "Unknown Error";
  }
}

// The one event there is, an Xid, happens when a line "DEVICE XID" is added to the file `xid` in
// the machine's folder.
nvmlReturn_t sim_nvmlEventSetCreate(nvmlEventSet_t* set) {
  if (Nvml::Get().page() == nullptr) return NVML_ERROR_UNINITIALIZED;
  if (set == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  auto made = new nvmlEventSet_st;
  const char* dir = getenv("DIVVY_SIM_DIR");
  made->path = std::string(dir != nullptr ? dir : "/run/divvy-sim") + "/xid";
  struct stat st;
  if (stat(made->path.c_str(), &st) == 0) made->read = st.st_size;
  made->notify.reset(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  const std::string folder = made->path.substr(0, made->path.rfind('/'));
  inotify_add_watch(made->notify.get(), folder.c_str(), IN_MODIFY);
  *set = made;
  return NVML_SUCCESS;
}
nvmlReturn_t sim_nvmlEventSetFree(nvmlEventSet_t set) {
  delete set;
  return NVML_SUCCESS;
}
nvmlReturn_t sim_nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t* data, unsigned int ms) {
  if (set == nullptr || data == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  for (bool waited = false;;) {
    std::string line;
    std::ifstream in;
    if (set->unread) {
      in.open(set->path);
      in.seekg(set->read);
    }
    // A line without its end is still being written.
    if (set->unread && std::getline(in, line) && !in.eof()) {
      set->read += static_cast<long>(line.size()) + 1;
      unsigned device = 0;
      unsigned long long xid = 0;
      if (sscanf(line.c_str(), "%u %llu", &device, &xid) != 2 || device >= kMaxDevices ||
          (set->devices & (1u << device)) == 0)
        continue;
      *data = {Nvml::Get().handle(device), nvmlEventTypeXidCriticalError, xid, ~0u, ~0u};
      return NVML_SUCCESS;
    }
    set->unread = false;
    if (waited) return NVML_ERROR_TIMEOUT;
    waited = true;
    pollfd fd{set->notify.get(), POLLIN, 0};
    set->unread = poll(&fd, 1, static_cast<int>(ms)) > 0;
    char events[4096];
    while (read(set->notify.get(), events, sizeof events) > 0) {
    }
  }
}
nvmlReturn_t sim_nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t* data, unsigned int ms) {
  return sim_nvmlEventSetWait_v2(set, data, ms);
}
nvmlReturn_t sim_nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types,
                                          nvmlEventSet_t set) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (set == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if ((types & ~nvmlEventTypeXidCriticalError) != 0) return NVML_ERROR_NOT_SUPPORTED;
  set->devices |= 1u << g.index;
  return NVML_SUCCESS;
}
nvmlReturn_t sim_nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long* types) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (types == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *types = nvmlEventTypeXidCriticalError;
  return NVML_SUCCESS;
}

}  // namespace divvy::sim
