// NVML handles and every NVML return code.
// Divvy's own declarations: names, values and layouts are facts of NVML's ABI, checked against
// NVIDIA's nvml.h by tests/parity where that can be had. No code, no dependency; any side may
// include it.
#pragma once

using nvmlDevice_t = struct nvmlDevice_st*;
using nvmlGpuInstance_t = struct nvmlGpuInstance_st*;

enum nvmlReturn_t : int {
  NVML_SUCCESS = 0,
  NVML_ERROR_UNINITIALIZED = 1,
  NVML_ERROR_INVALID_ARGUMENT = 2,
  NVML_ERROR_NOT_SUPPORTED = 3,
  NVML_ERROR_NO_PERMISSION = 4,
  NVML_ERROR_ALREADY_INITIALIZED = 5,
  NVML_ERROR_NOT_FOUND = 6,
  NVML_ERROR_INSUFFICIENT_SIZE = 7,
  NVML_ERROR_INSUFFICIENT_POWER = 8,
  NVML_ERROR_DRIVER_NOT_LOADED = 9,
  NVML_ERROR_TIMEOUT = 10,
  NVML_ERROR_IRQ_ISSUE = 11,
  NVML_ERROR_LIBRARY_NOT_FOUND = 12,
  NVML_ERROR_FUNCTION_NOT_FOUND = 13,
  NVML_ERROR_CORRUPTED_INFOROM = 14,
  NVML_ERROR_GPU_IS_LOST = 15,
  NVML_ERROR_RESET_REQUIRED = 16,
  NVML_ERROR_OPERATING_SYSTEM = 17,
  NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
  NVML_ERROR_IN_USE = 19,
  NVML_ERROR_MEMORY = 20,
  NVML_ERROR_NO_DATA = 21,
  NVML_ERROR_VGPU_ECC_NOT_SUPPORTED = 22,
  NVML_ERROR_INSUFFICIENT_RESOURCES = 23,
  NVML_ERROR_FREQ_NOT_SUPPORTED = 24,
  NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
  NVML_ERROR_DEPRECATED = 26,
  NVML_ERROR_NOT_READY = 27,
  NVML_ERROR_GPU_NOT_FOUND = 28,
  NVML_ERROR_INVALID_STATE = 29,
  NVML_ERROR_RESET_TYPE_NOT_SUPPORTED = 30,
  NVML_ERROR_UNKNOWN = 999,
};

using nvmlUnit_t = struct nvmlUnit_st*;
using nvmlComputeInstance_t = struct nvmlComputeInstance_st*;

inline constexpr unsigned int NVML_INIT_FLAG_NO_GPUS = 1u << 0;
inline constexpr unsigned int NVML_INIT_FLAG_NO_ATTACH = 1u << 1;
inline constexpr unsigned int NVML_INIT_FLAG_FORCE_INIT = 1u << 2;

// A figure that the device cannot give, in fields of that type.
inline constexpr int NVML_VALUE_NOT_AVAILABLE = -1;
inline constexpr unsigned long long NVML_VALUE_NOT_AVAILABLE_ULL = ~0ull;

// The version word of NVML's versioned structs: size in the low 24 bits, version above.
template <typename Struct>
constexpr unsigned int nvml_struct_version(unsigned int version) {
  return static_cast<unsigned int>(sizeof(Struct)) | (version << 24);
}
