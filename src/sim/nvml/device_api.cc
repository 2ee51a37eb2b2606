// NVML: what devices there are and what they are (NVML API Reference, "Device Queries").
#include <string.h>
#include <strings.h>

#include "src/sim/generated/nvml_functions.h"
#include "src/sim/nvml/state.h"

namespace divvy::sim {
namespace {

// The device for which `matches` holds.
template <typename F>
nvmlReturn_t FindBy(nvmlDevice_t* out, F matches) {
  Nvml& n = Nvml::Get();
  MachinePage* page = n.page();
  if (page == nullptr) return NVML_ERROR_UNINITIALIZED;
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  for (unsigned i = 0; i < page->device_count; ++i) {
    Gpu g;
    if (FindGpu(n.handle(i), &g) == NVML_SUCCESS && matches(g)) {
      *out = n.handle(i);
      return NVML_SUCCESS;
    }
  }
  return NVML_ERROR_NOT_FOUND;
}

template <typename T>
nvmlReturn_t Answer(nvmlDevice_t device, T* out, T (*value)(const Gpu&)) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (out == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *out = value(g);
  return NVML_SUCCESS;
}

std::string SerialOf(const Gpu& g) {
  char text[24];
  snprintf(text, sizeof text, "16%02X%08u", g.head->uuid[0], g.index + 1);
  return text;
}

// The later structs have both forms of the bus id, v1 only the short one.
nvmlReturn_t PciInfo(nvmlDevice_t device, nvmlPciInfo_t* pci, bool with_long) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (pci == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  memset(pci, 0, with_long ? sizeof *pci : offsetof(nvmlPciInfo_t, busId));
  std::string id = g.PciBusId();
  strncpy(pci->busIdLegacy, id.c_str() + 4, sizeof pci->busIdLegacy - 1);
  pci->bus = g.head->pci_bus;
  pci->pciDeviceId = g.profile->pci_device_id;
  pci->pciSubSystemId = g.profile->pci_subsystem_id;
  if (with_long) strncpy(pci->busId, id.c_str(), sizeof pci->busId - 1);
  return NVML_SUCCESS;
}

}  // namespace

nvmlReturn_t sim_nvmlDeviceGetCount_v2(unsigned int* count) {
  MachinePage* page = Nvml::Get().page();
  if (page == nullptr) return NVML_ERROR_UNINITIALIZED;
  if (count == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *count = page->device_count;
  return NVML_SUCCESS;
}
nvmlReturn_t sim_nvmlDeviceGetCount(unsigned int* count) {
  return sim_nvmlDeviceGetCount_v2(count);
}

nvmlReturn_t sim_nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t* out) {
  MachinePage* page = Nvml::Get().page();
  if (page == nullptr) return NVML_ERROR_UNINITIALIZED;
  if (out == nullptr || index >= page->device_count) return NVML_ERROR_INVALID_ARGUMENT;
  *out = Nvml::Get().handle(index);
  return NVML_SUCCESS;
}
nvmlReturn_t sim_nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t* out) {
  return sim_nvmlDeviceGetHandleByIndex_v2(index, out);
}
nvmlReturn_t sim_nvmlDeviceGetHandleByUUID(const char* uuid, nvmlDevice_t* out) {
  if (uuid == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  return FindBy(out, [uuid](const Gpu& g) { return strcasecmp(g.Uuid().c_str(), uuid) == 0; });
}
nvmlReturn_t sim_nvmlDeviceGetHandleBySerial(const char* serial, nvmlDevice_t* out) {
  if (serial == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  return FindBy(out, [serial](const Gpu& g) { return SerialOf(g) == serial; });
}
nvmlReturn_t sim_nvmlDeviceGetHandleByPciBusId_v2(const char* id, nvmlDevice_t* out) {
  if (id == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  return FindBy(out, [id](const Gpu& g) {
    std::string full = g.PciBusId();  // domain in eight digits, in four, or left out
    return strcasecmp(full.c_str(), id) == 0 || strcasecmp(full.c_str() + 4, id) == 0 ||
           strcasecmp(full.c_str() + 9, id) == 0;
  });
}
nvmlReturn_t sim_nvmlDeviceGetHandleByPciBusId(const char* id, nvmlDevice_t* out) {
  return sim_nvmlDeviceGetHandleByPciBusId_v2(id, out);
}

nvmlReturn_t sim_nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int* index) {
  return Answer<unsigned>(device, index, [](const Gpu& g) { return g.index; });
}
nvmlReturn_t sim_nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int* minor) {
  return Answer<unsigned>(device, minor, [](const Gpu& g) { return g.index; });
}
nvmlReturn_t sim_nvmlDeviceGetName(nvmlDevice_t device, char* name, unsigned int length) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  return CopyText(g.profile->name, name, length);
}
nvmlReturn_t sim_nvmlDeviceGetUUID(nvmlDevice_t device, char* uuid, unsigned int length) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  return CopyText(g.Uuid(), uuid, length);
}
nvmlReturn_t sim_nvmlDeviceGetSerial(nvmlDevice_t device, char* serial, unsigned int length) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  return CopyText(SerialOf(g), serial, length);
}
nvmlReturn_t sim_nvmlDeviceGetVbiosVersion(nvmlDevice_t device, char* version,
                                           unsigned int length) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  return CopyText("96.00.00.00.01", version, length);
}
nvmlReturn_t sim_nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfo_t* pci) {
  return PciInfo(device, pci, false);
}
nvmlReturn_t sim_nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t* pci) {
  return PciInfo(device, pci, false);
}
nvmlReturn_t sim_nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t* pci) {
  return PciInfo(device, pci, true);
}
nvmlReturn_t sim_nvmlDeviceGetBrand(nvmlDevice_t device, nvmlBrandType_t* brand) {
  return Answer<nvmlBrandType_t>(device, brand, [](const Gpu& g) {
    return g.profile->cc_major >= 8 ? NVML_BRAND_NVIDIA : NVML_BRAND_TESLA;
  });
}
nvmlReturn_t sim_nvmlDeviceGetArchitecture(nvmlDevice_t device, nvmlDeviceArchitecture_t* arch) {
  return Answer<nvmlDeviceArchitecture_t>(device, arch, [](const Gpu& g) {
    return g.profile->cc_major == 9   ? NVML_DEVICE_ARCH_HOPPER
           : g.profile->cc_major == 8 ? NVML_DEVICE_ARCH_AMPERE
                                      : NVML_DEVICE_ARCH_TURING;
  });
}
nvmlReturn_t sim_nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int* major, int* minor) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (major == nullptr || minor == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *major = g.profile->cc_major;
  *minor = g.profile->cc_minor;
  return NVML_SUCCESS;
}
nvmlReturn_t sim_nvmlDeviceGetNumGpuCores(nvmlDevice_t device, unsigned int* cores) {
  return Answer<unsigned>(device, cores, [](const Gpu& g) {
    return unsigned(g.profile->sm_count * (g.profile->cc_major == 9 ? 128 : 64));
  });
}
nvmlReturn_t sim_nvmlDeviceGetMemoryBusWidth(nvmlDevice_t device, unsigned int* bits) {
  return Answer<unsigned>(device, bits,
                          [](const Gpu& g) { return unsigned(g.profile->bus_width_bits); });
}
nvmlReturn_t sim_nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t*) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  return NVML_ERROR_NOT_SUPPORTED;  // of MIG devices only
}
nvmlReturn_t sim_nvmlDeviceGetAttributes(nvmlDevice_t device, nvmlDeviceAttributes_t* out) {
  return sim_nvmlDeviceGetAttributes_v2(device, out);
}
nvmlReturn_t sim_nvmlDeviceGetComputeMode(nvmlDevice_t device, nvmlComputeMode_t* mode) {
  return Answer<nvmlComputeMode_t>(device, mode,
                                   [](const Gpu&) { return NVML_COMPUTEMODE_DEFAULT; });
}
nvmlReturn_t sim_nvmlDeviceGetPersistenceMode(nvmlDevice_t device, nvmlEnableState_t* mode) {
  return Answer<nvmlEnableState_t>(device, mode, [](const Gpu&) { return NVML_FEATURE_ENABLED; });
}
nvmlReturn_t sim_nvmlDeviceGetDisplayActive(nvmlDevice_t device, nvmlEnableState_t* mode) {
  return Answer<nvmlEnableState_t>(device, mode, [](const Gpu&) { return NVML_FEATURE_DISABLED; });
}
nvmlReturn_t sim_nvmlDeviceGetDisplayMode(nvmlDevice_t device, nvmlEnableState_t* mode) {
  return Answer<nvmlEnableState_t>(device, mode, [](const Gpu&) { return NVML_FEATURE_DISABLED; });
}
nvmlReturn_t sim_nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int* current,
                                      unsigned int* pending) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (g.profile->cc_major < 8) return NVML_ERROR_NOT_SUPPORTED;
  if (current == nullptr || pending == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *current = *pending = 0;
  return NVML_SUCCESS;
}
nvmlReturn_t sim_nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int* count) {
  return Answer<unsigned>(device, count,
                          [](const Gpu& g) { return g.profile->cc_major >= 8 ? 7u : 0u; });
}
nvmlReturn_t sim_nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int,
                                                     nvmlDevice_t*) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  return NVML_ERROR_NOT_FOUND;
}
nvmlReturn_t sim_nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int* is_mig) {
  return Answer<unsigned>(device, is_mig, [](const Gpu&) { return 0u; });
}
nvmlReturn_t sim_nvmlDeviceGetVirtualizationMode(nvmlDevice_t device,
                                                 nvmlGpuVirtualizationMode_t* mode) {
  return Answer<nvmlGpuVirtualizationMode_t>(
      device, mode, [](const Gpu&) { return NVML_GPU_VIRTUALIZATION_MODE_NONE; });
}
nvmlReturn_t sim_nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t a, nvmlDevice_t b,
                                                     nvmlGpuTopologyLevel_t* level) {
  Gpu x, y;
  if (nvmlReturn_t r = FindGpu(a, &x)) return r;
  if (nvmlReturn_t r = FindGpu(b, &y)) return r;
  if (level == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *level = x.index == y.index ? NVML_TOPOLOGY_INTERNAL : NVML_TOPOLOGY_NODE;
  return NVML_SUCCESS;
}

}  // namespace divvy::sim
