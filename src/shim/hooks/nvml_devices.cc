// NVML's devices: only those with a share, counted and numbered from 0; the others are not found by
// any name. Memory figures show the share. Refusals of what would change a device for everybody.
#include "src/shim/hooks/nvml_hook.h"
#include "src/shim/pools.h"

namespace divvy::shim {
namespace {

// A look-up by name: the real answer, unless it is a device of somebody else.
template <typename Ask>
nvmlReturn_t Found(nvmlDevice_t* out, const Ask& ask) noexcept {
  nvmlDevice_t handle = nullptr;
  const nvmlReturn_t r = ask(out != nullptr ? &handle : nullptr);
  if (r != NVML_SUCCESS) return r;
  if (NvmlLocalOf(handle) < 0) return NVML_ERROR_NOT_FOUND;
  *out = handle;
  return r;
}

// Lists of devices lose the hidden ones.
void KeepVisible(unsigned* count, nvmlDevice_t* list) noexcept {
  if (count == nullptr || list == nullptr) return;
  unsigned kept = 0;
  for (unsigned i = 0; i < *count; ++i)
    if (NvmlLocalOf(list[i]) >= 0) list[kept++] = list[i];
  *count = kept;
}

nvmlReturn_t Count(unsigned* out, nvmlReturn_t r) noexcept {
  if (r == NVML_SUCCESS && out != nullptr) *out = NvmlCount();
  return r;
}

// The real count first: not initialised and the like are NVML's own answers.
nvmlReturn_t ByIndex(unsigned index, nvmlDevice_t* device) noexcept {
  unsigned count;
  if (const nvmlReturn_t r = g_nvml.nvmlDeviceGetCount_v2(&count); r != NVML_SUCCESS) return r;
  return NvmlHandle(index, device);
}

}  // namespace

nvmlReturn_t hook_nvmlDeviceGetCount(unsigned int* deviceCount) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetCount, (deviceCount));
  return Count(deviceCount, g_nvml.nvmlDeviceGetCount(deviceCount));
}
nvmlReturn_t hook_nvmlDeviceGetCount_v2(unsigned int* deviceCount) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetCount_v2, (deviceCount));
  return Count(deviceCount, g_nvml.nvmlDeviceGetCount_v2(deviceCount));
}
nvmlReturn_t hook_nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t* device) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetHandleByIndex, (index, device));
  return ByIndex(index, device);
}
nvmlReturn_t hook_nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t* device) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetHandleByIndex_v2, (index, device));
  return ByIndex(index, device);
}
nvmlReturn_t hook_nvmlDeviceGetHandleByUUID(const char* uuid, nvmlDevice_t* device) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetHandleByUUID, (uuid, device));
  return Found(device, [&](nvmlDevice_t* d) { return g_nvml.nvmlDeviceGetHandleByUUID(uuid, d); });
}
nvmlReturn_t hook_nvmlDeviceGetHandleByUUIDV(const nvmlUUID_t* uuid,
                                             nvmlDevice_t* device) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetHandleByUUIDV, (uuid, device));
  return Found(device, [&](nvmlDevice_t* d) { return g_nvml.nvmlDeviceGetHandleByUUIDV(uuid, d); });
}
nvmlReturn_t hook_nvmlDeviceGetHandleByPciBusId(const char* pciBusId,
                                                nvmlDevice_t* device) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetHandleByPciBusId, (pciBusId, device));
  return Found(device,
               [&](nvmlDevice_t* d) { return g_nvml.nvmlDeviceGetHandleByPciBusId(pciBusId, d); });
}
nvmlReturn_t hook_nvmlDeviceGetHandleByPciBusId_v2(const char* pciBusId,
                                                   nvmlDevice_t* device) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetHandleByPciBusId_v2, (pciBusId, device));
  return Found(device, [&](nvmlDevice_t* d) {
    return g_nvml.nvmlDeviceGetHandleByPciBusId_v2(pciBusId, d);
  });
}
nvmlReturn_t hook_nvmlDeviceGetHandleBySerial(const char* serial, nvmlDevice_t* device) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetHandleBySerial, (serial, device));
  return Found(device,
               [&](nvmlDevice_t* d) { return g_nvml.nvmlDeviceGetHandleBySerial(serial, d); });
}
nvmlReturn_t hook_nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index,
                                                      nvmlDevice_t* migDevice) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetMigDeviceHandleByIndex, (device, index, migDevice));
  return Found(migDevice, [&](nvmlDevice_t* d) {
    return g_nvml.nvmlDeviceGetMigDeviceHandleByIndex(device, index, d);
  });
}
// A tenant of an instance may ask for the device that it is a part of, as tools do for its name.
nvmlReturn_t hook_nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t migDevice,
                                                               nvmlDevice_t* device) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, (migDevice, device));
  if (NvmlLocalOf(migDevice) < 0) return NVML_ERROR_NOT_FOUND;
  return g_nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(migDevice, device);
}
nvmlReturn_t hook_nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int* index) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetIndex, (device, index));
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetIndex(device, index);
  if (r == NVML_SUCCESS && index != nullptr)
    if (const int visible = NvmlIndexOf(NvmlLocalOf(device)); visible >= 0)
      *index = static_cast<unsigned>(visible);
  return r;
}
nvmlReturn_t hook_nvmlDeviceGetTopologyNearestGpus(nvmlDevice_t device,
                                                   nvmlGpuTopologyLevel_t level,
                                                   unsigned int* count,
                                                   nvmlDevice_t* deviceArray) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetTopologyNearestGpus, (device, level, count, deviceArray));
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetTopologyNearestGpus(device, level, count, deviceArray);
  if (r == NVML_SUCCESS) KeepVisible(count, deviceArray);
  return r;
}
nvmlReturn_t hook_nvmlSystemGetTopologyGpuSet(unsigned int cpuNumber, unsigned int* count,
                                              nvmlDevice_t* deviceArray) noexcept {
  DIVVY_NVML_ENTER(nvmlSystemGetTopologyGpuSet, (cpuNumber, count, deviceArray));
  const nvmlReturn_t r = g_nvml.nvmlSystemGetTopologyGpuSet(cpuNumber, count, deviceArray);
  if (r == NVML_SUCCESS) KeepVisible(count, deviceArray);
  return r;
}
nvmlReturn_t hook_nvmlUnitGetDevices(nvmlUnit_t unit, unsigned int* deviceCount,
                                     nvmlDevice_t* devices) noexcept {
  DIVVY_NVML_ENTER(nvmlUnitGetDevices, (unit, deviceCount, devices));
  const nvmlReturn_t r = g_nvml.nvmlUnitGetDevices(unit, deviceCount, devices);
  if (r == NVML_SUCCESS) KeepVisible(deviceCount, devices);
  return r;
}

// --- memory ---

namespace {
bool Share(nvmlDevice_t device, Figures* out) noexcept {
  const int local = NvmlLocalOf(device);
  if (PoolsDirty()) PollDirtySlow();
  return local >= 0 && Look(static_cast<unsigned>(local), out);
}
}  // namespace

nvmlReturn_t hook_nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t* memory) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetMemoryInfo, (device, memory));
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetMemoryInfo(device, memory);
  Figures f;
  if (r != NVML_SUCCESS || !Share(device, &f)) return r;
  memory->total = f.limit_bytes;
  memory->used = f.used_bytes < f.limit_bytes ? f.used_bytes : f.limit_bytes;
  memory->free = f.free_bytes < memory->free ? f.free_bytes : memory->free;
  return r;
}
nvmlReturn_t hook_nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device,
                                             nvmlMemory_v2_t* memory) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetMemoryInfo_v2, (device, memory));
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetMemoryInfo_v2(device, memory);
  Figures f;
  if (r != NVML_SUCCESS || !Share(device, &f)) return r;
  memory->total = f.limit_bytes;
  memory->reserved = 0;  // the driver's own part is outside the share
  memory->used = f.used_bytes < f.limit_bytes ? f.used_bytes : f.limit_bytes;
  memory->free = f.free_bytes < memory->free ? f.free_bytes : memory->free;
  return r;
}
nvmlReturn_t hook_nvmlDeviceGetAttributes(nvmlDevice_t device,
                                          nvmlDeviceAttributes_t* attributes) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetAttributes, (device, attributes));
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetAttributes(device, attributes);
  Figures f;
  if (r == NVML_SUCCESS && Share(device, &f)) attributes->memorySizeMB = f.limit_bytes >> 20;
  return r;
}
nvmlReturn_t hook_nvmlDeviceGetAttributes_v2(nvmlDevice_t device,
                                             nvmlDeviceAttributes_t* attributes) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetAttributes_v2, (device, attributes));
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetAttributes_v2(device, attributes);
  Figures f;
  if (r == NVML_SUCCESS && Share(device, &f)) attributes->memorySizeMB = f.limit_bytes >> 20;
  return r;
}

// --- what a tenant may not do ---

namespace {
template <typename Result>
bool PassedOn() noexcept {
  if constexpr (std::is_same_v<Result, nvmlReturn_t>)
    EnsureNvml();
  else
    EnsureDriver();
  return Now() == Standing::kNotTenant;
}
inline const abi::NvmlFns& TableOf(nvmlReturn_t) noexcept { return g_nvml; }
inline const abi::DriverFns& TableOf(CUresult) noexcept { return g_driver; }
}  // namespace

#define DIVVY_HOOK_DENY(symbol, result, parameters, arguments, code)   \
  result hook_##symbol parameters noexcept {                           \
    if (PassedOn<result>()) return TableOf(result{}).symbol arguments; \
    return code;                                                       \
  }
#include "src/shim/generated/bodies.inc"

}  // namespace divvy::shim
