// What the rules of stream capture forbid: every potentially unsafe call and every call that
// conflicts with a capture, in all modes of the capture and of the calling thread, from the
// capturing thread and from another. Documented: cuThreadExchangeStreamCaptureMode for the former,
// "Prohibited and Unhandled Operations" and "Invalidation" in the CUDA C++ Programming Guide for
// the latter.
#include <functional>
#include <vector>

#include "src/sim/client/capture_test.h"

namespace divvy::sim {
namespace {

constexpr CUstreamCaptureMode kModes[] = {CU_STREAM_CAPTURE_MODE_GLOBAL,
                                          CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
                                          CU_STREAM_CAPTURE_MODE_RELAXED};

struct Call {
  const char* name;
  std::function<CUresult()> make;
  CUresult expected = CUDA_SUCCESS;
};

class CaptureRulesTest : public CaptureTest {
 protected:
  void SetUp() override {
    CaptureTest::SetUp();
    ASSERT_EQ(cu().cuStreamCreate(&other_, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
    recorded_ = NewEvent(CU_EVENT_DEFAULT);
    captured_ = NewEvent(CU_EVENT_DEFAULT);
    ASSERT_EQ(cu().cuEventRecord(recorded_, other_), CUDA_SUCCESS);
    ASSERT_EQ(cu().cuDeviceGetDefaultMemPool(&pool_, 0), CUDA_SUCCESS);
    ASSERT_EQ(cu().cuCtxSynchronize(), CUDA_SUCCESS);
  }

  // Potentially unsafe calls. Each can be made any number of times.
  std::vector<Call> Unsafe() {
    return {
        {"cuMemAlloc",
         [] {
           CUdeviceptr p;
           return cu().cuMemAlloc_v2(&p, 64);
         }},
        {"cuMemFree", [this] { return cu().cuMemFree_v2(Spare()); }},
        {"cuMemHostAlloc",
         [] {
           void* p;
           return cu().cuMemHostAlloc(&p, 64, 0);
         }},
        {"cuEventQuery", [this] { return cu().cuEventQuery(recorded_); }},
        {"cuEventSynchronize", [this] { return cu().cuEventSynchronize(recorded_); }},
        {"cuStreamQuery", [this] { return cu().cuStreamQuery(other_); }},
        {"cuStreamSynchronize", [this] { return cu().cuStreamSynchronize(other_); }},
        {"cuMemPoolTrimTo", [this] { return cu().cuMemPoolTrimTo(pool_, 0); }},
        {"cuMemPoolGetAttribute",
         [this] {
           cuuint64_t v;
           return cu().cuMemPoolGetAttribute(pool_, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &v);
         }},
        {"cuModuleLoadData",
         [] {
           CUmodule m;
           return cu().cuModuleLoadData(&m, kTestPtx);
         }},
        {"cuMemcpyHtoD",
         [this] {
           uint32_t v = 1;
           return cu().cuMemcpyHtoD_v2(words_, &v, 4);
         }},
        {"cuMemsetD32", [this] { return cu().cuMemsetD32_v2(words_, 1, 1); }},
    };
  }

  // Calls that necessarily conflict with a capture in `stream`.
  std::vector<Call> Conflicting(CUstream stream, bool blocking) {
    std::vector<Call> calls = {
        {"cuStreamSynchronize", [=] { return cu().cuStreamSynchronize(stream); },
         CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED},
        {"cuStreamQuery", [=] { return cu().cuStreamQuery(stream); },
         CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED},
        {"cuCtxSynchronize", [] { return cu().cuCtxSynchronize(); },
         CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED},
        {"cuEventQuery", [this] { return cu().cuEventQuery(captured_); },
         CUDA_ERROR_CAPTURED_EVENT},
        {"cuEventSynchronize", [this] { return cu().cuEventSynchronize(captured_); },
         CUDA_ERROR_CAPTURED_EVENT},
        {"cuEventElapsedTime",
         [this] {
           float ms;
           return cu().cuEventElapsedTime_v2(&ms, recorded_, captured_);
         },
         CUDA_ERROR_CAPTURED_EVENT},
        {"cuStreamAddCallback",
         [=] {
           auto none = [](CUstream, CUresult, void*) {};
           return cu().cuStreamAddCallback(stream, none, nullptr, 0);
         },
         CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED},
        {"cuStreamAttachMemAsync",
         [=, this] { return cu().cuStreamAttachMemAsync(stream, words_, 0, CU_MEM_ATTACH_SINGLE); },
         CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED},
        {"cuStreamWaitEvent, uncaptured event",
         [=, this] { return cu().cuStreamWaitEvent(stream, recorded_, 0); },
         CUDA_ERROR_STREAM_CAPTURE_ISOLATION},
    };
    if (!blocking) return calls;
    // "Any attempted use of the legacy stream is invalid."
    auto implicit = [&](const char* name, std::function<CUresult()> make) {
      calls.push_back({name, std::move(make), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT});
    };
    implicit("kernel in the legacy stream", [this] { return Spin(nullptr, 1000); });
    implicit("cuMemcpyHtoD", [this] {
      uint32_t v = 1;
      return cu().cuMemcpyHtoD_v2(words_, &v, 4);
    });
    implicit("cuMemsetD32", [this] { return cu().cuMemsetD32_v2(words_, 1, 1); });
    implicit("cuMemcpyDtoDAsync in the legacy stream",
             [this] { return cu().cuMemcpyDtoDAsync_v2(words_, words_ + 64, 4, nullptr); });
    implicit("cuStreamSynchronize of the legacy stream",
             [] { return cu().cuStreamSynchronize(nullptr); });
    implicit("cuStreamQuery of the legacy stream", [] { return cu().cuStreamQuery(nullptr); });
    implicit("cuEventRecord in the legacy stream",
             [this] { return cu().cuEventRecord(recorded_, nullptr); });
    implicit("cuStreamWaitEvent in the legacy stream",
             [this] { return cu().cuStreamWaitEvent(nullptr, recorded_, 0); });
    implicit("cuLaunchHostFunc in the legacy stream", [] {
      return cu().cuLaunchHostFunc(
          nullptr, [](void*) {}, nullptr);
    });
    implicit("cuMemAllocAsync in the legacy stream", [] {
      CUdeviceptr p;
      return cu().cuMemAllocAsync(&p, 64, nullptr);
    });
    return calls;
  }

  // Makes the call in this thread or another one, whose mode is `mode`.
  CUresult Make(const Call& call, bool same_thread, CUstreamCaptureMode mode) {
    CUresult r;
    auto body = [&] {
      SetMode(mode);
      r = call.make();
      SetMode(CU_STREAM_CAPTURE_MODE_GLOBAL);
    };
    same_thread ? body() : InThread(context_, body);
    return r;
  }

  // Memory to free, taken before the capture.
  CUdeviceptr Spare() {
    CUdeviceptr p = spare_.back();
    spare_.pop_back();
    return p;
  }
  void TakeSpare() {
    CUdeviceptr p;
    ASSERT_EQ(cu().cuMemAlloc_v2(&p, 64), CUDA_SUCCESS);
    spare_.push_back(p);
  }

  CUstream other_ = nullptr;
  CUevent recorded_ = nullptr, captured_ = nullptr;
  CUmemoryPool pool_ = nullptr;
  std::vector<CUdeviceptr> spare_;
};

// A call is prohibited when the thread's mode is not relaxed and it has a capture of its own that
// is not relaxed; or when the thread's mode is global and another thread has a global capture.
TEST_F(CaptureRulesTest, UnsafeCalls) {
  for (const Call& call : Unsafe()) {
    for (CUstreamCaptureMode capture : kModes) {
      for (CUstreamCaptureMode thread : kModes) {
        for (bool same_thread : {true, false}) {
          SCOPED_TRACE(testing::Message()
                       << call.name << ", capture mode " << capture << ", thread mode " << thread
                       << ", same thread " << same_thread);
          bool prohibited = same_thread ? thread != CU_STREAM_CAPTURE_MODE_RELAXED &&
                                              capture != CU_STREAM_CAPTURE_MODE_RELAXED
                                        : thread == CU_STREAM_CAPTURE_MODE_GLOBAL &&
                                              capture == CU_STREAM_CAPTURE_MODE_GLOBAL;
          TakeSpare();
          Begin(free_, capture);
          EXPECT_EQ(Make(call, same_thread, thread),
                    prohibited ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS);
          EXPECT_EQ(StatusOf(free_), prohibited ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                                : CU_STREAM_CAPTURE_STATUS_ACTIVE);
          if (prohibited) {
            EXPECT_EQ(Spin(free_, 1000), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
            EndInvalid(free_);
          } else {
            EXPECT_EQ(cu().cuGraphDestroy(End(free_)), CUDA_SUCCESS);
          }
          EXPECT_EQ(StatusOf(free_), CU_STREAM_CAPTURE_STATUS_NONE);
        }
      }
    }
  }
}

// "Note that the thread is still prohibited from API calls which necessarily conflict with stream
// capture", whatever the modes and the thread.
TEST_F(CaptureRulesTest, ConflictingCalls) {
  for (bool blocking : {true, false}) {
    CUstream stream = blocking ? blocking_ : free_;
    for (const Call& call : Conflicting(stream, blocking)) {
      for (CUstreamCaptureMode capture : kModes) {
        for (CUstreamCaptureMode thread : kModes) {
          for (bool same_thread : {true, false}) {
            SCOPED_TRACE(testing::Message()
                         << call.name << ", blocking " << blocking << ", capture mode " << capture
                         << ", thread mode " << thread << ", same thread " << same_thread);
            Begin(stream, capture);
            ASSERT_EQ(cu().cuEventRecord(captured_, stream), CUDA_SUCCESS);
            EXPECT_EQ(Make(call, same_thread, thread), call.expected);
            EXPECT_EQ(StatusOf(stream), CU_STREAM_CAPTURE_STATUS_INVALIDATED);
            EndInvalid(stream);
          }
        }
      }
    }
  }
}

// Calls that leave a global capture of a blocking stream as it is.
TEST_F(CaptureRulesTest, HarmlessCalls) {
  CUstreamCaptureStatus status;
  CUevent never = NewEvent();
  const std::vector<Call> calls = {
      // "The blocking stream capture is not invalidated."
      {"cuStreamIsCapturing of the legacy stream",
       [&] { return cu().cuStreamIsCapturing(nullptr, &status); },
       CUDA_ERROR_STREAM_CAPTURE_IMPLICIT},
      {"cuStreamGetCaptureInfo of the legacy stream",
       [&] { return cu().cuStreamGetCaptureInfo(nullptr, &status, nullptr); },
       CUDA_ERROR_STREAM_CAPTURE_IMPLICIT},
      {"kernel in another stream", [this] { return Spin(other_, 1000); }},
      {"cuEventRecord in another stream", [this] { return cu().cuEventRecord(recorded_, other_); }},
      {"cuMemAllocAsync in another stream",
       [this] {
         CUdeviceptr p;
         return cu().cuMemAllocAsync(&p, 64, other_);
       }},
      {"cuEventQuery, never recorded", [&] { return cu().cuEventQuery(never); }},
      {"cuEventCreate",
       [] {
         CUevent e;
         return cu().cuEventCreate(&e, 0);
       }},
      {"cuStreamCreate",
       [] {
         CUstream s;
         return cu().cuStreamCreate(&s, 0);
       }},
      {"cuMemGetInfo",
       [] {
         size_t a, b;
         return cu().cuMemGetInfo_v2(&a, &b);
       }},
      {"cuStreamGetPriority",
       [this] {
         int p;
         return cu().cuStreamGetPriority(blocking_, &p);
       }},
      {"begin twice",
       [this] { return cu().cuStreamBeginCapture_v2(blocking_, CU_STREAM_CAPTURE_MODE_GLOBAL); },
       CUDA_ERROR_ILLEGAL_STATE},
  };
  for (const Call& call : calls) {
    SCOPED_TRACE(call.name);
    Begin(blocking_);
    EXPECT_EQ(call.make(), call.expected);
    EXPECT_EQ(StatusOf(blocking_), CU_STREAM_CAPTURE_STATUS_ACTIVE);
    End(blocking_);
  }
}

// A blocking capture makes the legacy stream of its own context unusable, not that of another one;
// a non-blocking one does not touch it.
TEST_F(CaptureRulesTest, LegacyStreamOfOthers) {
  Begin(free_);
  EXPECT_EQ(Spin(nullptr, 1000), CUDA_SUCCESS);
  End(free_);
  CUcontext second;
  ASSERT_EQ(cu().cuDevicePrimaryCtxRetain(&second, 1), CUDA_SUCCESS);
  Begin(blocking_);
  ASSERT_EQ(cu().cuCtxSetCurrent(second), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuLaunchHostFunc(
                nullptr, [](void*) {}, nullptr),
            CUDA_SUCCESS);
  EXPECT_EQ(cu().cuEventRecord(NewEvent(), nullptr), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuCtxSetCurrent(context_), CUDA_SUCCESS);
  End(blocking_);
  EXPECT_EQ(cu().cuDevicePrimaryCtxReset_v2(1), CUDA_SUCCESS);
}

// An event keeps its captured state when the capture has ended, until it is recorded again.
TEST_F(CaptureRulesTest, EventsOfEndedCaptures) {
  Begin(free_);
  EXPECT_EQ(Spin(free_, 1000), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuEventRecord(captured_, free_), CUDA_SUCCESS);
  End(free_);
  EXPECT_EQ(cu().cuEventQuery(captured_), CUDA_ERROR_CAPTURED_EVENT);
  EXPECT_EQ(cu().cuStreamWaitEvent(other_, captured_, 0), CUDA_ERROR_CAPTURED_EVENT);
  Begin(free_);
  EXPECT_EQ(cu().cuStreamWaitEvent(free_, captured_, 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
  EndInvalid(free_);
  EXPECT_EQ(cu().cuEventRecord(captured_, other_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuEventSynchronize(captured_), CUDA_SUCCESS);
}

// The modes of two captures at once: a thread's unsafe call hits what concerns it and nothing else.
TEST_F(CaptureRulesTest, OnlyTheCapturesConcernedAreInvalidated) {
  Begin(free_, CU_STREAM_CAPTURE_MODE_RELAXED);
  Begin(other_, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  CUdeviceptr p;
  EXPECT_EQ(cu().cuMemAlloc_v2(&p, 64), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  EXPECT_EQ(StatusOf(free_), CU_STREAM_CAPTURE_STATUS_ACTIVE);
  EXPECT_EQ(StatusOf(other_), CU_STREAM_CAPTURE_STATUS_INVALIDATED);
  EndInvalid(other_);
  EXPECT_EQ(cu().cuMemAlloc_v2(&p, 64), CUDA_SUCCESS);
  End(free_);
}

// CU_EVENT_RECORD_EXTERNAL, CU_EVENT_WAIT_EXTERNAL: "This flag is invalid outside of stream
// capture."
TEST_F(CaptureRulesTest, ExternalFlagsNeedACapture) {
  EXPECT_EQ(cu().cuEventRecordWithFlags(recorded_, other_, CU_EVENT_RECORD_EXTERNAL),
            CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cu().cuStreamWaitEvent(other_, recorded_, CU_EVENT_WAIT_EXTERNAL),
            CUDA_ERROR_INVALID_VALUE);
}

TEST_F(CaptureRulesTest, ExchangeMode) {
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
  EXPECT_EQ(cu().cuThreadExchangeStreamCaptureMode(&mode), CUDA_SUCCESS);
  EXPECT_EQ(mode, CU_STREAM_CAPTURE_MODE_GLOBAL);  // "This is the default mode."
  InThread(context_, [] {                          // each thread has its own
    CUstreamCaptureMode m = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    EXPECT_EQ(cu().cuThreadExchangeStreamCaptureMode(&m), CUDA_SUCCESS);
    EXPECT_EQ(m, CU_STREAM_CAPTURE_MODE_GLOBAL);
  });
  EXPECT_EQ(cu().cuThreadExchangeStreamCaptureMode(&mode), CUDA_SUCCESS);
  EXPECT_EQ(mode, CU_STREAM_CAPTURE_MODE_RELAXED);
  mode = CUstreamCaptureMode(7);
  EXPECT_EQ(cu().cuThreadExchangeStreamCaptureMode(&mode), CUDA_ERROR_INVALID_VALUE);
}

}  // namespace
}  // namespace divvy::sim
