// Modules and functions (CUDA Driver API, "Module Management", "Execution Control"). A module costs
// device memory for its code and its globals, in the context that it is loaded into.
#include "src/sim/client/module.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <unordered_set>

#include "src/sim/client/capture.h"
#include "src/sim/client/library.h"
#include "src/sim/client/memory.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

struct Registry {
  std::mutex mu;
  std::unordered_set<Module*> modules;
  std::vector<Module*> unloaded;  // functions of theirs may still be asked about
  std::unordered_set<Function*> functions;
};
Registry& All() {
  static Registry& r = *new Registry;
  return r;
}

Module* Live(CUmodule handle) {
  auto* m = reinterpret_cast<Module*>(handle);
  std::lock_guard lock(All().mu);
  return All().modules.count(m) != 0 ? m : nullptr;
}

// Large variables are zeroed by giving their pages back, so that they cost nothing until touched.
void Zero(void* at, uint64_t bytes) {
  constexpr uint64_t kPage = 4096, kWorthIt = 1 << 20;
  const uint64_t whole = bytes / kPage * kPage;
  if (bytes < kWorthIt || reinterpret_cast<uintptr_t>(at) % kPage != 0 ||
      madvise(at, whole, MADV_REMOVE) != 0) {
    memset(at, 0, bytes);
    return;
  }
  memset(static_cast<char*>(at) + whole, 0, bytes - whole);
}

Function* Live(CUfunction handle) {
  auto* f = reinterpret_cast<Function*>(handle);
  std::lock_guard lock(All().mu);
  return All().functions.count(f) != 0 ? f : nullptr;
}

}  // namespace

Function* NewFunction(std::shared_ptr<KernelInfo> info, Module* module, Library* library) {
  Function* f = new Function;
  f->info = std::move(info);
  f->module = module;
  f->library = library;
  f->attribute[CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK] = 1024;
  f->attribute[CU_FUNC_ATTRIBUTE_NUM_REGS] = 32;
  int cc = Process::Get().profile().cc_major * 10 + Process::Get().profile().cc_minor;
  f->attribute[CU_FUNC_ATTRIBUTE_PTX_VERSION] = cc;
  f->attribute[CU_FUNC_ATTRIBUTE_BINARY_VERSION] = cc;
  f->attribute[CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES] = 49152;
  f->attribute[CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT] = -1;
  std::lock_guard lock(All().mu);
  All().functions.insert(f);
  return f;
}

Function* FunctionOf(CUfunction handle) {
  Function* f = Live(handle);
  if (f == nullptr || f->library == nullptr) return f;
  // A kernel handle: the function of its library in the current context.
  Context* c;
  if (Enter(&c) != CUDA_SUCCESS) return nullptr;
  Module* m;
  if (ModuleIn(f->library, c, &m) != CUDA_SUCCESS) return nullptr;
  return FunctionIn(m, f->info->name);
}

CUresult LoadModule(Context* c, std::shared_ptr<Image> image, Module** out) {
  Module* m = new Module;
  m->image = std::move(image);
  m->context = c;
  uint64_t code = std::max<uint64_t>(m->image->bytes, 4096);
  if (CUresult r = TakeMemory(c, std::max(code, Process::Get().profile().module_bytes), &m->code)) {
    delete m;
    return r;
  }
  {
    std::lock_guard lock(All().mu);
    All().modules.insert(m);
  }
  std::lock_guard lock(c->mu);
  c->modules.push_back(m);
  *out = m;
  return CUDA_SUCCESS;
}

void UnloadModule(Module* m) {
  {
    std::lock_guard lock(All().mu);
    if (All().modules.erase(m) == 0) return;
    All().unloaded.push_back(m);
  }
  for (auto& [name, r] : m->globals) {
    if (AddressMap::Get().Remove(r.base, RangeKind::kGlobal)) GiveMemory(r);
  }
  GiveMemory(m->code);
}

void ReleaseContextModules(Context* c) {
  std::vector<Module*> mine;
  {
    std::lock_guard lock(c->mu);
    mine.swap(c->modules);
  }
  for (Module* m : mine) UnloadModule(m);
}

Function* FunctionIn(Module* m, const std::string& name) {
  std::lock_guard lock(m->mu);
  auto it = m->functions.find(name);
  if (it != m->functions.end()) return it->second;
  auto info = FindKernel(m->image.get(), name);
  if (info == nullptr) return nullptr;
  return m->functions[name] = NewFunction(info, m, nullptr);
}

CUresult GlobalIn(Module* m, const std::string& name, CUdeviceptr* ptr, size_t* bytes) {
  std::lock_guard lock(m->mu);
  auto it = m->globals.find(name);
  if (it == m->globals.end()) {
    auto known = m->image->globals.find(name);
    if (known == m->image->globals.end()) return CUDA_ERROR_NOT_FOUND;
    Range r;
    if (CUresult e = TakeMemory(m->context, std::max<size_t>(known->second, 1), &r)) return e;
    r.kind = RangeKind::kGlobal;
    r.bytes = known->second;
    Zero(reinterpret_cast<void*>(r.base), r.bytes);
    AddressMap::Get().Insert(r);
    it = m->globals.emplace(name, r).first;
  }
  if (ptr != nullptr) *ptr = it->second.base;
  if (bytes != nullptr) *bytes = it->second.bytes;
  return CUDA_SUCCESS;
}

CUresult ReadFile(const char* path, std::string* out) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return CUDA_ERROR_FILE_NOT_FOUND;
  out->assign(std::istreambuf_iterator<char>(in), {});
  out->push_back('\0');
  return out->size() < 5 ? CUDA_ERROR_INVALID_IMAGE : CUDA_SUCCESS;
}

CUresult sim_cuModuleLoadData(CUmodule* out, const void* image) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (CUresult r = RefuseUnsafeCall()) return r;
  if (out == nullptr || image == nullptr) return CUDA_ERROR_INVALID_VALUE;
  auto read = ReadImage(image);
  if (read == nullptr) return CUDA_ERROR_INVALID_IMAGE;
  Module* m;
  if (CUresult r = LoadModule(c, std::move(read), &m)) return r;
  *out = reinterpret_cast<CUmodule>(m);
  return CUDA_SUCCESS;
}
CUresult sim_cuModuleLoadDataEx(CUmodule* out, const void* image, unsigned int, CUjit_option*,
                                void**) {
  return sim_cuModuleLoadData(out, image);
}
CUresult sim_cuModuleLoadFatBinary(CUmodule* out, const void* image) {
  return sim_cuModuleLoadData(out, image);
}
CUresult sim_cuModuleLoad(CUmodule* out, const char* path) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (CUresult r = RefuseUnsafeCall()) return r;
  if (out == nullptr || path == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::string data;
  if (CUresult r = ReadFile(path, &data)) return r;
  return sim_cuModuleLoadData(out, data.data());
}

CUresult sim_cuModuleUnload(CUmodule handle) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (CUresult r = RefuseUnsafeCall()) return r;
  Module* m = Live(handle);
  if (m == nullptr || m->of_library) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult r = FinishWorkOn(m->context)) return r;
  {
    std::lock_guard lock(m->context->mu);
    std::erase(m->context->modules, m);
  }
  UnloadModule(m);
  return CUDA_SUCCESS;
}

CUresult sim_cuModuleGetFunction(CUfunction* out, CUmodule handle, const char* name) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (out == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Module* m = Live(handle);
  if (m == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  Function* f = FunctionIn(m, name);
  if (f == nullptr) return CUDA_ERROR_NOT_FOUND;
  *out = reinterpret_cast<CUfunction>(f);
  return CUDA_SUCCESS;
}

CUresult sim_cuModuleGetGlobal_v2(CUdeviceptr* ptr, size_t* bytes, CUmodule handle,
                                  const char* name) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Module* m = Live(handle);
  if (m == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  return GlobalIn(m, name, ptr, bytes);
}

CUresult sim_cuModuleGetLoadingMode(CUmoduleLoadingMode* mode) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (mode == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const char* env = getenv("CUDA_MODULE_LOADING");
  *mode = env != nullptr && strcmp(env, "EAGER") == 0 ? CU_MODULE_EAGER_LOADING
                                                      : CU_MODULE_LAZY_LOADING;
  return CUDA_SUCCESS;
}

CUresult sim_cuModuleGetFunctionCount(unsigned int* count, CUmodule handle) {
  Module* m = Live(handle);
  if (m == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *count = unsigned(m->image->kernels.size());
  return CUDA_SUCCESS;
}
CUresult sim_cuModuleEnumerateFunctions(CUfunction* functions, unsigned int count,
                                        CUmodule handle) {
  Module* m = Live(handle);
  if (m == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (functions == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
  unsigned i = 0;
  for (auto& [name, info] : m->image->kernels) {
    if (i < count) functions[i++] = reinterpret_cast<CUfunction>(FunctionIn(m, name));
  }
  return CUDA_SUCCESS;
}

CUresult sim_cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction handle) {
  if (CUresult r = Process::Get().Ready()) return r;
  Function* f = Live(handle);
  if (f == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (value == nullptr || attribute < 0 || attribute >= CU_FUNC_ATTRIBUTE_MAX) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *value = f->attribute[attribute];
  return CUDA_SUCCESS;
}
CUresult sim_cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value) {
  if (CUresult r = Process::Get().Ready()) return r;
  Function* f = Live(handle);
  if (f == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (attribute < CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES ||
      attribute >= CU_FUNC_ATTRIBUTE_MAX) {
    return CUDA_ERROR_INVALID_VALUE;  // the others are read-only
  }
  f->attribute[attribute] = value;
  return CUDA_SUCCESS;
}
CUresult sim_cuFuncGetModule(CUmodule* out, CUfunction handle) {
  Function* f = FunctionOf(handle);
  if (f == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUmodule>(f->module);
  return CUDA_SUCCESS;
}
CUresult sim_cuFuncGetName(const char** name, CUfunction handle) {
  Function* f = Live(handle);
  if (f == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *name = f->info->name.c_str();
  return CUDA_SUCCESS;
}
CUresult sim_cuFuncGetParamInfo(CUfunction handle, size_t index, size_t* offset, size_t* bytes) {
  Function* f = Live(handle);
  if (f == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (offset == nullptr || index >= f->info->params.size()) return CUDA_ERROR_INVALID_VALUE;
  *offset = f->info->params[index].offset;
  if (bytes != nullptr) *bytes = f->info->params[index].bytes;
  return CUDA_SUCCESS;
}
CUresult sim_cuFuncIsLoaded(CUfunctionLoadingState* state, CUfunction handle) {
  if (Live(handle) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (state == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *state = CU_FUNCTION_LOADING_STATE_LOADED;
  return CUDA_SUCCESS;
}
CUresult sim_cuFuncLoad(CUfunction handle) {
  return FunctionOf(handle) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
}
CUresult sim_cuFuncSetCacheConfig(CUfunction handle, CUfunc_cache) {
  return Live(handle) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
}
CUresult sim_cuFuncSetSharedMemConfig(CUfunction handle, CUsharedconfig) {
  return Live(handle) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
}

// Occupancy: by threads alone, 32 blocks at most; registers and shared memory never limit.
CUresult sim_cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction handle,
                                                         int threads, size_t) {
  if (Live(handle) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (blocks == nullptr || threads <= 0) return CUDA_ERROR_INVALID_VALUE;
  *blocks = std::min(32, Process::Get().profile().threads_per_sm / std::max(32, threads));
  return CUDA_SUCCESS;
}
CUresult sim_cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, CUfunction handle,
                                                                  int threads, size_t shared,
                                                                  unsigned int) {
  return sim_cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, handle, threads, shared);
}
CUresult sim_cuOccupancyMaxPotentialBlockSize(int* grid, int* block, CUfunction handle,
                                              CUoccupancyB2DSize, size_t, int limit) {
  if (Live(handle) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (grid == nullptr || block == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *block = limit > 0 && limit < 1024 ? limit : 1024;
  *grid = Process::Get().profile().sm_count * (Process::Get().profile().threads_per_sm / *block);
  return CUDA_SUCCESS;
}
CUresult sim_cuOccupancyMaxPotentialBlockSizeWithFlags(int* grid, int* block, CUfunction handle,
                                                       CUoccupancyB2DSize size, size_t shared,
                                                       int limit, unsigned int) {
  return sim_cuOccupancyMaxPotentialBlockSize(grid, block, handle, size, shared, limit);
}
CUresult sim_cuOccupancyAvailableDynamicSMemPerBlock(size_t* bytes, CUfunction handle, int blocks,
                                                     int) {
  if (Live(handle) == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (bytes == nullptr || blocks <= 0) return CUDA_ERROR_INVALID_VALUE;
  *bytes = Process::Get().profile().shared_per_sm_bytes / size_t(blocks);
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
