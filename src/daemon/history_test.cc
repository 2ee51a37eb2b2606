// The history's rings: what is kept, for how long, and that it does not grow.
#include "src/daemon/history.h"

#include <gtest/gtest.h>

namespace divvy::daemon {
namespace {

constexpr uint64_t kMib = 1 << 20;

Figures At(double time, unsigned tenants, uint64_t mib, double percent, uint64_t first_id = 1) {
  Figures f{.time = time};
  f.devices.push_back({.uuid = "GPU-1", .used_bytes = 2 * mib * kMib});
  for (unsigned t = 0; t < tenants; ++t) {
    f.tenants.push_back({.id = first_id + t, .name = "t" + std::to_string(first_id + t)});
    f.tenants.back().shares.push_back(
        {.used_bytes = mib * kMib, .known = percent >= 0, .used_percent_1s = percent});
  }
  return f;
}

TEST(History, TheLastMinuteBySecondAndTheHourByMeans) {
  UseHistory h;
  for (int i = 0; i < 90; ++i) {
    EXPECT_TRUE(h.Due(1000 + i));
    h.Add(At(1000 + i, 1, static_cast<uint64_t>(i), i));
    EXPECT_FALSE(h.Due(1000 + i + 0.5));
  }
  const auto fine = *h.ToJson("");
  ASSERT_EQ(fine["times"].size(), UseHistory::kFine);
  EXPECT_EQ(fine["times"][0], 1030);
  EXPECT_EQ(fine["tenants"][0]["used_bytes"][0], 30 * kMib);
  EXPECT_EQ(fine["tenants"][0]["used_percent"][59], 89);
  EXPECT_EQ(fine["devices"][0]["used_bytes"][59], 178 * kMib);
  const auto coarse = *h.ToJson("1h");
  // 1000 to 1015 is the first, with 16 samples; the next ones have 15.
  ASSERT_EQ(coarse["times"].size(), 5u);
  EXPECT_EQ(coarse["tenants"][0]["used_percent"][0], 7.5);
  EXPECT_EQ(coarse["tenants"][0]["used_percent"][1], 23);
}

TEST(History, WhatIsNotMeteredIsNull) {
  UseHistory h;
  h.Add(At(1000, 1, 5, -1));
  const auto fine = *h.ToJson("60s");
  EXPECT_TRUE(fine["tenants"][0]["used_percent"][0].is_null());
  EXPECT_EQ(fine["tenants"][0]["used_bytes"][0], 5 * kMib);
}

TEST(History, ATenantThatEndsLeavesItsPastAndNoMore) {
  UseHistory h;
  h.Add(At(1000, 1, 5, 1));
  for (int i = 1; i < 70; ++i) h.Add(At(1000 + i, 0, 5, 1));
  EXPECT_EQ((*h.ToJson("60s"))["tenants"].size(), 0u);
  EXPECT_EQ((*h.ToJson("1h"))["tenants"].size(), 1u);
}

TEST(History, SeriesAreBoundedAndTheOldestGiveWay) {
  UseHistory h;
  const auto most = static_cast<unsigned>(UseHistory::kMostSeries);
  h.Add(At(1000, most + 10, 5, 1));
  EXPECT_EQ((*h.ToJson("60s"))["left_out"], 11);  // the device has one, too
  EXPECT_EQ((*h.ToJson("60s"))["tenants"].size(), most - 1);
  h.Add(At(1010, 10, 5, 1, 5000));
  const auto fine = *h.ToJson("60s");
  EXPECT_EQ(fine["left_out"], 0);
  EXPECT_EQ(fine["tenants"].size() + fine["devices"].size(), most);
}

TEST(History, AnUnknownSpan) { EXPECT_FALSE(UseHistory().ToJson("1y").ok()); }

}  // namespace
}  // namespace divvy::daemon
