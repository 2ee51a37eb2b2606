// Ledgers over time, and what is concluded from one: sums to 100, and the right sentence.
#include "src/daemon/why.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace divvy::daemon {
namespace {

using arbiter::Nanos;
using std::chrono::seconds;
using testing::HasSubstr;

constexpr int64_t kSecond = 1'000'000'000;

Ledger Spent(std::initializer_list<std::pair<Part, double>> percents) {
  Ledger l;
  for (const auto& [part, percent] : percents)
    l[part] = static_cast<int64_t>(percent / 100 * 60 * kSecond);
  l.at = seconds(60);
  return l;
}

int SumOfTenths(const nlohmann::json& why) {
  int sum = 0;
  for (const auto& part : why["parts"])
    sum += static_cast<int>(std::lround(part["percent"].get<double>() * 10));
  return sum;
}

TEST(Tenths, AlwaysSumToAThousand) {
  EXPECT_EQ(Tenths({1, 1, 1}), (std::vector<int>{334, 333, 333}));
  EXPECT_EQ(Tenths({0, 0}), (std::vector<int>{0, 0}));
  uint64_t seed = 7;
  for (int round = 0; round < 1000; ++round) {
    std::vector<int64_t> ns;
    for (int i = 0; i < 10; ++i) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      ns.push_back(static_cast<int64_t>(seed >> 40));
    }
    const std::vector<int> tenths = Tenths(ns);
    EXPECT_EQ(std::accumulate(tenths.begin(), tenths.end(), 0), 1000);
  }
}

TEST(Why, Verdicts) {
  struct Case {
    WhyInput in;
    const char* by;
    const char* says;
  };
  WhyInput waits{.spent = Spent({{Part::kGpu, 30}, {Part::kTurn, 69}, {Part::kHost, 1}}),
                 .guaranteed_percent = 50};
  waits.others = {{"", 0, 1}, {"big", 70, 9}};
  WhyInput due = waits;
  due.guaranteed_percent = 30;
  WhyInput batch = waits;
  batch.guaranteed_percent = 0;
  batch.batch = true;
  WhyInput copies{.spent = Spent({{Part::kGpu, 20}, {Part::kHost, 80}})};
  copies.spent.copying_ns = 40 * kSecond;
  WhyInput refused{.spent = Spent({{Part::kGpu, 5}, {Part::kHost, 95}}),
                   .refused_ns = 50 * kSecond,
                   .refusals = 12};
  const Case cases[] = {
      {{.spent = Spent({{Part::kGpu, 30}, {Part::kCap, 65}, {Part::kTurn, 5}}), .cap_percent = 30},
       "cap",
       "its cap of 30 %"},
      {{.spent = Spent({{Part::kGpu, 97}, {Part::kHost, 3}})}, "gpu", "own GPU work"},
      {{.spent = Spent({{Part::kGpu, 12}, {Part::kHost, 88}})}, "host", "88 % of the time it asks"},
      {waits, "others", "waits for tenant 'big', who has 70 % guaranteed"},
      {due, "others", "gets its 30 % guaranteed"},
      {batch, "others", "class batch"},
      {copies, "copies", "copies between host and device"},
      {refused, "refused", "refused memory 12 times"},
      {{.spent = Spent({{Part::kPaused, 60}, {Part::kGpu, 40}})}, "paused", "divvy resume"},
      {{.spent = Spent({{Part::kAudit, 100}}), .audit = "beyond_share"}, "audit", "beyond_share"},
      {{.spent = Spent({{Part::kAlone, 100}})}, "alone", "nothing is measured"},
      {{.spent = Spent({{Part::kAbsent, 90}, {Part::kHost, 10}})}, "absent", "no process"},
  };
  for (const Case& c : cases) {
    const nlohmann::json why = Explain(c.in);
    EXPECT_EQ(why["limited_by"], c.by) << why.dump(1);
    EXPECT_THAT(why["verdict"].get<std::string>(), HasSubstr(c.says));
    EXPECT_EQ(SumOfTenths(why), 1000) << why.dump(1);
  }
}

TEST(Why, NothingIsCountedTwice) {
  // More copying and refusing than the host had time for: several threads.
  WhyInput in{.spent = Spent({{Part::kGpu, 90}, {Part::kHost, 10}}),
              .refused_ns = 60 * kSecond,
              .refusals = 1};
  in.spent.copying_ns = 4 * kSecond;
  EXPECT_EQ(SumOfTenths(Explain(in)), 1000);
  in.spent.copying_ns = 600 * kSecond;
  EXPECT_EQ(SumOfTenths(Explain(in)), 1000);
  EXPECT_EQ(Explain(in)["limited_by"], "gpu");
}

TEST(LedgerRing, BetweenTwoAndAfterTheNewest) {
  LedgerRing ring;
  Ledger l;
  l.at = seconds(10);
  ring.Push(l);
  l.at = seconds(12);
  l[Part::kGpu] = 2 * kSecond;
  l.AddWait(5, 100);
  l.AddWait(6, 100);
  l.Forget(6);
  ASSERT_EQ(l.waited_for.size(), 2u);
  EXPECT_EQ(l.waited_for[1], (std::pair{Ledger::kEnded, int64_t{100}}));
  l.rest = Part::kAlone;
  ring.Push(l);
  EXPECT_EQ(ring.At(seconds(9)).at, seconds(10));
  EXPECT_EQ(ring.At(seconds(11))[Part::kGpu], kSecond);
  EXPECT_EQ(ring.At(seconds(11)).waited_for.at(0).second, 50);
  EXPECT_EQ(ring.At(seconds(15))[Part::kAlone], 3 * kSecond);
  const Ledger grown = Difference(ring.At(seconds(11)), ring.At(seconds(15)));
  EXPECT_EQ(grown.at, seconds(4));
  EXPECT_EQ(std::accumulate(grown.ns.begin(), grown.ns.end(), int64_t{0}), 4 * kSecond);
}

}  // namespace
}  // namespace divvy::daemon
