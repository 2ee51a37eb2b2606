// NVML's processes: a tenant sees its own only. What they use: nvml_utilization.cc.
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

nvmlReturn_t hook_nvmlSystemGetProcessName(unsigned int pid, char* name,
                                           unsigned int length) noexcept {
  DIVVY_NVML_ENTER(nvmlSystemGetProcessName, (pid, name, length));
  if (!NvmlOwnProcess(pid)) return NVML_ERROR_NOT_FOUND;
  return g_nvml.nvmlSystemGetProcessName(pid, name, length);
}

}  // namespace divvy::shim
