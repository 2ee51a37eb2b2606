// What NVML says that decides whether shares work at all: modes of the machine and its devices.
#include <dlfcn.h>

#include "src/abi/nvml.h"
#include "src/cli/doctor/world.h"

namespace divvy::cli::doctor {
namespace {

// nvmlSystemGetConfComputeState's answer (NVML API Reference, "Confidential Compute").
struct ConfidentialState {
  unsigned environment, feature, dev_tools;
};

class Library {
 public:
  explicit Library(const std::string& path) : handle_(::dlopen(path.c_str(), RTLD_NOW)) {}
  ~Library() {
    if (handle_ != nullptr) ::dlclose(handle_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  explicit operator bool() const { return handle_ != nullptr; }
  // The function's answer; NVML_ERROR_FUNCTION_NOT_FOUND where the driver has none of that name.
  template <typename... A>
  nvmlReturn_t Call(const char* name, A... arguments) const {
    auto* fn = reinterpret_cast<nvmlReturn_t (*)(A...)>(::dlsym(handle_, name));
    return fn == nullptr ? NVML_ERROR_FUNCTION_NOT_FOUND : fn(arguments...);
  }
  std::string TextOf(nvmlReturn_t code) const {
    auto* fn = reinterpret_cast<const char* (*)(nvmlReturn_t)>(::dlsym(handle_, "nvmlErrorString"));
    return fn == nullptr ? "error " + std::to_string(code) : fn(code);
  }

 private:
  void* handle_;
};

// False only when a list has a process and no figure for it: of no process nothing is known.
bool FiguresByProcess(const Library& nvml, nvmlDevice_t device) {
  nvmlProcessInfo_v2_t rows[64];
  unsigned count = 64;
  if (nvml.Call("nvmlDeviceGetComputeRunningProcesses_v2", device, &count, &rows[0]) !=
      NVML_SUCCESS)
    return true;
  for (unsigned i = 0; i < count && i < 64; ++i)
    if (rows[i].usedGpuMemory == ~0ull) return false;
  return true;
}

}  // namespace

Result<NvmlFacts> ReadNvml(const std::string& path) {
  const Library nvml(path);
  if (!nvml) return Unavailable(path + " cannot be loaded: " + ::dlerror());
  if (const nvmlReturn_t r = nvml.Call("nvmlInit_v2"); r != NVML_SUCCESS)
    return Unavailable("nvmlInit: " + nvml.TextOf(r));
  NvmlFacts facts;
  char text[96] = {};
  if (nvml.Call("nvmlSystemGetDriverVersion", &text[0], 96u) == NVML_SUCCESS)
    facts.driver_version = text;
  nvml.Call("nvmlSystemGetCudaDriverVersion_v2", &facts.cuda_version);
  ConfidentialState state{};
  facts.confidential =
      nvml.Call("nvmlSystemGetConfComputeState", &state) == NVML_SUCCESS && state.feature != 0;
  unsigned count = 0;
  nvml.Call("nvmlDeviceGetCount_v2", &count);
  for (unsigned i = 0; i < count; ++i) {
    nvmlDevice_t device = nullptr;
    if (nvml.Call("nvmlDeviceGetHandleByIndex_v2", i, &device) != NVML_SUCCESS) continue;
    NvmlDevice one;
    one.index = i;
    char name[96] = {}, uuid[96] = {};
    if (nvml.Call("nvmlDeviceGetName", device, &name[0], 96u) == NVML_SUCCESS) one.name = name;
    if (nvml.Call("nvmlDeviceGetUUID", device, &uuid[0], 96u) == NVML_SUCCESS) one.uuid = uuid;
    nvmlComputeMode_t mode{};
    if (nvml.Call("nvmlDeviceGetComputeMode", device, &mode) == NVML_SUCCESS)
      one.compute_mode = mode;
    unsigned now = 0, pending = 0;
    if (nvml.Call("nvmlDeviceGetMigMode", device, &now, &pending) == NVML_SUCCESS)
      one.mig_mode = now;
    one.figures_by_process = FiguresByProcess(nvml, device);
    facts.devices.push_back(std::move(one));
  }
  nvml.Call("nvmlShutdown");
  return facts;
}

}  // namespace divvy::cli::doctor
