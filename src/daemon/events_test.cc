// Events: kinds and severities, what is held back, the log's line and the journal's entry.
#include "src/daemon/events.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <map>
#include <memory>
#include <mutex>

#include "src/daemon/event_log.h"
#include "src/daemon/log_queue.h"
#include "src/daemon/xid.h"

namespace divvy::daemon {
namespace {

TEST(Events, KindAndSeverityByCause) {
  Events events;
  events.Add({.cause = "out_of_share", .tenant = "a"}, 1);
  events.Add({.cause = "crashed", .tenant = "a"}, 1);
  events.Add({.cause = "scribbled", .tenant = "a"}, 1);
  events.Add({.kind = "finding", .cause = "foreign_device", .severity = Severity::kError}, 1);
  events.Add({.cause = "foreign_device"}, 1);
  const std::vector<Event> all = events.Since(0);
  ASSERT_EQ(all.size(), 5u);
  const std::pair<const char*, Severity> expected[] = {{"refusal", Severity::kWarning},
                                                       {"crash", Severity::kError},
                                                       {"finding", Severity::kError},
                                                       {"finding", Severity::kError},
                                                       {"refusal", Severity::kWarning}};
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].kind, expected[i].first) << i;
    EXPECT_EQ(all[i].severity, expected[i].second) << i;
  }
}

TEST(Events, WhatWasHeldBackIsToldOnceWhenItIsQuiet) {
  Events events;
  for (int i = 0; i < 100; ++i) events.Add({.cause = "denied", .tenant = "loud"}, 5);
  events.Flush(6);
  EXPECT_EQ(events.Since(0).size(), Events::kPerWindow);
  events.Flush(16);
  const std::vector<Event> told = events.Since(Events::kPerWindow);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].suppressed, 80u);
  EXPECT_EQ(told[0].cause, "denied");
  EXPECT_EQ(told[0].kind, "refusal");
  events.Flush(40);
  EXPECT_EQ(events.Newest(), Events::kPerWindow + 1);
  // A tenant that ends is told of all the same.
  for (int i = 0; i < 30; ++i) events.Add({.cause = "denied", .tenant = "gone"}, 50);
  events.Forget("gone");
  events.Flush(61);
  EXPECT_EQ(events.Since(0).back().suppressed, 10u);
}

TEST(LogQueue, WhoAddsNeverWaitsForWhoWrites) {
  std::mutex mutex;
  std::vector<std::string> written;
  std::promise<void> inside, go_on;
  std::atomic<bool> hang = true;
  const size_t fits = LogQueue::kMostBytes / 1024;
  {
    LogQueue queue([&](const std::string& line) {
      if (hang.exchange(false)) {
        inside.set_value();
        go_on.get_future().wait();
      }
      const std::lock_guard lock(mutex);
      written.push_back(line);
    });
    queue.Add("first\n");
    inside.get_future().wait();
    for (size_t i = 0; i < fits + 7; ++i) queue.Add(std::string(1023, 'x') + "\n");
    EXPECT_EQ(queue.dropped(), 7u);
    go_on.set_value();
  }  // writes what waits
  ASSERT_EQ(written.size(), 1 + fits + 1);
  EXPECT_EQ(written.front(), "first\n");
  EXPECT_NE(written.back().find("7 lines are missing here"), std::string::npos) << written.back();
}

TEST(LogQueue, AWriteThatHangsIsLeftBehind) {
  const auto never = std::make_shared<std::promise<void>>();
  const auto ends = never->get_future().share();
  LogQueue([ends](const std::string&) { ends.wait(); }).Add("x\n");
  never->set_value();
}

TEST(EventLog, ALineHasNoBreaks) {
  EXPECT_EQ(EventLine({.kind = "refusal",
                       .cause = "out_of_share",
                       .tenant = "web",
                       .pid = 7,
                       .command = "a\nb",
                       .bytes = 512,
                       .call = "cuMemAlloc_v2",
                       .message = "no"}),
            "refusal out_of_share tenant=web pid=7 (a b) bytes=512 call=cuMemAlloc_v2: no");
}

// As systemd's "Native Journal Protocol" has it: KEY=value, or KEY, eight bytes of length, value.
std::map<std::string, std::string> ReadEntry(const std::string& entry) {
  std::map<std::string, std::string> out;
  for (size_t at = 0; at < entry.size();) {
    const size_t line = entry.find('\n', at), equals = entry.find('=', at);
    if (equals < line) {
      out[entry.substr(at, equals - at)] = entry.substr(equals + 1, line - equals - 1);
      at = line + 1;
      continue;
    }
    uint64_t size = 0;
    for (int i = 7; i >= 0; --i)
      size = size << 8 | static_cast<unsigned char>(entry[line + 1 + static_cast<size_t>(i)]);
    out[entry.substr(at, line - at)] = entry.substr(line + 9, size);
    EXPECT_EQ(entry[line + 9 + size], '\n');
    at = line + 10 + size;
  }
  return out;
}

TEST(EventLog, JournalGetsEveryField) {
  char dir[] = "/tmp/divvy-journal-XXXXXX";
  ASSERT_NE(::mkdtemp(dir), nullptr);
  const std::string path = std::string(dir) + "/socket";
  const UniqueFd journal(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, path.size());
  ASSERT_EQ(::bind(journal.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EventLog log(path);
  ASSERT_TRUE(log.to_journal());
  Events events;
  events.WriteTo([&log](const Event& e) { log.Write(e); });
  events.Add({.cause = "crashed",
              .tenant = "web",
              .pid = 42,
              .command = "py\nPRIORITY=0",
              .device = "GPU-1",
              .bytes = 9,
              .message = "was ended by SIGSEGV"},
             1);
  char entry[4096];
  const ssize_t n = ::recv(journal.get(), entry, sizeof entry, MSG_DONTWAIT);
  ASSERT_GT(n, 0);
  const auto fields = ReadEntry(std::string(entry, static_cast<size_t>(n)));
  const std::map<std::string, std::string> expected = {
      {"MESSAGE", "web: was ended by SIGSEGV"},
      {"PRIORITY", "3"},
      {"SYSLOG_IDENTIFIER", "divvyd"},
      {"DIVVY_SEQ", "1"},
      {"DIVVY_KIND", "crash"},
      {"DIVVY_CAUSE", "crashed"},
      {"DIVVY_TENANT", "web"},
      {"DIVVY_PID", "42"},
      {"DIVVY_COMMAND", "py\nPRIORITY=0"},  // a field of its own it is not
      {"DIVVY_DEVICE", "GPU-1"},
      {"DIVVY_BYTES", "9"}};
  EXPECT_EQ(fields, expected);
  // A journal that takes nothing, or is gone, harms nobody.
  for (int i = 0; i < 2000; ++i) log.Write({.cause = "denied", .message = std::string(1000, 'x')});
  EXPECT_GT(log.dropped(), 0u);
  ::unlink(path.c_str());
  ::rmdir(dir);
  log.Write({.cause = "denied"});
  EXPECT_FALSE(EventLog(path).to_journal());
}

TEST(Xid, LinesOfTheKernelsLog) {
  const auto line = ParseXidLine(
      "4,1042,8123,-;NVRM: Xid (PCI:0000:04:00): 31, pid=1234, name=python, Ch 00000008");
  ASSERT_TRUE(line.has_value());
  EXPECT_EQ(line->pci, "0000:04:00");
  EXPECT_EQ(line->xid, 31u);
  EXPECT_EQ(line->pid, 1234);
  EXPECT_EQ(ParseXidLine("NVRM: Xid (PCI:0000:04:00): 79, GPU has fallen off the bus.")->pid, 0);
  EXPECT_EQ(ParseXidLine("NVRM: Xid (PCI:0000:04:00): 48, pid='<unknown>', name=")->pid, 0);
  for (const char* other : {"", "NVRM: Xid", "NVRM: Xid (PCI:0000:04:00): x", "usb 1-1: new"})
    EXPECT_FALSE(ParseXidLine(other).has_value()) << other;
  EXPECT_TRUE(SamePci("0000:04:00", "00000000:04:00.0"));
  EXPECT_FALSE(SamePci("0000:04:00", "00000000:05:00.0"));
  EXPECT_FALSE(SamePci("0000:04:00", ""));
}

TEST(Xid, OnlyAProgramsOwnLeavesTheDeviceInUse) {
  EXPECT_TRUE(MeaningOf(31).of_program);
  EXPECT_FALSE(MeaningOf(79).of_program);
  EXPECT_TRUE(MeaningOf(79).hits_every_one);
  EXPECT_FALSE(MeaningOf(999'999).of_program);
}

}  // namespace
}  // namespace divvy::daemon
