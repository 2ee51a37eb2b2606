// Gate and meter on the simulated driver. What has to come true: counts and markers add up under
// real asynchrony, and kernels that wait for what has not been submitted yet make progress,
// whatever the gate says.
#include <gtest/gtest.h>
#include <sched.h>
#include <string.h>

#include <functional>
#include <thread>
#include <vector>

#include "src/shim/driver.h"
#include "src/shim/gate.h"
#include "src/shim/generated/hooks.h"
#include "src/shim/testing/fake_daemon.h"
#include "src/shim/testing/gate_reader.h"
#include "src/sim/client/test_driver.h"

namespace divvy::shim {
namespace {

using arbiter::Progress;
using sim::cu;
using testing::kForever;
using testing::kUs;
using testing::Until;

std::vector<testing::FakeShare> Shares() {
  std::vector<testing::FakeShare> shares;
  for (int d = 0; d < 2; ++d) {
    CUuuid uuid;
    EXPECT_EQ(cu().cuDeviceGetUuid_v2(&uuid, d), CUDA_SUCCESS);
    testing::FakeShare share;
    share.limit_bytes = 4ull << 30;
    share.uuid.assign(uuid.bytes, uuid.bytes + 16);
    shares.push_back(share);
  }
  return shares;
}

// A tenant of two simulated devices whose gates are metered; device 0's context is current.
struct GateOnSimulator : ::testing::Test {
  GateOnSimulator() : daemon(Shares()) {
    BindDriverForTest(cu());
    testing::FreshProcess(daemon.socket());
    Gate(0, region::kGateMetered, 1000, 250, kForever);
    Gate(1, region::kGateMetered, 1000, 250, kForever);
  }
  void SetUp() override {
    ASSERT_EQ(hook_cuInit(0), CUDA_SUCCESS);
    for (int d = 1; d >= 0; --d) {
      ASSERT_EQ(hook_cuDevicePrimaryCtxRetain(&context[d], d), CUDA_SUCCESS);
      ASSERT_EQ(hook_cuCtxSetCurrent(context[d]), CUDA_SUCCESS);
      spin[d] = sim::Kernel("spin");
      store[d] = sim::Kernel("store");
      wait_value[d] = sim::Kernel("wait_value");
      for (CUstream& s : stream[d])
        ASSERT_EQ(hook_cuStreamCreate(&s, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
      ASSERT_EQ(cu().cuMemAllocHost_v2(reinterpret_cast<void**>(&words[d]), 4096), CUDA_SUCCESS);
      memset(words[d], 0, 4096);
    }
  }
  void TearDown() override {
    EXPECT_EQ(g_process.degraded, 0u);
    for (int d = 0; d < 2; ++d) {
      EXPECT_FALSE(Read(d).garbage);
      ASSERT_EQ(hook_cuDevicePrimaryCtxReset_v2(d), CUDA_SUCCESS);
    }
    testing::FreshProcess("");
  }

  void Gate(unsigned d, uint32_t bits, uint32_t bound_us, uint32_t space_us, uint32_t patience_us) {
    testing::SetGate(daemon, d, bits, bound_us, space_us, patience_us);
  }
  CUresult Spin(CUstream s, uint64_t ns, int d = 0) {
    void* args[] = {&ns};
    return hook_cuLaunchKernel(spin[d], 1, 1, 1, 1, 1, 1, 0, s, args, nullptr);
  }
  CUresult Store(CUstream s, uint32_t* word, uint32_t value, int d = 0) {
    auto to = reinterpret_cast<CUdeviceptr>(word);
    void* args[] = {&to, &value};
    return hook_cuLaunchKernel(store[d], 1, 1, 1, 1, 1, 1, 0, s, args, nullptr);
  }
  CUresult WaitFor(CUstream s, uint32_t* word, uint32_t value, int d = 0) {
    auto at = reinterpret_cast<CUdeviceptr>(word);
    void* args[] = {&at, &value};
    return hook_cuLaunchKernel(wait_value[d], 1, 1, 1, 1, 1, 1, 0, s, args, nullptr);
  }
  Progress Read(int d = 0) {
    return testing::ReadProgress(daemon.meter(1, static_cast<unsigned>(d)));
  }
  region::Meter& meter(unsigned d = 0) { return daemon.meter(1, d); }

  testing::FakeDaemon daemon;
  CUcontext context[2] = {};
  CUfunction spin[2] = {}, store[2] = {}, wait_value[2] = {};
  CUstream stream[2][3] = {};
  uint32_t* words[2] = {};
};

TEST_F(GateOnSimulator, MarkersFollowTheWork) {
  for (int i = 0; i < 200; ++i) ASSERT_EQ(Spin(stream[0][0], 20 * kUs), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuStreamSynchronize(stream[0][0]), CUDA_SUCCESS);
  EXPECT_EQ(Read().issued, 200u);
  EXPECT_EQ(Read().done, 200u);
  EXPECT_EQ(meter().in_flight_ns, 0u);
  EXPECT_EQ(meter().forced, 0u);
  // Timed by the device's own clock. Where the queue is dry the host's own time comes on top.
  const uint64_t learnt =
      g_process.estimates.load()->Get(KernelOperation(spin[0], 1, 1, 1, stream[0][0]).key);
  EXPECT_GE(learnt, 19 * kUs);
  for (CUstream s : {CUstream(nullptr), CU_STREAM_PER_THREAD, stream[0][1]})
    for (int i = 0; i < 10; ++i) ASSERT_EQ(Spin(s, 20 * kUs), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(Read().issued, 230u);
  Until([&] { return Read().done == 230; });
  EXPECT_EQ(meter().lanes, 4u);
}

TEST_F(GateOnSimulator, SeveralThreadsAndStreams) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      ASSERT_EQ(hook_cuCtxSetCurrent(context[0]), CUDA_SUCCESS);
      for (int i = 0; i < 100; ++i)
        ASSERT_EQ(Spin(i % 2 == 0 ? stream[0][0] : stream[0][t], 5 * kUs), CUDA_SUCCESS);
      ASSERT_EQ(hook_cuStreamSynchronize(stream[0][t]), CUDA_SUCCESS);
    });
  for (std::thread& t : threads) t.join();
  ASSERT_EQ(hook_cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(Read().issued, 300u);
  EXPECT_EQ(Read().done, 300u);
  EXPECT_EQ(meter().in_flight_ns, 0u);
}

TEST_F(GateOnSimulator, AKernelThatWaitsForAnotherStream) {
  Gate(0, region::kGateMetered, 250, 100, 1000);
  ASSERT_EQ(WaitFor(stream[0][0], words[0], 1), CUDA_SUCCESS);
  // All of these wait behind it, and are more than the bound allows.
  for (int i = 0; i < 20; ++i) ASSERT_EQ(Spin(stream[0][0], 100 * kUs), CUDA_SUCCESS);
  ASSERT_EQ(Store(stream[0][1], words[0], 1), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(Read().done, 22u);
}

TEST_F(GateOnSimulator, AStreamThatWaitsForAnotherByTheDriver) {
  Gate(0, region::kGateMetered, 250, 100, 1000);
  const auto at = reinterpret_cast<CUdeviceptr>(words[0]);
  ASSERT_EQ(Spin(stream[0][0], 10 * kUs), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuStreamWaitValue32_v2(stream[0][0], at, 1, CU_STREAM_WAIT_VALUE_EQ),
            CUDA_SUCCESS);
  // Its own work before the wait is seen to end, what comes after it has not begun.
  Until([&] { return Read().done == 1; });
  ASSERT_EQ(Spin(stream[0][0], 100 * kUs), CUDA_SUCCESS);
  EXPECT_FALSE(Read().begun);
  for (int i = 0; i < 20; ++i) ASSERT_EQ(Spin(stream[0][0], 100 * kUs), CUDA_SUCCESS);
  EXPECT_FALSE(Read().begun);
  ASSERT_EQ(hook_cuStreamWriteValue32_v2(stream[0][1], at, 1, 0), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(Read().done, 22u);
}

TEST_F(GateOnSimulator, AKernelThatWaitsForAnotherDevice) {
  Gate(0, region::kGateMetered, 250, 100, 1000);
  Gate(1, region::kGateShut | region::kGateMetered, 250, 100, 1000);
  ASSERT_EQ(WaitFor(stream[0][0], words[0], 1), CUDA_SUCCESS);
  std::thread other([&] {
    ASSERT_EQ(hook_cuCtxSetCurrent(context[1]), CUDA_SUCCESS);
    ASSERT_EQ(Store(stream[1][0], words[0], 1, 1), CUDA_SUCCESS);
  });
  Until([&] { return meter(1).waiters == 1; });
  for (int i = 0; i < 10; ++i) ASSERT_EQ(Spin(stream[0][0], 100 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(Read().done, 0u);
  daemon.SetGate(region::kGateMetered, 1);
  other.join();
  ASSERT_EQ(hook_cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(Read().done, 11u);
  ASSERT_EQ(hook_cuCtxSetCurrent(context[1]), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(Read(1).done, 1u);
  ASSERT_EQ(hook_cuCtxSetCurrent(context[0]), CUDA_SUCCESS);
}

TEST_F(GateOnSimulator, AKernelThatWaitsForAHostFunction) {
  Gate(0, region::kGateMetered, 250, 100, 1000);
  ASSERT_EQ(WaitFor(stream[0][0], words[0], 1), CUDA_SUCCESS);
  for (int i = 0; i < 10; ++i) ASSERT_EQ(Spin(stream[0][0], 100 * kUs), CUDA_SUCCESS);
  ASSERT_EQ(Spin(stream[0][1], 10 * kUs), CUDA_SUCCESS);
  ASSERT_EQ(
      hook_cuLaunchHostFunc(
          stream[0][1],
          [](void* word) { __atomic_store_n(static_cast<uint32_t*>(word), 1, __ATOMIC_RELEASE); },
          words[0]),
      CUDA_SUCCESS);
  ASSERT_EQ(hook_cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(Read().done, 12u);
}

TEST_F(GateOnSimulator, AKernelThatWaitsForAThreadAtTheGate) {
  Gate(0, region::kGateMetered, 250, 100, 1000);
  ASSERT_EQ(WaitFor(stream[0][0], words[0], 1), CUDA_SUCCESS);
  // Sends the word only after a launch that waits for the bound, which waits for the word.
  std::thread sender([&] {
    ASSERT_EQ(hook_cuCtxSetCurrent(context[0]), CUDA_SUCCESS);
    for (int i = 0; i < 5; ++i) ASSERT_EQ(Spin(stream[0][1], 400 * kUs), CUDA_SUCCESS);
    __atomic_store_n(words[0], 1, __ATOMIC_RELEASE);
  });
  ASSERT_EQ(hook_cuStreamSynchronize(stream[0][0]), CUDA_SUCCESS);
  sender.join();
  ASSERT_EQ(hook_cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(Read().done, 6u);
}

TEST_F(GateOnSimulator, AKernelThatWaitsForAnotherTenantWhoseGateIsShut) {
  // The other tenant is this test: its turn comes when it comes, until then nothing of ours ends.
  Gate(0, region::kGateMetered, 250, 100, 1000);
  ASSERT_EQ(WaitFor(stream[0][0], words[0], 1), CUDA_SUCCESS);
  for (int i = 0; i < 10; ++i) ASSERT_EQ(Spin(stream[0][0], 100 * kUs), CUDA_SUCCESS);
  daemon.SetGate(region::kGateShut | region::kGateMetered, 0);
  std::thread held([&] {
    ASSERT_EQ(hook_cuCtxSetCurrent(context[0]), CUDA_SUCCESS);
    ASSERT_EQ(Spin(stream[0][1], 10 * kUs), CUDA_SUCCESS);
  });
  Until([&] { return meter().waiters == 1; });
  // What was in flight drains as soon as the other has run.
  __atomic_store_n(words[0], 1, __ATOMIC_RELEASE);
  ASSERT_EQ(hook_cuStreamSynchronize(stream[0][0]), CUDA_SUCCESS);
  EXPECT_EQ(Read().done, Read().issued);
  daemon.SetGate(region::kGateMetered, 0);
  held.join();
}

TEST_F(GateOnSimulator, ALegacyMarkerDoesNotTieBlockingStreamsTogether) {
  CUstream blocking[2];
  for (CUstream& s : blocking) ASSERT_EQ(hook_cuStreamCreate(&s, CU_STREAM_DEFAULT), CUDA_SUCCESS);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(Spin(nullptr, kUs), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuCtxSynchronize(), CUDA_SUCCESS);
  for (int i = 0; i < 2; ++i) ASSERT_EQ(Spin(nullptr, kUs), CUDA_SUCCESS);
  ASSERT_EQ(WaitFor(blocking[0], words[0], 1), CUDA_SUCCESS);
  // A question, before which what is unmarked would be marked.
  hook_cuStreamQuery(nullptr);
  ASSERT_EQ(Store(blocking[1], words[0], 1), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuCtxSynchronize(), CUDA_SUCCESS);
}

TEST_F(GateOnSimulator, CapturesInAllModes) {
  for (const auto mode : {CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
                          CU_STREAM_CAPTURE_MODE_RELAXED}) {
    for (int i = 0; i < 3; ++i) ASSERT_EQ(Spin(stream[0][0], kUs), CUDA_SUCCESS);
    const uint64_t issued = Read().issued;
    ASSERT_EQ(hook_cuStreamBeginCapture_v2(stream[0][0], mode), CUDA_SUCCESS);
    for (int i = 0; i < 5; ++i) ASSERT_EQ(Spin(stream[0][0], kUs), CUDA_SUCCESS);
    // Meanwhile others are metered, with estimates to be learnt and events to be made.
    std::thread other([&] {
      CUstreamCaptureMode relaxed = CU_STREAM_CAPTURE_MODE_RELAXED;
      ASSERT_EQ(cu().cuThreadExchangeStreamCaptureMode(&relaxed), CUDA_SUCCESS);
      ASSERT_EQ(hook_cuCtxSetCurrent(context[0]), CUDA_SUCCESS);
      for (unsigned i = 1; i < 20; ++i) {
        uint64_t ns = kUs;
        void* args[] = {&ns};
        ASSERT_EQ(hook_cuLaunchKernel(spin[0], i, static_cast<unsigned>(mode) + 1, 1, 1, 1, 1, 0,
                                      stream[0][1], args, nullptr),
                  CUDA_SUCCESS);
      }
      ASSERT_EQ(hook_cuStreamSynchronize(stream[0][1]), CUDA_SUCCESS);
    });
    other.join();
    // Also the recording thread itself, in another stream.
    ASSERT_EQ(Spin(stream[0][2], kUs), CUDA_SUCCESS);
    CUgraph graph = nullptr;
    ASSERT_EQ(hook_cuStreamEndCapture(stream[0][0], &graph), CUDA_SUCCESS);
    size_t nodes = 0;
    ASSERT_EQ(cu().cuGraphGetNodes(graph, nullptr, &nodes), CUDA_SUCCESS);
    EXPECT_EQ(nodes, 5u) << "nothing of ours was recorded";
    EXPECT_EQ(Read().issued, issued + 20);
    CUgraphExec exec;
    ASSERT_EQ(hook_cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_SUCCESS);
    ASSERT_EQ(hook_cuGraphLaunch(exec, stream[0][0]), CUDA_SUCCESS);
    ASSERT_EQ(hook_cuCtxSynchronize(), CUDA_SUCCESS);
    EXPECT_EQ(Read().done, issued + 21);
    ASSERT_EQ(hook_cuGraphExecDestroy(exec), CUDA_SUCCESS);
    ASSERT_EQ(hook_cuGraphDestroy(graph), CUDA_SUCCESS);
  }
}

TEST_F(GateOnSimulator, AFaultAndANewContext) {
  CUmodule module;
  CUfunction fault;
  ASSERT_EQ(cu().cuModuleLoadData(&module, R"(.version 8.0
.target sm_80
.address_size 64
.visible .entry fault() { ret; }
)"),
            CUDA_SUCCESS);
  ASSERT_EQ(cu().cuModuleGetFunction(&fault, module, "fault"), CUDA_SUCCESS);
  ASSERT_EQ(Spin(stream[0][0], 10 * kUs), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuLaunchKernel(fault, 1, 1, 1, 1, 1, 1, 0, stream[0][0], nullptr, nullptr),
            CUDA_SUCCESS);
  EXPECT_EQ(hook_cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
  // Each further launch fails at once; none waits.
  for (int i = 0; i < 100; ++i)
    ASSERT_EQ(Spin(stream[0][0], 500 * kUs), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(Read().done, Read().issued);
  ASSERT_EQ(hook_cuDevicePrimaryCtxReset_v2(0), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuDevicePrimaryCtxRetain(&context[0], 0), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuCtxSetCurrent(context[0]), CUDA_SUCCESS);
  spin[0] = sim::Kernel("spin");
  ASSERT_EQ(hook_cuStreamCreate(&stream[0][0], CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  const uint64_t before = Read().issued;
  for (int i = 0; i < 10; ++i) ASSERT_EQ(Spin(stream[0][0], 10 * kUs), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuCtxSynchronize(), CUDA_SUCCESS);
  EXPECT_EQ(Read().done, before + 10);
}

TEST_F(GateOnSimulator, StreamsThatComeAndGo) {
  for (int i = 0; i < 200; ++i) {
    CUstream s;
    ASSERT_EQ(hook_cuStreamCreate(&s, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
    for (int k = 0; k < 3; ++k) ASSERT_EQ(Spin(s, kUs), CUDA_SUCCESS);
    ASSERT_EQ(hook_cuStreamDestroy_v2(s), CUDA_SUCCESS);
    if (i % 8 == 7) Until([&] { return Read().done == Read().issued; });
  }
  ASSERT_EQ(hook_cuCtxSynchronize(), CUDA_SUCCESS);
  Until([&] { return Read().done == 600; });
  EXPECT_LE(meter().lanes, 20u);
}

TEST_F(GateOnSimulator, WithoutWritesInStreamOrder) {
  abi::DriverFns f = cu();
  f.cuStreamWriteValue64_v2 = [](CUstream, CUdeviceptr, cuuint64_t, unsigned) {
    return CUDA_ERROR_NOT_SUPPORTED;
  };
  BindDriverForTest(f);
  Gate(0, region::kGateMetered, 500, 100, kForever);
  for (int i = 0; i < 200; ++i) ASSERT_EQ(Spin(stream[0][0], 20 * kUs), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuStreamSynchronize(stream[0][0]), CUDA_SUCCESS);
  EXPECT_EQ(Read().done, 200u);
  EXPECT_EQ(meter().forced, 0u);
}

}  // namespace
}  // namespace divvy::shim
