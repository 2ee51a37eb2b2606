#include "src/cli/load/driver.h"

#include <dlfcn.h>

#include <cstring>

namespace divvy::cli {
namespace {

static_assert(sizeof(abi::DriverFns) == abi::kDriverSymbolCount * sizeof(void*));

const abi::DriverFns* LoadAll(void* library) {
  static abi::DriverFns fns;  // one driver for as long as the process lives
  for (unsigned i = 0; i < abi::kDriverSymbolCount; ++i) {
    void* const fn = ::dlsym(library, abi::driver_name(static_cast<abi::DriverSymbol>(i)));
    std::memcpy(reinterpret_cast<char*>(&fns) + i * sizeof(void*), &fn, sizeof(fn));
  }
  return &fns;
}

}  // namespace

Result<Driver> Driver::Open(int ordinal) {
  Driver driver;
  void* const library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return Unavailable("no CUDA driver here (" + std::string(::dlerror()) +
                       "); use `divvy run --sim h100 --mem 4GiB -- divvy load ...`");
  driver.fns_ = LoadAll(library);
  DIVVY_CU(driver, cuInit, 0);
  int count = 0;
  DIVVY_CU(driver, cuDeviceGetCount, &count);
  if (ordinal < 0 || ordinal >= count)
    return Unavailable("no device " + std::to_string(ordinal) + ": this process sees " +
                       std::to_string(count));
  DIVVY_CU(driver, cuDeviceGet, &driver.device_, ordinal);
  DIVVY_CU(driver, cuDevicePrimaryCtxRetain, &driver.context_, driver.device_);
  DIVVY_CU(driver, cuCtxSetCurrent, driver.context_);
  return driver;
}

Status Driver::Check(CUresult code, const char* symbol, Bytes amount) const {
  if (code == CUDA_SUCCESS) return {};
  const char* name = nullptr;
  if (fns_->cuGetErrorName == nullptr || fns_->cuGetErrorName(code, &name) != CUDA_SUCCESS ||
      name == nullptr)
    name = code == CUDA_ERROR_OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR";
  std::string message = std::string(name) + " (" + symbol;
  if (amount.n != 0) message += ", " + ToString(amount);
  message += ")";
  if (code == CUDA_ERROR_OUT_OF_MEMORY) return NoRoom(std::move(message));
  if (code == CUDA_ERROR_NO_DEVICE || code == CUDA_ERROR_SYSTEM_NOT_READY ||
      code == CUDA_ERROR_NOT_SUPPORTED)
    return Unavailable(std::move(message));
  return Internal(std::move(message));
}

Result<std::string> Driver::DeviceName() const {
  char name[256] = "";
  DIVVY_CU(*this, cuDeviceGetName, name, sizeof(name), device_);
  return std::string(name);
}

Result<Driver::Memory> Driver::MemoryInfo() const {
  size_t free = 0, total = 0;
  DIVVY_CU(*this, cuMemGetInfo_v2, &free, &total);
  return Memory{Bytes{free}, Bytes{total}};
}

}  // namespace divvy::cli
