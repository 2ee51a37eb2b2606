// Memory shared inside a tenant, under kills: a process is "killed" at each step by never going on.
// What the tenant holds by the books less what is doubled is compared with what it really has.
#include "src/region/shared_memory.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

#include <sys/mman.h>

namespace divvy::region {
namespace {

struct Killed {};
constexpr uint64_t kHandle = 77, kObject = 5;

class SharedMemoryTest : public ::testing::Test {
 protected:
  SharedMemoryTest() {
    void* p = mmap(nullptr, kUsageBytes, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    usage_ = static_cast<Usage*>(p);
  }
  ~SharedMemoryTest() override { munmap(usage_, kUsageBytes); }

  uint64_t Booked() { return Unpack(BookOf(*usage_, 0).load()).units; }
  uint64_t Twice() { return LookDoubled(*usage_, 0, 0, scratch_).units; }
  uint64_t Held() { return Booked() - Twice(); }

  bool Charge(uint32_t slot, int64_t n, uint64_t limit = kMaxUnits) {
    return Change(*usage_, slot, 0, n, limit, Kind::kLinear, sequence_[slot]);
  }
  bool ChargeWithin(uint32_t slot, uint64_t n, uint64_t limit) {
    return ChangeBeyond(*usage_, slot, 0, n, 0, limit, Kind::kLinear, sequence_[slot], 0,
                        scratch_) == Beyond::kGranted;
  }
  uint32_t Export(uint32_t slot, uint64_t units, uint64_t object = kObject,
                  uint64_t handle = kHandle) {
    const uint32_t hold = TakeHold(*usage_, slot, 0, object, handle, units, /*local=*/object);
    if (hold != kNoHold) SetHold(*usage_, hold, kHoldOpen);
    return hold;
  }
  template <typename Steps = NoHoldSteps>
  Joined Join(uint32_t slot, uint64_t units, uint64_t limit = kMaxUnits, const Steps& at = {}) {
    return JoinHold(*usage_, slot, 0, units, FindOpen(*usage_, kHandle), kHandle, kObject, limit,
                    sequence_[slot], scratch_, at);
  }
  template <typename Steps = NoHoldSteps>
  void Leave(uint32_t slot, uint64_t units, const Steps& at = {}) {
    EndHold(*usage_, slot, 0, FindHold(*usage_, slot, 0, kObject), units, Kind::kImport,
            sequence_[slot], 0, scratch_, at);
  }
  // What divvyd does with a process that is gone, and later when the driver has freed its memory.
  uint64_t BuryAndClose(uint32_t slot) {
    uint64_t held[kMaxDevices];
    Bury(*usage_, slot, held);
    CloseHolds(*usage_, slot);
    return held[0];
  }
  void Release(uint32_t slot, uint64_t units) {
    DropHolds(*usage_, slot, 0);
    AdjustBook(*usage_, 0, -static_cast<int64_t>(units), sequence_[0]);
    ResetSlot(*usage_, slot, sequence_[0]);
    sequence_[slot] = 0;
  }
  unsigned HoldsOf(uint32_t slot) {
    unsigned n = 0;
    for (const SharedHold& hold : usage_->hold)
      n += hold.word != 0 && UnpackHold(hold.word).slot == slot;
    return n;
  }

  Usage* usage_;
  uint32_t sequence_[16] = {};
  DoubledScratch scratch_;
};

TEST_F(SharedMemoryTest, HeldOnceHoweverManyHaveItOpen) {
  ASSERT_TRUE(Charge(1, 600));
  Export(1, 600);
  EXPECT_EQ(Held(), 600u);
  for (uint32_t slot = 2; slot < 6; ++slot) {
    // Room for one copy only.
    ASSERT_EQ(Join(slot, 600, 1000), Joined::kGranted);
    EXPECT_EQ(Held(), 600u);
  }
  EXPECT_EQ(Booked(), 3000u);
  // What is left is what one copy leaves.
  EXPECT_FALSE(Charge(3, 1, 1000));
  EXPECT_FALSE(ChargeWithin(3, 401, 1000));
  EXPECT_TRUE(ChargeWithin(3, 400, 1000));
  EXPECT_EQ(Held(), 1000u);
  EXPECT_TRUE(Charge(3, -400));
  // The exporter goes first: the importers have it on.
  Leave(1, 600);
  for (uint32_t slot = 2; slot < 6; ++slot) {
    EXPECT_EQ(Held(), 600u);
    Leave(slot, 600);
  }
  EXPECT_EQ(Booked(), 0u);
  EXPECT_EQ(Twice(), 0u);
  EXPECT_EQ(DoubledOf(*usage_, 0), 0u);
}

TEST_F(SharedMemoryTest, APeakCountsItOnce) {
  ASSERT_TRUE(Charge(1, 600));
  Export(1, 600);
  ASSERT_EQ(Join(2, 600), Joined::kGranted);
  EXPECT_EQ(PeakOf(*usage_, 0), 600u);
  ASSERT_TRUE(Charge(2, 50));
  EXPECT_EQ(PeakOf(*usage_, 0), 650u);
}

TEST_F(SharedMemoryTest, TheLargestPartCounts) {
  ASSERT_TRUE(Charge(1, 100));
  Export(1, 100);
  ASSERT_EQ(Join(2, 70), Joined::kGranted);
  ASSERT_EQ(Join(3, 130), Joined::kGranted);
  EXPECT_EQ(Held(), 130u);
}

TEST_F(SharedMemoryTest, ObjectsAndDevicesAreToldApart) {
  for (uint64_t object = 1; object <= 500; ++object) {
    ASSERT_TRUE(Charge(1, 10));
    ASSERT_NE(Export(1, 10, object, 1000 + object), kNoHold);
    ASSERT_EQ(Twice(), 10 * (object - 1));
    ASSERT_EQ(JoinHold(*usage_, 2, 0, 10, FindOpen(*usage_, 1000 + object), 1000 + object, object,
                       kMaxUnits, sequence_[2], scratch_),
              Joined::kGranted);
  }
  EXPECT_EQ(Held(), 5000u);
  EXPECT_EQ(LookDoubled(*usage_, 1, 0, scratch_).units, 0u);
}

TEST_F(SharedMemoryTest, WhatIsNoLongerExportedIsNotJoined) {
  ASSERT_TRUE(Charge(1, 100));
  const uint32_t hold = Export(1, 100);
  const OpenHold open = FindOpen(*usage_, kHandle);
  SetHold(*usage_, hold, kHoldCounted);  // its free has begun
  EXPECT_EQ(FindOpen(*usage_, kHandle).object, 0u);
  EXPECT_EQ(JoinHold(*usage_, 2, 0, 100, open, kHandle, 9, kMaxUnits, sequence_[2], scratch_),
            Joined::kNotShared);
  EXPECT_EQ(Booked(), 100u);
  EXPECT_EQ(HoldsOf(2), 0u);
  // The same bytes for another allocation: the one looked up before is not it.
  Leave(1, 100);
  ASSERT_TRUE(Charge(1, 100));
  Export(1, 100, kObject + 1);
  EXPECT_EQ(JoinHold(*usage_, 2, 0, 100, open, kHandle, 9, kMaxUnits, sequence_[2], scratch_),
            Joined::kNotShared);
  EXPECT_EQ(Held(), 100u);
}

TEST_F(SharedMemoryTest, AReusedHandleIsAnotherObject) {
  ASSERT_TRUE(Charge(1, 100));
  Export(1, 100);
  ASSERT_EQ(Join(2, 100), Joined::kGranted);
  Leave(1, 100);
  ASSERT_TRUE(Charge(1, 100));
  Export(1, 100, kObject + 1);
  EXPECT_EQ(Held(), 200u);
  ASSERT_EQ(JoinHold(*usage_, 3, 0, 100, FindOpen(*usage_, kHandle), kHandle, 4, kMaxUnits,
                     sequence_[3], scratch_),
            Joined::kGranted);
  EXPECT_EQ(Held(), 200u);
}

TEST_F(SharedMemoryTest, ARefusedJoinLeavesNothingBehind) {
  ASSERT_TRUE(Charge(1, 600));
  Export(1, 500);
  EXPECT_EQ(Join(2, 600, 650), Joined::kRefused);  // 100 of it would be its own
  EXPECT_EQ(HoldsOf(2), 0u);
  EXPECT_EQ(Booked(), 600u);
  EXPECT_EQ(Join(2, 600, 700), Joined::kGranted);
  EXPECT_EQ(Held(), 700u);
}

TEST_F(SharedMemoryTest, AFullTableChargesLikeAStranger) {
  ASSERT_TRUE(Charge(1, kMaxHolds));
  for (uint64_t i = 0; i < kMaxHolds; ++i) ASSERT_NE(Export(1, 1, 100 + i), kNoHold);
  EXPECT_EQ(Export(1, 1), kNoHold);
  EXPECT_EQ(Join(2, 1), Joined::kNotShared);
  EXPECT_EQ(Twice(), 0u);
  EXPECT_EQ(Booked(), kMaxHolds);
  DropHolds(*usage_, 1, 0);
  EXPECT_NE(Export(1, 1), kNoHold);
}

// While somebody is between a charge and its part nobody is refused for good.
TEST_F(SharedMemoryTest, WhoeverIsInBetweenIsWaitedFor) {
  ASSERT_TRUE(Charge(1, 600));
  Export(1, 600);
  const auto look = [&](HoldStep step, bool leaving) {
    bool looked = false;
    const auto at = [&](HoldStep s) {
      if (s != step) return;
      looked = true;
      EXPECT_EQ(ChangeBeyond(*usage_, 3, 0, 400, 0, 1000, Kind::kLinear, sequence_[3], 0, scratch_),
                Beyond::kUnsettled);
    };
    if (leaving)
      Leave(2, 600, at);
    else
      ASSERT_EQ(Join(2, 600, 1000, at), Joined::kGranted);
    EXPECT_TRUE(looked);
  };
  look(HoldStep::kCharged, false);
  look(HoldStep::kTold, true);
  EXPECT_TRUE(ChargeWithin(3, 400, 1000));
}

// A part that was counted, and its charge credited before the charge that was granted by it.
TEST_F(SharedMemoryTest, ACountThatIsOldGrantsNothing) {
  for (const bool late : {false, true}) {
    ASSERT_TRUE(Charge(1, 600));
    Export(1, 600);
    ASSERT_EQ(Join(2, 600), Joined::kGranted);
    const uint64_t ends = EndsOf(*usage_, 0);
    const Doubled counted = LookDoubled(*usage_, 0, 3, scratch_);
    if (late) Leave(2, 600);
    // By the old count there would be room for as much again.
    const bool granted = Charge(3, 700, 1000 + counted.units);
    EXPECT_EQ(granted, late);
    EXPECT_EQ(EndsOf(*usage_, 0) != ends, late);  // and so it is taken back
    if (granted) Charge(3, -700);
    if (!late) Leave(2, 600);
    Leave(1, 600);
    EXPECT_EQ(Booked(), 0u);
  }
}

// Every step of joining and leaving x killed there: never less than what is really held, exact once
// the dead are buried, and nothing of them left.
TEST_F(SharedMemoryTest, NeverTooLittleAfterAKillAtEachStep) {
  for (const auto step : {HoldStep::kTaken, HoldStep::kCharged, HoldStep::kSet, HoldStep::kCleared,
                          HoldStep::kTold, HoldStep::kCredited}) {
    for (const bool exporter_first : {false, true}) {
      SCOPED_TRACE(static_cast<int>(step));
      ASSERT_TRUE(Charge(1, 600));
      Export(1, 600);
      ASSERT_EQ(Join(3, 600), Joined::kGranted);
      const auto at = [&](HoldStep s) {
        if (s == step) throw Killed{};
      };
      try {
        Join(2, 600, kMaxUnits, at);
        Leave(2, 600, at);
      } catch (Killed) {
      }
      EXPECT_GE(Held(), 600u);
      const uint64_t left = BuryAndClose(2);
      EXPECT_GE(Held(), 600u);
      EXPECT_FALSE(LookDoubled(*usage_, 0, 0, scratch_).changing);
      // The exporter may be gone before the driver has freed what the dead had.
      if (exporter_first) Release(1, BuryAndClose(1));
      EXPECT_GE(Held(), 600u);
      Release(2, left);
      EXPECT_EQ(Held(), 600u);
      EXPECT_EQ(HoldsOf(2), 0u);
      if (!exporter_first) {
        EXPECT_NE(FindOpen(*usage_, kHandle).object, 0u);
        Release(1, BuryAndClose(1));
      }
      EXPECT_EQ(FindOpen(*usage_, kHandle).object, 0u);
      EXPECT_EQ(Held(), 600u);
      Leave(3, 600);
      EXPECT_EQ(Held(), 0u);
      EXPECT_EQ(Booked(), 0u);
    }
  }
}

TEST_F(SharedMemoryTest, ADeadExportersMemoryCountsOnceAndIsNotJoined) {
  ASSERT_TRUE(Charge(1, 600));
  Export(1, 600);
  ASSERT_EQ(Join(2, 600), Joined::kGranted);
  const uint64_t leaving = BuryAndClose(1);
  EXPECT_EQ(leaving, 600u);
  EXPECT_EQ(Held(), 600u);  // while the driver takes its time
  EXPECT_EQ(FindOpen(*usage_, kHandle).object, 0u);
  Release(1, leaving);
  EXPECT_EQ(Held(), 600u);
}

// Whatever stands in the table, counting ends and stays within it.
TEST_F(SharedMemoryTest, AScribbledTableHarmsNobodyElse) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 20; ++round) {
    auto* words = reinterpret_cast<uint64_t*>(usage_->hold);
    for (size_t i = 0; i < sizeof(usage_->hold) / 8; ++i)
      words[i] = round % 2 != 0 ? random() : random() & 0x30103;
    usage_->holds_top = round == 0 ? UINT32_MAX : static_cast<uint32_t>(random());
    for (unsigned d = 0; d < kMaxDevices; ++d)
      EXPECT_LE(LookDoubled(*usage_, d, 0, scratch_).units, uint64_t{kMaxHolds} * kMaxUnits);
    FindOpen(*usage_, random());
    FindHold(*usage_, 3, 0, random());
    CloseHolds(*usage_, 3);
    DropHolds(*usage_, 3, 0);
    Change(*usage_, 1, 0, 1, kMaxUnits, Kind::kLinear, sequence_[1]);
    ChargeWithin(1, 1, 5);
  }
}

// Exporters come and go, importers open and close, others take all that there is. Whatever they are
// granted, what is really held is never more than the limit.
TEST_F(SharedMemoryTest, ManyProcessesNeitherLoseNorGain) {
  constexpr uint64_t kLimit = 1000, kUnits = 300;
  constexpr int kRounds = 20000;
  ASSERT_TRUE(Charge(1, kUnits));
  Export(1, kUnits);
  std::atomic<uint64_t> really{kUnits};  // the exporter's, and what the takers have
  std::atomic<uint64_t> most{0};
  std::vector<std::thread> threads;
  for (uint32_t slot = 2; slot < 5; ++slot)
    threads.emplace_back([&, slot] {
      DoubledScratch scratch;
      for (int i = 0; i < kRounds; ++i) {
        const OpenHold open = FindOpen(*usage_, kHandle);
        if (JoinHold(*usage_, slot, 0, kUnits, open, kHandle, kObject, kLimit, sequence_[slot],
                     scratch) == Joined::kGranted)
          EndHold(*usage_, slot, 0, FindHold(*usage_, slot, 0, kObject), kUnits, Kind::kImport,
                  sequence_[slot], 0, scratch);
      }
    });
  std::atomic<unsigned> granted{0};
  for (uint32_t slot = 5; slot < 8; ++slot)
    threads.emplace_back([&, slot] {
      DoubledScratch scratch;
      for (int i = 0; i < kRounds; ++i) {
        if (ChangeBeyond(*usage_, slot, 0, 350, 0, kLimit, Kind::kLinear, sequence_[slot], 0,
                         scratch) != Beyond::kGranted)
          continue;
        ++granted;
        const uint64_t now = really.fetch_add(350) + 350;
        uint64_t before = most;
        while (now > before && !most.compare_exchange_weak(before, now)) {
        }
        really.fetch_sub(350);
        Change(*usage_, slot, 0, -350, 0, Kind::kLinear, sequence_[slot]);
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_GT(granted, 0u);
  EXPECT_LE(most, kLimit);
  EXPECT_EQ(Booked(), kUnits);
  EXPECT_EQ(Held(), kUnits);
  for (uint32_t slot = 2; slot < 8; ++slot) EXPECT_EQ(HoldsOf(slot), 0u);
}

}  // namespace
}  // namespace divvy::region
