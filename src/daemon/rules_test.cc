// The daemon's pure rules: Hello's shape, admission, overhead, learned figures, the event ring.
#include <gtest/gtest.h>

#include <unistd.h>

#include <cstring>
#include <functional>

#include "src/daemon/admission.h"
#include "src/daemon/events.h"
#include "src/daemon/hello.h"
#include "src/daemon/learned.h"
#include "src/daemon/overhead.h"
#include "src/daemon/procfs.h"

namespace divvy::daemon {
namespace {

wire::Hello GoodHello() {
  wire::Hello h{};
  h.header = {wire::kMagic, wire::Type::kHello, sizeof h};
  h.protocol_version = wire::kProtocolVersion;
  h.layout_version = region::kLayoutVersion;
  h.ns_pid = 7;
  std::memcpy(h.command, "python3", 8);
  return h;
}

TEST(Hello, Good) {
  wire::Hello h = GoodHello();
  h.flags = wire::kHelloForked;
  h.held_count = 1;
  h.held[0].uuid[3] = 9;
  h.held[0].units = 100;
  h.held[0].kind_units[0] = 60;
  const auto view = ParseHello(&h, sizeof h);
  ASSERT_TRUE(view.ok());
  EXPECT_TRUE(view->forked);
  EXPECT_EQ(view->command, "python3");
  ASSERT_EQ(view->held.size(), 1u);
  EXPECT_EQ(view->held[0].units, 100u);
  EXPECT_EQ(view->held[0].kind_units[0], 60u);
}

TEST(Hello, TornKindsDoNotMatterButImpossibleUnitsDo) {
  wire::Hello h = GoodHello();
  h.held_count = 1;
  h.held[0].units = 10;
  h.held[0].kind_units[0] = 11;
  EXPECT_EQ(ParseHello(&h, sizeof h)->held[0].kind_units[0], 0u);
  h.held[0].units = region::kMaxUnits + 1;
  EXPECT_FALSE(ParseHello(&h, sizeof h).ok());
}

TEST(Hello, Refused) {
  EXPECT_FALSE(ParseHello("", 0).ok());
  const std::vector<std::function<void(wire::Hello&)>> spoil = {
      [](wire::Hello& h) { h.header.magic ^= 1; },
      [](wire::Hello& h) { h.header.type = wire::Type::kWelcome; },
      [](wire::Hello& h) { h.header.size_bytes = 8; },
      [](wire::Hello& h) { h.protocol_version = 99; },
      [](wire::Hello& h) { h.layout_version = 0; },
      [](wire::Hello& h) { h.held_count = region::kMaxDevices + 1; },
      [](wire::Hello& h) { h.flags = 1u << 31; },
      [](wire::Hello& h) { h.held_count = 2; }};  // the zero UUID twice
  for (const auto& s : spoil) {
    wire::Hello h = GoodHello();
    s(h);
    EXPECT_FALSE(ParseHello(&h, sizeof h).ok());
  }
  const wire::Hello h = GoodHello();
  EXPECT_FALSE(ParseHello(&h, sizeof h - 1).ok());
}

TEST(Hello, CommandIsMadePrintable) {
  wire::Hello h = GoodHello();
  std::memset(h.command, '\n', sizeof h.command);
  EXPECT_EQ(ParseHello(&h, sizeof h)->command, std::string(15, '?'));
}

DeviceBooks Books() {
  DeviceBooks b{.index = 3, .name = "X", .total = 80_GiB, .driver = 1_GiB};
  b.promises = {{"small", 10_GiB, 2_GiB}, {"over", 10_GiB, 12_GiB}};
  b.outside = {{77, "/usr/bin/game", 7_GiB}};
  return b;
}

TEST(Admission, Sums) {
  EXPECT_EQ(PromisedSum(Books()), 22_GiB);  // what is used above a promise counts as well
  EXPECT_EQ(FreeToPromise(Books()), 50_GiB);
  EXPECT_TRUE(Admit(Books(), 50_GiB, false).ok());
}

TEST(Admission, RefusalNamesWhoHoldsWhat) {
  const Status s = Admit(Books(), 50_GiB + 1_B, false);
  ASSERT_FALSE(s.ok());
  EXPECT_EQ(s.error().code, ErrorCode::kNoRoom);
  for (const char* part : {"GPU 3", "50 GiB of 80 GiB", "over 12 GiB (over its share)",
                           "small 10 GiB", "pid 77 (/usr/bin/game) 7 GiB", "driver 1 GiB"})
    EXPECT_NE(s.error().message.find(part), std::string::npos) << s.error().message;
  EXPECT_EQ(s.error().message.find('\n'), std::string::npos);
}

TEST(Admission, OvercommitLiftsAllButTheDevice) {
  EXPECT_TRUE(Admit(Books(), 79_GiB, true).ok());
  EXPECT_FALSE(Admit(Books(), 79_GiB + 1_B, true).ok());
}

TEST(Admission, TheMostThatMayBeUsedIsOnTheDevice) {
  EXPECT_TRUE(AdmitMost(Books(), 79_GiB).ok());  // whoever else was promised it
  const Status s = AdmitMost(Books(), 100_GiB);
  ASSERT_FALSE(s.ok());
  EXPECT_EQ(s.error().code, ErrorCode::kNoRoom);
  for (const char* part : {"GPU 3 has 79 GiB", "100 GiB were asked for", "--mem-max"})
    EXPECT_NE(s.error().message.find(part), std::string::npos) << s.error().message;
}

TEST(Admission, WhatIsComparedReadsUnlike) {
  const DeviceBooks b{.total = 81008_MiB, .promises = {{"one", 1_MiB, 0_B}}};
  const Status s = Admit(b, 81008_MiB, false);
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().message.find("has 79.108 GiB of 79.109 GiB left to promise, 79.109 GiB were"),
            std::string::npos)
      << s.error().message;
}

TEST(Admission, ManyHoldersStayOneLine) {
  DeviceBooks b{.total = 10_GiB};
  for (int i = 0; i < 1000; ++i) b.promises.push_back({"t" + std::to_string(i), 10_MiB, 0_B});
  const Status s = Admit(b, 9_GiB, false);
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().message.find("and 988 smaller ones"), std::string::npos);
  EXPECT_LT(s.error().message.size(), 1000u);
}

constexpr int64_t kMiB = 1 << 20;

TEST(Overhead, RisesAtOnceFallsSlowly) {
  Overhead o;
  const auto add = [&](int64_t gap, bool quiet = true) {
    return o.Add({.gap_bytes = gap * kMiB,
                  .ceiling_bytes = 640 * kMiB,
                  .quiet = quiet,
                  .comparable = quiet});
  };
  EXPECT_EQ(add(100, false), 0);
  EXPECT_EQ(o.bytes(), 0);  // somebody was charging: the sample says nothing
  add(100);
  EXPECT_EQ(o.bytes(), 100 * kMiB);
  add(20);
  EXPECT_EQ(o.bytes(), 80 * kMiB);
  for (int i = 0; i < 20; ++i) add(20);
  EXPECT_EQ(o.bytes(), 20 * kMiB);
  // 224 MiB are charged and the driver has not been asked yet: quiet, but no reason to fall.
  for (int i = 0; i < 20; ++i)
    o.Add({.gap_bytes = -204 * kMiB,
           .ceiling_bytes = 640 * kMiB,
           .floor_bytes = -448 * kMiB,
           .quiet = true});
  EXPECT_EQ(o.bytes(), 20 * kMiB);
}

TEST(Overhead, BeyondTheCeilingIsAFindingOnlyWhenSeenTwice) {
  Overhead o;
  const auto add = [&](int64_t gap, bool quiet = true) {
    return o.Add({.gap_bytes = gap * kMiB, .ceiling_bytes = 100 * kMiB, .quiet = quiet});
  };
  EXPECT_EQ(add(150), 0);
  EXPECT_EQ(o.bytes(), 100 * kMiB);
  EXPECT_EQ(add(150), 50 * kMiB);
  EXPECT_EQ(add(150, false), 0);
  EXPECT_EQ(add(150), 0);  // the row was broken
  EXPECT_EQ(add(99), 0);
  EXPECT_EQ(add(150), 0);
}

TEST(Overhead, DeductsForContextsOnlyWhileTheyAreCharged) {
  Overhead o;
  o.Add({.gap_bytes = -200 * kMiB,
         .ceiling_bytes = 0,
         .floor_bytes = -400 * kMiB,
         .quiet = true,
         .comparable = true});
  EXPECT_EQ(o.bytes(), -50 * kMiB);
  for (int i = 0; i < 40; ++i)
    o.Add({.gap_bytes = -999 * kMiB,
           .ceiling_bytes = 0,
           .floor_bytes = -400 * kMiB,
           .quiet = true,
           .comparable = true});
  EXPECT_EQ(o.bytes(), -400 * kMiB);
  o.Add({.gap_bytes = -400 * kMiB, .floor_bytes = 0, .quiet = false});  // the contexts went
  EXPECT_EQ(o.bytes(), 0);
}

// Imported memory is charged to its importer too, and once its exporter has freed it to nobody
// else: what NVML does not show of it is no room.
TEST(Overhead, DeductsNothingForImportedMemory) {
  Overhead o;
  const auto add = [&](int64_t gap, int64_t imports) {
    for (int i = 0; i < 40; ++i)
      o.Add({.gap_bytes = gap * kMiB,
             .ceiling_bytes = 640 * kMiB,
             .import_bytes = imports * kMiB,
             .floor_bytes = -896 * kMiB,
             .quiet = true,
             .comparable = true});
  };
  add(-512, 512);
  EXPECT_EQ(o.bytes(), 0);
  add(-540, 512);  // and contexts were charged too high
  EXPECT_EQ(o.bytes(), -28 * kMiB);
  add(-28, 512);  // shown with its importer as well
  EXPECT_EQ(o.bytes(), 0);
  add(-28, 0);
  EXPECT_EQ(o.bytes(), -28 * kMiB);
}

TEST(Learned, OneTenantCannotMoveItFar) {
  Learned l;
  const std::string key = Learned::Key("H100", "580", "");
  EXPECT_EQ(l.Context(key), 512_MiB);
  EXPECT_EQ(l.Ceiling(key), 640_MiB);
  EXPECT_FALSE(l.Add(key, 1, 1_MiB));     // below what a context can be
  EXPECT_FALSE(l.Add(key, 1, 2000_MiB));  // above it
  EXPECT_FALSE(l.Add(key, 1, 400_MiB));
  EXPECT_FALSE(l.Add(key, 1, 400_MiB));  // it may say so as often as it likes
  EXPECT_EQ(l.Context(key), 512_MiB);
  EXPECT_TRUE(l.Add(key, 2, 400_MiB));
  EXPECT_EQ(l.Context(key), 400_MiB);
  EXPECT_FALSE(l.Add(key, 3, 20_MiB));
  EXPECT_TRUE(l.Add(key, 4, 350_MiB));  // the more careful one of the two holds
  EXPECT_EQ(l.Context(key), 350_MiB);
  EXPECT_FALSE(l.Add(key, 5, 20_MiB));
  EXPECT_TRUE(l.Add(key, 6, 20_MiB));
  EXPECT_EQ(l.Context(key), Bytes{Bytes(350_MiB).n / 4 * 3});
  EXPECT_FALSE(l.Add(key, 1, 600_MiB));  // the figure to charge is the bare context's
  EXPECT_EQ(l.Ceiling(key), 625_MiB);    // 400 + 25 %, + 25 %
  Learned back;
  back.Load(l.ToJson());
  EXPECT_EQ(back.ToJson(), l.ToJson());
  back.Load(nlohmann::json::parse(R"({"x":{"context_bytes":1,"largest_bytes":2},"y":3})"));
  EXPECT_EQ(back.ToJson(), l.ToJson());
  EXPECT_NE(key, Learned::Key("H100", "580", "EAGER"));
  EXPECT_EQ(key, Learned::Key("H100", "580", "LAZY"));
}

TEST(Events, OneTenantCannotDrownTheOthers) {
  Events events;
  unsigned kept = 0;
  for (int i = 0; i < 10'000; ++i)
    kept += events.Add({.cause = "out_of_share", .tenant = "loud"}, 100.0) ? 1 : 0;
  EXPECT_EQ(kept, Events::kPerWindow);
  EXPECT_TRUE(events.Add({.cause = "out_of_share", .tenant = "quiet"}, 100.0));
  EXPECT_TRUE(events.Add({.cause = "created", .tenant = "loud"}, 100.0));
  EXPECT_TRUE(events.Add({.cause = "out_of_share", .tenant = "loud", .message = "m"}, 111.0));
  EXPECT_EQ(events.Since(0).back().message, "m (9980 alike not shown)");
  EXPECT_EQ(events.Since(events.Since(0).back().sequence - 1).size(), 1u);
}

TEST(Events, KeepsTheNewest) {
  Events events;
  for (size_t i = 0; i < Events::kKept + 10; ++i)
    events.Add({.cause = "created", .tenant = std::to_string(i)}, 1.0);
  EXPECT_EQ(events.Since(0).size(), Events::kKept);
  EXPECT_EQ(events.Since(0).front().sequence, 11u);
}

TEST(Stat, CommandsWithParenthesesAndNewlines) {
  const std::string tail =
      " S 42 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 289506 0 0 18446744073709551615";
  for (const char* name : {"sh", "a) R 9 (b", "new\nline", ""}) {
    const auto stat = ParseStat("77 (" + std::string(name) + ")" + tail);
    ASSERT_TRUE(stat.has_value()) << name;
    EXPECT_EQ(stat->parent, 42);
    EXPECT_EQ(stat->start_ticks, 289506u);
    EXPECT_EQ(stat->state, 'S');
  }
  EXPECT_FALSE(ParseStat("77 (sh) S 42").has_value());
  EXPECT_FALSE(ParseStat("").has_value());
  EXPECT_TRUE(Alive(*IdentityOf(::getpid())));
}

}  // namespace
}  // namespace divvy::daemon
