// What the policy says of utilisation.
#include "src/daemon/use.h"

#include <gtest/gtest.h>

namespace divvy::daemon {
namespace {

constexpr uint64_t kHalf = region::kPastNs;

uint8_t Past(const region::PolicyDevice& d, uint64_t number) {
  const auto byte = static_cast<unsigned>(number % region::kPast);
  return region::PastByte(d.past[byte / 8], byte % 8);
}

TEST(Use, HundredPercentIsTheCapOrTheGuaranteeOrTheDevice) {
  EXPECT_EQ(WholeOf(Percent::Of(25), Percent::Of(60)).milli, 60'000u);
  EXPECT_EQ(WholeOf({}, Percent::Of(60)).milli, 60'000u);
  EXPECT_EQ(WholeOf(Percent::Of(25), Percent::Of(100)).milli, 25'000u);
  EXPECT_EQ(WholeOf({}, Percent::Of(100)).milli, 100'000u);
}

TEST(Use, IsToldByHalfSeconds) {
  region::PolicyDevice d{};
  const Percent quarter = Percent::Of(25);
  TellUse(d, quarter, UseNow{0.1, 0.2}, 1000 * kHalf);
  EXPECT_EQ(d.whole_milli, 25'000u);
  EXPECT_EQ(d.used_permille, 100u);
  EXPECT_EQ(d.past_newest, 999u);
  EXPECT_EQ(Past(d, 999), 80);
  for (uint64_t n = 952; n < 999; ++n) EXPECT_EQ(Past(d, n), region::kPastNotKnown) << n;
  // Twice in one half second: the first stands. More than its share: all of it.
  TellUse(d, quarter, UseNow{0.9, 0.9}, 1000 * kHalf + 1);
  EXPECT_EQ(Past(d, 999), 80);
  EXPECT_EQ(d.used_permille, 900u);
  TellUse(d, quarter, UseNow{0.9, 0.9}, 1003 * kHalf);
  EXPECT_EQ(d.past_newest, 1002u);
  for (uint64_t n = 1000; n <= 1002; ++n) EXPECT_EQ(Past(d, n), 100) << n;
  EXPECT_EQ(Past(d, 999), 80);
  // A long time later, alone by then.
  TellUse(d, quarter, {}, 2000 * kHalf);
  EXPECT_EQ(d.used_permille, region::kUseNotKnown);
  for (uint64_t n = 1952; n <= 1999; ++n) EXPECT_EQ(Past(d, n), region::kPastNotKnown) << n;
}

}  // namespace
}  // namespace divvy::daemon
