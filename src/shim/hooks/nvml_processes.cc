// NVML's processes and utilisation: a tenant sees its own processes only. Utilisation is the whole
// device's for now.
#include <string.h>

#include "src/shim/hooks/nvml_hook.h"
#include "src/shim/pages.h"

namespace divvy::shim {
namespace {

constexpr unsigned kMostProcesses = 4096;

// Lists of running processes: asked for in full, filtered, then answered by NVML's own rules for
// the caller's buffer (too small: the number that is needed).
template <typename Info, typename Ask>
nvmlReturn_t Running(unsigned* count, Info* infos, const Ask& ask) noexcept {
  if (count == nullptr) return ask(count, infos);
  const size_t bytes = sizeof(Info) * kMostProcesses;
  auto* all = static_cast<Info*>(MapPages(bytes));
  if (all == nullptr) return NVML_ERROR_MEMORY;
  unsigned found = kMostProcesses;
  nvmlReturn_t r = ask(&found, all);
  if (r == NVML_SUCCESS) {
    unsigned own = 0;
    for (unsigned i = 0; i < found && i < kMostProcesses; ++i)
      if (NvmlOwnProcess(all[i].pid)) all[own++] = all[i];
    if (own > *count) {
      r = NVML_ERROR_INSUFFICIENT_SIZE;
    } else if (own > 0 && infos == nullptr) {
      r = NVML_ERROR_INVALID_ARGUMENT;
    } else if (own > 0) {
      memcpy(static_cast<void*>(infos), all, sizeof(Info) * own);
    }
    *count = own;
  }
  UnmapPages(all, bytes);
  return r;
}

// Lists that NVML has written already lose the others' entries.
template <typename Entry, typename Count>
void KeepOwn(Count* count, Entry* list) noexcept {
  if (count == nullptr || list == nullptr) return;
  Count own = 0;
  for (Count i = 0; i < *count; ++i)
    if (NvmlOwnProcess(list[i].pid)) list[own++] = list[i];
  *count = own;
}

}  // namespace

#define DIVVY_RUNNING(symbol, Info)                                                                \
  nvmlReturn_t hook_##symbol(nvmlDevice_t device, unsigned int* infoCount, Info* infos) noexcept { \
    DIVVY_NVML_ENTER(symbol, (device, infoCount, infos));                                          \
    return Running(infoCount, infos,                                                               \
                   [&](unsigned* c, Info* i) { return g_nvml.symbol(device, c, i); });             \
  }
DIVVY_RUNNING(nvmlDeviceGetComputeRunningProcesses, nvmlProcessInfo_v1_t)
DIVVY_RUNNING(nvmlDeviceGetComputeRunningProcesses_v2, nvmlProcessInfo_v2_t)
DIVVY_RUNNING(nvmlDeviceGetComputeRunningProcesses_v3, nvmlProcessInfo_t)
DIVVY_RUNNING(nvmlDeviceGetGraphicsRunningProcesses, nvmlProcessInfo_v1_t)
DIVVY_RUNNING(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlProcessInfo_v2_t)
DIVVY_RUNNING(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlProcessInfo_t)
DIVVY_RUNNING(nvmlDeviceGetMPSComputeRunningProcesses, nvmlProcessInfo_v1_t)
DIVVY_RUNNING(nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlProcessInfo_v2_t)
DIVVY_RUNNING(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlProcessInfo_t)
#undef DIVVY_RUNNING

nvmlReturn_t hook_nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device,
                                                        nvmlProcessDetailList_t* plist) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetRunningProcessDetailList, (device, plist));
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetRunningProcessDetailList(device, plist);
  if (r == NVML_SUCCESS) KeepOwn(&plist->numProcArrayEntries, plist->procArray);
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
  if (r == NVML_SUCCESS) KeepOwn(processSamplesCount, utilization);
  return r;
}

nvmlReturn_t hook_nvmlDeviceGetProcessesUtilizationInfo(
    nvmlDevice_t device, nvmlProcessesUtilizationInfo_t* procesesUtilInfo) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetProcessesUtilizationInfo, (device, procesesUtilInfo));
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetProcessesUtilizationInfo(device, procesesUtilInfo);
  if (r == NVML_SUCCESS)
    KeepOwn(&procesesUtilInfo->processSamplesCount, procesesUtilInfo->procUtilArray);
  return r;
}

nvmlReturn_t hook_nvmlDeviceGetEncoderSessions(nvmlDevice_t device, unsigned int* sessionCount,
                                               nvmlEncoderSessionInfo_t* sessionInfos) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetEncoderSessions, (device, sessionCount, sessionInfos));
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetEncoderSessions(device, sessionCount, sessionInfos);
  if (r == NVML_SUCCESS) KeepOwn(sessionCount, sessionInfos);
  return r;
}

nvmlReturn_t hook_nvmlDeviceGetFBCSessions(nvmlDevice_t device, unsigned int* sessionCount,
                                           nvmlFBCSessionInfo_t* sessionInfo) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetFBCSessions, (device, sessionCount, sessionInfo));
  const nvmlReturn_t r = g_nvml.nvmlDeviceGetFBCSessions(device, sessionCount, sessionInfo);
  if (r == NVML_SUCCESS) KeepOwn(sessionCount, sessionInfo);
  return r;
}

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
  return g_nvml.nvmlDeviceGetAccountingStats(device, pid, stats);
}

nvmlReturn_t hook_nvmlDeviceGetAccountingStats_v2(nvmlDevice_t device,
                                                  nvmlAccountingStats_v2_t* stats) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetAccountingStats_v2, (device, stats));
  if (stats != nullptr && !NvmlOwnProcess(stats->pid)) return NVML_ERROR_NOT_FOUND;
  return g_nvml.nvmlDeviceGetAccountingStats_v2(device, stats);
}

nvmlReturn_t hook_nvmlSystemGetProcessName(unsigned int pid, char* name,
                                           unsigned int length) noexcept {
  DIVVY_NVML_ENTER(nvmlSystemGetProcessName, (pid, name, length));
  if (!NvmlOwnProcess(pid)) return NVML_ERROR_NOT_FOUND;
  return g_nvml.nvmlSystemGetProcessName(pid, name, length);
}

// --- utilisation ---

nvmlReturn_t hook_nvmlDeviceGetUtilizationRates(nvmlDevice_t device,
                                                nvmlUtilization_t* utilization) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetUtilizationRates, (device, utilization));
  return g_nvml.nvmlDeviceGetUtilizationRates(device, utilization);
}
nvmlReturn_t hook_nvmlDeviceGetDynamicPstatesInfo(
    nvmlDevice_t device, nvmlGpuDynamicPstatesInfo_t* pDynamicPstatesInfo) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetDynamicPstatesInfo, (device, pDynamicPstatesInfo));
  return g_nvml.nvmlDeviceGetDynamicPstatesInfo(device, pDynamicPstatesInfo);
}
nvmlReturn_t hook_nvmlDeviceGetSamples(nvmlDevice_t device, nvmlSamplingType_t type,
                                       unsigned long long lastSeenTimeStamp,
                                       nvmlValueType_t* sampleValType, unsigned int* sampleCount,
                                       nvmlSample_t* samples) noexcept {
  DIVVY_NVML_ENTER(nvmlDeviceGetSamples,
                   (device, type, lastSeenTimeStamp, sampleValType, sampleCount, samples));
  return g_nvml.nvmlDeviceGetSamples(device, type, lastSeenTimeStamp, sampleValType, sampleCount,
                                     samples);
}

}  // namespace divvy::shim
