// Gate and meter against a GPU that runs only as far as the test says: what is queued, when a
// submission waits and what ends its wait, what divvyd would read from the counters.
#include "src/shim/meter.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <thread>

#include "src/shim/attach.h"
#include "src/shim/contexts.h"
#include "src/shim/driver.h"
#include "src/shim/gate.h"
#include "src/shim/generated/hooks.h"
#include "src/shim/testing/fake_daemon.h"
#include "src/shim/testing/fake_driver.h"
#include "src/shim/testing/fake_gpu.h"
#include "src/shim/testing/gate_reader.h"

namespace divvy::shim {
namespace {

using arbiter::Progress;
using testing::FakeDaemon;
using testing::FakeGpu;
using testing::KernelOf;
using testing::kForever;
using testing::kUs;
using testing::Until;

CUstream StreamAt(unsigned i) { return reinterpret_cast<CUstream>(uint64_t{0x10000} + 64 * i); }

CUresult Launch(CUstream stream, uint64_t ns) {
  return hook_cuLaunchKernel(KernelOf(ns), 1, 1, 1, 1, 1, 1, 0, stream, nullptr, nullptr);
}
uint64_t KeyOf(uint64_t ns) { return KernelOperation(KernelOf(ns), 1, 1, 1, CU_STREAM_LEGACY).key; }

// A tenant of one device whose gate is metered with 1 ms in flight, a marker each 250 us.
struct MeterTest : ::testing::Test {
  explicit MeterTest(unsigned devices = 1, bool memory_operations = true)
      : gpu(devices, memory_operations), daemon(Shares(devices)) {
    testing::FreshProcess(daemon.socket());
    for (unsigned d = 0; d < devices; ++d) Gate(region::kGateMetered, 1000, 250, kForever, d);
    context = testing::MakeCurrentContext();
  }
  ~MeterTest() override {
    gpu.RunAll();
    EXPECT_EQ(g_process.degraded, 0u);
    EXPECT_EQ(gpu.misplaced(), 0u);
    EXPECT_FALSE(Read().garbage);
    testing::FreshProcess("");
  }
  static std::vector<testing::FakeShare> Shares(unsigned devices) {
    std::vector<testing::FakeShare> shares;
    for (unsigned d = 0; d < devices; ++d)
      shares.push_back({static_cast<uint8_t>(d + 1), uint64_t{1} << 30});
    return shares;
  }
  void Gate(uint32_t bits, uint32_t bound_us, uint32_t space_us, uint32_t patience_us = kForever,
            unsigned device = 0) {
    testing::SetGate(daemon, device, bits, bound_us, space_us, patience_us);
  }
  // As divvyd reads it.
  Progress Read(unsigned device = 0, unsigned slot = 1) {
    return testing::ReadProgress(daemon.meter(slot, device));
  }
  region::Meter& meter() { return daemon.meter(); }
  void Learn(uint64_t ns, CUstream stream = StreamAt(99)) {
    ASSERT_EQ(Launch(stream, ns), CUDA_SUCCESS);
    gpu.RunAll();
    hook_cuStreamQuery(stream);  // looks
    ASSERT_NEAR(static_cast<double>(g_process.estimates.load()->Get(KeyOf(ns))),
                static_cast<double>(ns), 2.0);
  }

  FakeGpu gpu;
  FakeDaemon daemon;
  CUcontext context = nullptr;
};

// --- lone and free gates ---

TEST_F(MeterTest, WhereNobodyElseHasAShareNothingIsMarked) {
  Gate(0, 0, 0);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(Launch(StreamAt(0), 50 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(gpu.Writes(), 0u);
  EXPECT_EQ(gpu.Launched(), 1000u);
  EXPECT_EQ(daemon.usage().slot[1].launches, 1000u);
}

TEST_F(MeterTest, ALoneGateMetersEverySoOften) {
  Learn(50 * kUs);
  Gate(0, 2000, 500);
  const unsigned before = gpu.Writes();
  const uint64_t done = Read().issued;
  gpu.Free(true);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(Launch(StreamAt(0), 50 * kUs), CUDA_SUCCESS);
  // 500 us of 50 us kernels: one in ten, a few more for the pattern's sake; two markers each when
  // the queue is empty.
  EXPECT_GE(gpu.Writes() - before, 2 * 1000 / 10u);
  EXPECT_LE(gpu.Writes() - before, 2 * 1000 / 7u);
  // All are accounted for but those since the last marker.
  EXPECT_GE(Read().issued - done, 989u);
  EXPECT_EQ(Read().done, Read().issued);
}

TEST_F(MeterTest, ALoneTenantMayNotRunFarAhead) {
  Learn(50 * kUs);
  Gate(0, 2000, 500);
  std::thread runs([&] {
    for (int i = 0; i < 200; ++i) ASSERT_EQ(Launch(StreamAt(0), 50 * kUs), CUDA_SUCCESS);
  });
  Until([&] { return meter().waiters == 1; });
  // Two milliseconds are forty kernels; those on the way to the next look come on top.
  EXPECT_GE(gpu.Launched(), 30u);
  EXPECT_LE(gpu.Launched(), 55u);
  gpu.Free(true);
  gpu.RunAll();
  runs.join();
  EXPECT_EQ(meter().forced, 0u);
}

TEST_F(MeterTest, ANewBoundIsNoticedWhileTheWordStaysZero) {
  Gate(0, 0, 0);
  gpu.Free(true);
  for (int i = 0; i < 10; ++i) ASSERT_EQ(Launch(StreamAt(0), 50 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(gpu.Writes(), 0u);
  daemon.gate().bound_us = 2000;
  daemon.gate().space_us = 500;
  for (int i = 0; i < 200; ++i) ASSERT_EQ(Launch(StreamAt(0), 50 * kUs), CUDA_SUCCESS);
  EXPECT_GT(gpu.Writes(), 0u);
  const unsigned before = gpu.Writes();
  daemon.gate().bound_us = 0;
  for (int i = 0; i < 500; ++i) ASSERT_EQ(Launch(StreamAt(0), 50 * kUs), CUDA_SUCCESS);
  EXPECT_LE(gpu.Writes() - before, 2u);
}

// --- metered ---

TEST_F(MeterTest, TheFirstLaunchHasAStartAndADoneMarker) {
  ASSERT_EQ(Launch(StreamAt(0), 50 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(gpu.Words(StreamAt(0)), (std::vector<uint64_t>{MarkerWord(0, MarkerKind::kStart),
                                                           MarkerWord(1, MarkerKind::kDone)}));
  EXPECT_EQ(gpu.registered(), 1u);
  EXPECT_EQ(meter().lanes, 1u);
  EXPECT_EQ(meter().operations, 1u);
  Progress p = Read();
  EXPECT_EQ(p.issued, 1u);
  EXPECT_EQ(p.done, 0u);
  EXPECT_FALSE(p.begun);
  gpu.Run(StreamAt(0), 0);  // the start marker
  EXPECT_TRUE(Read().begun);
  gpu.RunAll();
  EXPECT_EQ(Read().done, 1u);
  // Again from idle.
  ASSERT_EQ(Launch(StreamAt(0), 50 * kUs), CUDA_SUCCESS);
  EXPECT_FALSE(Read().begun);
  EXPECT_EQ(Read().issued, 2u);
}

TEST_F(MeterTest, AnUnknownOperationIsTimed) {
  Learn(70 * kUs);
  EXPECT_EQ(meter().in_flight_ns, 0u);
}

TEST_F(MeterTest, WhatRanIsCountedByTheGpusClock) {
  // Unknown at first: the timed one stands for those that came before it was known.
  for (int i = 0; i < 3; ++i) ASSERT_EQ(Launch(StreamAt(0), 70 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(meter().ran_ns, 0u);  // nothing has ended
  gpu.RunAll();
  hook_cuStreamQuery(StreamAt(0));
  EXPECT_NEAR(static_cast<double>(meter().ran_ns), 3 * 70 * kUs, 10);
  // Known: so many times what it takes, whenever that is seen.
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(Launch(StreamAt(0), 70 * kUs), CUDA_SUCCESS);
    if (i % 7 != 0) continue;
    gpu.RunAll();
    hook_cuStreamQuery(StreamAt(0));
  }
  hook_cuStreamSynchronize(StreamAt(0));
  EXPECT_NEAR(static_cast<double>(meter().ran_ns), 203 * 70 * kUs, 1000);
}

// What an operation is taken to have run: the mean of `lengths`' samples' verdicts.
double OwnOfTimed(const std::function<Timed(int)>& timed, int count) {
  auto table = std::make_unique<EstimateTable>();
  table->Use(KeyOf(1));
  double sum = 0;
  for (int i = 0; i < count; ++i) {
    const Learnt learnt = table->Learn(KeyOf(1), timed(i));
    sum += static_cast<double>(learnt.ns) - static_cast<double>(learnt.over_ns);
  }
  return sum / count;
}

double OwnOf(const std::function<uint64_t(int)>& length, int count) {
  return OwnOfTimed([&](int i) { return Timed{length(i)}; }, count);
}

TEST(Estimates, WhatTakesTheSameTimeIsKnownThroughOthersSlices) {
  // Two in three have others' time in them, the first among them.
  const auto sliced = [](int i) {
    return 10000 * kUs + (i % 3 != 1 ? 1100 * kUs * (1 + i % 5) : 0);
  };
  EXPECT_NEAR(OwnOf(sliced, 600), 10000.0 * kUs, 100.0 * kUs);
  EXPECT_EQ(OwnOf([](int) { return 260 * kUs; }, 100), 260.0 * kUs);
}

TEST(Estimates, AShorterOneSaysThatTheFirstHeldOthersTime) {
  // One in nine is whole, the last of them.
  const auto sliced = [](int i) {
    return i % 9 == 8 ? 10000 * kUs : (13000 + i * 7919 % 5000) * kUs;
  };
  EXPECT_NEAR(OwnOf(sliced, 9), 10000.0 * kUs, 1.0 * kUs);
  // A few operations of 1 ms between others' slices of 1.06 ms.
  const uint64_t few[] = {3700, 2119, 1059, 2119, 2119, 3180, 2119, 2119, 3180, 2119};
  EXPECT_NEAR(OwnOf([&](int i) { return few[i] * kUs; }, 10), 1059.0 * kUs, 1.0 * kUs);
}

TEST(Estimates, WhatHadCompanyMayBeLongForIt) {
  // One in five is whole; by the others alone nobody could tell whether they differ by themselves.
  const auto length = [](int i) { return (i % 5 == 4 ? 1000 : 2060 + i % 4 * 530) * kUs; };
  const auto beside = [&](int i) { return Timed{.ns = length(i), .company = i % 5 != 4}; };
  EXPECT_NEAR(OwnOfTimed(beside, 1000), 1000.0 * kUs, 10.0 * kUs);
  EXPECT_GT(OwnOf(length, 1000), 1300.0 * kUs);
}

TEST(Estimates, ASwitchIsTakenOffWhereThereWasOne) {
  constexpr uint64_t kSwitch = 60 * kUs;
  const auto own = [&](uint64_t length, auto&& start, auto&& switched) {
    return OwnOfTimed(
               [&](int i) {
                 return Timed{.ns = length + (switched(i) ? kSwitch : 0),
                              .start = start(i),
                              .switch_ns = kSwitch};
               },
               400) /
           static_cast<double>(length);
  };
  const auto always = [](int) { return true; };
  for (const uint64_t length : {20 * kUs, 200 * kUs, 1000 * kUs, 2000 * kUs, 20000 * kUs}) {
    EXPECT_NEAR(own(
                    length, [](int) { return Timed::kFromOthers; }, always),
                1, 1e-9)
        << length;
    // The daemon did not see who was there, at first or now and then.
    for (const int period : {400, 10})
      EXPECT_NEAR(
          own(
              length, [&](int i) { return i % period == 0 ? Timed::kIdle : Timed::kFromOthers; },
              always),
          1, 0.005)
          << length;
    // It says that there was one where there was none, at first or now and then.
    for (const int period : {400, 10})
      EXPECT_NEAR(own(
                      length, [](int) { return Timed::kFromOthers; },
                      [&](int i) { return i % period != 0; }),
                  1, 0.005)
          << length;
    // Most are queued behind others of their process.
    EXPECT_NEAR(own(
                    length, [](int i) { return i % 8 == 0 ? Timed::kFromOthers : Timed::kQueued; },
                    [](int i) { return i % 16 == 0; }),
                1, 0.001)
        << length;
  }
}

TEST(Estimates, WhatChangesIsFollowed) {
  EXPECT_NEAR(OwnOf([](int i) { return (i < 500 ? 100 : 300) * kUs; }, 1000), 200.0 * kUs,
              15.0 * kUs);
  EXPECT_NEAR(OwnOf([](int i) { return (i < 500 ? 300 : 100) * kUs; }, 1000), 200.0 * kUs,
              15.0 * kUs);
}

TEST(Estimates, WhatDiffersByItselfLeansToTheShortSide) {
  const double mean = OwnOf([](int i) { return (100 + i * 7919 % 201) * kUs; }, 2000);
  EXPECT_GT(mean, 130.0 * kUs);
  EXPECT_LT(mean, 200.0 * kUs);
}

TEST_F(MeterTest, OthersTimeInATimedOperationIsNotItsOwn) {
  Learn(400 * kUs);
  const uint64_t before = meter().ran_ns;
  // Each eighth is timed; half of these take three times as long, for others have the device.
  for (int i = 0; i < 64; ++i) {
    ASSERT_EQ(Launch(StreamAt(0), 400 * kUs), CUDA_SUCCESS);
    if (i % 16 == 15) {
      gpu.Step(StreamAt(0));  // the start marker
      gpu.Step(StreamAt(0));  // the event before it
      gpu.Queue(StreamAt(50), {FakeGpu::Item::kKernel, 800 * kUs});
      gpu.Run(StreamAt(50));
    }
    gpu.RunAll();
    hook_cuStreamSynchronize(StreamAt(0));
    if (i == 15) {
      EXPECT_GT(g_process.estimates.load()->Get(KeyOf(400 * kUs)), 500 * kUs);
    }
  }
  // What was counted too much comes off what is counted next.
  const auto owed = static_cast<double>(MeterIfAny(0)->ran_owed_ns.load());
  EXPECT_NEAR(static_cast<double>(meter().ran_ns - before) + owed, 64 * 400 * kUs,
              64 * 400 * kUs * 0.01);
}

TEST_F(MeterTest, TheWayOutOfOtherHandsIsNotItsOwn) {
  Learn(200 * kUs);
  daemon.gate().switch_ns = 60 * kUs;
  const auto ran = [&](unsigned times, bool company) {
    const uint64_t before = meter().ran_ns;
    for (unsigned i = 0; i < times; ++i) {
      if (company) daemon.gate().company_ns = MonotonicNs();
      EXPECT_EQ(Launch(StreamAt(0), 200 * kUs), CUDA_SUCCESS);
      gpu.Step(StreamAt(0));  // the start marker
      if (company && gpu.Kernels(StreamAt(0)) != 0) {
        gpu.Step(StreamAt(0));  // the event before it, where it is timed
        gpu.Queue(StreamAt(50), {FakeGpu::Item::kKernel, 60 * kUs});
        gpu.Run(StreamAt(50));
      }
      gpu.RunAll();
      hook_cuStreamSynchronize(StreamAt(0));
    }
    return static_cast<double>(meter().ran_ns - before);
  };
  EXPECT_NEAR(ran(64, true), 64 * 200 * kUs, 64 * 200 * kUs * 0.01);
  // Nobody came since: nothing to take off.
  EXPECT_NEAR(ran(64, false), 64 * 200 * kUs, 64 * 200 * kUs * 0.01);
}

TEST_F(MeterTest, StreamsSideBySideAreNotCountedTwice) {
  Learn(100 * kUs, StreamAt(0));
  const uint64_t before = meter().ran_ns;
  for (int i = 0; i < 4; ++i)
    for (int s = 0; s < 2; ++s) ASSERT_EQ(Launch(StreamAt(s), 100 * kUs), CUDA_SUCCESS);
  for (int i = 0; i < 4; ++i) {
    for (int s = 0; s < 2; ++s) {
      gpu.Run(StreamAt(s));
      hook_cuStreamQuery(StreamAt(s));
    }
  }
  const auto ran = static_cast<double>(meter().ran_ns - before);
  EXPECT_GT(ran, 350.0 * kUs);
  EXPECT_LE(ran, 550.0 * kUs);
}

TEST_F(MeterTest, UnknownOperationsDoNotRunAhead) {
  std::thread runs([&] {
    for (int i = 0; i < 20; ++i) ASSERT_EQ(Launch(StreamAt(0), 30000 * kUs), CUDA_SUCCESS);
  });
  Until([&] { return meter().waiters == 1; });
  EXPECT_LE(gpu.Launched(), 4u);
  gpu.Run(StreamAt(0));
  Until([&] { return g_process.estimates.load()->Get(KeyOf(30000 * kUs)) != 0; });
  // Known now: one at a time.
  while (gpu.Kernels(StreamAt(0)) != 0) gpu.Run(StreamAt(0));
  Until([&] { return gpu.Kernels(StreamAt(0)) == 1 && meter().waiters == 1; });
  EXPECT_EQ(gpu.Kernels(StreamAt(0)), 1u);
  gpu.Free(true);
  gpu.RunAll();
  runs.join();
}

TEST_F(MeterTest, MarkersAreSpacedByEstimatedWork) {
  Learn(50 * kUs);
  for (int i = 0; i < 20; ++i) ASSERT_EQ(Launch(StreamAt(0), 50 * kUs), CUDA_SUCCESS);
  std::vector<uint64_t> wanted = {MarkerWord(0, MarkerKind::kStart),
                                  MarkerWord(1, MarkerKind::kDone)};
  for (uint64_t n = 6; n <= 16; n += 5) wanted.push_back(MarkerWord(n, MarkerKind::kDone));
  EXPECT_EQ(gpu.Words(StreamAt(0)), wanted);
  // A dry queue is told at once.
  gpu.RunAll();
  EXPECT_EQ(Read().done + 4, Read().issued);
  ASSERT_EQ(Launch(StreamAt(0), 50 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(gpu.Words(StreamAt(0)).back(), MarkerWord(21, MarkerKind::kDone));
}

TEST_F(MeterTest, TheBoundHoldsWhatIsInFlight) {
  Learn(50 * kUs);
  std::thread runs([&] {
    for (int i = 0; i < 100; ++i) ASSERT_EQ(Launch(StreamAt(0), 50 * kUs), CUDA_SUCCESS);
  });
  for (unsigned ran = 0; ran < 80; ran += 5) {
    Until([&] { return meter().waiters == 1 && gpu.Kernels(StreamAt(0)) > 15; });
    EXPECT_LE(gpu.Kernels(StreamAt(0)), 20u);
    gpu.Run(StreamAt(0), 5);
  }
  gpu.Free(true);
  gpu.RunAll();
  runs.join();
  EXPECT_EQ(meter().forced, 0u);
  EXPECT_GT(meter().bound_wait_ns, 0u);
}

TEST_F(MeterTest, OneOperationLongerThanTheBoundMayBeInFlight) {
  Learn(5000 * kUs);
  ASSERT_EQ(Launch(StreamAt(0), 5000 * kUs), CUDA_SUCCESS);
  std::thread second([&] { ASSERT_EQ(Launch(StreamAt(1), 5000 * kUs), CUDA_SUCCESS); });
  Until([&] { return meter().waiters == 1; });
  EXPECT_EQ(gpu.Kernels(StreamAt(1)), 0u);
  gpu.RunAll();
  second.join();
  EXPECT_EQ(gpu.Kernels(StreamAt(1)), 1u);
}

TEST_F(MeterTest, ABoundThatWaitsForItselfIsPassedInTime) {
  Gate(region::kGateMetered, 1000, 250, 1);
  Learn(300 * kUs);
  // Nothing ever runs: the first kernel waits for the hundredth.
  for (int i = 0; i < 100; ++i) ASSERT_EQ(Launch(StreamAt(0), 300 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(gpu.Launched(), 101u);
  // Twice as many go through after each such wait.
  EXPECT_GE(meter().forced, 5u);
  EXPECT_LE(meter().forced, 7u);
  gpu.RunAll();
  hook_cuStreamQuery(StreamAt(0));
  EXPECT_EQ(meter().in_flight_ns, 0u);
}

// --- before waits ---

TEST_F(MeterTest, BeforeAWaitNothingStaysUnmarked) {
  Learn(10 * kUs);
  for (unsigned s = 0; s < 3; ++s)
    for (int i = 0; i < 3; ++i) ASSERT_EQ(Launch(StreamAt(s), 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(gpu.Words(StreamAt(0)).back(), MarkerWord(1, MarkerKind::kDone));
  hook_cuStreamQuery(StreamAt(0));
  EXPECT_EQ(gpu.Words(StreamAt(0)).back(), MarkerWord(3, MarkerKind::kDone));
  EXPECT_EQ(gpu.Words(StreamAt(1)).back(), MarkerWord(1, MarkerKind::kDone));
  hook_cuEventQuery(nullptr);
  EXPECT_EQ(gpu.Words(StreamAt(1)).back(), MarkerWord(3, MarkerKind::kDone));
  EXPECT_EQ(gpu.Words(StreamAt(2)).back(), MarkerWord(3, MarkerKind::kDone));
  const unsigned writes = gpu.Writes();
  hook_cuEventQuery(nullptr);
  EXPECT_EQ(gpu.Writes(), writes);
  hook_cuCtxSynchronize();
  EXPECT_EQ(Read().done, Read().issued);
  EXPECT_EQ(meter().in_flight_ns, 0u);
}

TEST_F(MeterTest, WhatWaitsBehindAnythingHasNotBegun) {
  Learn(10 * kUs);
  const std::vector<std::pair<const char*, std::function<CUresult(CUstream)>>> waits = {
      {"event", [](CUstream s) { return hook_cuStreamWaitEvent(s, nullptr, 0); }},
      {"value", [](CUstream s) { return hook_cuStreamWaitValue32_v2(s, 0x1000, 1, 0); }},
      {"batch", [](CUstream s) { return hook_cuStreamBatchMemOp_v2(s, 0, nullptr, 0); }},
      {"batch ptsz", [](CUstream s) { return hook_cuStreamBatchMemOp_v2_ptsz(s, 0, nullptr, 0); }},
  };
  unsigned stream = 0;
  for (const auto& [name, wait] : waits) {
    const CUstream s = StreamAt(stream++);
    ASSERT_EQ(Launch(s, 10 * kUs), CUDA_SUCCESS);
    ASSERT_EQ(Launch(s, 10 * kUs), CUDA_SUCCESS);
    EXPECT_EQ(wait(s), CUDA_SUCCESS) << name;
    ASSERT_EQ(Launch(s, 10 * kUs), CUDA_SUCCESS);
    EXPECT_EQ(gpu.Words(s),
              (std::vector<uint64_t>{
                  MarkerWord(0, MarkerKind::kStart), MarkerWord(1, MarkerKind::kDone),
                  MarkerWord(2, MarkerKind::kDone), MarkerWord(2, MarkerKind::kStart)}))
        << name;
    EXPECT_EQ(daemon.meter().lane[stream].start, 2u) << name;
  }
}

TEST_F(MeterTest, LongCopiesArePauses) {
  Learn(10 * kUs, StreamAt(0));
  ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  gpu.RunAll();
  hook_cuMemcpyHtoDAsync_v2(0, "", 1 << 20, StreamAt(0));
  ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(gpu.Words(StreamAt(0)), (std::vector<uint64_t>{MarkerWord(2, MarkerKind::kPaused),
                                                           MarkerWord(2, MarkerKind::kStart),
                                                           MarkerWord(3, MarkerKind::kDone)}));
  gpu.Run(StreamAt(0), 0);  // the copy, too
  EXPECT_TRUE(Read().begun);
  hook_cuMemcpyHtoDAsync_v2(0, "", 1000, StreamAt(0));
  EXPECT_EQ(meter().copies, 2u);
  EXPECT_EQ(meter().copied_bytes, (1u << 20) + 1000);
  hook_cuMemcpyHtoD_v2(0, "", 5000);
  EXPECT_EQ(meter().copies, 3u);
}

TEST_F(MeterTest, AStreamThatOnlyCopiesIsSeenToCopy) {
  Learn(10 * kUs, StreamAt(0));
  hook_cuMemcpyHtoDAsync_v2(0, "", 1000, StreamAt(5));  // too short to be told, but counted
  EXPECT_EQ(meter().copies, 1u);
  EXPECT_TRUE(gpu.Words(StreamAt(5)).empty());
  hook_cuMemcpyHtoDAsync_v2(0, "", 1 << 20, StreamAt(5));
  EXPECT_EQ(meter().copies, 2u);
  EXPECT_EQ(meter().copied_bytes, (1u << 20) + 1000);
  EXPECT_EQ(gpu.Words(StreamAt(5)), (std::vector<uint64_t>{MarkerWord(0, MarkerKind::kPaused),
                                                           MarkerWord(0, MarkerKind::kStart)}));
  EXPECT_FALSE(Read().copying);
  gpu.Step(StreamAt(5));  // the short copy
  gpu.Step(StreamAt(5));  // the marker before the long one
  EXPECT_TRUE(Read().copying);
  EXPECT_EQ(Read().issued, Read().done);
  gpu.RunAll();
  EXPECT_FALSE(Read().copying);
  // What it launches afterwards is metered as ever.
  ASSERT_EQ(Launch(StreamAt(5), 10 * kUs), CUDA_SUCCESS);
  EXPECT_TRUE(gpu.Words(StreamAt(5)).back() == MarkerWord(1, MarkerKind::kDone));
  gpu.RunAll();
  EXPECT_EQ(Read().done, 2u);
}

// --- errors and ends ---

TEST_F(MeterTest, ALaunchThatTheDriverRefusesIsDone) {
  gpu.FailNextLaunch(CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(Read().issued, 1u);
  gpu.RunAll();
  hook_cuStreamQuery(StreamAt(0));
  EXPECT_EQ(Read().done, 1u);
  EXPECT_EQ(meter().in_flight_ns, 0u);
}

TEST_F(MeterTest, AfterAFaultNothingIsWaitedFor) {
  Learn(500 * kUs);
  ASSERT_EQ(Launch(StreamAt(0), 500 * kUs), CUDA_SUCCESS);
  ASSERT_EQ(Launch(StreamAt(1), 500 * kUs), CUDA_SUCCESS);
  gpu.FailWrites(CUDA_ERROR_ILLEGAL_ADDRESS);
  for (int i = 0; i < 5; ++i) {
    gpu.FailNextLaunch(CUDA_ERROR_ILLEGAL_ADDRESS);
    // Room for none of them, and nothing runs any more.
    daemon.meter().lane[0].issued.load();
    if (i == 0) {
      std::thread first(
          [&] { EXPECT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_ERROR_ILLEGAL_ADDRESS); });
      Until([&] { return meter().waiters == 1; });
      gpu.Run(StreamAt(1));
      first.join();
    } else {
      EXPECT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_ERROR_ILLEGAL_ADDRESS);
    }
  }
  EXPECT_EQ(Read().done, Read().issued);
  EXPECT_EQ(meter().in_flight_ns, 0u);
}

TEST_F(MeterTest, ADestroyedStreamsWorkIsSeenToItsEnd) {
  Learn(10 * kUs);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  hook_cuStreamDestroy_v2(StreamAt(0));
  EXPECT_EQ(gpu.Words(StreamAt(0)).back(), MarkerWord(3, MarkerKind::kDone));
  gpu.RunAll();
  EXPECT_EQ(Read().done, Read().issued);
  // Its lane is the next one's.
  const uint32_t lanes = meter().lanes;
  ASSERT_EQ(Launch(StreamAt(1), 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(meter().lanes, lanes);
  EXPECT_EQ(gpu.Words(StreamAt(1)).front(), MarkerWord(3, MarkerKind::kStart));
}

TEST_F(MeterTest, ADestroyedContextsWorkIsOver) {
  Learn(10 * kUs);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  ASSERT_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS);
  EXPECT_EQ(Read().done, Read().issued);
  context = testing::MakeCurrentContext();
  // What a context registered is gone with it.
  ASSERT_EQ(Launch(StreamAt(7), 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(gpu.registered(), 2u);
}

TEST_F(MeterTest, MoreStreamsThanLanes) {
  Gate(region::kGateMetered, 1000000, 250);
  Learn(10 * kUs, StreamAt(0));
  for (int round = 0; round < 3; ++round)
    for (unsigned s = 0; s < 90; ++s) ASSERT_EQ(Launch(StreamAt(s), 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(meter().lanes, region::kLanes);
  EXPECT_EQ(Read().issued, 271u);
  // The streams of the last lane run in any order: its counts never go back.
  uint64_t done = 0;
  for (unsigned s = 90; s-- > 0;) {
    gpu.Run(StreamAt(s), 3);
    EXPECT_FALSE(Read().garbage);
    EXPECT_GE(Read().done, done);
    done = Read().done;
  }
  for (unsigned s = 0; s < 90; ++s) ASSERT_EQ(Launch(StreamAt(s), 10 * kUs), CUDA_SUCCESS);
  gpu.RunAll();
  hook_cuCtxSynchronize();
  for (int i = 0; i < 3; ++i) ASSERT_EQ(Launch(StreamAt(89), 10 * kUs), CUDA_SUCCESS);
  EXPECT_FALSE(Read().garbage);
}

// --- captures ---

TEST_F(MeterTest, ACapturedStreamIsLeftAlone) {
  Learn(10 * kUs, StreamAt(1));
  for (const auto mode : {CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
                          CU_STREAM_CAPTURE_MODE_RELAXED}) {
    ASSERT_EQ(hook_cuStreamBeginCapture_v2(StreamAt(0), mode), CUDA_SUCCESS);
    const uint64_t issued = Read().issued;
    daemon.SetGate(region::kGateShut | region::kGateMetered);  // not even held
    for (int i = 0; i < 10; ++i) ASSERT_EQ(Launch(StreamAt(0), 500 * kUs), CUDA_SUCCESS);
    daemon.SetGate(region::kGateMetered);
    EXPECT_EQ(Read().issued, issued);
    const unsigned writes = gpu.Writes();
    // The legacy stream takes part in no capture, and must not be touched beside one.
    ASSERT_EQ(Launch(nullptr, 10 * kUs), CUDA_SUCCESS);
    EXPECT_EQ(gpu.Writes(), writes);
    ASSERT_EQ(Launch(StreamAt(1), 10 * kUs), CUDA_SUCCESS);
    EXPECT_GT(gpu.Writes(), writes);
    hook_cuEventQuery(nullptr);
    CUgraph graph;
    ASSERT_EQ(hook_cuStreamEndCapture(StreamAt(0), &graph), CUDA_SUCCESS);
    gpu.RunAll();
  }
}

// --- gate, bell, faults ---

TEST_F(MeterTest, AShutGateOpensByTheWordAlone) {
  Learn(10 * kUs);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  daemon.SetGate(region::kGateShut | region::kGateMetered);
  std::thread held([&] { ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS); });
  Until([&] { return meter().waiters == 1; });
  EXPECT_EQ(gpu.Kernels(StreamAt(0)), 3u);
  // What it has done so far can be seen to end.
  EXPECT_EQ(gpu.Words(StreamAt(0)).back(), MarkerWord(3, MarkerKind::kDone));
  // Another change of the word that leaves it shut.
  daemon.SetGate(region::kGateShut | region::kGateMetered);
  daemon.SetGate(region::kGateMetered);
  held.join();
  EXPECT_EQ(gpu.Kernels(StreamAt(0)), 4u);
  EXPECT_EQ(meter().waiters, 0u);
  EXPECT_GT(meter().waits, 0u);
  EXPECT_GT(meter().gate_wait_ns, 0u);
}

TEST_F(MeterTest, WhatEndedUncountedIsNotWaitedFor) {
  constexpr uint64_t kLong = 10'000 * kUs;
  Learn(kLong);
  gpu.Free(true);
  for (int round = 0; round < 3; ++round) {
    Gate(0, 0, 0);
    for (int i = 0; i < 100; ++i) ASSERT_EQ(Launch(StreamAt(0), kLong), CUDA_SUCCESS);
    Gate(region::kGateMetered, 1000, 250, 2000);
    ASSERT_EQ(Launch(StreamAt(0), kLong), CUDA_SUCCESS);
    hook_cuStreamQuery(StreamAt(0));
    EXPECT_EQ(meter().forced, 0u);
    EXPECT_EQ(meter().in_flight_ns, 0u);
    EXPECT_EQ(Read().done, Read().issued);
  }
}

TEST_F(MeterTest, WhatIsStillRunningUncountedIsWaitedFor) {
  constexpr uint64_t kLong = 10'000 * kUs;
  Learn(kLong);
  Gate(0, 0, 0);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(Launch(StreamAt(0), kLong), CUDA_SUCCESS);
  Gate(region::kGateMetered, 1000, 250);
  std::thread launches([&] { ASSERT_EQ(Launch(StreamAt(0), kLong), CUDA_SUCCESS); });
  Until([&] { return meter().waiters == 1; });
  EXPECT_EQ(gpu.Kernels(StreamAt(0)), 100u);
  gpu.RunAll();
  launches.join();
  EXPECT_EQ(meter().forced, 0u);
}

// Windows are shorter than a long operation's patience: what was waited before the gate shut
// counts.
TEST_F(MeterTest, PatienceOutlastsAShutGate) {
  Learn(30'000 * kUs);
  Gate(region::kGateMetered, 1000, 250, 2000);
  ASSERT_EQ(Launch(StreamAt(0), 30'000 * kUs), CUDA_SUCCESS);
  std::atomic<bool> through{false};
  std::thread launches([&] {
    ASSERT_EQ(Launch(StreamAt(0), 30'000 * kUs), CUDA_SUCCESS);
    through = true;
  });
  // Open until it was seen waiting for the bound twice, then shut until it waits for the gate.
  for (int windows = 0; windows < 1000 && !through; ++windows) {
    for (uint32_t bits : {region::kGateMetered, region::kGateShut}) {
      testing::SetGate(daemon, 0, bits, 1000, 250, 2000);
      const uint64_t waits = meter().waits;
      Until([&] { return through || meter().waits >= waits + 2; });
    }
  }
  EXPECT_TRUE(through);
  gpu.RunAll();
  testing::SetGate(daemon, 0, region::kGateMetered, 1000, 250, 2000);
  launches.join();
  EXPECT_EQ(meter().forced, 1u);
}

TEST_F(MeterTest, AGateThatShutsWhileTheBoundIsWaitedFor) {
  Learn(600 * kUs);
  ASSERT_EQ(Launch(StreamAt(0), 600 * kUs), CUDA_SUCCESS);
  std::thread held([&] { ASSERT_EQ(Launch(StreamAt(0), 600 * kUs), CUDA_SUCCESS); });
  Until([&] { return meter().waiters == 1; });
  daemon.SetGate(region::kGateShut | region::kGateMetered);
  Until([&] { return meter().bound_wait_ns != 0; });
  gpu.RunAll();
  EXPECT_EQ(gpu.Kernels(StreamAt(0)), 0u);
  daemon.SetGate(region::kGateMetered);
  held.join();
  EXPECT_EQ(gpu.Kernels(StreamAt(0)), 1u);
}

TEST_F(MeterTest, ADeadDaemonsPausedGateStaysShut) {
  daemon.SetGate(region::kGatePaused);
  daemon.policy().heartbeat_ns = 1;
  std::thread held([&] { Launch(StreamAt(0), 10 * kUs); });
  Until([&] { return meter().waits >= 2; });
  EXPECT_EQ(gpu.Launched(), 0u);
  daemon.SetGate(region::kGateMetered);
  held.join();
}

TEST_F(MeterTest, ADeadDaemonsGateOpensOrStaysShutAsItWasToldTo) {
  daemon.SetGate(region::kGateShut);
  daemon.policy().heartbeat_ns = 1;
  ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(meter().forced, 1u);
  daemon.policy().flags = region::kFlagDenyOnFault;
  std::thread held([&] { Launch(StreamAt(0), 10 * kUs); });
  Until([&] { return meter().waits >= 2; });
  EXPECT_EQ(gpu.Launched(), 1u);
  daemon.policy().flags = 0;
  daemon.SetGate(region::kGateShut);
  held.join();
}

// A program that only launches asks nowhere else: without this it would run ungated for ever.
TEST_F(MeterTest, ANewDaemonIsFoundByLaunchesAlone) {
  gpu.Free(true);
  daemon.SetGate(region::kGateMetered);
  ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  const unsigned hellos = daemon.hellos();
  daemon.policy().heartbeat_ns = 1;
  daemon.Restart(7);
  Gate(region::kGateMetered, 1000, 250);
  // None of them waits for its answer; the one that finds it goes by the new gate.
  Until([&] {
    g_process.next_attach_ns = 0;
    EXPECT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
    return CurrentSession()->generation == 7;
  });
  EXPECT_EQ(daemon.hellos(), hellos + 1);
  uint64_t operations = 0;  // in the new daemon's segment
  for (unsigned slot = 1; slot < 8; ++slot) operations += daemon.meter(slot).operations;
  EXPECT_EQ(operations, 1u);
}

TEST_F(MeterTest, TheBellIsRungOnceForEachValueOfTheWord) {
  gpu.Free(true);
  daemon.SetGate(region::kGateMetered | region::kGateBell);
  for (int i = 0; i < 5; ++i) ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(daemon.bell().rung, 1u);
  daemon.SetGate(region::kGateMetered | region::kGateBell);
  for (int i = 0; i < 5; ++i) ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(daemon.bell().rung, 2u);
  daemon.SetGate(region::kGateMetered);
  ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(daemon.bell().rung, 2u);
  EXPECT_EQ(Read().issued, 11u);
}

TEST_F(MeterTest, WithoutABellOneGoesOn) {
  daemon.GiveNoBell();
  testing::FreshProcess(daemon.socket());
  testing::MakeCurrentContext();
  daemon.SetGate(region::kGateMetered | region::kGateBell);
  ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(Read(0, 2).issued, 1u);
}

// --- forms ---

TEST_F(MeterTest, EveryFormOfSubmissionIsMetered) {
  gpu.Free(true);
  const CUfunction f = KernelOf(10 * kUs);
  const auto exec = reinterpret_cast<CUgraphExec>(f);
  const CUstream s = StreamAt(0);
  CUlaunchConfig config{1, 1, 1, 1, 1, 1, 0, s, nullptr, 0};
  CUlaunchConfig config_null{1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, 0};
  CUDA_LAUNCH_PARAMS_v1 list[1] = {{f, 1, 1, 1, 1, 1, 1, 0, s, nullptr}};
  const std::vector<std::pair<const char*, std::function<CUresult()>>> forms = {
      {"kernel", [&] { return Launch(s, 10 * kUs); }},
      {"null", [&] { return Launch(nullptr, 10 * kUs); }},
      {"legacy", [&] { return Launch(CU_STREAM_LEGACY, 10 * kUs); }},
      {"per thread", [&] { return Launch(CU_STREAM_PER_THREAD, 10 * kUs); }},
      {"ptsz",
       [&] { return hook_cuLaunchKernel_ptsz(f, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr); }},
      {"ex", [&] { return hook_cuLaunchKernelEx(&config, f, nullptr, nullptr); }},
      {"ex null", [&] { return hook_cuLaunchKernelEx(&config_null, f, nullptr, nullptr); }},
      {"ex ptsz", [&] { return hook_cuLaunchKernelEx_ptsz(&config_null, f, nullptr, nullptr); }},
      {"cooperative",
       [&] { return hook_cuLaunchCooperativeKernel(f, 1, 1, 1, 1, 1, 1, 0, s, nullptr); }},
      {"cooperative ptsz",
       [&] {
         return hook_cuLaunchCooperativeKernel_ptsz(f, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr);
       }},
      {"multi", [&] { return hook_cuLaunchCooperativeKernelMultiDevice(list, 1, 0); }},
      {"old", [&] { return hook_cuLaunch(f); }},
      {"old grid", [&] { return hook_cuLaunchGrid(f, 1, 1); }},
      {"old grid async", [&] { return hook_cuLaunchGridAsync(f, 1, 1, s); }},
      {"graph", [&] { return hook_cuGraphLaunch(exec, s); }},
      {"graph ptsz", [&] { return hook_cuGraphLaunch_ptsz(exec, nullptr); }},
      {"memset", [&] { return hook_cuMemsetD8_v2(0x1000, 0, 5000); }},
      {"memset async", [&] { return hook_cuMemsetD8Async(0x1000, 0, 5000, s); }},
      {"copy", [&] { return hook_cuMemcpyDtoDAsync_v2(0x1000, 0x2000, 5000, s); }},
  };
  uint64_t operations = 0;
  for (const auto& [name, submit] : forms) {
    EXPECT_EQ(submit(), CUDA_SUCCESS) << name;
    EXPECT_EQ(meter().operations, ++operations) << name;
    EXPECT_EQ(Read().done, Read().issued) << name;
    EXPECT_EQ(gpu.Launched(), operations) << name;
  }
  EXPECT_EQ(meter().lanes, 3u);  // one stream, the legacy one, this thread's
  EXPECT_EQ(daemon.usage().slot[1].launches, operations);
}

TEST_F(MeterTest, AnotherThreadsDefaultStreamIsAnotherLane) {
  ASSERT_EQ(Launch(CU_STREAM_PER_THREAD, 10 * kUs), CUDA_SUCCESS);
  std::thread other([&] { ASSERT_EQ(Launch(CU_STREAM_PER_THREAD, 10 * kUs), CUDA_SUCCESS); });
  other.join();
  EXPECT_EQ(meter().lanes, 2u);
}

TEST_F(MeterTest, TheLegacyStreamIsNotMarkedInTheMiddleOfOtherStreams) {
  // A marker there orders all blocking streams: it comes with an operation or, when nothing else
  // is in flight, before a wait.
  Learn(10 * kUs);
  Learn(11 * kUs, StreamAt(0));
  for (int i = 0; i < 2; ++i) ASSERT_EQ(Launch(nullptr, 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(gpu.Words(nullptr).size(), 2u);
  ASSERT_EQ(Launch(StreamAt(0), 11 * kUs), CUDA_SUCCESS);
  hook_cuEventQuery(nullptr);
  EXPECT_EQ(gpu.Words(nullptr).size(), 2u);
  // Beside others every operation takes its marker along.
  ASSERT_EQ(Launch(nullptr, 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(gpu.Words(nullptr).size(), 3u);
  gpu.RunAll();
  for (int i = 0; i < 2; ++i) ASSERT_EQ(Launch(nullptr, 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(gpu.Words(nullptr).size(), 2u);
  hook_cuEventQuery(nullptr);
  EXPECT_EQ(gpu.Words(nullptr).size(), 3u);
}

// --- threads, devices, forks, generations ---

TEST_F(MeterTest, ManyThreadsOnTheSameAndOnOtherStreams) {
  Gate(region::kGateMetered, 500, 100, kForever);
  gpu.Free(true);
  constexpr int kThreads = 4, kEach = 2000;
  std::atomic<bool> stop{false};
  std::thread watches([&] {
    uint64_t done = 0;
    while (!stop) {
      const Progress p = Read();
      EXPECT_FALSE(p.garbage);
      EXPECT_GE(p.done, done);
      done = p.done;
      sched_yield();
    }
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        const CUstream s =
            i % 3 == 0 ? StreamAt(0) : StreamAt(static_cast<unsigned>(i * 4 + t) % 70);
        ASSERT_EQ(Launch(s, 10 * kUs), CUDA_SUCCESS);
        if (i % 50 == 0) hook_cuStreamQuery(s);
      }
    });
  for (std::thread& t : threads) t.join();
  stop = true;
  watches.join();
  EXPECT_EQ(Read().issued, uint64_t{kThreads} * kEach);
  hook_cuCtxSynchronize();
  EXPECT_EQ(meter().forced, 0u);
  EXPECT_EQ(meter().waiters, 0u);
}

struct TwoDevices : MeterTest {
  TwoDevices() : MeterTest(2) {}
};

TEST_F(TwoDevices, EachHasItsOwnGateAndLanes) {
  ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  const CUcontext second = testing::MakeCurrentContext(1);
  daemon.SetGate(region::kGateShut, 0);
  ASSERT_EQ(Launch(StreamAt(1), 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(Read(0).issued, 1u);
  EXPECT_EQ(Read(1).issued, 1u);
  gpu.RunAll();
  EXPECT_EQ(Read(0).done, 1u);
  EXPECT_EQ(Read(1).done, 1u);
  // Lone on one, metered on the other.
  Gate(0, 0, 0, kForever, 1);
  const unsigned writes = gpu.Writes();
  for (int i = 0; i < 100; ++i) ASSERT_EQ(Launch(StreamAt(1), 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(gpu.Writes(), writes);
  daemon.SetGate(region::kGateMetered, 0);
  hook_cuCtxSetCurrent(context);
  gpu.Free(true);
  ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(Read(0).done, 2u);
  EXPECT_EQ(daemon.usage().slot[1].launches, 103u);
  hook_cuCtxSetCurrent(second);
  // A bound there and word 0: metered every so often.
  Gate(0, 2000, 500, kForever, 1);
  for (int i = 0; i < 200; ++i) ASSERT_EQ(Launch(StreamAt(1), 10 * kUs), CUDA_SUCCESS);
  EXPECT_GT(gpu.Writes(), writes + 2);
  EXPECT_LT(gpu.Writes(), writes + 100);
}

TEST_F(MeterTest, AForkedChildIsMeteredForItself) {
  Learn(10 * kUs);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  const uint64_t issued = Read().issued;
  const pid_t child = fork();
  if (child == 0) {
    if (g_process.metering != 0 || MeterIfAny(0) != nullptr) _exit(1);
    testing::MakeCurrentContext();
    if (Launch(StreamAt(0), 10 * kUs) != CUDA_SUCCESS) _exit(2);
    if (Read(0, 2).issued != 1) _exit(3);
    gpu.RunAll();
    if (Read(0, 2).done != 1) _exit(4);
    _exit(0);
  }
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(Read().issued, issued);
  ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(Read().issued, issued + 1);
}

TEST_F(MeterTest, ANewDaemonsLanesStartAnew) {
  Learn(10 * kUs);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  region::Meter& old = meter();
  daemon.Restart(2);
  Gate(region::kGateMetered, 1000, 250);
  CUdeviceptr p;
  ASSERT_EQ(hook_cuMemAlloc_v2(&p, 4096), CUDA_SUCCESS);  // meets the dead one, joins the new one
  ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(gpu.registered(), 2u);
  EXPECT_EQ(Read().issued, 1u);
  // What the GPU still writes goes to the old pages.
  gpu.RunAll();
  EXPECT_EQ(Read().done, 1u);
  EXPECT_NE(&old, &meter());
  EXPECT_GE(old.lane[1].marker.load() >> 2, 1u);
}

// --- recording ---

TEST_F(MeterTest, RecordsLengthsAndGaps) {
  Gate(region::kGateMetered | region::kGateEachOp, 0, 0);
  ASSERT_EQ(Launch(StreamAt(0), 30 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(gpu.Words(StreamAt(0)).size(), 2u);
  hook_cuStreamSynchronize(StreamAt(0));
  ASSERT_EQ(hook_cuGraphLaunch(reinterpret_cast<CUgraphExec>(KernelOf(70 * kUs)), StreamAt(0)),
            CUDA_SUCCESS);
  ASSERT_EQ(hook_cuMemsetD8Async(0x1000, 0, 9000, StreamAt(0)), CUDA_SUCCESS);
  ASSERT_EQ(Launch(StreamAt(0), 30 * kUs), CUDA_SUCCESS);
  hook_cuStreamSynchronize(StreamAt(0));
  region::Usage& usage = daemon.usage();
  ASSERT_EQ(usage.record_head, 4u);
  const uint32_t lengths[] = {300, 700, 90, 300};
  const uint8_t kinds[] = {0, 1, 2, 0};
  for (unsigned i = 0; i < 4; ++i) {
    const region::OperationRecord& r = usage.record[i];
    EXPECT_EQ(r.sequence, i + 1);
    EXPECT_NEAR(r.length, lengths[i], 1);
    EXPECT_EQ(r.kind, kinds[i]);
    EXPECT_EQ(r.synced, i == 1);
    EXPECT_EQ(r.device, 0);
  }
  EXPECT_EQ(usage.record[0].key, usage.record[3].key);
  EXPECT_NE(usage.record[0].key, usage.record[1].key);
}

// --- without writes in stream order ---

TEST_F(MeterTest, WhatTheGateHeldIsNoGapOfTheProgram) {
  constexpr uint32_t kRecording = region::kGateMetered | region::kGateEachOp;
  Gate(kRecording, 0, 0);
  gpu.Free(true);
  ASSERT_EQ(Launch(StreamAt(0), 30 * kUs), CUDA_SUCCESS);
  Gate(kRecording | region::kGateShut, 0, 0);
  std::thread opens([&] {
    Until([&] { return meter().gate_wait_ns > 300'000 * kUs; });
    Gate(kRecording, 0, 0);
  });
  ASSERT_EQ(Launch(StreamAt(0), 30 * kUs), CUDA_SUCCESS);
  opens.join();
  hook_cuStreamQuery(StreamAt(0));
  ASSERT_EQ(daemon.usage().record_head, 2u);
  EXPECT_LT(daemon.usage().record[1].gap * uint64_t{100}, meter().gate_wait_ns.load());
}

struct ByEvents : MeterTest {
  ByEvents() : MeterTest(1, false) {}
};

TEST_F(ByEvents, EventsStandForTheGpusWrites) {
  ASSERT_EQ(Launch(StreamAt(0), 10 * kUs), CUDA_SUCCESS);  // finds out
  hook_cuStreamSynchronize(StreamAt(0));
  Learn(50 * kUs);
  const uint64_t done = Read().done;
  ASSERT_EQ(Launch(StreamAt(0), 50 * kUs), CUDA_SUCCESS);
  EXPECT_EQ(Read().done, done);
  gpu.RunAll();
  hook_cuStreamQuery(StreamAt(0));
  EXPECT_EQ(Read().done, done + 1);
  std::thread runs([&] {
    for (int i = 0; i < 50; ++i) ASSERT_EQ(Launch(StreamAt(0), 50 * kUs), CUDA_SUCCESS);
  });
  Until([&] { return meter().waiters == 1; });
  EXPECT_LE(gpu.Kernels(StreamAt(0)), 20u);
  gpu.Free(true);
  gpu.RunAll();
  runs.join();
  hook_cuStreamSynchronize(StreamAt(0));
  EXPECT_EQ(Read().done, Read().issued);
  EXPECT_EQ(meter().forced, 0u);
}

// --- a context's end beside threads that mark ---

// A marker that is on its way to the GPU, in the middle of the driver's call.
std::atomic<bool> hold_next_write{false}, write_held{false}, context_destroyed{false};
std::atomic<bool> destroyed_beside_write{false};
CUresult (*plain_write)(CUstream, CUdeviceptr, cuuint64_t, unsigned);
CUresult HeldWrite(CUstream stream, CUdeviceptr at, cuuint64_t value, unsigned flags) {
  if (hold_next_write.exchange(false)) {
    write_held = true;
    Until([] { return !write_held; });
    destroyed_beside_write = context_destroyed.load();
  }
  return plain_write(stream, at, value, flags);
}

TEST_F(MeterTest, AContextIsNotDestroyedUnderAnotherThreadsMarker) {
  Learn(300 * kUs);
  plain_write = g_driver.cuStreamWriteValue64_v2;
  g_driver.cuStreamWriteValue64_v2 = HeldWrite;
  testing::Fake().during = [](const std::string& name) {
    if (name == "cuCtxDestroy_v2") context_destroyed = true;
  };
  const uint32_t slot = CurrentPlace().context;
  ASSERT_NE(slot, 0u);
  hold_next_write = true;
  std::thread marker([] { EXPECT_EQ(Launch(StreamAt(1), 300 * kUs), CUDA_SUCCESS); });
  Until([] { return write_held.load(); });
  std::thread ender([this] { EXPECT_EQ(hook_cuCtxDestroy_v2(context), CUDA_SUCCESS); });
  Until([slot] { return g_process.context[slot].users > 1; });
  // It waits for the one inside, and nobody else comes in.
  EXPECT_FALSE(ContextUse(slot));
  sched_yield();
  EXPECT_FALSE(context_destroyed);
  write_held = false;
  marker.join();
  ender.join();
  EXPECT_TRUE(context_destroyed);
  EXPECT_FALSE(destroyed_beside_write);
  EXPECT_EQ(g_process.context[slot].users, 0u);  // its place is the next one's
  EXPECT_EQ(daemon.meter().in_flight_ns, 0u);
  testing::Fake().during = nullptr;
  g_driver.cuStreamWriteValue64_v2 = plain_write;
}

TEST_F(MeterTest, AContextThatStaysIsMarkedAgain) {
  Learn(300 * kUs);
  testing::Fake().fail["cuCtxDestroy_v2"] = CUDA_ERROR_INVALID_VALUE;
  EXPECT_EQ(hook_cuCtxDestroy_v2(context), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(g_process.context[CurrentPlace().context].users, 0u);
  const unsigned before = gpu.Writes();
  ASSERT_EQ(Launch(StreamAt(1), 300 * kUs), CUDA_SUCCESS);
  EXPECT_GT(gpu.Writes(), before);
}

}  // namespace
}  // namespace divvy::shim
