// cuGetProcAddress: the driver answers, its answer is replaced by address. So versions and
// per-thread variants are right by construction, and what we do not hook stays the driver's own.
#include "src/shim/hooks/hook.h"

namespace divvy::shim {
namespace {

void Replace(void** pfn) noexcept {
  if (pfn == nullptr || *pfn == nullptr) return;
  if (const AnyFunction hook = HookAt(*pfn)) *pfn = reinterpret_cast<void*>(hook);
}

}  // namespace

CUresult hook_cuGetProcAddress(const char* symbol, void** pfn, int driverVersion,
                               cuuint64_t flags) noexcept {
  EnsureDriver();
  const CUresult r = g_driver.cuGetProcAddress(symbol, pfn, driverVersion, flags);
  if (r == CUDA_SUCCESS && Now() != Standing::kNotTenant) Replace(pfn);
  return r;
}

CUresult hook_cuGetProcAddress_v2(const char* symbol, void** pfn, int driverVersion,
                                  cuuint64_t flags,
                                  CUdriverProcAddressQueryResult* symbolFound) noexcept {
  EnsureDriver();
  const CUresult r = g_driver.cuGetProcAddress_v2(symbol, pfn, driverVersion, flags, symbolFound);
  if (r == CUDA_SUCCESS && Now() != Standing::kNotTenant) Replace(pfn);
  return r;
}

}  // namespace divvy::shim
