// Streams, events, memory operations, host functions and faults, as the CUDA Driver API reference
// ("Stream Management", "Event Management", "Stream Memory Operations", "Execution Control") and
// the CUDA C++ Programming Guide ("Asynchronous Concurrent Execution") describe them. Nothing here
// depends on how fast this host is: order is forced by words in memory, time is read from events.
#include <atomic>

#include "src/sim/client/test_driver.h"

namespace divvy::sim {
namespace {

class WorkTest : public DriverTest {
 protected:
  CUdeviceptr Word(int i) { return words_ + CUdeviceptr(i) * 64; }
  CUresult WaitWord(CUstream s, int i, uint32_t value) {
    CUdeviceptr at = Word(i);
    void* args[] = {&at, &value};
    return cu().cuLaunchKernel(Kernel("wait_value"), 1, 1, 1, 1, 1, 1, 0, s, args, nullptr);
  }
  CUresult Write(CUstream s, int i, uint32_t value) {
    return cu().cuStreamWriteValue32_v2(s, Word(i), value, 0);
  }
  CUevent Event(unsigned flags = 0) {
    CUevent e = nullptr;
    EXPECT_EQ(cu().cuEventCreate(&e, flags), CUDA_SUCCESS);
    return e;
  }
};

TEST_F(WorkTest, LaunchesReturnBeforeTheyRun) {
  ASSERT_EQ(WaitWord(free_, 0, 1), CUDA_SUCCESS);
  ASSERT_EQ(Store(free_, Word(1), 5), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamQuery(free_), CUDA_ERROR_NOT_READY);
  ASSERT_EQ(Write(blocking_, 0, 1), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamSynchronize(free_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamQuery(free_), CUDA_SUCCESS);
  EXPECT_EQ(Load(Word(1)), 5u);
}

TEST_F(WorkTest, EffectsHappenInStreamOrder) {
  for (uint32_t i = 1; i <= 300; ++i) {
    if (i % 3 == 0) {
      ASSERT_EQ(cu().cuMemsetD32Async(Word(0), i, 1, free_), CUDA_SUCCESS);
    } else {
      ASSERT_EQ(i % 3 == 1 ? Store(free_, Word(0), i) : Write(free_, 0, i), CUDA_SUCCESS);
    }
    ASSERT_EQ(cu().cuMemcpyDtoDAsync_v2(Word(1), Word(0), 4, free_), CUDA_SUCCESS);
  }
  EXPECT_EQ(Load(Word(1)), 300u);
}

// Events carry device time: kernels of known lengths one after the other.
TEST_F(WorkTest, EventsMeasureDeviceTime) {
  CUevent a = Event(), b = Event();
  float ms = 0;
  ASSERT_EQ(cu().cuEventRecord(a, free_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuEventElapsedTime_v2(&ms, a, b), CUDA_ERROR_INVALID_HANDLE);  // b: never recorded
  // All is in the queue before the first may start, so that gaps of this host do not count.
  ASSERT_EQ(WaitWord(free_, 0, 1), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuEventRecord(a, free_), CUDA_SUCCESS);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(Spin(free_, 20'000), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuEventRecord(b, free_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuEventElapsedTime_v2(&ms, a, b), CUDA_ERROR_NOT_READY);
  ASSERT_EQ(Write(blocking_, 0, 1), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuEventSynchronize(b), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuEventElapsedTime_v2(&ms, a, b), CUDA_SUCCESS);
  EXPECT_NEAR(ms, 2.0, 0.1);
  CUevent untimed = Event(CU_EVENT_DISABLE_TIMING);
  ASSERT_EQ(cu().cuEventRecord(untimed, free_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuEventElapsedTime_v2(&ms, a, untimed), CUDA_ERROR_INVALID_HANDLE);
}

TEST_F(WorkTest, StreamsWaitForEvents) {
  CUevent e = Event();
  ASSERT_EQ(WaitWord(free_, 0, 1), CUDA_SUCCESS);
  ASSERT_EQ(Store(free_, Word(1), 1), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuEventRecord(e, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamWaitEvent(blocking_, e, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemcpyDtoDAsync_v2(Word(2), Word(1), 4, blocking_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamQuery(blocking_), CUDA_ERROR_NOT_READY);
  EXPECT_EQ(cu().cuEventQuery(e), CUDA_ERROR_NOT_READY);
  CUstream third;
  ASSERT_EQ(cu().cuStreamCreate(&third, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  ASSERT_EQ(Write(third, 0, 1), CUDA_SUCCESS);
  EXPECT_EQ(Load(Word(2)), 1u);
  EXPECT_EQ(cu().cuEventQuery(e), CUDA_SUCCESS);
}

// "Stream synchronization behavior": the legacy stream and blocking streams wait for each other,
// other streams do not.
TEST_F(WorkTest, LegacyStreamOrdersBlockingStreams) {
  ASSERT_EQ(WaitWord(blocking_, 0, 1), CUDA_SUCCESS);
  ASSERT_EQ(Store(nullptr, Word(1), 1), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamQuery(nullptr), CUDA_ERROR_NOT_READY);
  ASSERT_EQ(Store(free_, Word(2), 1), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamSynchronize(free_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamQuery(nullptr), CUDA_ERROR_NOT_READY);
  ASSERT_EQ(Write(free_, 0, 1), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamSynchronize(nullptr), CUDA_SUCCESS);

  ASSERT_EQ(WaitWord(nullptr, 3, 1), CUDA_SUCCESS);
  ASSERT_EQ(Store(blocking_, Word(4), 1), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamQuery(blocking_), CUDA_ERROR_NOT_READY);
  ASSERT_EQ(Write(free_, 3, 1), CUDA_SUCCESS);
  EXPECT_EQ(Load(Word(4)), 1u);
}

// The `_ptsz` variants mean the thread's own stream by a null handle: no stream waits for it.
TEST_F(WorkTest, PerThreadVariantsUseTheThreadsStream) {
  CUdeviceptr at = Word(0);
  uint32_t one = 1;
  void* args[] = {&at, &one};
  ASSERT_EQ(
      cu().cuLaunchKernel_ptsz(Kernel("wait_value"), 1, 1, 1, 1, 1, 1, 0, nullptr, args, nullptr),
      CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamQuery(CU_STREAM_PER_THREAD), CUDA_ERROR_NOT_READY);
  InThread(context_, [&] {
    EXPECT_EQ(cu().cuStreamQuery_ptsz(nullptr), CUDA_SUCCESS);  // another thread's is another one
  });
  ASSERT_EQ(Write(free_, 0, 1), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamSynchronize_ptsz(nullptr), CUDA_SUCCESS);
}

// cuStreamWaitValue: "(int32_t)(*addr - value) >= 0" and the other conditions.
TEST_F(WorkTest, WaitValueConditions) {
  struct Case {
    unsigned flags;
    uint32_t value, not_yet, then;
  };
  const Case cases[] = {{CU_STREAM_WAIT_VALUE_GEQ, 5, 4, 6},
                        {CU_STREAM_WAIT_VALUE_GEQ, 0, 0xFFFFFFFF, 3},
                        {CU_STREAM_WAIT_VALUE_EQ, 5, 6, 5},
                        {CU_STREAM_WAIT_VALUE_AND, 0x10, 0x0F, 0x30},
                        {CU_STREAM_WAIT_VALUE_NOR, 0xFFFFFFF0, 0x0F, 0x07}};
  for (const Case& c : cases) {
    Fill(Word(0), c.not_yet);
    ASSERT_EQ(cu().cuStreamWaitValue32_v2(free_, Word(0), c.value, c.flags), CUDA_SUCCESS);
    ASSERT_EQ(Write(blocking_, 1, 1), CUDA_SUCCESS);
    ASSERT_EQ(cu().cuStreamSynchronize(blocking_), CUDA_SUCCESS);
    EXPECT_EQ(cu().cuStreamQuery(free_), CUDA_ERROR_NOT_READY) << c.flags;
    ASSERT_EQ(Write(blocking_, 0, c.then), CUDA_SUCCESS);
    EXPECT_EQ(cu().cuStreamSynchronize(free_), CUDA_SUCCESS);
  }
  EXPECT_EQ(cu().cuStreamWaitValue32_v2(free_, Word(0) + 2, 0, 0), CUDA_ERROR_INVALID_VALUE);
}

// A marker: the device writes registered host memory when it gets there.
TEST_F(WorkTest, WriteValueReachesRegisteredHostMemory) {
  alignas(64) static std::atomic<uint64_t> marker{0};
  CUdeviceptr at;
  ASSERT_EQ(cu().cuMemHostRegister_v2(&marker, sizeof marker, CU_MEMHOSTREGISTER_DEVICEMAP),
            CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemHostGetDevicePointer_v2(&at, &marker, 0), CUDA_SUCCESS);
  ASSERT_EQ(WaitWord(free_, 0, 1), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamWriteValue64_v2(free_, at, 77, CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER),
            CUDA_SUCCESS);
  EXPECT_EQ(marker.load(), 0u);
  ASSERT_EQ(Write(blocking_, 0, 1), CUDA_SUCCESS);
  // Nobody synchronises: it comes by itself.
  while (marker.load() != 77) std::this_thread::yield();
  ASSERT_EQ(cu().cuMemHostUnregister(&marker), CUDA_SUCCESS);
}

TEST_F(WorkTest, HostFunctionsRunInOrderAndHoldTheirStream) {
  static std::atomic<int> calls{0};
  static std::atomic<bool> go{false};
  calls = 0;
  go = false;
  auto fn = [](void* wait) {
    while (wait != nullptr && !go.load()) std::this_thread::yield();
    ++calls;
  };
  ASSERT_EQ(cu().cuLaunchHostFunc(free_, fn, &calls), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuLaunchHostFunc(free_, fn, nullptr), CUDA_SUCCESS);
  ASSERT_EQ(Store(free_, Word(0), 1), CUDA_SUCCESS);
  // Other streams go on while a host function blocks its own.
  ASSERT_EQ(Store(blocking_, Word(1), 1), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamSynchronize(blocking_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamQuery(free_), CUDA_ERROR_NOT_READY);
  EXPECT_EQ(calls.load(), 0);
  go = true;
  ASSERT_EQ(cu().cuStreamSynchronize(free_), CUDA_SUCCESS);
  EXPECT_EQ(calls.load(), 2);
  EXPECT_EQ(Load(Word(0)), 1u);
}

// Pageable memory is staged: the caller may change it once the call returns.
TEST_F(WorkTest, PageableSourceMayChangeAfterTheCall) {
  uint32_t value = 11;
  ASSERT_EQ(WaitWord(free_, 0, 1), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemcpyHtoDAsync_v2(Word(1), &value, 4, free_), CUDA_SUCCESS);
  value = 12;
  ASSERT_EQ(Write(blocking_, 0, 1), CUDA_SUCCESS);
  EXPECT_EQ(Load(Word(1)), 11u);
}

TEST_F(WorkTest, DestroyedStreamsFinishTheirWork) {
  CUstream s;
  ASSERT_EQ(cu().cuStreamCreate(&s, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  ASSERT_EQ(WaitWord(s, 0, 1), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamWriteValue32_v2(s, Word(1), 9, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamDestroy_v2(s), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamQuery(s), CUDA_ERROR_INVALID_HANDLE);
  ASSERT_EQ(Write(free_, 0, 1), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamWaitValue32_v2(free_, Word(1), 9, CU_STREAM_WAIT_VALUE_EQ), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuStreamSynchronize(free_), CUDA_SUCCESS);
}

// More than fits into the hardware's queue: the submitter waits, nothing is lost.
TEST_F(WorkTest, QueuesFillUp) {
  for (uint32_t i = 1; i <= 3000; ++i) ASSERT_EQ(Write(free_, 0, i), CUDA_SUCCESS);
  EXPECT_EQ(Load(Word(0)), 3000u);
}

// "leaves the process in an inconsistent state and any further CUDA work will return the same
// error": in that context; others live on.
TEST_F(WorkTest, FaultsAreStickyInTheirContextOnly) {
  CUcontext victim;
  ASSERT_EQ(cu().cuCtxCreate_v2(&victim, 0, 0), CUDA_SUCCESS);
  CUdeviceptr nowhere = 4096;
  uint32_t value = 1;
  void* args[] = {&nowhere, &value};
  ASSERT_EQ(cu().cuLaunchKernel(Kernel("store"), 1, 1, 1, 1, 1, 1, 0, nullptr, args, nullptr),
            CUDA_SUCCESS);
  EXPECT_EQ(cu().cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
  CUdeviceptr p;
  EXPECT_EQ(cu().cuMemAlloc_v2(&p, 4), CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(cu().cuStreamQuery(nullptr), CUDA_ERROR_ILLEGAL_ADDRESS);
  ASSERT_EQ(cu().cuCtxDestroy_v2(victim), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuCtxSetCurrent(context_), CUDA_SUCCESS);
  ASSERT_EQ(Store(free_, Word(0), 3), CUDA_SUCCESS);
  EXPECT_EQ(Load(Word(0)), 3u);
}

TEST_F(WorkTest, ThreadsSubmitSideBySide) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      EXPECT_EQ(cu().cuCtxSetCurrent(context_), CUDA_SUCCESS);
      CUstream s;
      EXPECT_EQ(cu().cuStreamCreate(&s, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
      for (uint32_t i = 1; i <= 400; ++i) {
        EXPECT_EQ(Write(s, t, i), CUDA_SUCCESS);
        if (i % 100 == 0) {
          EXPECT_EQ(cu().cuStreamSynchronize(s), CUDA_SUCCESS);
        }
      }
      EXPECT_EQ(cu().cuStreamDestroy_v2(s), CUDA_SUCCESS);
    });
  }
  for (auto& t : threads) t.join();
  for (int t = 0; t < 4; ++t) EXPECT_EQ(Load(Word(t)), 400u);
}

}  // namespace
}  // namespace divvy::sim
