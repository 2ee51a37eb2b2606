// The CUDA driver as any program finds it: dlopen("libcuda.so.1") and dlsym. `divvy load` and
// `divvy verify` are ordinary CUDA programs and know nothing about shares.
#pragma once

#include <string>

#include "src/abi/generated/driver_fns.h"
#include "src/base/bytes.h"
#include "src/base/result.h"

namespace divvy::cli {

class Driver {
 public:
  // Loads the driver, initialises it and makes the device's primary context current. kUnavailable
  // when there is no driver or no such device; kNoRoom when the context itself was refused.
  static Result<Driver> Open(int ordinal);

  // An error that reads "CUDA_ERROR_OUT_OF_MEMORY (cuMemAlloc_v2, 3 GiB)"; out of memory is
  // kNoRoom, everything else kInternal. `symbol` is the function that was called.
  Status Check(CUresult code, const char* symbol, Bytes amount = {}) const;

  const abi::DriverFns* operator->() const { return fns_; }
  CUdevice device() const { return device_; }
  CUcontext context() const { return context_; }
  Result<std::string> DeviceName() const;
  struct Memory {
    Bytes free, total;
  };
  Result<Memory> MemoryInfo() const;

 private:
  const abi::DriverFns* fns_ = nullptr;  // lives as long as the process; missing functions are null
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
};

// Returns an error of a driver call from the enclosing function. Two levels, so that the name of
// the function called appears once.
#define DIVVY_CU(driver, function, ...)                                                       \
  do {                                                                                        \
    if ((driver)->function == nullptr)                                                        \
      return ::divvy::Unavailable("the driver has no " #function);                            \
    if (const auto s_ = (driver).Check((driver)->function(__VA_ARGS__), #function); !s_.ok()) \
      return s_.error();                                                                      \
  } while (0)

// The same for a call that takes memory: the error names the amount.
#define DIVVY_CU_TAKE(driver, amount, function, ...)                                        \
  do {                                                                                      \
    if ((driver)->function == nullptr)                                                      \
      return ::divvy::Unavailable("the driver has no " #function);                          \
    if (const auto s_ = (driver).Check((driver)->function(__VA_ARGS__), #function, amount); \
        !s_.ok())                                                                           \
      return s_.error();                                                                    \
  } while (0)

}  // namespace divvy::cli
