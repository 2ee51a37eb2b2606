// What NVML says that decides whether shares work at all: modes of the machine and its devices.
#include "src/cli/doctor/world.h"
#include "src/cli/nvml_library.h"

namespace divvy::cli::doctor {
namespace {

// nvmlSystemGetConfComputeState's answer (NVML API Reference, "Confidential Compute").
struct ConfidentialState {
  unsigned environment, feature, dev_tools;
};

// False only when a list has a process and no figure for it: of no process nothing is known.
bool FiguresByProcess(const NvmlLibrary& nvml, nvmlDevice_t device) {
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
  const NvmlLibrary nvml(path);
  if (!nvml) return Unavailable(path + " cannot be loaded: " + nvml.why());
  if (const nvmlReturn_t r = nvml.Call("nvmlInit_v2"); r != NVML_SUCCESS)
    return Unavailable("nvmlInit: " + nvml.TextOf(r));
  NvmlFacts facts;
  facts.driver_version = nvml.Text("nvmlSystemGetDriverVersion");
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
    one.name = nvml.Text("nvmlDeviceGetName", device);
    one.uuid = nvml.Text("nvmlDeviceGetUUID", device);
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
