// The table of live allocations against a plain map, through growth, removal and sweeps.
#include "src/shim/live_table.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <thread>
#include <unordered_map>
#include <vector>

namespace divvy::shim {
namespace {

LiveEntry Entry(uint64_t key, uint64_t units, Family family = Family::kPointer) {
  return {key, family, 0, 0, 0, 1, units, 0};
}

struct LiveTableTest : ::testing::Test {
  ~LiveTableTest() override { table->Reset(); }
  std::unique_ptr<LiveTable> table = std::make_unique<LiveTable>();
};

TEST_F(LiveTableTest, FindsTakesAndForgets) {
  EXPECT_FALSE(table->Find(Family::kPointer, 0x1000, nullptr));
  ASSERT_TRUE(table->Insert(Entry(0x1000, 7)));
  LiveEntry out;
  ASSERT_TRUE(table->Find(Family::kPointer, 0x1000, &out));
  EXPECT_EQ(out.units, 7u);
  EXPECT_FALSE(table->Find(Family::kArray, 0x1000, nullptr)) << "families must not meet";
  ASSERT_TRUE(table->Take(Family::kPointer, 0x1000, &out));
  EXPECT_FALSE(table->Take(Family::kPointer, 0x1000, &out));
  EXPECT_EQ(table->Count(), 0u);
}

TEST_F(LiveTableTest, TheSameKeyAgainReplacesAndTells) {
  table->Insert(Entry(0x1000, 7));
  LiveEntry replaced;
  ASSERT_TRUE(table->Insert(Entry(0x1000, 9), &replaced));
  EXPECT_EQ(replaced.family, Family::kPointer);
  EXPECT_EQ(replaced.units, 7u);
  EXPECT_EQ(table->Count(), 1u);
}

TEST_F(LiveTableTest, AgreesWithAMapThroughAHundredThousandChanges) {
  std::unordered_map<uint64_t, uint64_t> model;
  std::mt19937_64 random(7);
  for (int i = 0; i < 200000; ++i) {
    const uint64_t key = (random() % 60000) * 512;
    if (random() % 3 != 0) {
      table->Insert(Entry(key, static_cast<uint64_t>(i)));
      model[key] = static_cast<uint64_t>(i);
    } else {
      LiveEntry out;
      const bool found = table->Take(Family::kPointer, key, &out);
      ASSERT_EQ(found, model.count(key) == 1);
      if (found) {
        ASSERT_EQ(out.units, model[key]);
        model.erase(key);
      }
    }
  }
  ASSERT_EQ(table->Count(), model.size());
  for (const auto& [key, units] : model) {
    LiveEntry out;
    ASSERT_TRUE(table->Find(Family::kPointer, key, &out));
    ASSERT_EQ(out.units, units);
  }
}

TEST_F(LiveTableTest, SweepRemovesExactlyWhatMatches) {
  for (uint64_t i = 1; i <= 5000; ++i) {
    LiveEntry entry = Entry(i * 256, i);
    entry.owner = static_cast<uint32_t>(i % 3);
    table->Insert(entry);
  }
  uint64_t units = 0;
  table->Sweep([&](const LiveEntry& entry) {
    if (entry.owner != 1) return false;
    units += entry.units;
    return true;
  });
  uint64_t expected = 0;
  for (uint64_t i = 1; i <= 5000; ++i) {
    if (i % 3 == 1) expected += i;
    EXPECT_EQ(table->Find(Family::kPointer, i * 256, nullptr), i % 3 != 1) << i;
  }
  EXPECT_EQ(units, expected);
}

TEST_F(LiveTableTest, ThreadsEachKeepTheirOwn) {
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (uint64_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 5000; ++i) table->Insert(Entry((i * 4 + t) * 512, i));
      for (uint64_t i = 0; i < 5000; ++i) {
        LiveEntry out;
        if (!table->Take(Family::kPointer, (i * 4 + t) * 512, &out) || out.units != i) ++wrong;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(table->Count(), 0u);
}

}  // namespace
}  // namespace divvy::shim
