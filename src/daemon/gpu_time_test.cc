// What people are told of GPU time, from the shim's count and the arbiter's bill.
#include "src/daemon/gpu_time.h"

#include <gtest/gtest.h>

namespace divvy::daemon {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kMs = 1'000'000;

struct Told {
  GpuTime time{milliseconds(1000), milliseconds(250)};
  arbiter::Nanos now = milliseconds(1000);
  uint64_t counted = 0;
  int64_t billed = 0;
  // 100 ms later; all told, in ms.
  double After(int64_t more_counted, int64_t more_billed) {
    now += milliseconds(100);
    counted += static_cast<uint64_t>(more_counted);
    billed += more_billed;
    time.Add(now, counted, billed);
    return static_cast<double>(time.ns()) / kMs;
  }
};

TEST(GpuTime, ShortOperationsAreWhatTheGpuSays) {
  Told t;
  for (int i = 1; i <= 50; ++i)
    EXPECT_DOUBLE_EQ(t.After(kMs / 5, kMs), 0.2 * i);  // billed five times that
  // The bill comes a look before the count.
  EXPECT_EQ(t.After(0, kMs), 10);
  EXPECT_DOUBLE_EQ(t.After(kMs / 5, 0), 10.2);
  // Billed less than it was, while others' work lay on the device, too.
  EXPECT_DOUBLE_EQ(t.After(2 * kMs, kMs), 12.2);
}

TEST(GpuTime, ALongOperationIsToldWhileItRuns) {
  Told t;
  EXPECT_EQ(t.After(0, 100 * kMs), 0);
  EXPECT_EQ(t.After(0, 100 * kMs), 0);
  EXPECT_EQ(t.After(0, 100 * kMs), 300);
  EXPECT_EQ(t.After(0, 100 * kMs), 400);
  // It has ended: the count catches up, and what it lacks is not told twice.
  EXPECT_EQ(t.After(450 * kMs, 60 * kMs), 450);
  EXPECT_EQ(t.After(0, 0), 450);
  // Billed more than it was: what comes next makes up for it.
  for (int i = 0; i < 4; ++i) t.After(0, 100 * kMs);
  EXPECT_EQ(t.After(0, 0), 850);
  EXPECT_EQ(t.After(390 * kMs, 0), 850);
  EXPECT_EQ(t.After(15 * kMs, 15 * kMs), 855);
}

TEST(GpuTime, WhoDoesNotCountIsToldByItsBill) {
  Told t;
  for (int i = 0; i < 20; ++i) t.After(0, 50 * kMs);
  EXPECT_EQ(t.time.ns(), 1000 * kMs);
}

TEST(GpuTime, OthersSlicesAreNotToldForLong) {
  Told t;
  double told = 0;
  for (int i = 0; i < 100; ++i) told = t.After(90 * kMs, 30 * kMs);
  EXPECT_NEAR(told, 3000, 3000 / 10 + 250);
  for (int i = 0; i < 100; ++i) told = t.After(31 * kMs, 30 * kMs);
  EXPECT_NEAR(told, 6000, 6000 / 10 + 250);
}

TEST(GpuTime, NeverMoreThanThereWas) {
  Told t;
  EXPECT_EQ(t.After(1'000'000 * kMs, 50 * kMs), 100);
  EXPECT_EQ(t.After(1'000'000 * kMs, 50 * kMs), 200);
}

}  // namespace
}  // namespace divvy::daemon
