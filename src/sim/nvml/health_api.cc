// NVML: clocks, temperature, power, errors: plausible constants, so that monitors have something to
// show (NVML API Reference, "Device Queries").
#include <algorithm>

#include "src/sim/generated/nvml_functions.h"
#include "src/sim/nvml/state.h"

namespace divvy::sim {
namespace {

template <typename T>
nvmlReturn_t Answer(nvmlDevice_t device, T* out, T (*value)(const Gpu&)) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *out = value(g);
  return NVML_SUCCESS;
}

nvmlReturn_t NotSupported(nvmlDevice_t device) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  return NVML_ERROR_NOT_SUPPORTED;
}

unsigned Clock(const Gpu& g, nvmlClockType_t type) {
  return unsigned(type == NVML_CLOCK_MEM ? g.profile->mem_clock_khz : g.profile->clock_khz) / 1000;
}

}  // namespace

nvmlReturn_t sim_nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor,
                                          unsigned int* celsius) {
  if (sensor != NVML_TEMPERATURE_GPU) return NVML_ERROR_INVALID_ARGUMENT;
  return Answer<unsigned>(device, celsius, [](const Gpu&) { return 41u; });
}
nvmlReturn_t sim_nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int* mw) {
  return Answer<unsigned>(device, mw,
                          [](const Gpu& g) { return unsigned(g.profile->power_limit_mw) / 8; });
}
nvmlReturn_t sim_nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned int* mw) {
  return Answer<unsigned>(device, mw,
                          [](const Gpu& g) { return unsigned(g.profile->power_limit_mw); });
}
nvmlReturn_t sim_nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t device, unsigned int* mw) {
  return sim_nvmlDeviceGetPowerManagementLimit(device, mw);
}
nvmlReturn_t sim_nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int* mw) {
  return sim_nvmlDeviceGetPowerManagementLimit(device, mw);
}
nvmlReturn_t sim_nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device,
                                                              unsigned int* min_mw,
                                                              unsigned int* max_mw) {
  if (min_mw == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  nvmlReturn_t r = sim_nvmlDeviceGetPowerManagementLimit(device, max_mw);
  if (r == NVML_SUCCESS) *min_mw = *max_mw / 4;
  return r;
}
nvmlReturn_t sim_nvmlDeviceGetPowerManagementMode(nvmlDevice_t device, nvmlEnableState_t* mode) {
  return Answer<nvmlEnableState_t>(device, mode, [](const Gpu&) { return NVML_FEATURE_ENABLED; });
}
nvmlReturn_t sim_nvmlDeviceGetPerformanceState(nvmlDevice_t device, nvmlPstates_t* state) {
  return Answer<nvmlPstates_t>(device, state, [](const Gpu&) { return NVML_PSTATE_0; });
}
nvmlReturn_t sim_nvmlDeviceGetPowerState(nvmlDevice_t device, nvmlPstates_t* state) {
  return sim_nvmlDeviceGetPerformanceState(device, state);
}
nvmlReturn_t sim_nvmlDeviceGetFanSpeed(nvmlDevice_t device, unsigned int*) {
  return NotSupported(device);  // passively cooled cards
}
nvmlReturn_t sim_nvmlDeviceGetFanSpeed_v2(nvmlDevice_t device, unsigned int, unsigned int*) {
  return NotSupported(device);
}
nvmlReturn_t sim_nvmlDeviceGetNumFans(nvmlDevice_t device, unsigned int* fans) {
  return Answer<unsigned>(device, fans, [](const Gpu&) { return 0u; });
}
nvmlReturn_t sim_nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type,
                                        unsigned int* mhz) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (mhz == nullptr || type < 0 || type >= NVML_CLOCK_COUNT) return NVML_ERROR_INVALID_ARGUMENT;
  *mhz = Clock(g, type);
  return NVML_SUCCESS;
}
nvmlReturn_t sim_nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, nvmlClockType_t type,
                                           unsigned int* mhz) {
  return sim_nvmlDeviceGetClockInfo(device, type, mhz);
}
nvmlReturn_t sim_nvmlDeviceGetApplicationsClock(nvmlDevice_t device, nvmlClockType_t type,
                                                unsigned int* mhz) {
  return sim_nvmlDeviceGetClockInfo(device, type, mhz);
}
nvmlReturn_t sim_nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device,
                                                           unsigned long long* reasons) {
  return Answer<unsigned long long>(device, reasons, [](const Gpu&) { return 0ull; });
}
nvmlReturn_t sim_nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device,
                                                        unsigned long long* reasons) {
  return Answer<unsigned long long>(device, reasons, [](const Gpu&) { return 0ull; });
}
nvmlReturn_t sim_nvmlDeviceGetEccMode(nvmlDevice_t device, nvmlEnableState_t* current,
                                      nvmlEnableState_t* pending) {
  if (pending == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *pending = NVML_FEATURE_ENABLED;
  return Answer<nvmlEnableState_t>(device, current,
                                   [](const Gpu&) { return NVML_FEATURE_ENABLED; });
}
nvmlReturn_t sim_nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t,
                                             nvmlEccCounterType_t, unsigned long long* errors) {
  return Answer<unsigned long long>(device, errors, [](const Gpu&) { return 0ull; });
}
nvmlReturn_t sim_nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, nvmlMemoryErrorType_t,
                                                 nvmlEccCounterType_t, nvmlMemoryLocation_t,
                                                 unsigned long long* errors) {
  return Answer<unsigned long long>(device, errors, [](const Gpu&) { return 0ull; });
}
nvmlReturn_t sim_nvmlDeviceGetCurrPcieLinkGeneration(nvmlDevice_t device,
                                                     unsigned int* generation) {
  return Answer<unsigned>(device, generation, [](const Gpu& g) {
    return g.profile->cc_major >= 9 ? 5u : g.profile->cc_major >= 8 ? 4u : 3u;
  });
}
nvmlReturn_t sim_nvmlDeviceGetMaxPcieLinkGeneration(nvmlDevice_t device, unsigned int* generation) {
  return sim_nvmlDeviceGetCurrPcieLinkGeneration(device, generation);
}
nvmlReturn_t sim_nvmlDeviceGetCurrPcieLinkWidth(nvmlDevice_t device, unsigned int* width) {
  return Answer<unsigned>(device, width, [](const Gpu&) { return 16u; });
}
nvmlReturn_t sim_nvmlDeviceGetMaxPcieLinkWidth(nvmlDevice_t device, unsigned int* width) {
  return sim_nvmlDeviceGetCurrPcieLinkWidth(device, width);
}

}  // namespace divvy::sim
