// NVML: event sets.
// Divvy's own declarations: names, values and layouts are facts of NVML's ABI, checked against
// NVIDIA's nvml.h by tests/parity where that can be had. No code, no dependency; any side may
// include it.
#pragma once

#include "src/abi/nvml/result.h"

using nvmlEventSet_t = struct nvmlEventSet_st*;

struct nvmlEventData_t {
  nvmlDevice_t device;
  unsigned long long eventType;
  unsigned long long eventData;
  unsigned int gpuInstanceId;
  unsigned int computeInstanceId;
};

inline constexpr unsigned long long nvmlEventTypeNone = 0;
inline constexpr unsigned long long nvmlEventTypeSingleBitEccError = 0x1;
inline constexpr unsigned long long nvmlEventTypeDoubleBitEccError = 0x2;
inline constexpr unsigned long long nvmlEventTypePState = 0x4;
inline constexpr unsigned long long nvmlEventTypeXidCriticalError = 0x8;
inline constexpr unsigned long long nvmlEventTypeClock = 0x10;
