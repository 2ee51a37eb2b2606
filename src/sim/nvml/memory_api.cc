// NVML: memory, processes and utilisation, the figures that Divvy reconciles with and rewrites
// (NVML API Reference, "Device Queries"). `used` of v1 includes the driver's own memory, of v2 it
// does not (nvmlMemory_t, nvmlMemory_v2_t).
#include <algorithm>

#include "src/sim/generated/nvml_functions.h"
#include "src/sim/nvml/state.h"

namespace divvy::sim {
namespace {

constexpr unsigned long long kNotAvailable = ~0ull;

// Fills a caller's array of any process struct. `count` is in: room, out: how many there are.
template <typename T, typename F>
nvmlReturn_t ListProcesses(nvmlDevice_t device, unsigned* count, T* infos, F fill) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (count == nullptr || (*count != 0 && infos == nullptr)) return NVML_ERROR_INVALID_ARGUMENT;
  auto all = Processes(g);
  unsigned room = *count;
  *count = unsigned(all.size());
  if (all.size() > room) return NVML_ERROR_INSUFFICIENT_SIZE;
  bool na = g.page->nvml_mode == uint32_t(NvmlMode::kNotAvailable);
  for (size_t i = 0; i < all.size(); ++i) {
    fill(infos[i], all[i].pid, na ? kNotAvailable : all[i].used_bytes);
  }
  return NVML_SUCCESS;
}

nvmlReturn_t ListV1(nvmlDevice_t device, unsigned* count, nvmlProcessInfo_v1_t* infos) {
  return ListProcesses(device, count, infos, [](auto& i, unsigned pid, unsigned long long used) {
    i.pid = pid;
    i.usedGpuMemory = used;
  });
}

nvmlReturn_t ListV2(nvmlDevice_t device, unsigned* count, nvmlProcessInfo_v2_t* infos) {
  return ListProcesses(device, count, infos, [](auto& i, unsigned pid, unsigned long long used) {
    i.pid = pid;
    i.usedGpuMemory = used;
    i.gpuInstanceId = i.computeInstanceId = 0xFFFFFFFF;  // not in MIG mode
  });
}

// Graphics and MPS clients: none exist here.
nvmlReturn_t ListNone(nvmlDevice_t device, unsigned* count) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (count == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *count = 0;
  return NVML_SUCCESS;
}

struct Busy {
  unsigned gpu_percent, copy_percent;
};

// Busy time over the buckets of the last sample period ("between 1 second and 1/6 second").
Busy BusyNow(const Gpu& g) {
  uint64_t bucket = g.page->util_bucket_ns, now = NowNs() / bucket;
  uint64_t period = std::max<uint64_t>(1, 200'000'000 / bucket);
  uint64_t busy = 0, copy = 0;
  for (const auto& u : g.head->util) {
    uint64_t number = u.number.load(std::memory_order_acquire);  // pairs with the timeline
    if (number < now && number + period >= now) {
      busy += u.busy_ns.load(std::memory_order_relaxed);
      copy += u.copy_ns.load(std::memory_order_relaxed);
    }
  }
  auto percent = [&](uint64_t ns) {
    return unsigned(std::min<uint64_t>(100, (ns * 100 + bucket * period / 2) / (bucket * period)));
  };
  return {percent(busy), percent(copy)};
}

}  // namespace

nvmlReturn_t sim_nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t* memory) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (memory == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  memory->total = g.profile->nvml_total_bytes;
  memory->used = g.profile->reserved_bytes + UsedBytes(g);
  memory->free = memory->total - memory->used;
  return NVML_SUCCESS;
}

nvmlReturn_t sim_nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t* memory) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (memory == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (memory->version != nvmlMemory_v2) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  memory->total = g.profile->nvml_total_bytes;
  memory->reserved = g.profile->reserved_bytes;
  memory->used = UsedBytes(g);
  memory->free = memory->total - memory->reserved - memory->used;
  return NVML_SUCCESS;
}

nvmlReturn_t sim_nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t* memory) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (memory == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  memory->bar1Total = g.profile->cc_major >= 8 ? 128ull << 30 : 256ull << 20;
  memory->bar1Used = 2ull << 20;
  memory->bar1Free = memory->bar1Total - memory->bar1Used;
  return NVML_SUCCESS;
}

nvmlReturn_t sim_nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t d, unsigned int* count,
                                                      nvmlProcessInfo_v1_t* infos) {
  return ListV1(d, count, infos);
}
nvmlReturn_t sim_nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t d, unsigned int* count,
                                                         nvmlProcessInfo_v2_t* infos) {
  return ListV2(d, count, infos);
}
nvmlReturn_t sim_nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t d, unsigned int* count,
                                                         nvmlProcessInfo_t* infos) {
  return ListV2(d, count, infos);
}
nvmlReturn_t sim_nvmlDeviceGetGraphicsRunningProcesses(nvmlDevice_t d, unsigned int* count,
                                                       nvmlProcessInfo_v1_t*) {
  return ListNone(d, count);
}
nvmlReturn_t sim_nvmlDeviceGetGraphicsRunningProcesses_v2(nvmlDevice_t d, unsigned int* count,
                                                          nvmlProcessInfo_v2_t*) {
  return ListNone(d, count);
}
nvmlReturn_t sim_nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t d, unsigned int* count,
                                                          nvmlProcessInfo_t*) {
  return ListNone(d, count);
}
nvmlReturn_t sim_nvmlDeviceGetMPSComputeRunningProcesses(nvmlDevice_t d, unsigned int* count,
                                                         nvmlProcessInfo_v1_t*) {
  return ListNone(d, count);
}
nvmlReturn_t sim_nvmlDeviceGetMPSComputeRunningProcesses_v2(nvmlDevice_t d, unsigned int* count,
                                                            nvmlProcessInfo_v2_t*) {
  return ListNone(d, count);
}
nvmlReturn_t sim_nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t d, unsigned int* count,
                                                            nvmlProcessInfo_t*) {
  return ListNone(d, count);
}

nvmlReturn_t sim_nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device,
                                                       nvmlProcessDetailList_t* list) {
  if (list == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (list->version != nvmlProcessDetailList_v1) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  if (list->mode > 2) return NVML_ERROR_INVALID_ARGUMENT;
  if (list->mode != 0) return ListNone(device, &list->numProcArrayEntries);
  return ListProcesses(device, &list->numProcArrayEntries, list->procArray,
                       [](auto& i, unsigned pid, unsigned long long used) {
                         i.pid = pid;
                         i.usedGpuMemory = used;
                         i.gpuInstanceId = i.computeInstanceId = 0xFFFFFFFF;
                         i.usedGpuCcProtectedMemory = 0;
                       });
}

nvmlReturn_t sim_nvmlDeviceGetUtilizationRates(nvmlDevice_t device,
                                               nvmlUtilization_t* utilization) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (utilization == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  Busy b = BusyNow(g);
  utilization->gpu = b.gpu_percent;
  utilization->memory = std::max(b.copy_percent, b.gpu_percent / 2);
  return NVML_SUCCESS;
}

nvmlReturn_t sim_nvmlDeviceGetEncoderUtilization(nvmlDevice_t device, unsigned int* utilization,
                                                 unsigned int* period_us) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (utilization == nullptr || period_us == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  *utilization = 0;
  *period_us = 200'000;
  return NVML_SUCCESS;
}
nvmlReturn_t sim_nvmlDeviceGetDecoderUtilization(nvmlDevice_t device, unsigned int* utilization,
                                                 unsigned int* period_us) {
  return sim_nvmlDeviceGetEncoderUtilization(device, utilization, period_us);
}

}  // namespace divvy::sim
