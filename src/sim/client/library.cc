// Libraries and kernels (CUDA Driver API, "Library Management"): what the CUDA runtime loads its
// fat binaries with.
#include "src/sim/client/library.h"

#include <unordered_set>

#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

struct Registry {
  std::mutex mu;
  std::unordered_set<Library*> all;
  std::vector<Library*> unloaded;  // kernels of theirs may still be asked about
};
Registry& Libraries() {
  static Registry& r = *new Registry;
  return r;
}

Library* Live(CUlibrary handle) {
  auto* l = reinterpret_cast<Library*>(handle);
  std::lock_guard lock(Libraries().mu);
  return Libraries().all.count(l) != 0 ? l : nullptr;
}

CUfunction AsFunction(CUkernel k) { return reinterpret_cast<CUfunction>(k); }

Function* KernelIn(Library* l, const std::string& name) {
  std::lock_guard lock(l->mu);
  auto it = l->kernels.find(name);
  if (it != l->kernels.end()) return it->second;
  auto info = FindKernel(l->image.get(), name);
  if (info == nullptr) return nullptr;
  return l->kernels[name] = NewFunction(info, nullptr, l);
}

}  // namespace

CUresult ModuleIn(Library* l, Context* c, Module** out) {
  std::lock_guard lock(l->mu);
  auto it = l->loaded.find(c);
  if (it != l->loaded.end()) {
    *out = it->second;
    return CUDA_SUCCESS;
  }
  if (CUresult r = LoadModule(c, l->image, out)) return r;
  (*out)->of_library = true;
  l->loaded[c] = *out;
  return CUDA_SUCCESS;
}

CUresult sim_cuLibraryLoadData(CUlibrary* out, const void* code, CUjit_option*, void**,
                               unsigned int, CUlibraryOption*, void**, unsigned int) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (out == nullptr || code == nullptr) return CUDA_ERROR_INVALID_VALUE;
  auto image = ReadImage(code);
  if (image == nullptr) return CUDA_ERROR_INVALID_IMAGE;
  Library* l = new Library;
  l->image = std::move(image);
  std::lock_guard lock(Libraries().mu);
  Libraries().all.insert(l);
  *out = reinterpret_cast<CUlibrary>(l);
  return CUDA_SUCCESS;
}

CUresult sim_cuLibraryLoadFromFile(CUlibrary* out, const char* path, CUjit_option* jo, void** jv,
                                   unsigned int jn, CUlibraryOption* lo, void** lv,
                                   unsigned int ln) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (path == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::string data;
  if (CUresult r = ReadFile(path, &data)) return r;
  return sim_cuLibraryLoadData(out, data.data(), jo, jv, jn, lo, lv, ln);
}

CUresult sim_cuLibraryUnload(CUlibrary handle) {
  if (CUresult r = Process::Get().Ready()) return r;
  Library* l = Live(handle);
  if (l == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  {
    std::lock_guard lock(Libraries().mu);
    Libraries().all.erase(l);
    Libraries().unloaded.push_back(l);
  }
  std::map<Context*, Module*> loaded;
  {
    std::lock_guard lock(l->mu);
    loaded.swap(l->loaded);
  }
  for (auto& [c, m] : loaded) {
    if (c->destroyed) continue;
    {
      std::lock_guard lock(c->mu);
      std::erase(c->modules, m);
    }
    UnloadModule(m);
  }
  return CUDA_SUCCESS;
}

CUresult sim_cuLibraryGetKernel(CUkernel* out, CUlibrary handle, const char* name) {
  if (CUresult r = Process::Get().Ready()) return r;
  Library* l = Live(handle);
  if (l == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr || name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Function* f = KernelIn(l, name);
  if (f == nullptr) return CUDA_ERROR_NOT_FOUND;
  *out = reinterpret_cast<CUkernel>(f);
  return CUDA_SUCCESS;
}

CUresult sim_cuLibraryGetKernelCount(unsigned int* count, CUlibrary handle) {
  Library* l = Live(handle);
  if (l == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *count = unsigned(l->image->kernels.size());
  return CUDA_SUCCESS;
}
CUresult sim_cuLibraryEnumerateKernels(CUkernel* kernels, unsigned int count, CUlibrary handle) {
  Library* l = Live(handle);
  if (l == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (kernels == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
  unsigned i = 0;
  for (auto& [name, info] : l->image->kernels) {
    if (i < count) kernels[i++] = reinterpret_cast<CUkernel>(KernelIn(l, name));
  }
  return CUDA_SUCCESS;
}

CUresult sim_cuLibraryGetModule(CUmodule* out, CUlibrary handle) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  Library* l = Live(handle);
  if (l == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Module* m;
  if (CUresult r = ModuleIn(l, c, &m)) return r;
  *out = reinterpret_cast<CUmodule>(m);
  return CUDA_SUCCESS;
}

CUresult sim_cuLibraryGetGlobal(CUdeviceptr* ptr, size_t* bytes, CUlibrary handle,
                                const char* name) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  Library* l = Live(handle);
  if (l == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Module* m;
  if (CUresult r = ModuleIn(l, c, &m)) return r;
  return GlobalIn(m, name, ptr, bytes);
}
CUresult sim_cuLibraryGetManaged(CUdeviceptr*, size_t*, CUlibrary handle, const char*) {
  return Live(handle) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_NOT_FOUND;
}
CUresult sim_cuLibraryGetUnifiedFunction(void**, CUlibrary handle, const char*) {
  return Live(handle) == nullptr ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_NOT_FOUND;
}

CUresult sim_cuKernelGetFunction(CUfunction* out, CUkernel kernel) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  Function* f = FunctionOf(AsFunction(kernel));
  if (f == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUfunction>(f);
  return CUDA_SUCCESS;
}
CUresult sim_cuKernelGetLibrary(CUlibrary* out, CUkernel kernel) {
  if (out == nullptr || kernel == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUlibrary>(reinterpret_cast<Function*>(kernel)->library);
  return CUDA_SUCCESS;
}
CUresult sim_cuKernelGetAttribute(int* value, CUfunction_attribute attribute, CUkernel kernel,
                                  CUdevice) {
  return sim_cuFuncGetAttribute(value, attribute, AsFunction(kernel));
}
CUresult sim_cuKernelSetAttribute(CUfunction_attribute attribute, int value, CUkernel kernel,
                                  CUdevice) {
  return sim_cuFuncSetAttribute(AsFunction(kernel), attribute, value);
}
CUresult sim_cuKernelSetCacheConfig(CUkernel kernel, CUfunc_cache config, CUdevice) {
  return sim_cuFuncSetCacheConfig(AsFunction(kernel), config);
}
CUresult sim_cuKernelGetName(const char** name, CUkernel kernel) {
  return sim_cuFuncGetName(name, AsFunction(kernel));
}
CUresult sim_cuKernelGetParamInfo(CUkernel kernel, size_t index, size_t* offset, size_t* bytes) {
  return sim_cuFuncGetParamInfo(AsFunction(kernel), index, offset, bytes);
}

}  // namespace divvy::sim
