// Finding and binding the real libraries; see driver.h.
#include "src/shim/driver.h"

#include <string.h>
#include <unistd.h>

#include "src/shim/loader.h"
#include "src/shim/process.h"
#include "src/shim/tenancy.h"

namespace divvy::shim {

abi::DriverFns g_driver;
abi::NvmlFns g_nvml;
std::atomic<uint32_t> g_driver_bound{0}, g_nvml_bound{0};

namespace {

constexpr char kRealDriver[] = "/run/divvy/real/libcuda.so.1";
constexpr char kDriverName[] = "libcuda.so.1";
constexpr char kNvmlName[] = "libnvidia-ml.so.1";
// What only the forwarding libcuda.so.1 defines (forward/forward.S).
constexpr char kForwarderMark[] = "divvy_forwarder";

int MissingDriverFunction() { return CUDA_ERROR_NOT_FOUND; }
int MissingNvmlFunction() { return NVML_ERROR_FUNCTION_NOT_FOUND; }

// Real address to hook, open addressing; filled before a library counts as bound, then constant.
// Atomic because two threads may fill it at once: one whose lock was not given in time binds all
// the same.
struct Replacement {
  std::atomic<const void*> real;
  std::atomic<AnyFunction> hook;
};
constexpr unsigned kReplacements = 1024;
static_assert(2 * (kDriverHookCount + kNvmlHookCount) <= kReplacements);
Replacement replacements[kReplacements];

unsigned PlaceOf(const void* real) noexcept {
  const uint64_t h = reinterpret_cast<uintptr_t>(real) * 0x9e3779b97f4a7c15u;
  return static_cast<unsigned>(h >> 40) % kReplacements;
}

void Remember(const void* real, AnyFunction hook) noexcept {
  for (unsigned i = PlaceOf(real);; i = (i + 1) % kReplacements) {
    const void* free = nullptr;
    if (!replacements[i].real.compare_exchange_strong(free, real) && free != real) continue;
    AnyFunction none = nullptr;  // two names of one function: the first one's hook serves
    replacements[i].hook.compare_exchange_strong(none, hook);
    return;
  }
}

// Opens (or finds) the library that `module` is and keeps it for good.
void Keep(const Module& module) noexcept {
  if (module.path[0] != 0) RealDlopen(module.path, kLazy | kNoLoad | kNoDelete);
}

Module OpenedModule(void* handle, const char* symbol) noexcept {
  if (handle == nullptr) return {};
  const void* at = RealDlsym(handle, symbol);
  return at != nullptr ? ModuleOf(at) : Module{};
}

Module FindDriver(const Module* hint) noexcept {
  // Behind the forwarder the real driver has its own place. The forwarder needs it by this path:
  // where that is loaded, the loader knows it by its name and asks the kernel nothing.
  if (TenantByMarker()) {
    if (Module m = OpenedModule(RealDlopen(kRealDriver, kLazy | kNoLoad | kNoDelete), "cuInit"))
      return m;
    if (access(kRealDriver, F_OK) == 0)
      if (Module m = OpenedModule(RealDlopen(kRealDriver, kLazy | kNoDelete), "cuInit")) return m;
  }
  if (hint != nullptr && *hint && !IsForwarder(*hint)) return *hint;
  if (Module m = FindModule([](const Module& m) { return LooksLikeDriver(m) && !IsForwarder(m); }))
    return m;
  return OpenedModule(RealDlopen(kDriverName, kLazy | kNoDelete), "cuInit");
}

Module FindNvml(const Module* hint) noexcept {
  if (hint != nullptr && *hint) return *hint;
  if (Module m = FindModule([](const Module& m) { return LooksLikeNvml(m); })) return m;
  return OpenedModule(RealDlopen(kNvmlName, kLazy | kNoDelete), "nvmlInit_v2");
}

// Fills `table` (an array of `count` function pointers) from `module`.
template <typename Name>
void Fill(void* table, unsigned count, const Module& module, const Name& name,
          int (*missing)()) noexcept {
  auto* slot = static_cast<void**>(table);
  for (unsigned i = 0; i < count; ++i) {
    void* real = Defined(module, name(i));
    slot[i] = real != nullptr ? real : reinterpret_cast<void*>(missing);
  }
}

void RememberHooks(const void* table, const HookEntry* hooks, unsigned count,
                   int (*missing)()) noexcept {
  auto* slot = static_cast<void* const*>(table);
  for (unsigned i = 0; i < count; ++i) {
    const void* real = slot[hooks[i].symbol];
    if (real != reinterpret_cast<void*>(missing)) Remember(real, hooks[i].hook);
  }
}

// Filling happens once per process family; a child forked in the middle of it simply does it again.
// The library was found (and perhaps opened, which runs its constructors) before, without the lock.
template <typename Bind>
void Once(std::atomic<uint32_t>& bound, const Bind& bind) noexcept {
  const bool locked = g_process.bind_lock.Lock();
  if (bound.load(std::memory_order_acquire) == 0) {
    bind();
    bound.store(1, std::memory_order_release);
  }
  if (locked) g_process.bind_lock.Unlock();
}

}  // namespace

bool IsForwarder(const Module& module) noexcept {
  return Defined(module, kForwarderMark) != nullptr;
}

bool LooksLikeDriver(const Module& module) noexcept {
  return module.start != OwnModule().start && Defined(module, "cuInit") != nullptr &&
         Defined(module, "cuGetExportTable") != nullptr;
}

bool LooksLikeNvml(const Module& module) noexcept {
  return module.start != OwnModule().start && Defined(module, "nvmlInit_v2") != nullptr &&
         Defined(module, "nvmlShutdown") != nullptr;
}

void BindDriver(const Module* hint) noexcept {
  const Module module = FindDriver(hint);
  if (module) Keep(module);
  Once(g_driver_bound, [&module] {
    Fill(
        &g_driver, abi::kDriverSymbolCount, module,
        [](unsigned i) { return abi::driver_name(static_cast<abi::DriverSymbol>(i)); },
        MissingDriverFunction);
    RememberHooks(&g_driver, kDriverHooks, kDriverHookCount, MissingDriverFunction);
  });
}

void BindNvml(const Module* hint) noexcept {
  const Module module = FindNvml(hint);
  if (module) Keep(module);
  Once(g_nvml_bound, [&module] {
    Fill(
        &g_nvml, abi::kNvmlSymbolCount, module,
        [](unsigned i) { return abi::nvml_name(static_cast<abi::NvmlSymbol>(i)); },
        MissingNvmlFunction);
    RememberHooks(&g_nvml, kNvmlHooks, kNvmlHookCount, MissingNvmlFunction);
  });
}

AnyFunction HookAt(const void* real) noexcept {
  for (unsigned i = PlaceOf(real);; i = (i + 1) % kReplacements) {
    const void* const at = replacements[i].real.load(std::memory_order_relaxed);
    if (at == nullptr) return nullptr;
    if (at == real) return replacements[i].hook.load(std::memory_order_acquire);
  }
}

void BindDriverForTest(const abi::DriverFns& fns) noexcept {
  g_driver = fns;
  auto* slot = reinterpret_cast<void**>(&g_driver);
  for (unsigned i = 0; i < abi::kDriverSymbolCount; ++i)
    if (slot[i] == nullptr) slot[i] = reinterpret_cast<void*>(&MissingDriverFunction);
  g_driver_bound.store(1, std::memory_order_release);
}

}  // namespace divvy::shim
