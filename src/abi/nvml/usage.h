// NVML: memory, utilisation, samples and field values.
// Divvy's own declarations: names, values and layouts are facts of NVML's ABI, checked against
// NVIDIA's nvml.h by tests/parity where that can be had. No code, no dependency; any side may
// include it.
#pragma once

#include "src/abi/nvml/result.h"

struct nvmlUtilization_t {
  unsigned int gpu;
  unsigned int memory;
};

struct nvmlMemory_t {
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;
};

struct nvmlMemory_v2_t {
  unsigned int version;
  unsigned long long total;
  unsigned long long reserved;
  unsigned long long free;
  unsigned long long used;
};

struct nvmlSetMemoryLimits_v1_t {
  const char* nameSpace;
  unsigned long long softLimit;
  unsigned long long hardLimit;
};

struct nvmlGetMemoryLimits_v1_t {
  const char* nameSpace;
  unsigned long long softLimit;
  unsigned long long hardLimit;
  unsigned long long currentUsed;
};

struct nvmlBAR1Memory_t {
  unsigned long long bar1Total;
  unsigned long long bar1Free;
  unsigned long long bar1Used;
};

struct nvmlDeviceAttributes_t {
  unsigned int multiprocessorCount;
  unsigned int sharedCopyEngineCount;
  unsigned int sharedDecoderCount;
  unsigned int sharedEncoderCount;
  unsigned int sharedJpegCount;
  unsigned int sharedOfaCount;
  unsigned int gpuInstanceSliceCount;
  unsigned int computeInstanceSliceCount;
  unsigned long long memorySizeMB;
};

enum nvmlValueType_t : int {
  NVML_VALUE_TYPE_DOUBLE = 0,
  NVML_VALUE_TYPE_UNSIGNED_INT = 1,
  NVML_VALUE_TYPE_UNSIGNED_LONG = 2,
  NVML_VALUE_TYPE_UNSIGNED_LONG_LONG = 3,
  NVML_VALUE_TYPE_SIGNED_LONG_LONG = 4,
  NVML_VALUE_TYPE_SIGNED_INT = 5,
  NVML_VALUE_TYPE_UNSIGNED_SHORT = 6,
  NVML_VALUE_TYPE_COUNT = 7,
};

union nvmlValue_t {
  double dVal;
  int siVal;
  unsigned int uiVal;
  unsigned long ulVal;
  unsigned long long ullVal;
  signed long long sllVal;
  unsigned short usVal;
};

struct nvmlSample_t {
  unsigned long long timeStamp;
  nvmlValue_t sampleValue;
};

struct nvmlGpuDynamicPstatesInfo_t {
  unsigned int flags;
  struct {
    unsigned int bIsPresent;
    unsigned int percentage;
    unsigned int incThreshold;
    unsigned int decThreshold;
  } utilization[8];
};

struct nvmlFieldValue_t {
  unsigned int fieldId;
  unsigned int scopeId;
  long long timestamp;
  long long latencyUsec;
  nvmlValueType_t valueType;
  nvmlReturn_t nvmlReturn;
  nvmlValue_t value;
};

enum nvmlSamplingType_t : int {
  NVML_TOTAL_POWER_SAMPLES = 0,
  NVML_GPU_UTILIZATION_SAMPLES = 1,
  NVML_MEMORY_UTILIZATION_SAMPLES = 2,
  NVML_ENC_UTILIZATION_SAMPLES = 3,
  NVML_DEC_UTILIZATION_SAMPLES = 4,
  NVML_PROCESSOR_CLK_SAMPLES = 5,
  NVML_MEMORY_CLK_SAMPLES = 6,
  NVML_MODULE_POWER_SAMPLES = 7,
  NVML_JPG_UTILIZATION_SAMPLES = 8,
  NVML_OFA_UTILIZATION_SAMPLES = 9,
  NVML_SAMPLINGTYPE_COUNT = 10,
};

inline constexpr unsigned int nvmlMemory_v2 = nvml_struct_version<nvmlMemory_v2_t>(2);
inline constexpr unsigned int NVML_MAX_GPU_UTILIZATIONS = 8;

// Field identifiers of nvmlDeviceGetFieldValues.
inline constexpr unsigned int NVML_FI_DEV_ECC_CURRENT = 1;
inline constexpr unsigned int NVML_FI_DEV_ECC_PENDING = 2;
inline constexpr unsigned int NVML_FI_DEV_RETIRED_SBE = 29;
inline constexpr unsigned int NVML_FI_DEV_RETIRED_DBE = 30;
inline constexpr unsigned int NVML_FI_DEV_RETIRED_PENDING = 31;
inline constexpr unsigned int NVML_FI_DEV_PERF_POLICY_POWER = 74;
inline constexpr unsigned int NVML_FI_DEV_PERF_POLICY_THERMAL = 75;
inline constexpr unsigned int NVML_FI_DEV_MEMORY_TEMP = 82;
inline constexpr unsigned int NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION = 83;
inline constexpr unsigned int NVML_FI_DEV_NVLINK_LINK_COUNT = 91;
inline constexpr unsigned int NVML_FI_DEV_PCIE_REPLAY_COUNTER = 94;
inline constexpr unsigned int NVML_FI_DEV_REMAPPED_COR = 142;
inline constexpr unsigned int NVML_FI_DEV_REMAPPED_UNC = 143;
inline constexpr unsigned int NVML_FI_DEV_REMAPPED_PENDING = 144;
inline constexpr unsigned int NVML_FI_DEV_REMAPPED_FAILURE = 145;
inline constexpr unsigned int NVML_FI_DEV_POWER_AVERAGE = 185;
inline constexpr unsigned int NVML_FI_DEV_POWER_INSTANT = 186;
inline constexpr unsigned int NVML_FI_DEV_POWER_MIN_LIMIT = 187;
inline constexpr unsigned int NVML_FI_DEV_POWER_MAX_LIMIT = 188;
inline constexpr unsigned int NVML_FI_DEV_POWER_DEFAULT_LIMIT = 189;
inline constexpr unsigned int NVML_FI_DEV_POWER_CURRENT_LIMIT = 190;
inline constexpr unsigned int NVML_FI_DEV_ENERGY = 191;
inline constexpr unsigned int NVML_FI_DEV_POWER_REQUESTED_LIMIT = 192;
inline constexpr unsigned int NVML_FI_DEV_PCIE_COUNT_TX_BYTES = 197;
inline constexpr unsigned int NVML_FI_DEV_PCIE_COUNT_RX_BYTES = 198;
inline constexpr unsigned int NVML_FI_DEV_GET_GPU_RECOVERY_ACTION = 230;
inline constexpr unsigned int NVML_FI_DEV_POWER_SYNC_BALANCING_FREQ = 272;
inline constexpr unsigned int NVML_FI_DEV_POWER_SYNC_BALANCING_AF = 273;
inline constexpr unsigned int NVML_FI_DEV_REMAPPED_ROWS_COR_INACTIVE = 301;
inline constexpr unsigned int NVML_FI_DEV_REMAPPED_ROWS_UNC_INACTIVE = 302;
inline constexpr unsigned int NVML_FI_DEV_GPU_TEMP = 308;
