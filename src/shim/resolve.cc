// What dlsym, dlvsym, dlopen and dlmopen answer in a tenant. The entry points are in loader.S: they
// ask here only about names and modes that concern us and otherwise jump to the C library's
// function with the caller's return address in place, because RTLD_NEXT, RTLD_DEFAULT and RUNPATH
// mean something relative to the caller. Rules: the real function answers first, its answer is
// replaced by address; a second copy of the driver in the process is answered from the first. Any
// thread, any time in the life of the process; allocates nothing.
#include <string.h>

#include "src/shim/c_library.h"
#include "src/shim/driver.h"
#include "src/shim/elf_lookup.h"
#include "src/shim/loader.h"
#include "src/shim/tenancy.h"
#include "src/shim/text.h"

// The C library's functions; filled by divvy_bind_loader, read by loader.S.
extern "C" {
__attribute__((visibility("hidden"))) void* divvy_real_dlsym;
__attribute__((visibility("hidden"))) void* divvy_real_dlvsym;
__attribute__((visibility("hidden"))) void* divvy_real_dlopen;
__attribute__((visibility("hidden"))) void* divvy_real_dlmopen;
__attribute__((visibility("hidden"))) void* divvy_real_dlclose;

// Our entry points (loader.S).
void* dlsym(void*, const char*);
void* dlvsym(void*, const char*, const char*);
void* dlopen(const char*, int);
void* dlmopen(long, const char*, int);
int dlclose(void*);
}

namespace divvy::shim {
namespace {

constexpr uintptr_t kDefault = 0;  // RTLD_DEFAULT
constexpr uintptr_t kNext = -1ul;  // RTLD_NEXT

struct LoaderName {
  const char* name;
  void** real;
  void* ours;
};
const LoaderName kLoaderNames[] = {
    {"dlsym", &divvy_real_dlsym, reinterpret_cast<void*>(&dlsym)},
    {"dlvsym", &divvy_real_dlvsym, reinterpret_cast<void*>(&dlvsym)},
    {"dlopen", &divvy_real_dlopen, reinterpret_cast<void*>(&dlopen)},
    {"dlmopen", &divvy_real_dlmopen, reinterpret_cast<void*>(&dlmopen)},
    {"dlclose", &divvy_real_dlclose, reinterpret_cast<void*>(&dlclose)},
};

enum class Surface { kNone, kDriver, kNvml, kLoader };
Surface SurfaceOf(const char* name) noexcept {
  if (StartsWith(name, "cu")) return Surface::kDriver;
  if (StartsWith(name, "nvml")) return Surface::kNvml;
  if (StartsWith(name, "dl")) return Surface::kLoader;
  return Surface::kNone;
}

// `found` is what the real look-up gave for `name`.
void* Replaced(const char* name, void* found) noexcept {
  if (found == nullptr || OwnModule().Has(found)) return found;
  const Surface surface = SurfaceOf(name);
  if (surface == Surface::kLoader) {
    for (const LoaderName& l : kLoaderNames)
      if (found == *l.real) return l.ours;
    return found;
  }
  const bool driver = surface == Surface::kDriver;
  const int at = driver ? abi::find_driver_symbol(name) : abi::find_nvml_symbol(name);
  if (at < 0) return found;  // not in our table: a newer function, or somebody else's
  if (!(driver ? DriverBound() : g_nvml_bound.load(std::memory_order_acquire) != 0)) {
    const Module module = ModuleOf(found);
    if (!(driver ? LooksLikeDriver(module) : LooksLikeNvml(module))) return found;
    driver ? BindDriver(&module) : BindNvml(&module);
  }
  if (const AnyFunction hook = HookAt(found)) return reinterpret_cast<void*>(hook);
  const void* table = driver ? static_cast<const void*>(&g_driver) : &g_nvml;
  void* bound = static_cast<void* const*>(table)[at];
  if (bound == found) return found;
  // Another copy of the library (or our forwarder): one process, one driver, so its functions are
  // answered from the first copy.
  const Module module = ModuleOf(found);
  if (!(driver ? LooksLikeDriver(module) : LooksLikeNvml(module))) return found;
  const AnyFunction hook = driver ? driver_hook(static_cast<abi::DriverSymbol>(at))
                                  : nvml_hook(static_cast<abi::NvmlSymbol>(at));
  return hook != nullptr ? reinterpret_cast<void*>(hook) : bound;
}

// What RTLD_NEXT gives a caller: the definition in the next object after its own.
void* NextAfter(const void* caller, const char* name) noexcept {
  bool past = false;
  void* found = nullptr;
  FindModule([&](const Module& m) {
    if (past) found = Defined(m, name);
    if (m.Has(caller)) past = true;
    return found != nullptr;
  });
  return found;
}

}  // namespace

}  // namespace divvy::shim

extern "C" {

// Fills the pointers above. Called by loader.S when one is still null, and by RealDlopen.
__attribute__((visibility("hidden"))) void divvy_bind_loader() {
  using namespace divvy::shim;
  for (const LoaderName& l : kLoaderNames)
    if (__atomic_load_n(l.real, __ATOMIC_ACQUIRE) == nullptr)
      __atomic_store_n(l.real, CLibraryFunction(l.name), __ATOMIC_RELEASE);
}

struct DivvyAnswer {
  void* value;
  uintptr_t decided;  // 0: let the C library answer, with the caller's own return address
};

// Called by loader.S for names that start with "cu", "nv" or "dl".
__attribute__((visibility("hidden"))) DivvyAnswer divvy_resolve(void* handle, const char* name,
                                                                const char* version,
                                                                const void* caller) {
  using namespace divvy::shim;
  if (SurfaceOf(name) == Surface::kNone || !IsTenant()) return {nullptr, 0};
  // By RTLD_DEFAULT the program finds our exported functions by itself.
  if (reinterpret_cast<uintptr_t>(handle) == kDefault) return {nullptr, 0};
  if (reinterpret_cast<uintptr_t>(handle) == kNext) {
    void* found = NextAfter(caller, name);
    void* answer = Replaced(name, found);
    return {answer, answer != found};
  }
  void* found;
  if (version != nullptr)
    found = reinterpret_cast<void* (*)(void*, const char*, const char*)>(divvy_real_dlvsym)(
        handle, name, version);
  else
    found = RealDlsym(handle, name);
  return {Replaced(name, found), 1};
}

// Which mode a tenant's dlopen gets: never RTLD_DEEPBIND, which would bind a library past us.
__attribute__((visibility("hidden"))) int divvy_dlopen_mode(int mode) {
  return divvy::shim::IsTenant() ? mode & ~divvy::shim::kDeepBind : mode;
}

struct DivvyDlmopen {
  long name_space;
  long mode;
};

// A driver in a name space of its own would meet no hook: a tenant gets the process's own instead.
__attribute__((visibility("hidden"))) DivvyDlmopen divvy_dlmopen_arguments(long name_space,
                                                                           const char* file,
                                                                           int mode) {
  using namespace divvy::shim;
  if (!IsTenant()) return {name_space, mode};
  const char* slash = file != nullptr ? strrchr(file, '/') : nullptr;
  const char* base = slash != nullptr ? slash + 1 : file;
  if (base != nullptr && (StartsWith(base, "libcuda.so") || StartsWith(base, "libnvidia-ml.so")))
    name_space = 0;  // LM_ID_BASE
  return {name_space, mode & ~kDeepBind};
}

}  // extern "C"

namespace divvy::shim {

void* RealDlopen(const char* file, int mode) noexcept {
  if (divvy_real_dlopen == nullptr) divvy_bind_loader();
  if (divvy_real_dlopen == nullptr) return nullptr;
  return reinterpret_cast<void* (*)(const char*, int)>(divvy_real_dlopen)(file, mode);
}

void* RealDlsym(void* handle, const char* name) noexcept {
  if (divvy_real_dlsym == nullptr) divvy_bind_loader();
  if (divvy_real_dlsym == nullptr) return nullptr;
  return reinterpret_cast<void* (*)(void*, const char*)>(divvy_real_dlsym)(handle, name);
}

}  // namespace divvy::shim
