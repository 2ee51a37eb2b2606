// Fair shares and the order of the waiting room.
#include "src/placement/refusal/quotas.h"

#include <gtest/gtest.h>

#include "src/placement/refusal/waiting_room.h"

namespace divvy::placement {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();
using Shares = std::vector<int64_t>;

TEST(Quotas, GuaranteeFirstThenByWeightNeverMoreThanWanted) {
  Quotas q;
  q.Set(0, {4000, kNoLimit, 1});
  q.Set(1, {0, kNoLimit, 1});
  q.Set(2, {0, kNoLimit, 3});
  for (uint32_t s = 0; s < 3; ++s) q.Waits(s, 100000);
  EXPECT_EQ(q.FairShares(10000), (Shares{5200, 1200, 3600}));
  q.Waits(2, -99000);  // wants 1000 only: the rest goes to the others
  EXPECT_EQ(q.FairShares(10000), (Shares{6500, 2500, 1000}));
  q.Waits(0, -100000);  // wants nothing: its guarantee is used by others meanwhile
  EXPECT_EQ(q.FairShares(10000), (Shares{0, 9000, 1000}));
}

TEST(Quotas, LimitsHold) {
  Quotas q;
  q.Set(0, {0, 2000, 1});
  q.Waits(0, 9000);
  q.Waits(1, 9000);
  EXPECT_EQ(q.FairShares(10000), (Shares{2000, 8000}));
  q.Charge(0, 1500);
  EXPECT_TRUE(q.Allows(0, 500));
  EXPECT_FALSE(q.Allows(0, 501));
  EXPECT_TRUE(q.Allows(77, 1 << 30));  // an unknown space has no limit
}

TEST(Quotas, PromisesBeyondTheCapacityShrinkInProportion) {
  Quotas q;
  q.Set(0, {6000, kNoLimit, 1});
  q.Set(1, {2000, kNoLimit, 1});
  q.Waits(0, 9000);
  q.Waits(1, 9000);
  EXPECT_EQ(q.FairShares(4000), (Shares{3000, 1000}));
}

TEST(Quotas, SurplusIsWhatAnotherMayReclaim) {
  Quotas q;
  q.Set(0, {5000, kNoLimit, 1});
  q.Set(1, {5000, kNoLimit, 1});
  q.Charge(1, 10000);
  EXPECT_EQ(q.Surplus(0, 3000, 10000), (Shares{0, 3000}));
  EXPECT_EQ(q.Surplus(0, 5000, 10000), (Shares{0, 5000}));
  EXPECT_EQ(q.Surplus(0, 5001, 10000), Shares{}) << "it would hold more than its own share";
  EXPECT_EQ(q.Surplus(1, 1000, 10000), Shares{});
  EXPECT_EQ(q.Surplus(0, 0, 10000), Shares{}) << "no device is asked for";
  q.Credit(1, 5000);
  q.Charge(0, 4000);
  EXPECT_EQ(q.Surplus(0, 1000, 10000), Shares{}) << "nobody has too much";
}

Request Ask(uint32_t space, int priority, int devices = 1) {
  Request r;
  r.shape.devices = devices;
  r.shape.compute_milli = kWholeMilli;
  r.space = space;
  r.priority = priority;
  return r;
}

TEST(WaitingRoom, FurthestBelowItsShareThenPriorityThenArrival) {
  Quotas q;
  WaitingRoom room;
  q.Charge(0, 6000);
  q.Charge(1, 1000);
  room.Add(1, Ask(0, 9), &q);
  room.Add(2, Ask(1, 0), &q);
  room.Add(3, Ask(1, 5), &q);
  room.Add(4, Ask(1, 5), &q);
  EXPECT_EQ(room.Order(q, 10000), (std::vector<uint64_t>{3, 4, 2, 1}));
  room.Remove(3, &q);
  EXPECT_EQ(room.size(), 3u);
  q.Set(1, {0, 1000, 1});  // at its limit: not tried
  EXPECT_EQ(room.Order(q, 10000), (std::vector<uint64_t>{1}));
}

TEST(WaitingRoom, ALargeRequestIsNotPassedForever) {
  Quotas q;
  WaitingRoom room(3);
  room.Add(1, Ask(0, 1, 8), &q);
  room.Add(2, Ask(0, 0), &q);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(room.Order(q, 10000), (std::vector<uint64_t>{1, 2}));
    room.Passed(1);
  }
  EXPECT_EQ(room.Order(q, 10000), (std::vector<uint64_t>{1}));
  EXPECT_EQ(room.request(1).shape.devices, 8);
}

}  // namespace
}  // namespace divvy::placement
