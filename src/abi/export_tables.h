// The driver's private tables that cuGetExportTable hands out, as far as they were observed: CUDA's
// own runtime asks for them by UUID and calls a few of their slots. Undocumented by NVIDIA. Facts
// only, seen from the caller's side with cudart 11.8 and 13.0: identity, length, which slots are
// called and what an answer must look like. The simulator answers by them; the shim passes the real
// driver's tables on untouched, and what they allocate is found by measuring.
#pragma once

#include <cstddef>
#include <cstring>

#include "src/abi/cuda/handles.h"

namespace divvy::abi {

struct ExportTable {
  const char* name;
  CUuuid id;
  std::size_t words;  // length in pointers, the size word included; 0: the table states no length
};

// A table that states its length does so in its word 0, in bytes; slots are counted from that word.

// Slot 2 gives the primary context of a device. Slots 1, 6 and 8 load modules (not called by 13.0).
inline constexpr ExportTable kCudartInterface = {
    "CUDART_INTERFACE",
    {{'\x6b', '\xd5', '\xfb', '\x6c', '\x5b', '\xf4', '\xe7', '\x4a', '\x89', '\x87', '\xd9',
      '\x39', '\x12', '\xfd', '\x9d', '\xf9'}},
    13};
inline constexpr std::size_t kCudartPrimaryContextSlot = 2;

// Slots 2 and 6 give buffers.
inline constexpr ExportTable kToolsRuntimeCallbackHooks = {
    "TOOLS_RUNTIME_CALLBACK_HOOKS",
    {{'\xa0', '\x94', '\x79', '\x8c', '\x2e', '\x74', '\x2e', '\x74', '\x93', '\xf2', '\x08',
      '\x00', '\x20', '\x0c', '\x0a', '\x66'}},
    7};
inline constexpr std::size_t kToolsHooksFirstBufferSlot = 2;
inline constexpr std::size_t kToolsHooksSecondBufferSlot = 6;

// Asked for, no slot called by the runtime; cublasLt calls slot 2, where an error is harmless.
inline constexpr ExportTable kToolsTls = {
    "TOOLS_TLS",
    {{'\x42', '\xd8', '\x5a', '\x81', '\x23', '\xf6', '\xcb', '\x47', '\x82', '\x98', '\xf6',
      '\xe7', '\x8a', '\x3a', '\xec', '\xdc'}},
    4};

// Slot 0 puts, slot 1 deletes, slot 2 gets; a miss is CUDA_ERROR_INVALID_HANDLE.
inline constexpr ExportTable kContextLocalStorage = {
    "CONTEXT_LOCAL_STORAGE",
    {{'\xc6', '\x93', '\x33', '\x6e', '\x11', '\x21', '\xdf', '\x11', '\xa8', '\xc3', '\x68',
      '\xf3', '\x55', '\xd8', '\x95', '\x93'}},
    0};
inline constexpr std::size_t kContextStoragePutSlot = 0;
inline constexpr std::size_t kContextStorageDeleteSlot = 1;
inline constexpr std::size_t kContextStorageGetSlot = 2;

// Slots 2 and 3 answer 0. Not asked for by 11.8.
inline constexpr ExportTable kContextChecks = {
    "CONTEXT_CHECKS",
    {{'\x26', '\x3e', '\x88', '\x60', '\x7c', '\xd2', '\x61', '\x43', '\x92', '\xf6', '\xbb',
      '\xd5', '\x00', '\x6d', '\xfa', '\x7e'}},
    4};
inline constexpr std::size_t kContextChecksFirstSlot = 2;
inline constexpr std::size_t kContextChecksSecondSlot = 3;

inline bool same_uuid(const CUuuid& a, const CUuuid& b) {
  return std::memcmp(a.bytes, b.bytes, sizeof(a.bytes)) == 0;
}

}  // namespace divvy::abi
