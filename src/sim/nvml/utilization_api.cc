// NVML: utilisation over time and by process (NVML API Reference, nvmlDeviceGetSamples,
// nvmlDeviceGetProcessUtilization). Timestamps are microseconds of CPU time since the epoch, as the
// reference has them.
#include <time.h>

#include <algorithm>
#include <map>

#include "src/sim/generated/nvml_functions.h"
#include "src/sim/nvml/state.h"

namespace divvy::sim {
namespace {

// What a CLOCK_MONOTONIC time is in microseconds since the epoch.
uint64_t EpochUs(uint64_t monotonic_ns) {
  timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  uint64_t now_us = uint64_t(t.tv_sec) * 1'000'000 + uint64_t(t.tv_nsec) / 1000;
  return now_us - (NowNs() - monotonic_ns) / 1000;
}

struct Use {
  unsigned pid, percent;
};

// Each process's part of the device in the last whole window.
std::vector<Use> UseByProcess(const Gpu& g, uint64_t* end_ns) {
  uint64_t last = NowNs() / kUtilWindowNs - 1;
  *end_ns = (last + 1) * kUtilWindowNs;
  std::map<unsigned, uint64_t> busy;
  uint32_t high = g.page->rows_high.load(std::memory_order_acquire);  // pairs with AddRow
  for (uint32_t i = 0; i < high; ++i) {
    ClientRow& r = g.page->row[i];
    if (r.state.load(std::memory_order_acquire) != kClientLive) continue;  // pairs with AddRow
    DeviceRow& d = r.dev[g.index];
    if (d.contexts.load(std::memory_order_relaxed) == 0) continue;
    const auto& w = d.window[last % 2];
    bool current = w.number.load(std::memory_order_acquire) == last;  // pairs with the timeline
    busy[unsigned(r.pid.load(std::memory_order_relaxed))] +=
        current ? w.busy_ns.load(std::memory_order_relaxed) : 0;
  }
  std::vector<Use> out;
  for (auto [pid, ns] : busy) {
    out.push_back({pid, unsigned(std::min<uint64_t>(100, ns * 100 / kUtilWindowNs))});
  }
  return out;
}

}  // namespace

nvmlReturn_t sim_nvmlDeviceGetProcessUtilization(nvmlDevice_t device,
                                                 nvmlProcessUtilizationSample_t* samples,
                                                 unsigned int* count,
                                                 unsigned long long last_seen_us) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (count == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  uint64_t end_ns;
  auto all = UseByProcess(g, &end_ns);
  uint64_t at = EpochUs(end_ns);
  if (all.empty() || at <= last_seen_us) return NVML_ERROR_NOT_FOUND;
  unsigned room = *count;
  *count = unsigned(all.size());
  if (samples == nullptr || room < all.size()) return NVML_ERROR_INSUFFICIENT_SIZE;
  for (size_t i = 0; i < all.size(); ++i) {
    samples[i] = {all[i].pid, at, all[i].percent, all[i].percent / 2, 0, 0};
  }
  return NVML_SUCCESS;
}

nvmlReturn_t sim_nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device,
                                                       nvmlProcessesUtilizationInfo_t* info) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (info == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  if (info->version != nvmlProcessesUtilizationInfo_v1) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
  uint64_t end_ns;
  auto all = UseByProcess(g, &end_ns);
  uint64_t at = EpochUs(end_ns);
  if (all.empty() || at <= info->lastSeenTimeStamp) return NVML_ERROR_NOT_FOUND;
  unsigned room = info->processSamplesCount;
  info->processSamplesCount = unsigned(all.size());
  if (info->procUtilArray == nullptr || room < all.size()) return NVML_ERROR_INSUFFICIENT_SIZE;
  for (size_t i = 0; i < all.size(); ++i) {
    info->procUtilArray[i] = {at, all[i].pid, all[i].percent, all[i].percent / 2, 0, 0, 0, 0};
  }
  return NVML_SUCCESS;
}

nvmlReturn_t sim_nvmlDeviceGetSamples(nvmlDevice_t device, nvmlSamplingType_t type,
                                      unsigned long long last_seen_us, nvmlValueType_t* value_type,
                                      unsigned int* count, nvmlSample_t* samples) {
  Gpu g;
  if (nvmlReturn_t r = FindGpu(device, &g)) return r;
  if (value_type == nullptr || count == nullptr) return NVML_ERROR_INVALID_ARGUMENT;
  bool gpu = type == NVML_GPU_UTILIZATION_SAMPLES;
  if (!gpu && type != NVML_MEMORY_UTILIZATION_SAMPLES) return NVML_ERROR_NOT_SUPPORTED;
  *value_type = NVML_VALUE_TYPE_UNSIGNED_INT;
  uint64_t bucket = g.page->util_bucket_ns, now = NowNs() / bucket;
  std::vector<nvmlSample_t> all;
  for (uint64_t n = now - (kUtilBuckets - 1); n < now; ++n) {
    uint64_t at = EpochUs((n + 1) * bucket);
    if (at <= last_seen_us) continue;
    const auto& u = g.head->util[n % kUtilBuckets];
    uint64_t ns = 0;
    if (u.number.load(std::memory_order_acquire) == n) {  // pairs with the timeline
      ns = (gpu ? u.busy_ns : u.copy_ns).load(std::memory_order_relaxed);
    }
    nvmlSample_t s{};
    s.timeStamp = at;
    s.sampleValue.uiVal = unsigned(std::min<uint64_t>(100, ns * 100 / bucket));
    all.push_back(s);
  }
  if (all.empty()) return NVML_ERROR_NOT_FOUND;
  if (samples == nullptr) {  // how much room it takes
    *count = unsigned(all.size());
    return NVML_SUCCESS;
  }
  *count = std::min(*count, unsigned(all.size()));
  std::copy_n(all.begin(), *count, samples);
  return NVML_SUCCESS;
}

}  // namespace divvy::sim
