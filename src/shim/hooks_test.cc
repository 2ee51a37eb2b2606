// The memory hooks against a small fake driver: what is charged, refused, credited, and what the
// program sees; every path also when the driver fails.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <map>
#include <string>
#include <thread>

#include "src/shim/attach.h"
#include "src/shim/books.h"
#include "src/shim/contexts.h"
#include "src/shim/generated/hooks.h"
#include "src/shim/pools.h"
#include "src/shim/testing/fake_daemon.h"
#include "src/shim/testing/fake_driver.h"

namespace divvy::shim {
namespace {

using region::EventCause;
using testing::DefaultPool;
using testing::Fake;
using testing::FakeDaemon;

constexpr uint64_t kMiB = 1 << 20;

// A tenant with 256 MiB of device 0, its context made.
struct HooksTest : ::testing::Test {
  explicit HooksTest(std::vector<testing::FakeShare> shares = {{1, 256 * kMiB}},
                     unsigned devices = 1)
      : daemon(std::move(shares)) {
    testing::InstallFakeDriver(devices);
    testing::FreshProcess(daemon.socket());
    context = testing::MakeCurrentContext();
  }
  ~HooksTest() override {
    EXPECT_EQ(g_process.degraded, 0u);
    EXPECT_EQ(UnderWay(), 0u);
    EXPECT_EQ(Fake().pool_queries_unguarded, 0u);
    EXPECT_EQ(Fake().exchanges, 0u);
    testing::FreshProcess("");
  }
  uint64_t Charged() { return daemon.BookBytes(); }
  uint32_t UnderWay() {
    const region::ProcessSlot& slot = daemon.usage().slot[1];
    return region::UnderWay(slot.answered, slot.charges);
  }
  uint64_t ChargedAs(Kind kind) {
    return daemon.usage().slot[1].device[0].kind_units[static_cast<unsigned>(kind)] *
           region::kUnitBytes;
  }
  FakeDaemon daemon;
  CUcontext context = nullptr;
};

// --- linear ---

TEST_F(HooksTest, ChargesAndCreditsLinearMemory) {
  CUdeviceptr p;
  ASSERT_EQ(hook_cuMemAlloc_v2(&p, 10 * kMiB + 1), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 12 * kMiB) << "whole blocks of the driver";
  EXPECT_EQ(ChargedAs(Kind::kLinear), Charged());
  ASSERT_EQ(hook_cuMemFree_v2(p), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 0u);
}

TEST_F(HooksTest, APieceIsChargedWhatItKeepsFromOthers) {
  CUdeviceptr p;
  for (const auto& [bytes, charged] : {std::pair<size_t, size_t>{1, 512},
                                       {64 << 10, 64 << 10},
                                       {600 << 10, 683 << 10},  // three in a block
                                       {kMiB, kMiB},
                                       {kMiB + 1, 2 * kMiB},
                                       {2 * kMiB, 2 * kMiB},
                                       {2 * kMiB + 1, 4 * kMiB}}) {
    ASSERT_EQ(hook_cuMemAlloc_v2(&p, bytes), CUDA_SUCCESS);
    EXPECT_EQ(Charged(), charged) << bytes;
    ASSERT_EQ(hook_cuMemFree_v2(p), CUDA_SUCCESS);
    EXPECT_EQ(Charged(), 0u);
  }
}

TEST_F(HooksTest, RefusesBeyondTheShareWithTheDriversCodeAndOneEvent) {
  CUdeviceptr p = 77;
  EXPECT_EQ(hook_cuMemAlloc_v2(&p, 257 * kMiB), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(p, 77u) << "out-parameters stay untouched";
  EXPECT_EQ(Charged(), 0u);
  ASSERT_EQ(daemon.Events().size(), 1u);
  const region::UsageEvent& e = *daemon.Events()[0];
  EXPECT_EQ(e.cause, static_cast<uint16_t>(EventCause::kOutOfShare));
  EXPECT_EQ(e.bytes, 258 * kMiB);
  EXPECT_EQ(e.limit, 256 * kMiB);
  EXPECT_EQ(e.symbol, static_cast<uint32_t>(DriverSymbol::cuMemAlloc_v2));
}

TEST_F(HooksTest, TheLastByteOfTheShareCanBeHad) {
  CUdeviceptr p, q = 77;
  EXPECT_EQ(hook_cuMemAlloc_v2(&p, 256 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(hook_cuMemAlloc_v2(&q, 1), CUDA_ERROR_OUT_OF_MEMORY);
}

TEST_F(HooksTest, CreditsWhatTheDriverRefuses) {
  Fake().fail["cuMemAlloc_v2"] = CUDA_ERROR_OUT_OF_MEMORY;
  CUdeviceptr p;
  EXPECT_EQ(hook_cuMemAlloc_v2(&p, kMiB), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(Charged(), 0u);
  EXPECT_EQ(daemon.Events().at(0)->cause, static_cast<uint16_t>(EventCause::kDriverRefused));
}

TEST_F(HooksTest, KeepsTheChargeWhenTheFreeFails) {
  CUdeviceptr p;
  ASSERT_EQ(hook_cuMemAlloc_v2(&p, kMiB), CUDA_SUCCESS);
  Fake().fail["cuMemFree_v2"] = CUDA_ERROR_LAUNCH_FAILED;
  EXPECT_EQ(hook_cuMemFree_v2(p), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_EQ(Charged(), kMiB);
  EXPECT_EQ(hook_cuMemFree_v2(p), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 0u);
}

// What is charged and not yet taken, given back and not yet credited can be told by the daemon.
TEST_F(HooksTest, WhatTheDriverHasNotAnsweredIsUnderWay) {
  std::map<std::string, uint32_t> seen;
  Fake().during = [&](const std::string& name) { seen[name] = UnderWay(); };
  CUdeviceptr p, pitched, pooled;
  size_t pitch;
  ASSERT_EQ(hook_cuMemAlloc_v2(&p, kMiB), CUDA_SUCCESS);
  EXPECT_EQ(UnderWay(), 0u);
  ASSERT_EQ(hook_cuMemAllocPitch_v2(&pitched, &pitch, 1000, 10, 4), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuMemFree_v2(p), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuMemAllocAsync(&pooled, kMiB, nullptr), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuMemAllocAsync(&pooled, kMiB, nullptr), CUDA_SUCCESS);  // reserved already
  EXPECT_EQ(UnderWay(), 0u);
  CUmemGenericAllocationHandle handle;
  CUmemAllocationProp prop{};
  prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  ASSERT_EQ(hook_cuMemCreate(&handle, 2 * kMiB, &prop, 0), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuMemRelease(handle), CUDA_SUCCESS);
  CUcontext second;
  ASSERT_EQ(hook_cuCtxCreate_v2(&second, 0, 0), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuCtxDestroy_v2(second), CUDA_SUCCESS);
  for (const char* name : {"cuMemAlloc_v2", "cuMemAllocPitch_v2", "cuMemFree_v2", "cuMemAllocAsync",
                           "cuMemCreate", "cuMemRelease", "cuCtxCreate_v2", "cuCtxDestroy_v2"})
    EXPECT_EQ(seen[name], 1u) << name;
  for (const char* name : {"cuMemAlloc_v2", "cuMemAllocAsync", "cuMemCreate", "cuCtxCreate_v2"}) {
    Fake().fail[name] = CUDA_ERROR_OUT_OF_MEMORY;
    hook_cuMemAlloc_v2(&p, kMiB);
    hook_cuMemAllocAsync(&p, 40 * kMiB, nullptr);
    hook_cuMemCreate(&handle, 2 * kMiB, &prop, 0);
    hook_cuCtxCreate_v2(&second, 0, 0);
    EXPECT_EQ(UnderWay(), 0u) << name << " refused";
    EXPECT_TRUE(Fake().fail.empty()) << name;
  }
  hook_cuMemAlloc_v2(&p, 257 * kMiB);  // refused by the share
  EXPECT_EQ(UnderWay(), 0u);
  Fake().during = nullptr;
}

TEST_F(HooksTest, AnUnknownPointerIsTheDriversBusiness) {
  EXPECT_EQ(hook_cuMemFree_v2(0x1234), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(hook_cuMemFree_v2(0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(hook_cuMemAlloc_v2(nullptr, kMiB), CUDA_ERROR_INVALID_VALUE);
  CUdeviceptr p;
  EXPECT_EQ(hook_cuMemAlloc_v2(&p, 0), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(Charged(), 0u);
}

TEST_F(HooksTest, ChargesThePitchThatTheDriverChose) {
  CUdeviceptr p;
  size_t pitch;
  ASSERT_EQ(hook_cuMemAllocPitch_v2(&p, &pitch, 100, 1024, 4), CUDA_SUCCESS);
  EXPECT_EQ(pitch, 2048u);
  EXPECT_EQ(Charged(), 2 * kMiB);
  ASSERT_EQ(hook_cuMemFree_v2(p), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 0u);
}

TEST_F(HooksTest, APitchThatDoesNotFitIsUndone) {
  CUdeviceptr p = 77;
  size_t pitch = 78;
  // 512 bytes a row fit, 2048 do not.
  EXPECT_EQ(hook_cuMemAllocPitch_v2(&p, &pitch, 512, 256 * 1024, 4), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(p, 77u);
  EXPECT_EQ(pitch, 78u);
  EXPECT_EQ(Charged(), 0u);
  EXPECT_EQ(Fake().used_bytes, 0u);
}

TEST_F(HooksTest, ManagedMemoryCountsInFull) {
  CUdeviceptr p;
  ASSERT_EQ(hook_cuMemAllocManaged(&p, 5 * kMiB, CU_MEM_ATTACH_GLOBAL), CUDA_SUCCESS);
  EXPECT_EQ(ChargedAs(Kind::kManaged), 6 * kMiB);
  hook_cuMemFree_v2(p);
  EXPECT_EQ(Charged(), 0u);
}

TEST_F(HooksTest, ArraysCount) {
  const CUDA_ARRAY3D_DESCRIPTOR_v2 d{1024, 1024, 0, CU_AD_FORMAT_FLOAT, 4, 0};
  CUarray array;
  ASSERT_EQ(hook_cuArray3DCreate_v2(&array, &d), CUDA_SUCCESS);
  EXPECT_EQ(ChargedAs(Kind::kArray), 16 * kMiB);
  const CUDA_ARRAY3D_DESCRIPTOR_v2 large{1 << 16, 1 << 16, 0, CU_AD_FORMAT_FLOAT, 4, 0};
  CUarray other = nullptr;
  EXPECT_EQ(hook_cuArray3DCreate_v2(&other, &large), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(hook_cuArrayDestroy(array), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 0u);
}

TEST_F(HooksTest, WhatTheDeviceDoesNotHaveIsRefused) {
  daemon.policy().device[0].rest_bytes = 10 * kMiB;
  CUdeviceptr p;
  EXPECT_EQ(hook_cuMemAlloc_v2(&p, 11 * kMiB), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(daemon.Events().at(0)->cause, static_cast<uint16_t>(EventCause::kDeviceFull));
  EXPECT_EQ(hook_cuMemAlloc_v2(&p, 10 * kMiB), CUDA_SUCCESS);
}

TEST_F(HooksTest, OverheadMakesTheShareSmaller) {
  daemon.policy().device[0].overhead_bytes = 200 * kMiB;
  CUdeviceptr p;
  EXPECT_EQ(hook_cuMemAlloc_v2(&p, 57 * kMiB), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(hook_cuMemAlloc_v2(&p, 56 * kMiB), CUDA_SUCCESS);
}

TEST_F(HooksTest, NegativeOverheadGivesBackNoMoreThanWasChargedForContexts) {
  daemon.policy().device[0].overhead_bytes = -200 * static_cast<int64_t>(kMiB);
  CUdeviceptr p;
  EXPECT_EQ(hook_cuMemAlloc_v2(&p, 257 * kMiB), CUDA_ERROR_OUT_OF_MEMORY);
}

TEST_F(HooksTest, NegativeOverheadGivesBackNothingForImports) {
  CUipcMemHandle handle{};
  const uint64_t bytes = 30 * kMiB;
  memcpy(handle.reserved, &bytes, sizeof(bytes));
  CUdeviceptr p;
  ASSERT_EQ(hook_cuIpcOpenMemHandle_v2(&p, handle, 1), CUDA_SUCCESS);
  daemon.policy().device[0].overhead_bytes = -30 * static_cast<int64_t>(kMiB);
  EXPECT_EQ(hook_cuMemAlloc_v2(&p, 228 * kMiB), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(hook_cuMemAlloc_v2(&p, 226 * kMiB), CUDA_SUCCESS);
}

TEST_F(HooksTest, LoweringTheLimitRefusesAndCorruptsNothing) {
  CUdeviceptr p, q;
  ASSERT_EQ(hook_cuMemAlloc_v2(&p, 200 * kMiB), CUDA_SUCCESS);
  daemon.policy().device[0].limit_bytes = 100 * kMiB;
  EXPECT_EQ(hook_cuMemAlloc_v2(&q, kMiB), CUDA_ERROR_OUT_OF_MEMORY);
  size_t free = 1, total = 1;
  ASSERT_EQ(hook_cuMemGetInfo_v2(&free, &total), CUDA_SUCCESS);
  EXPECT_EQ(free, 0u);
  EXPECT_EQ(total, 100 * kMiB);
  EXPECT_EQ(hook_cuMemFree_v2(p), CUDA_SUCCESS);
  EXPECT_EQ(hook_cuMemAlloc_v2(&q, 99 * kMiB), CUDA_SUCCESS);
}

TEST_F(HooksTest, WaitsForRoomWhenTold) {
  daemon.policy().on_full_wait_ms = 60000;
  CUdeviceptr p, q;
  ASSERT_EQ(hook_cuMemAlloc_v2(&p, 200 * kMiB), CUDA_SUCCESS);
  std::thread other([&] {
    while (daemon.usage().freed_waiters == 0) std::this_thread::yield();
    EXPECT_EQ(CurrentSession()->Slot().room_waiters, 1u);
    hook_cuMemFree_v2(p);
  });
  EXPECT_EQ(hook_cuMemAlloc_v2(&q, 100 * kMiB), CUDA_SUCCESS);
  other.join();
  EXPECT_EQ(CurrentSession()->Slot().room_waiters, 0u);
  EXPECT_EQ(daemon.Events().size(), 0u);
  EXPECT_EQ(Charged(), 100 * kMiB);
}

TEST_F(HooksTest, WaitingIsBounded) {
  daemon.policy().on_full_wait_ms = 1;
  CUdeviceptr p, q;
  ASSERT_EQ(hook_cuMemAlloc_v2(&p, 200 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(hook_cuMemAlloc_v2(&q, 100 * kMiB), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(daemon.usage().freed_waiters, 0u);
  EXPECT_EQ(daemon.Events().size(), 1u);
}

TEST_F(HooksTest, ThreadsTogetherNeverExceedTheShare) {
  std::vector<std::thread> threads;
  std::atomic<uint64_t> most{0};
  std::atomic<int> granted{0};
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        const auto v =
            Charge(0, region::UnitsOf(50 * kMiB), Kind::kLinear, DriverSymbol::cuMemAlloc_v2);
        const uint64_t now = Charged();
        uint64_t seen = most;
        while (now > seen && !most.compare_exchange_weak(seen, now)) {
        }
        if (v == Verdict::kGranted) {
          ++granted;
          Credit(0, region::UnitsOf(50 * kMiB), Kind::kLinear);
        }
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_LE(most, 256 * kMiB);
  EXPECT_GT(granted, 0);
  EXPECT_EQ(Charged(), 0u);
}

// --- what the program sees ---

TEST_F(HooksTest, ShowsTheShare) {
  CUdeviceptr p;
  hook_cuMemAlloc_v2(&p, 56 * kMiB);
  size_t free, total;
  ASSERT_EQ(hook_cuMemGetInfo_v2(&free, &total), CUDA_SUCCESS);
  EXPECT_EQ(total, 256 * kMiB);
  EXPECT_EQ(free, 200 * kMiB);
  ASSERT_EQ(hook_cuDeviceTotalMem_v2(&total, 0), CUDA_SUCCESS);
  EXPECT_EQ(total, 256 * kMiB);
  daemon.policy().device[0].rest_bytes = 3 * kMiB;
  hook_cuMemGetInfo_v2(&free, &total);
  EXPECT_EQ(free, 3 * kMiB) << "never more than the device has";
}

TEST_F(HooksTest, MissingOutParametersAreAsTheDriverTakesThem) {
  size_t total = 0;
  EXPECT_EQ(hook_cuMemGetInfo_v2(nullptr, &total), CUDA_SUCCESS);
  EXPECT_EQ(total, 256 * kMiB);
  EXPECT_EQ(hook_cuMemGetInfo_v2(nullptr, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(hook_cuDeviceTotalMem_v2(nullptr, 0), CUDA_ERROR_INVALID_VALUE);
  Fake().fail["cuMemGetInfo_v2"] = CUDA_ERROR_LAUNCH_FAILED;
  size_t free = 5;
  EXPECT_EQ(hook_cuMemGetInfo_v2(&free, &total), CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_EQ(free, 5u);
}

// --- VMM ---

TEST_F(HooksTest, PhysicalMemoryLivesAsLongAsAnythingRefersToIt) {
  CUmemAllocationProp prop{};
  prop.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  CUmemGenericAllocationHandle handle, again;
  ASSERT_EQ(hook_cuMemCreate(&handle, 20 * kMiB, &prop, 0), CUDA_SUCCESS);
  EXPECT_EQ(ChargedAs(Kind::kVmm), 20 * kMiB);
  constexpr CUdeviceptr kAt = 0x5000000000, kAlias = 0x6000000000;
  ASSERT_EQ(hook_cuMemMap(kAt, 20 * kMiB, 0, handle, 0), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuMemMap(kAlias, 20 * kMiB, 0, handle, 0), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuMemRelease(handle), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 20 * kMiB) << "released, but mapped";
  ASSERT_EQ(hook_cuMemRetainAllocationHandle(&again, reinterpret_cast<void*>(kAt + 4096)),
            CUDA_SUCCESS);
  ASSERT_EQ(hook_cuMemUnmap(kAt, 20 * kMiB), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuMemUnmap(kAlias, 20 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 20 * kMiB) << "unmapped, but retained";
  ASSERT_EQ(hook_cuMemRelease(again), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 0u);
  EXPECT_EQ(hook_cuMemRelease(again), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(Charged(), 0u);
}

TEST_F(HooksTest, CreateMapReleaseInALoopDoesNotGetMore) {
  CUmemAllocationProp prop{};
  prop.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  CUdeviceptr at = 0x5000000000;
  unsigned got = 0;
  for (; got < 100; ++got, at += 30 * kMiB) {
    CUmemGenericAllocationHandle handle;
    if (hook_cuMemCreate(&handle, 30 * kMiB, &prop, 0) != CUDA_SUCCESS) break;
    ASSERT_EQ(hook_cuMemMap(at, 30 * kMiB, 0, handle, 0), CUDA_SUCCESS);
    ASSERT_EQ(hook_cuMemRelease(handle), CUDA_SUCCESS);
  }
  EXPECT_EQ(got, 8u);
  // One call may unmap them all.
  ASSERT_EQ(hook_cuMemUnmap(0x5000000000, 30 * kMiB * got), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 0u);
}

TEST_F(HooksTest, AFailedMapOrUnmapChangesNothing) {
  CUmemAllocationProp prop{};
  prop.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  CUmemGenericAllocationHandle handle;
  ASSERT_EQ(hook_cuMemCreate(&handle, 2 * kMiB, &prop, 0), CUDA_SUCCESS);
  Fake().fail["cuMemMap"] = CUDA_ERROR_INVALID_VALUE;
  EXPECT_EQ(hook_cuMemMap(0x5000000000, 2 * kMiB, 0, handle, 0), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(hook_cuMemMap(0x5000000000, 2 * kMiB, 0, handle, 0), CUDA_SUCCESS);
  Fake().fail["cuMemRelease"] = CUDA_ERROR_INVALID_VALUE;
  EXPECT_EQ(hook_cuMemRelease(handle), CUDA_ERROR_INVALID_VALUE);
  Fake().fail["cuMemUnmap"] = CUDA_ERROR_INVALID_VALUE;
  EXPECT_EQ(hook_cuMemUnmap(0x5000000000, 2 * kMiB), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(Charged(), 2 * kMiB);
  EXPECT_EQ(hook_cuMemUnmap(0x5000000000, 2 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(hook_cuMemRelease(handle), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 0u);
}

// --- pools ---

TEST_F(HooksTest, APoolIsChargedWhatItReserves) {
  CUdeviceptr p;
  ASSERT_EQ(hook_cuMemAllocAsync(&p, kMiB, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(ChargedAs(Kind::kPool), 32 * kMiB);
  ASSERT_EQ(hook_cuMemFreeAsync(p, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 32 * kMiB) << "freed in stream order, still reserved";
  ASSERT_EQ(hook_cuStreamSynchronize(nullptr), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 0u) << "given back when the program waited";
}

TEST_F(HooksTest, APoolThatWouldOutgrowTheShareIsRefused) {
  CUdeviceptr p[9] = {};
  for (int i = 0; i < 8; ++i)
    ASSERT_EQ(hook_cuMemAllocAsync(&p[i], 31 * kMiB, nullptr), CUDA_SUCCESS) << i;
  EXPECT_EQ(Charged(), 256 * kMiB);
  EXPECT_EQ(hook_cuMemAllocAsync(&p[8], 31 * kMiB, nullptr), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(p[8], 0u);
  EXPECT_LE(Fake().used_bytes, 256 * kMiB);
  EXPECT_EQ(daemon.Events().size(), 1u);
}

TEST_F(HooksTest, AStepOverTheLimitIsUndone) {
  Fake().pools[DefaultPool(0)].step = 300 * kMiB;
  CUdeviceptr p = 77;
  EXPECT_EQ(hook_cuMemAllocAsync(&p, kMiB, nullptr), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(p, 77u);
  EXPECT_EQ(Fake().pooled.size(), 0u);
  EXPECT_EQ(Fake().used_bytes, 0u) << "trimmed again";
  EXPECT_EQ(Charged(), 0u);
}

TEST_F(HooksTest, PendingFreesAreWaitedForBeforeARefusal) {
  CUdeviceptr p, q;
  Fake().pools[DefaultPool(0)].keeps = true;
  ASSERT_EQ(hook_cuMemAllocAsync(&p, 200 * kMiB, nullptr), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuMemFreeAsync(p, nullptr), CUDA_SUCCESS);
  // Linear memory needs what the pool holds without need.
  ASSERT_EQ(hook_cuMemAlloc_v2(&q, 200 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 200 * kMiB);
  EXPECT_EQ(daemon.Events().size(), 0u);
}

TEST_F(HooksTest, AUserPoolIsFollowedToItsEnd) {
  CUmemPoolProps props{};
  props.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  CUmemoryPool pool;
  ASSERT_EQ(hook_cuMemPoolCreate(&pool, &props), CUDA_SUCCESS);
  CUdeviceptr p;
  ASSERT_EQ(hook_cuMemAllocFromPoolAsync(&p, 40 * kMiB, pool, nullptr), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 64 * kMiB);
  ASSERT_EQ(hook_cuMemPoolDestroy(pool), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 40 * kMiB) << "the allocation lives on";
  // Its pool is gone in the fake, which therefore books the free on a fresh one.
  hook_cuMemFreeAsync(p, nullptr);
  EXPECT_EQ(Charged(), 0u);
}

TEST_F(HooksTest, AFailedPoolAllocationLeavesThePoolAsItWas) {
  Fake().fail["cuMemAllocAsync"] = CUDA_ERROR_INVALID_VALUE;
  CUdeviceptr p;
  EXPECT_EQ(hook_cuMemAllocAsync(&p, 40 * kMiB, nullptr), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(Charged(), 0u);
}

TEST_F(HooksTest, APooledPointerMayBeFreedSynchronously) {
  CUdeviceptr p;
  ASSERT_EQ(hook_cuMemAllocAsync(&p, kMiB, nullptr), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuMemFree_v2(p), CUDA_SUCCESS);
  hook_cuStreamSynchronize(nullptr);
  EXPECT_EQ(Charged(), 0u);
}

// --- imports ---

TEST_F(HooksTest, MemoryOfAnotherProcessIsChargedOnceHoweverOftenItIsOpened) {
  CUipcMemHandle handle{};
  const uint64_t bytes = 30 * kMiB;
  memcpy(handle.reserved, &bytes, sizeof(bytes));
  CUdeviceptr p, q;
  ASSERT_EQ(hook_cuIpcOpenMemHandle_v2(&p, handle, 1), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuIpcOpenMemHandle_v2(&q, handle, 1), CUDA_SUCCESS);
  EXPECT_EQ(p, q);
  EXPECT_EQ(ChargedAs(Kind::kImport), bytes);
  EXPECT_EQ(hook_cuIpcCloseMemHandle(p), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), bytes);
  EXPECT_EQ(hook_cuIpcCloseMemHandle(q), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 0u);
}

TEST_F(HooksTest, ImportedMemoryBeyondTheShareIsClosedAgain) {
  CUipcMemHandle handle{};
  const uint64_t bytes = 300 * kMiB;
  memcpy(handle.reserved, &bytes, sizeof(bytes));
  CUdeviceptr p = 77;
  EXPECT_EQ(hook_cuIpcOpenMemHandle_v2(&p, handle, 1), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(p, 77u);
  EXPECT_EQ(Charged(), 0u);
}

// --- contexts ---

struct ContextsTest : HooksTest {
  ContextsTest() : HooksTest({{1, 1000 * kMiB, 300 * kMiB}}) {}
};

TEST_F(ContextsTest, EachContextIsChargedItsFigure) {
  EXPECT_EQ(ChargedAs(Kind::kContext), 300 * kMiB);
  CUcontext second, third, fourth = nullptr;
  ASSERT_EQ(hook_cuCtxCreate_v2(&second, 0, 0), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuCtxCreate_v2(&third, 0, 0), CUDA_SUCCESS);
  EXPECT_EQ(hook_cuCtxCreate_v2(&fourth, 0, 0), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(fourth, nullptr);
  ASSERT_EQ(hook_cuCtxDestroy_v2(third), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 600 * kMiB);
}

TEST_F(ContextsTest, AContextTakesWhatWasInItWithIt) {
  CUdeviceptr p, q;
  ASSERT_EQ(hook_cuMemAlloc_v2(&p, 10 * kMiB), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuMemAlloc_v2(&q, 20 * kMiB), CUDA_SUCCESS);
  Fake().fail["cuCtxDestroy_v2"] = CUDA_ERROR_INVALID_VALUE;
  EXPECT_EQ(hook_cuCtxDestroy_v2(context), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(Charged(), 330 * kMiB);
  EXPECT_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 0u);
  EXPECT_EQ(g_process.live.Count(), 0u);
}

TEST_F(ContextsTest, StacksAreChargedForEveryThread) {
  // 100 multiprocessors of 1024 threads: a KiB of stack is 100 MiB of the device.
  Fake().limits[CU_LIMIT_STACK_SIZE] = 1024;
  EXPECT_EQ(hook_cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 16 << 10), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(hook_cuCtxSetLimit(CU_LIMIT_STACK_SIZE, SIZE_MAX), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(Fake().limits[CU_LIMIT_STACK_SIZE], 1024u);
  ASSERT_EQ(hook_cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 4 << 10), CUDA_SUCCESS);
  EXPECT_EQ(ChargedAs(Kind::kContext), 600 * kMiB);
  // What the driver rounds up to is charged, too.
  ASSERT_EQ(hook_cuCtxSetLimit(CU_LIMIT_STACK_SIZE, (4 << 10) + 1), CUDA_SUCCESS);
  EXPECT_EQ(ChargedAs(Kind::kContext), 650 * kMiB);
  Fake().fail["cuCtxSetLimit"] = CUDA_ERROR_UNKNOWN;
  EXPECT_EQ(hook_cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 6 << 10), CUDA_ERROR_UNKNOWN);
  EXPECT_EQ(ChargedAs(Kind::kContext), 650 * kMiB);
  // Back, and below the default, which is part of what a context costs.
  ASSERT_EQ(hook_cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 2 << 10), CUDA_SUCCESS);
  EXPECT_EQ(ChargedAs(Kind::kContext), 400 * kMiB);
  ASSERT_EQ(hook_cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 0), CUDA_SUCCESS);
  EXPECT_EQ(ChargedAs(Kind::kContext), 300 * kMiB);
  ASSERT_EQ(hook_cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 1 << 10), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 0u);
}

TEST_F(ContextsTest, ThePrimaryContextIsChargedOnceHoweverOftenItIsRetained) {
  CUcontext primary;
  for (int i = 0; i < 3; ++i) ASSERT_EQ(hook_cuDevicePrimaryCtxRetain(&primary, 0), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 600 * kMiB);
  for (int i = 0; i < 2; ++i) ASSERT_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 600 * kMiB);
  ASSERT_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 300 * kMiB);
  ASSERT_EQ(hook_cuDevicePrimaryCtxRetain(&primary, 0), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 600 * kMiB);
}

// Two releases at once: the first to be answered, after which the context stays or is gone, takes
// nothing from what the other has said.
TEST_F(ContextsTest, ReleasesOfThePrimaryContextOverlap) {
  for (const int others : {1, 2}) {
    CUcontext primary;
    for (int i = 0; i < 2; ++i) ASSERT_EQ(hook_cuDevicePrimaryCtxRetain(&primary, 0), CUDA_SUCCESS);
    const uint32_t slot = PrimarySlot(0);
    ASSERT_NE(slot, 0u);
    EXPECT_TRUE(ContextUse(slot));
    std::promise<void> go_on;
    std::promise<void> inside;
    std::atomic<bool> first = true;
    Fake().during = [&](const std::string& name) {
      if (name != "cuDevicePrimaryCtxRelease_v2" || !first.exchange(false)) return;
      inside.set_value();
      go_on.get_future().wait();
    };
    std::thread slow([&] {
      const CUresult r = hook_cuDevicePrimaryCtxRelease_v2(0);
      EXPECT_EQ(r, others == 1 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT);
    });
    inside.get_future().wait();
    for (int i = 0; i < others; ++i) ASSERT_EQ(hook_cuDevicePrimaryCtxRelease_v2(0), CUDA_SUCCESS);
    EXPECT_FALSE(ContextUse(slot));
    go_on.set_value();
    slow.join();
    Fake().during = nullptr;
    EXPECT_EQ(g_process.context[slot].users, 0u);
    EXPECT_EQ(Charged(), 300 * kMiB);
  }
}

TEST_F(ContextsTest, AFailedContextCostsNothing) {
  Fake().fail["cuCtxCreate_v2"] = CUDA_ERROR_UNKNOWN;
  CUcontext other;
  EXPECT_EQ(hook_cuCtxCreate_v2(&other, 0, 0), CUDA_ERROR_UNKNOWN);
  EXPECT_EQ(Charged(), 300 * kMiB);
}

TEST_F(ContextsTest, AContextThatNobodySawMadeIsTakenIn) {
  // As through cuGetExportTable.
  CUcontext unseen = reinterpret_cast<CUcontext>(uint64_t{0x42000});
  Fake().contexts[unseen] = 0;
  Fake().current = unseen;
  CUdeviceptr p;
  ASSERT_EQ(hook_cuMemAlloc_v2(&p, kMiB), CUDA_SUCCESS);
  EXPECT_EQ(Charged(), 601 * kMiB);
}

TEST_F(ContextsTest, NegativeOverheadGivesBackWhatTheFigureWasTooHigh) {
  daemon.policy().device[0].overhead_bytes = -100 * static_cast<int64_t>(kMiB);
  CUdeviceptr p;
  EXPECT_EQ(hook_cuMemAlloc_v2(&p, 800 * kMiB), CUDA_SUCCESS);
  size_t free, total;
  hook_cuMemGetInfo_v2(&free, &total);
  EXPECT_EQ(free, 0u);
}

// --- devices ---

struct DevicesTest : HooksTest {
  // Three devices; shares of the third and the first.
  DevicesTest() : HooksTest({{3, 256 * kMiB, 0, 2}, {1, 128 * kMiB, 0, 0}}, 3) {}
};

TEST_F(DevicesTest, TheDriverIsStartedWithTheTenantsDevicesOnly) {
  EXPECT_EQ(Fake().visible,
            "GPU-03030303-0303-0303-0303-030303030303,GPU-01010101-0101-0101-0101-010101010101");
  EXPECT_EQ(getenv("CUDA_VISIBLE_DEVICES"), nullptr) << "the program's environment is its own";
}

TEST_F(DevicesTest, ADeviceWithoutAShareDoesNotExist) {
  int count = 0;
  ASSERT_EQ(hook_cuDeviceGetCount(&count), CUDA_SUCCESS);
  EXPECT_EQ(count, 2);
  CUdevice device = 77;
  ASSERT_EQ(hook_cuDeviceGet(&device, 1), CUDA_SUCCESS);
  EXPECT_EQ(device, 2);
  device = 77;
  EXPECT_EQ(hook_cuDeviceGet(&device, 2), CUDA_ERROR_INVALID_DEVICE);
  EXPECT_EQ(hook_cuDeviceGetByPCIBusId(&device, "1"), CUDA_ERROR_INVALID_DEVICE);
  EXPECT_EQ(device, 77);
  EXPECT_EQ(hook_cuDeviceGetByPCIBusId(&device, "2"), CUDA_SUCCESS);
  CUuuid uuid;
  EXPECT_EQ(hook_cuDeviceGetUuid_v2(&uuid, 1), CUDA_ERROR_INVALID_DEVICE);
  CUcontext other = nullptr;
  EXPECT_EQ(hook_cuCtxCreate_v2(&other, 0, 1), CUDA_ERROR_INVALID_DEVICE);
  size_t bytes;
  EXPECT_EQ(hook_cuDeviceTotalMem_v2(&bytes, 1), CUDA_ERROR_INVALID_DEVICE);
  EXPECT_EQ(daemon.Events().back()->cause, static_cast<uint16_t>(EventCause::kForeignDevice));
}

TEST_F(DevicesTest, EachDeviceHasItsOwnBook) {
  CUdeviceptr p;
  ASSERT_EQ(hook_cuMemAlloc_v2(&p, 100 * kMiB), CUDA_SUCCESS);  // on ordinal 0: the second share
  EXPECT_EQ(daemon.BookBytes(1), 100 * kMiB);
  EXPECT_EQ(daemon.BookBytes(0), 0u);
  CUcontext third;
  ASSERT_EQ(hook_cuCtxCreate_v2(&third, 0, 2), CUDA_SUCCESS);
  CUdeviceptr q;
  ASSERT_EQ(hook_cuMemAlloc_v2(&q, 200 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(daemon.BookBytes(0), 200 * kMiB);
  size_t total;
  ASSERT_EQ(hook_cuDeviceTotalMem_v2(&total, 2), CUDA_SUCCESS);
  EXPECT_EQ(total, 256 * kMiB);
}

TEST(VisibleDevices, TheProgramsOwnChoiceAndOrderAreKept) {
  FakeDaemon daemon({{1, kMiB, 0, 0}, {2, kMiB, 0, 1}});
  const struct {
    const char* asked;
    const char* shown;
  } cases[] = {
      {"1,0", "GPU-02020202-0202-0202-0202-020202020202,GPU-01010101-0101-0101-0101-010101010101"},
      {"1", "GPU-02020202-0202-0202-0202-020202020202"},
      {"GPU-0202", "GPU-02020202-0202-0202-0202-020202020202"},
      {"5,1", "GPU-02020202-0202-0202-0202-020202020202"},
      {"-1,0", ""},
      {"", ""},
  };
  for (const auto& c : cases) {
    testing::InstallFakeDriver(2);
    testing::FreshProcess(daemon.socket());
    setenv("CUDA_VISIBLE_DEVICES", c.asked, 1);
    EXPECT_EQ(hook_cuInit(0), CUDA_SUCCESS);
    EXPECT_EQ(Fake().visible, c.shown) << c.asked;
    EXPECT_STREQ(getenv("CUDA_VISIBLE_DEVICES"), c.asked);
  }
  unsetenv("CUDA_VISIBLE_DEVICES");
  testing::FreshProcess("");
}

// --- submissions ---

TEST_F(HooksTest, LaunchesAreCountedInTheSlot) {
  for (int i = 0; i < 5; ++i)
    ASSERT_EQ(hook_cuLaunchKernel(nullptr, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr),
              CUDA_SUCCESS);
  EXPECT_EQ(daemon.usage().slot[1].launches, 5u);
}

TEST_F(HooksTest, AShutGateHoldsALaunchUntilItOpens) {
  region::U32& gate = daemon.policy().device[0].gate.word;
  daemon.Beat();  // or the gate would rightly take the daemon for dead
  gate = region::kGateShut;
  std::atomic<bool> through{false};
  std::thread launcher([&] {
    hook_cuLaunchKernel(nullptr, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr);
    through = true;
  });
  while (daemon.usage().meter[1].device[0].waiters == 0 && !through) {
    daemon.Beat();
    std::this_thread::yield();
  }
  EXPECT_FALSE(through);
  gate = 0;
  Futex(&gate, FUTEX_WAKE, INT32_MAX, nullptr);
  launcher.join();
  EXPECT_EQ(daemon.usage().slot[1].launches, 1u);
}

TEST_F(HooksTest, ADeadDaemonsGateOpensByItself) {
  daemon.policy().device[0].gate.word = region::kGateShut;
  daemon.Die();
  EXPECT_EQ(hook_cuLaunchKernel(nullptr, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr),
            CUDA_SUCCESS);
}

}  // namespace
}  // namespace divvy::shim
