// NVML's utilisation, samples and accounting: of the tenant, relative to its share. What is 100 %,
// what it used in the last second and in the last half seconds is the daemon's word (policy). NVML
// is asked first, so that its errors, its rules for buffers and its time stamps are its own. The
// figures of single processes are the driver's, of the tenant's own processes, scaled.
//
// How much of the memory's time a tenant takes nobody measures: the device's figure counts in
// proportion to GPU time. Where the daemon knows nothing (a tenant alone, of a driver that tells no
// process's use), the device's figures stand for the tenant's.
#include <time.h>

#include "src/shim/attach.h"
#include "src/shim/hooks/nvml_hook.h"

namespace divvy::shim {
namespace {

constexpr unsigned kAll = 100;
constexpr uint32_t kWholeMilli = 100000;

// One device of the tenant.
class Use {
 public:
  explicit Use(nvmlDevice_t device) noexcept {
    const int local = NvmlLocalOf(device);
    const Session* s = CurrentSession();
    if (local < 0 || s == nullptr || s->policy_index[local] < 0) return;
    policy_ = &s->policy->device[s->policy_index[local]];
    whole_milli_ = policy_->whole_milli.load(std::memory_order_relaxed);
    if (whole_milli_ == 0) whole_milli_ = kWholeMilli;  // nothing was told yet
    used_permille_ = policy_->past_newest.load(std::memory_order_acquire) != 0
                         ? policy_->used_permille.load(std::memory_order_relaxed)
                         : 0;  // it has just come
  }
  explicit operator bool() const noexcept { return policy_ != nullptr; }

  // A part of the device's time, in percent, as one of the share.
  unsigned OfShare(uint64_t percent) const noexcept {
    const uint64_t part = (percent * kWholeMilli + whole_milli_ / 2) / whole_milli_;
    return part < kAll ? static_cast<unsigned>(part) : kAll;
  }
  uint64_t SumOfShare(uint64_t percents) const noexcept {
    return percents / whole_milli_ * kWholeMilli +
           percents % whole_milli_ * kWholeMilli / whole_milli_;
  }
  // What NVML says of the device becomes the tenant's.
  void Rates(unsigned* gpu, unsigned* memory) const noexcept {
    const uint64_t device = *gpu;
    uint64_t own_permille = device * 10;
    if (used_permille_ != region::kUseNotKnown) own_permille = used_permille_;
    const uint64_t part = (own_permille * (kWholeMilli / 10) + whole_milli_ / 2) / whole_milli_;
    *gpu = part < kAll ? static_cast<unsigned>(part) : kAll;
    *memory = MemoryOf(*memory, device, own_permille);
  }
  // By a CLOCK_MONOTONIC time of the last seconds; -1: not known.
  int Past(uint64_t ns) const noexcept {
    // Acquire: partner of the daemon, which writes the bytes first.
    const uint64_t newest = policy_->past_newest.load(std::memory_order_acquire);
    uint64_t number = ns / region::kPastNs;
    if (number > newest) number = newest;
    if (newest == 0 || newest - number >= region::kPast) return -1;
    const auto byte = static_cast<unsigned>(number % region::kPast);
    const uint8_t value =
        region::PastByte(policy_->past[byte / 8].load(std::memory_order_relaxed), byte % 8);
    return value == region::kPastNotKnown ? -1 : value;
  }

 private:
  unsigned MemoryOf(uint64_t memory, uint64_t device, uint64_t own_permille) const noexcept {
    if (device == 0) return 0;
    if (own_permille > device * 10) own_permille = device * 10;
    return OfShare(memory * own_permille / (device * 10));
  }

  const region::PolicyDevice* policy_ = nullptr;
  uint32_t whole_milli_ = kWholeMilli;
  uint32_t used_permille_ = region::kUseNotKnown;
};

// Entries of a list that NVML has written, own ones only and scaled.
template <typename Entry>
void KeepOwnScaled(nvmlDevice_t device, unsigned* count, Entry* list) noexcept {
  if (count == nullptr || list == nullptr) return;
  const Use use(device);
  unsigned own = 0;
  for (unsigned i = 0; i < *count; ++i) {
    if (!NvmlOwnProcess(list[i].pid)) continue;
    list[own] = list[i];
    if (use) {
      list[own].smUtil = use.OfShare(list[i].smUtil);
      list[own].memUtil = use.OfShare(list[i].memUtil);
    }
    ++own;
  }
  *count = own;
}

}  // namespace

nvmlReturn_t hook_nvmlDeviceGetUtilizationRates(nvmlDevice_t device,
                                                nvmlUtilization_t* utilization) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetUtilizationRates, (device, utilization));
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetUtilizationRates(device, utilization);
  if (r != NVML_SUCCESS) return r;
  if (const Use use(device); use) use.Rates(&utilization->gpu, &utilization->memory);
  return r;
}

nvmlReturn_t hook_nvmlDeviceGetDynamicPstatesInfo(
    nvmlDevice_t device, nvmlGpuDynamicPstatesInfo_t* pDynamicPstatesInfo) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetDynamicPstatesInfo, (device, pDynamicPstatesInfo));
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetDynamicPstatesInfo(device, pDynamicPstatesInfo);
  if (r != NVML_SUCCESS) return r;
  // Domain 0 is the GPU, 1 its memory; 2 (video) and 3 (bus) nobody shares out.
  auto& gpu = pDynamicPstatesInfo->utilization[0];
  auto& memory = pDynamicPstatesInfo->utilization[1];
  if (const Use use(device); use && gpu.bIsPresent != 0)
    use.Rates(&gpu.percentage, &memory.percentage);
  return r;
}

nvmlReturn_t hook_nvmlDeviceGetSamples(nvmlDevice_t device, nvmlSamplingType_t type,
                                       unsigned long long lastSeenTimeStamp,
                                       nvmlValueType_t* sampleValType, unsigned int* sampleCount,
                                       nvmlSample_t* samples) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetSamples,
                   (device, type, lastSeenTimeStamp, sampleValType, sampleCount, samples));
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetSamples(device, type, lastSeenTimeStamp, sampleValType,
                                                     sampleCount, samples);
  const bool of_gpu = type == NVML_GPU_UTILIZATION_SAMPLES;
  if (r != NVML_SUCCESS || samples == nullptr || *sampleValType != NVML_VALUE_TYPE_UNSIGNED_INT ||
      (!of_gpu && type != NVML_MEMORY_UTILIZATION_SAMPLES))
    return r;
  const Use use(device);
  if (!use) return r;
  // Their time stamps are microseconds since the epoch.
  const uint64_t epoch = MonotonicNs(CLOCK_REALTIME), now = MonotonicNs();
  for (unsigned i = 0; i < *sampleCount; ++i) {
    const uint64_t ago = epoch - samples[i].timeStamp * 1000;
    const int own = ago < now ? use.Past(now - ago) : -1;
    unsigned& value = samples[i].sampleValue.uiVal;
    // Memory's by that share of the GPU's time which the tenant had of its own.
    if (own < 0)
      value = use.OfShare(value);
    else
      value = of_gpu ? static_cast<unsigned>(own) : value * static_cast<unsigned>(own) / kAll;
  }
  return r;
}

nvmlReturn_t hook_nvmlDeviceGetProcessUtilization(nvmlDevice_t device,
                                                  nvmlProcessUtilizationSample_t* utilization,
                                                  unsigned int* processSamplesCount,
                                                  unsigned long long lastSeenTimeStamp) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetProcessUtilization,
                   (device, utilization, processSamplesCount, lastSeenTimeStamp));
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetProcessUtilization(
      device, utilization, processSamplesCount, lastSeenTimeStamp);
  if (r == NVML_SUCCESS) KeepOwnScaled(device, processSamplesCount, utilization);
  return r;
}

nvmlReturn_t hook_nvmlDeviceGetProcessesUtilizationInfo(
    nvmlDevice_t device, nvmlProcessesUtilizationInfo_t* procesesUtilInfo) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetProcessesUtilizationInfo, (device, procesesUtilInfo));
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetProcessesUtilizationInfo(device, procesesUtilInfo);
  if (r == NVML_SUCCESS)
    KeepOwnScaled(device, &procesesUtilInfo->processSamplesCount, procesesUtilInfo->procUtilArray);
  return r;
}

// --- accounting ---

nvmlReturn_t hook_nvmlDeviceGetAccountingPids(nvmlDevice_t device, unsigned int* count,
                                              unsigned int* pids) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetAccountingPids, (device, count, pids));
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetAccountingPids(device, count, pids);
  if (r != NVML_SUCCESS || pids == nullptr) return r;
  unsigned own = 0;
  for (unsigned i = 0; i < *count; ++i)
    if (NvmlOwnProcess(pids[i])) pids[own++] = pids[i];
  *count = own;
  return r;
}

nvmlReturn_t hook_nvmlDeviceGetAccountingStats(nvmlDevice_t device, unsigned int pid,
                                               nvmlAccountingStats_t* stats) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetAccountingStats, (device, pid, stats));
  if (!NvmlOwnProcess(pid)) return NVML_ERROR_NOT_FOUND;
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetAccountingStats(device, pid, stats);
  if (r != NVML_SUCCESS) return r;
  if (const Use use(device); use) {
    stats->gpuUtilization = use.OfShare(stats->gpuUtilization);
    stats->memoryUtilization = use.OfShare(stats->memoryUtilization);
  }
  return r;
}

nvmlReturn_t hook_nvmlDeviceGetAccountingStats_v2(nvmlDevice_t device,
                                                  nvmlAccountingStats_v2_t* stats) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetAccountingStats_v2, (device, stats));
  if (stats != nullptr && !NvmlOwnProcess(stats->pid)) return NVML_ERROR_NOT_FOUND;
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetAccountingStats_v2(device, stats);
  if (r != NVML_SUCCESS) return r;
  if (const Use use(device); use) {
    stats->gpuUtilization = use.OfShare(stats->gpuUtilization);
    stats->memoryUtilization = use.OfShare(stats->memoryUtilization);
    // Sums over `sampleCount` samples: of each at most the whole share.
    const unsigned long long most = static_cast<unsigned long long>(stats->sampleCount) * kAll;
    const unsigned long long gpu = use.SumOfShare(stats->sumGpuUtil);
    const unsigned long long memory = use.SumOfShare(stats->sumFbUtil);
    stats->sumGpuUtil = gpu < most ? gpu : most;
    stats->sumFbUtil = memory < most ? memory : most;
  }
  return r;
}

}  // namespace divvy::shim
