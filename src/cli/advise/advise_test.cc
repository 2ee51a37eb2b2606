// What is read from records of operations, and the share that follows from it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/cli/advise/observation.h"

namespace divvy::cli::advise {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(Observation, LengthsArePercentilesOfKernelsAndGraphsOnly) {
  Observation seen;
  for (int i = 1; i <= 100; ++i) seen.Add(Observation::kKernel, i, false);
  seen.Add(Observation::kOnDevice, 5000, false);
  seen.Add(Observation::kCopy, 9000, false);
  EXPECT_DOUBLE_EQ(seen.Length(0.5), 50);
  EXPECT_DOUBLE_EQ(seen.Length(0.95), 95);
  EXPECT_DOUBLE_EQ(seen.Length(1), 100);
  EXPECT_EQ(seen.operations(Observation::kKernel), 100u);
  EXPECT_EQ(seen.operations(Observation::kCopy), 1u);
  EXPECT_DOUBLE_EQ(seen.copy_seconds(), 0.009);
}

TEST(Observation, BurstsAreTheWorkBetweenWaits) {
  Observation seen;
  for (int request = 0; request < 10; ++request)
    for (int op = 0; op < 4; ++op) seen.Add(Observation::kKernel, 25, op == 0);
  EXPECT_DOUBLE_EQ(seen.Burst(0.5), 100);
  EXPECT_TRUE(seen.waits());
}

// 0.2 s of work in each of ten seconds, 0.8 s in one of them.
Observation TwentyPercent() {
  Observation seen;
  for (int tenth = 1; tenth <= 100; ++tenth) {
    const double us = tenth > 40 && tenth <= 50 ? 80'000 : 20'000;
    for (int op = 0; op < 10; ++op) seen.Add(Observation::kKernel, us / 10, true);
    seen.Mark(tenth / 10.0);
  }
  return seen;
}

TEST(Observation, DutyAndTheBusiestSecond) {
  const Observation seen = TwentyPercent();
  EXPECT_NEAR(seen.ActiveSeconds(), 9.92, 1e-9);
  EXPECT_NEAR(seen.Duty(), 2.6e6 / 1e4 / 9.92, 1e-6);
  EXPECT_NEAR(seen.BusiestDuty(), 80, 0.1);
}

TEST(Observation, ARunShorterThanASecondIsItsOwnBusiest) {
  Observation seen;
  EXPECT_FALSE(seen.Worked());
  EXPECT_EQ(seen.Duty(), 0);
  seen.Add(Observation::kKernel, 100'000, false);
  seen.Mark(0.2);
  seen.Add(Observation::kKernel, 100'000, false);
  seen.Mark(0.5);
  EXPECT_NEAR(seen.Duty(), 50, 1e-9);
  EXPECT_NEAR(seen.BusiestDuty(), 50, 1e-9);
}

json ShareOf(uint64_t charged, uint64_t peak, int64_t overhead, uint64_t pool) {
  return {{"charged_bytes", charged},
          {"charged_peak_bytes", peak},
          {"overhead_bytes", overhead},
          {"kinds", {{"pool", pool}, {"context", 500}}},
          {"compute", {{"copied_bytes", charged}}}};
}

TEST(Observation, MemoryIsThePeakOfEachKind) {
  Observation seen;
  seen.Look(ShareOf(1000, 3000, -50, 400));
  seen.Look(ShareOf(2000, 3000, 70, 100));
  EXPECT_EQ(seen.peak().n, 3000u);
  EXPECT_EQ(seen.overhead().n, 70u);
  EXPECT_EQ(seen.kinds().at("pool"), 400u);
  EXPECT_EQ(seen.copied_bytes(), 2000u);
}

TEST(Advice, MemoryHasRoomAndIsARoundNumber) {
  Observation seen;
  seen.Look(ShareOf(0, (4_GiB).n, 0, 0));
  const Advice advice = AdviceFor(seen);
  EXPECT_GE(advice.mem.n, (4_GiB).n + (4_GiB).n / 20);
  EXPECT_LE(advice.mem.n, (4_GiB).n + (4_GiB).n / 20 + (64_MiB).n);
  EXPECT_EQ(advice.mem.n % (64_MiB).n, 0u);
  EXPECT_EQ(advice.compute, 0) << "no work: nothing to promise";
}

TEST(Advice, AServerThatWaitsForShortRequestsIsServedFirst) {
  Observation seen;
  for (int i = 1; i <= 1000; ++i) {
    seen.Add(Observation::kKernel, 1000, true);
    seen.Mark(i / 100.0);
  }
  const Advice advice = AdviceFor(seen);
  EXPECT_EQ(advice.share_class, "latency");
  EXPECT_EQ(advice.compute, 15) << "10 %, the first mark's rounding up";
  EXPECT_THAT(advice.notes, IsEmpty());
}

TEST(Advice, WhatSaturatesGetsAllAndIsToldWhatLessMeans) {
  Observation seen;
  for (int i = 1; i <= 100; ++i) {
    seen.Add(Observation::kKernel, 98'000, false);
    seen.Mark(i / 10.0);
  }
  const Advice advice = AdviceFor(seen);
  EXPECT_EQ(advice.share_class, "standard");
  EXPECT_EQ(advice.compute, 100);
  EXPECT_THAT(advice.why_compute, HasSubstr("less makes it slower"));
  ASSERT_EQ(advice.notes.size(), 1u);
  EXPECT_THAT(advice.notes[0], HasSubstr("98.00 ms"));
}

}  // namespace
}  // namespace divvy::cli::advise
