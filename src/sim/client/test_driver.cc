// See test_driver.h.
#include "src/sim/client/test_driver.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

namespace divvy::sim {

const abi::DriverFns& cu() {
  static const abi::DriverFns& fns = *[] {
    setenv("DIVVY_SIM", "h100x2", 0);
    const char* build = getenv("DIVVY_BUILD_DIR");
    std::string path = std::string(build != nullptr ? build : "build") + "/lib/sim/libcuda.so.1";
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      fprintf(stderr, "%s\n", dlerror());
      abort();
    }
    auto* f = new abi::DriverFns;
    auto* slot = reinterpret_cast<void**>(f);
    for (unsigned i = 0; i < abi::kDriverSymbolCount; ++i) {
      slot[i] = dlsym(library, abi::kDriverNameText + abi::kDriverNameAt[i]);
    }
    if (f->cuInit(0) != CUDA_SUCCESS) abort();
    return f;
  }();
  return fns;
}

const char kTestPtx[] = R"(.version 8.0
.target sm_80
.address_size 64
.visible .entry spin(.param .u64 ns) { ret; }
.visible .entry store(.param .u64 to, .param .u32 value) { ret; }
.visible .entry wait_value(.param .u64 at, .param .u32 value) { ret; }
)";

CUfunction Kernel(const char* name) {
  CUmodule module;
  CUfunction f = nullptr;
  EXPECT_EQ(cu().cuModuleLoadData(&module, kTestPtx), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuModuleGetFunction(&f, module, name), CUDA_SUCCESS);
  return f;
}

void InThread(CUcontext context, const std::function<void()>& body) {
  std::thread([&] {
    EXPECT_EQ(cu().cuCtxSetCurrent(context), CUDA_SUCCESS);
    body();
  }).join();
}

void DriverTest::SetUp() {
  ASSERT_EQ(cu().cuDevicePrimaryCtxRetain(&context_, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuCtxSetCurrent(context_), CUDA_SUCCESS);
  CUmodule module;
  ASSERT_EQ(cu().cuModuleLoadData(&module, kTestPtx), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuModuleGetFunction(&spin_, module, "spin"), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuModuleGetFunction(&store_, module, "store"), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuModuleGetFunction(&wait_value_, module, "wait_value"), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamCreate(&blocking_, CU_STREAM_DEFAULT), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamCreate(&free_, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemAlloc_v2(&words_, 4096), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemsetD8_v2(words_, 0, 4096), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuCtxSynchronize(), CUDA_SUCCESS);
}

void DriverTest::TearDown() {
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  EXPECT_EQ(cu().cuThreadExchangeStreamCaptureMode(&mode), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamDestroy_v2(blocking_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamDestroy_v2(free_), CUDA_SUCCESS);
  // Everything of the context goes, whatever the test left.
  EXPECT_EQ(cu().cuDevicePrimaryCtxReset_v2(0), CUDA_SUCCESS);
}

CUresult DriverTest::Store(CUstream stream, CUdeviceptr to, uint32_t value) {
  void* args[] = {&to, &value};
  return cu().cuLaunchKernel(store_, 1, 1, 1, 1, 1, 1, 0, stream, args, nullptr);
}

CUresult DriverTest::Spin(CUstream stream, uint64_t ns) {
  void* args[] = {&ns};
  return cu().cuLaunchKernel(spin_, 1, 1, 1, 1, 1, 1, 0, stream, args, nullptr);
}

uint32_t DriverTest::Load(CUdeviceptr from) {
  uint32_t value = 0;
  EXPECT_EQ(cu().cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemcpyDtoH_v2(&value, from, sizeof value), CUDA_SUCCESS);
  return value;
}

void DriverTest::Fill(CUdeviceptr to, uint32_t value) {
  EXPECT_EQ(cu().cuMemcpyHtoD_v2(to, &value, sizeof value), CUDA_SUCCESS);
}

}  // namespace divvy::sim
