// The books under kills: a process is "killed" at each step of a charge by simply never going on,
// with other processes changing the book before it is buried.
#include "src/region/books.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

#include <sys/mman.h>

namespace divvy::region {
namespace {

struct Killed {};

class BooksTest : public ::testing::Test {
 protected:
  BooksTest() {
    void* p = mmap(nullptr, kUsageBytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    usage_ = static_cast<Usage*>(p);
  }
  ~BooksTest() override { munmap(usage_, kUsageBytes); }

  uint64_t Units() { return Unpack(BookOf(*usage_, 0).load()).units; }
  uint64_t Charged(uint32_t slot) { return usage_->slot[slot].device[0].charged_units.load(); }
  bool Charge(uint32_t slot, int64_t n, uint64_t limit = kMaxUnits) {
    return Change(*usage_, slot, 0, n, limit, Kind::kLinear, sequence_[slot]);
  }

  Usage* usage_;
  uint32_t sequence_[8] = {};
};

TEST_F(BooksTest, ChargeCreditAndLimit) {
  EXPECT_TRUE(Charge(1, 100, 150));
  EXPECT_FALSE(Charge(2, 51, 150));
  EXPECT_TRUE(Charge(2, 50, 150));
  EXPECT_EQ(Units(), 150u);
  EXPECT_TRUE(Charge(1, -40));
  EXPECT_EQ(Units(), 110u);
  EXPECT_EQ(Charged(1), 60u);
  EXPECT_TRUE(Charge(1, -1000));  // never more than the slot holds
  EXPECT_EQ(Units(), 50u);
}

TEST_F(BooksTest, RefusalLeavesNothingBehind) {
  EXPECT_FALSE(Charge(1, 10, 9));
  EXPECT_EQ(usage_->slot[1].op.word.load(), 0u);
  EXPECT_EQ(Units(), 0u);
}

// Every step x {charge, credit} x {nobody, one, many others after it}.
TEST_F(BooksTest, ExactAfterAKillAtEachStep) {
  for (int delta : {+30, -30}) {
    for (int others : {0, 1, 70000}) {
      for (auto kill : {BookStep::kBegin, BookStep::kOpWritten, BookStep::kHelped,
                        BookStep::kSwapped, BookStep::kMoved, BookStep::kEnd}) {
        const uint64_t start = Units();
        ASSERT_TRUE(Charge(1, 100));
        uint32_t before_kill = sequence_[1];
        try {
          Change(*usage_, 1, 0, delta, kMaxUnits, Kind::kLinear, before_kill, 0, [&](BookStep s) {
            if (s == kill) throw Killed{};
          });
        } catch (Killed) {
        }
        for (int i = 0; i < others; ++i) {
          ASSERT_TRUE(Charge(2, 7));
          ASSERT_TRUE(Charge(2, -7));
        }
        uint64_t held[kMaxDevices];
        Bury(*usage_, 1, held);
        EXPECT_EQ(Units(), start + held[0])
            << "step " << static_cast<int>(kill) << " delta " << delta << " others " << others;
        AdjustBook(*usage_, 0, -static_cast<int64_t>(held[0]), sequence_[0]);
        EXPECT_EQ(Units(), start);
        ResetSlot(*usage_, 1, sequence_[0]);
        sequence_[1] = 0;
      }
    }
  }
}

TEST_F(BooksTest, ThreadsOfManySlotsNeitherLoseNorGain) {
  std::vector<std::thread> threads;
  for (uint32_t s = 1; s <= 4; ++s)
    threads.emplace_back([this, s] {
      for (int i = 0; i < 20000; ++i) {
        if (Charge(s, 1 + i % 5, 1000) && i % 3) Charge(s, -2);
      }
    });
  for (auto& t : threads) t.join();
  uint64_t sum = 0;
  for (uint32_t s = 1; s <= 4; ++s) sum += Charged(s);
  EXPECT_EQ(Units(), sum);
  EXPECT_LE(sum, 1000u);
}

TEST_F(BooksTest, CountsWhatIsUnderWay) {
  ProcessSlot& slot = usage_->slot[1];
  const auto under_way = [&] { return UnderWay(slot.answered, slot.charges); };
  const auto change = [&](int64_t units, int begun) {
    ASSERT_TRUE(Change(*usage_, 1, 0, units, kMaxUnits, Kind::kLinear, sequence_[1], begun));
  };
  change(10, 1);  // an allocation begins
  EXPECT_EQ(under_way(), 1u);
  change(5, 1);
  EXPECT_EQ(under_way(), 2u);
  slot.answered += 2;
  EXPECT_EQ(under_way(), 0u);
  slot.answered -= 1;  // a free begins
  EXPECT_EQ(under_way(), 1u);
  change(-10, -1);
  EXPECT_EQ(under_way(), 0u);
  change(3, 0);
  EXPECT_EQ(under_way(), 0u);
  EXPECT_EQ(slot.charges & (kUnderWayOne - 1), 4u);  // each change is told apart
  EXPECT_FALSE(Change(*usage_, 1, 0, 10, 5, Kind::kLinear, sequence_[1], 1));
  EXPECT_EQ(under_way(), 0u);
  change(3, 1);
  ResetSlot(*usage_, 1, sequence_[0]);
  EXPECT_EQ(under_way(), 0u);
}

TEST_F(BooksTest, AScribbledBookNeverWraps) {
  ASSERT_TRUE(Charge(1, 100));
  BookOf(*usage_, 0) = Pack({3, 77, 9});
  ASSERT_TRUE(Charge(1, -100));
  EXPECT_EQ(Units(), 0u);
}

}  // namespace
}  // namespace divvy::region
