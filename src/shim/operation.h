// One submission of GPU work as the gate and the meter see it, and how to make one from a call's
// parameters. Pure; evaluated only where a submission is metered.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/abi/cuda.h"

namespace divvy::shim {

// As region::OperationRecord::kind.
enum class OperationKind : uint8_t { kKernel = 0, kGraph = 1, kDeviceCopy = 2, kHostCopy = 3 };

struct Operation {
  uint64_t key;     // operations that are alike, for the estimate; never 0
  CUstream stream;  // default streams spelled out: CU_STREAM_LEGACY or CU_STREAM_PER_THREAD
  OperationKind kind;
};

constexpr uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 32)) * 0x9e3779b97f4a7c15u;
  return x ^ (x >> 29);
}

inline CUstream StreamOr(CUstream stream, CUstream if_null) noexcept {
  return stream != nullptr ? stream : if_null;
}

inline Operation KernelOperation(const void* function, uint64_t x, uint64_t y, uint64_t z,
                                 CUstream stream) noexcept {
  const uint64_t grid = x ^ (y << 24) ^ (z << 44);
  return {Mix(reinterpret_cast<uint64_t>(function) + grid * 0xd6e8feb86659fd93u) | 1, stream,
          OperationKind::kKernel};
}
inline Operation KernelOperation(const CUlaunchConfig* c, const void* function,
                                 CUstream if_null) noexcept {
  if (c == nullptr) return {1, if_null, OperationKind::kKernel};  // the driver will refuse it
  return KernelOperation(function, c->gridDimX, c->gridDimY, c->gridDimZ,
                         StreamOr(c->hStream, if_null));
}
// Each list entry is for another device; the first stands for the launch.
inline Operation KernelOperation(const CUDA_LAUNCH_PARAMS_v1* list, unsigned count) noexcept {
  if (list == nullptr || count == 0) return {1, CU_STREAM_LEGACY, OperationKind::kKernel};
  return KernelOperation(list->function, list->gridDimX, list->gridDimY, list->gridDimZ,
                         StreamOr(list->hStream, CU_STREAM_LEGACY));
}
inline Operation GraphOperation(CUgraphExec exec, CUstream stream) noexcept {
  return {Mix(reinterpret_cast<uint64_t>(exec) ^ 0x67726170) | 1, stream, OperationKind::kGraph};
}
// Memsets and copies on the device: alike if of one sort and within a factor of two.
inline Operation BytesOperation(unsigned sort, uint64_t bytes, CUstream stream) noexcept {
  const auto size_class = static_cast<unsigned>(bytes == 0 ? 0 : 64 - __builtin_clzll(bytes));
  return {Mix(uint64_t{sort} << 32 | size_class | 0x6279) | 1, stream, OperationKind::kDeviceCopy};
}

// What a descriptor moves; 0 for none. The program's memory: read before the driver has checked it,
// as the driver itself would.
template <typename T>
uint64_t CopyBytes2D(const T* c) noexcept {
  return c == nullptr ? 0 : uint64_t{c->WidthInBytes} * c->Height;
}
inline uint64_t copy_bytes(const CUDA_MEMCPY2D_v1* c) noexcept { return CopyBytes2D(c); }
inline uint64_t copy_bytes(const CUDA_MEMCPY2D_v2* c) noexcept { return CopyBytes2D(c); }
template <typename T>
uint64_t copy_bytes(const T* c) noexcept {
  return c == nullptr ? 0 : uint64_t{c->WidthInBytes} * c->Height * c->Depth;
}
inline uint64_t batch_bytes(const size_t* sizes, size_t count) noexcept {
  uint64_t sum = 0;
  for (size_t i = 0; sizes != nullptr && i < count; ++i) sum += sizes[i];
  return sum;
}
// Of arrays the extent is in elements; four bytes each is near enough for a class of size.
inline uint64_t batch_bytes(const CUDA_MEMCPY3D_BATCH_OP_v1* list, size_t count) noexcept {
  uint64_t sum = 0;
  for (size_t i = 0; list != nullptr && i < count; ++i)
    sum += uint64_t{list[i].extent.width} * list[i].extent.height * list[i].extent.depth;
  return sum;
}
inline uint64_t batch_bytes(const CUmemDecompressParams* list, size_t count) noexcept {
  uint64_t sum = 0;
  for (size_t i = 0; list != nullptr && i < count; ++i) sum += list[i].srcNumBytes;
  return sum;
}

}  // namespace divvy::shim
