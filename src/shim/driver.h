// The real driver and the real NVML: found once, kept open, called through typed tables. A function
// that the installed driver does not have answers CUDA_ERROR_NOT_FOUND, never a null call.
// Any thread. Binding takes the loader's lock and may open the library; calling costs one load.
#pragma once

#include <atomic>

#include "src/abi/generated/driver_fns.h"
#include "src/abi/generated/nvml_fns.h"
#include "src/shim/elf_lookup.h"
#include "src/shim/generated/hook_table.h"

namespace divvy::shim {

extern abi::DriverFns g_driver asm("divvy_driver");
extern abi::NvmlFns g_nvml;
extern std::atomic<uint32_t> g_driver_bound, g_nvml_bound;

inline bool DriverBound() noexcept {
  // Acquire: partner of the binder's release.
  return __builtin_expect(g_driver_bound.load(std::memory_order_acquire) != 0, 1);
}

// Binds if that is still to be done. `hint`: an object known to be the driver the program uses.
void BindDriver(const Module* hint) noexcept;
void BindNvml(const Module* hint) noexcept;
inline void EnsureDriver() noexcept {
  if (!DriverBound()) BindDriver(nullptr);
}
inline void EnsureNvml() noexcept {
  if (g_nvml_bound.load(std::memory_order_acquire) == 0) BindNvml(nullptr);
}

// Our function in the place of the driver's or NVML's at that address; nullptr if it is neither or
// passed through. Only after binding.
AnyFunction HookAt(const void* real) noexcept;

// Is this object the bound driver (or NVML), our forwarder, or some other copy of a driver?
bool IsForwarder(const Module& module) noexcept;
bool LooksLikeDriver(const Module& module) noexcept;
bool LooksLikeNvml(const Module& module) noexcept;

// For tests: use these tables instead of a library.
void BindDriverForTest(const abi::DriverFns& fns) noexcept;

}  // namespace divvy::shim
