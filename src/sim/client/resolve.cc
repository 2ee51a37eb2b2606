// Resolution by name (CUDA Driver API, "Driver Entry Point Access") and what every exported
// function passes through. DIVVY_SIM_TRACE=1 prints each call, =2 only those that are not
// implemented.
#include <stdio.h>
#include <stdlib.h>

#include "src/abi/resolve.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

int TraceLevel() {
  static const int level = [] {
    const char* env = getenv("DIVVY_SIM_TRACE");
    return env != nullptr ? atoi(env) : 0;
  }();
  return level;
}

}  // namespace

void enter(abi::DriverSymbol symbol) noexcept {
  if (__builtin_expect(TraceLevel() == 1, 0)) {
    fprintf(stderr, "sim: %s\n", abi::driver_name(symbol));
  }
}

CUresult not_supported(abi::DriverSymbol symbol) noexcept {
  if (TraceLevel() != 0) {
    fprintf(stderr, "sim: %s is not implemented\n", abi::driver_name(symbol));
  }
  return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult sim_cuGetProcAddress_v2(const char* name, void** pfn, int version, cuuint64_t flags,
                                 CUdriverProcAddressQueryResult* status) {
  if (name == nullptr || pfn == nullptr || version > CUDA_VERSION) return CUDA_ERROR_INVALID_VALUE;
  abi::Resolution found = abi::resolve_driver_function(name, version, flags);
  *pfn = nullptr;
  if (found.symbol) *pfn = reinterpret_cast<void*>(kDriverExports[size_t(*found.symbol)]);
  if (status != nullptr) *status = found.status;
  return CUDA_SUCCESS;  // the real driver too: the status says that there is none
}

CUresult sim_cuGetProcAddress(const char* name, void** pfn, int version, cuuint64_t flags) {
  if (name == nullptr || pfn == nullptr) return CUDA_ERROR_INVALID_VALUE;
  abi::Resolution found = abi::resolve_driver_function(name, version, flags);
  if (!found.symbol) return CUDA_ERROR_NOT_FOUND;  // *pfn stays, as observed
  *pfn = reinterpret_cast<void*>(kDriverExports[size_t(*found.symbol)]);
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
