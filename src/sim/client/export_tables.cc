// cuGetExportTable: the driver's tables for NVIDIA's own libraries, as far as their clients have
// been seen to use them (layouts are facts of observed programs). They make contexts and modules
// without any exported function, which is what a limit in front of the driver must be checked
// against. The table by which the CUDA runtime verifies a genuine driver is not offered: the
// runtime API does not run on the simulator.
#include <string.h>

#include <map>

#include "src/sim/client/library.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

using Destroyed = void (*)(CUcontext, void* key, void* value);
struct Local {
  void* value;
  Destroyed destroyed;
};
struct Locals {
  std::mutex mu;
  std::map<std::pair<CUcontext, void*>, Local> of;
};
Locals& ContextLocals() {
  static Locals& l = *new Locals;
  return l;
}

CUcontext Named(CUcontext c) {
  if (c == nullptr) (void)sim_cuCtxGetCurrent(&c);
  return c;
}

CUresult LocalPut(CUcontext c, void* key, void* value, Destroyed destroyed) {
  std::lock_guard lock(ContextLocals().mu);
  ContextLocals().of[{Named(c), key}] = {value, destroyed};
  return CUDA_SUCCESS;
}
CUresult LocalDelete(CUcontext c, void* key) {
  std::lock_guard lock(ContextLocals().mu);
  ContextLocals().of.erase({Named(c), key});
  return CUDA_SUCCESS;
}
CUresult LocalGet(void** value, CUcontext c, void* key) {
  std::lock_guard lock(ContextLocals().mu);
  auto it = ContextLocals().of.find({Named(c), key});
  if (it == ContextLocals().of.end()) return CUDA_ERROR_INVALID_HANDLE;
  *value = it->second.value;
  return CUDA_SUCCESS;
}

// The primary context of a device, without a reference of the caller's.
CUresult PrimaryContext(CUcontext* out, CUdevice device) {
  return sim_cuDevicePrimaryCtxRetain(out, device);
}
CUresult LoadWrapper(CUmodule* out, const void* wrapper) {
  return sim_cuModuleLoadData(out, wrapper);
}
CUresult LoadWrapperExt(CUmodule* out, const void* wrapper, void*, void*, unsigned) {
  return sim_cuModuleLoadData(out, wrapper);
}
CUresult LoadHeaderExt(const void* header, CUmodule* out, void*, void*, unsigned) {
  return sim_cuModuleLoadData(out, header);
}
CUresult CreateContext(CUcontext* out, unsigned flags, CUdevice device) {
  return sim_cuCtxCreate_v2(out, flags, device);
}

void LargeBuffer(void** buffer, size_t* entries) {
  static void* space[512];
  *buffer = space;
  *entries = 512;
}
void SmallBuffer(void** buffer, size_t* bytes) {
  static unsigned char space[14];
  *buffer = space;
  *bytes = sizeof space;
}

CUresult Nothing() { return CUDA_SUCCESS; }
CUresult ContextCheck(CUcontext, unsigned* bits, const void** what) {
  if (bits != nullptr) *bits = 0;
  if (what != nullptr) *what = nullptr;
  return CUDA_SUCCESS;
}

template <typename F>
const void* Word(F* f) {
  return reinterpret_cast<const void*>(f);
}
const void* Size(size_t words) { return reinterpret_cast<const void*>(words * sizeof(void*)); }

struct Table {
  unsigned char id[16];
  const void* words[13];
};

const Table* Tables(size_t* count) {
  static const Table tables[] = {
      // CUDART_INTERFACE
      {{0x6B, 0xD5, 0xFB, 0x6C, 0x5B, 0xF4, 0xE7, 0x4A, 0x89, 0x87, 0xD9, 0x39, 0x12, 0xFD, 0x9D,
        0xF9},
       {Size(13), Word(LoadWrapper), Word(PrimaryContext), Word(Nothing), Word(Nothing),
        Word(Nothing), Word(LoadWrapperExt), Word(Nothing), Word(LoadHeaderExt), Word(Nothing),
        Word(Nothing), Word(Nothing), Word(Nothing)}},
      // TOOLS_RUNTIME_CALLBACK_HOOKS
      {{0xA0, 0x94, 0x79, 0x8C, 0x2E, 0x74, 0x2E, 0x74, 0x93, 0xF2, 0x08, 0x00, 0x20, 0x0C, 0x0A,
        0x66},
       {Size(7), Word(Nothing), Word(LargeBuffer), Word(Nothing), Word(Nothing), Word(Nothing),
        Word(SmallBuffer)}},
      // TOOLS_TLS
      {{0x42, 0xD8, 0x5A, 0x81, 0x23, 0xF6, 0xCB, 0x47, 0x82, 0x98, 0xF6, 0xE7, 0x8A, 0x3A, 0xEC,
        0xDC},
       {Size(4), Word(Nothing), Word(Nothing), Word(Nothing)}},
      // CONTEXT_LOCAL_STORAGE
      {{0xC6, 0x93, 0x33, 0x6E, 0x11, 0x21, 0xDF, 0x11, 0xA8, 0xC3, 0x68, 0xF3, 0x55, 0xD8, 0x95,
        0x93},
       {Word(LocalPut), Word(LocalDelete), Word(LocalGet)}},
      // CONTEXT_CHECKS
      {{0x26, 0x3E, 0x88, 0x60, 0x7C, 0xD2, 0x61, 0x43, 0x92, 0xF6, 0xBB, 0xD5, 0x00, 0x6D, 0xFA,
        0x7E},
       {Size(4), Word(Nothing), Word(ContextCheck), Word(Nothing)}},
      // CTX_CREATE_BYPASS
      {{0x0C, 0xA5, 0x0B, 0x8C, 0x10, 0x04, 0x92, 0x9A, 0x89, 0xA7, 0xD0, 0xDF, 0x10, 0xE7, 0x72,
        0x86},
       {Size(2), Word(CreateContext)}}};
  *count = sizeof tables / sizeof tables[0];
  return tables;
}

}  // namespace

CUresult sim_cuGetExportTable(const void** out, const CUuuid* id) {
  if (out == nullptr || id == nullptr) return CUDA_ERROR_INVALID_VALUE;
  size_t count;
  const Table* tables = Tables(&count);
  for (size_t i = 0; i < count; ++i) {
    if (memcmp(tables[i].id, id->bytes, sizeof tables[i].id) == 0) {
      *out = tables[i].words;
      return CUDA_SUCCESS;
    }
  }
  return CUDA_ERROR_NOT_FOUND;
}

}  // namespace divvy::sim
