// Watchers that do not read: how much waits for one, and when it is dropped.
#include "src/daemon/watch.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <string>

#include "src/daemon/events.h"

namespace divvy::daemon {
namespace {

constexpr int kEventMs = 60'000;  // a bound on what is sure to come; never a measure

struct Ends {
  UniqueFd ours, daemons;
  explicit Ends(int buffer_bytes = 4096) {
    int fds[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return;
    ours = UniqueFd(fds[0]);
    daemons = UniqueFd(fds[1]);
    ::setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof buffer_bytes);
  }
  // The daemon has hung up; nothing is read.
  bool HungUp() const {
    pollfd p{ours.get(), POLLRDHUP, 0};
    return ::poll(&p, 1, kEventMs) == 1;
  }
  // All that comes up to `end`.
  std::string ReadTo(const std::string& end) const {
    std::string text;
    char part[4096];
    while (text.find(end) == std::string::npos) {
      const ssize_t n = ::recv(ours.get(), part, sizeof part, 0);
      if (n <= 0) break;
      text.append(part, static_cast<size_t>(n));
    }
    return text;
  }
};

Figures Large() {
  Figures out;
  for (int i = 0; i < 500; ++i) out.tenants.push_back({.name = "t" + std::to_string(i)});
  out.tenants.back().name = "the-last";
  return out;
}

TEST(Watch, WhoReadsNothingIsDroppedAndTheOthersGoOn) {
  Events events;
  Watch watch(Large, events, 50'000'000);
  ASSERT_TRUE(watch.Start().ok());
  Ends stuck, reader(1 << 20);
  for (Ends* ends : {&stuck, &reader}) {
    ASSERT_TRUE(watch.Reserve());
    watch.Add(Connection(std::move(ends->daemons)), {.interval_ns = 60'000'000'000, .since = {}});
  }
  ASSERT_TRUE(stuck.HungUp());
  EXPECT_EQ(watch.dropped(), 1u);
  // It read all that there was: nothing waits for it, however long it takes till there is more.
  EXPECT_NE(reader.ReadTo("the-last").find("event: snapshot"), std::string::npos);
  events.Add({.tenant = "somebody", .message = "something"}, 1);
  watch.Wake();
  EXPECT_NE(reader.ReadTo("something").find("event: event"), std::string::npos);
  EXPECT_EQ(watch.dropped(), 1u);
}

TEST(Watch, WhoHasHungUpIsNotOneWhoDoesNotRead) {
  Events events;
  Watch watch(Large, events, 50'000'000);
  ASSERT_TRUE(watch.Start().ok());
  Ends gone(1 << 20), after(1 << 20);
  ASSERT_TRUE(watch.Reserve());
  watch.Add(Connection(std::move(gone.daemons)), {.interval_ns = 60'000'000'000, .since = {}});
  gone.ReadTo("the-last");
  gone.ours = UniqueFd();
  ASSERT_TRUE(watch.Reserve());
  watch.Add(Connection(std::move(after.daemons)), {.interval_ns = 60'000'000'000, .since = {}});
  after.ReadTo("the-last");
  EXPECT_EQ(watch.dropped(), 0u);
}

}  // namespace
}  // namespace divvy::daemon
