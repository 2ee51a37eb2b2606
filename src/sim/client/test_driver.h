// For tests: the simulated driver's functions by name, on a private machine that this process
// starts, a module of test kernels, and shorthands.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <thread>

#include "src/abi/generated/driver_fns.h"

namespace divvy::sim {

// The look-alike library's functions; the machine is what DIVVY_SIM says, h100x2 by default.
const abi::DriverFns& cu();

// A module with spin(u64 ns), store(u64 ptr, u32 value), wait_value(u64 ptr, u32 value).
extern const char kTestPtx[];
// One of its kernels, loaded into the current context once more.
CUfunction Kernel(const char* name);

// Runs `body` in another thread and waits for its end. The thread has `context` current.
void InThread(CUcontext context, const std::function<void()>& body);

// A fixture with the primary context of device 0 current and a stream of each kind.
class DriverTest : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  CUresult Store(CUstream stream, CUdeviceptr to, uint32_t value);
  CUresult Spin(CUstream stream, uint64_t ns);
  uint32_t Load(CUdeviceptr from);  // after cuCtxSynchronize
  void Fill(CUdeviceptr to, uint32_t value);

  CUcontext context_ = nullptr;
  CUstream blocking_ = nullptr, free_ = nullptr;  // free_: CU_STREAM_NON_BLOCKING
  CUfunction spin_ = nullptr, store_ = nullptr, wait_value_ = nullptr;
  CUdeviceptr words_ = 0;  // 1024 words of zeros
};

}  // namespace divvy::sim
