#include "src/daemon/watch.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "src/daemon/procfs.h"
#include "src/daemon/watch_frame.h"

namespace divvy::daemon {
namespace {

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kShortestMs = 100, kLongestMs = 60'000;

bool Number(const std::string& text, uint64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

// Those with the same interval are due together, and share one snapshot.
uint64_t NextDue(uint64_t now, uint64_t interval) { return (now / interval + 1) * interval; }

}  // namespace

Result<WatchTerms> ParseWatchTerms(const std::string& interval_ms, const std::string& since) {
  WatchTerms terms;
  uint64_t ms = 1000;
  if (!interval_ms.empty() && (!Number(interval_ms, ms) || ms < kShortestMs || ms > kLongestMs))
    return Invalid("interval_ms must be a whole number from 100 to 60000");
  uint64_t event = 0;
  if (!since.empty()) {
    if (!Number(since, event)) return Invalid("since must be the number of an event");
    terms.since = event;
  }
  terms.interval_ns = ms * kMs;
  return terms;
}

Watch::Watch(std::function<Figures()> collect, const Events& events, uint64_t stuck_ns)
    : collect_(std::move(collect)),
      events_(events),
      stuck_ns_(stuck_ns),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Watch::~Watch() {
  stopping_ = true;
  Wake();
  if (thread_.joinable()) thread_.join();
}

Status Watch::Start() {
  if (!wake_.valid()) return IoError("cannot make an eventfd", errno);
  thread_ = std::thread([this] { Run(); });
  return {};
}

bool Watch::Reserve() {
  if (places_.fetch_add(1) < kMostWatchers) return true;
  --places_;
  return false;
}

void Watch::Add(Connection connection, const WatchTerms& terms) {
  ::fcntl(connection.fd(), F_SETFL, O_NONBLOCK);
  {
    const std::lock_guard lock(mutex_);
    arrived_.push_back({.connection = std::move(connection),
                        .interval_ns = terms.interval_ns,
                        .seen = terms.since ? *terms.since : events_.Newest()});
  }
  Wake();
}

void Watch::Wake() {
  if (places_ == 0 && !stopping_) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
}

void Watch::TakeNew() {
  const std::lock_guard lock(mutex_);
  for (Watcher& w : arrived_) {
    w.moved_ns = MonotonicNs();
    watchers_.push_back(std::move(w));  // due at once
  }
  arrived_.clear();
}

void Watch::QueueEvents() {
  uint64_t oldest = UINT64_MAX;
  for (const Watcher& w : watchers_) oldest = std::min(oldest, w.seen);
  for (const Event& e : events_.Since(oldest)) {
    Text text;
    for (Watcher& w : watchers_) {
      if (w.gone || e.sequence <= w.seen) continue;
      // The rest stays in the ring until these are read.
      if (w.waiting.size() >= kMostFrames) continue;
      if (text == nullptr)
        text = std::make_shared<const std::string>(Frame("event", e.sequence, EventJson(e)));
      w.waiting.push_back(text);
      w.seen = e.sequence;
    }
  }
}

void Watch::QueueSnapshots(uint64_t now) {
  Text text;
  for (Watcher& w : watchers_) {
    if (w.gone || now < w.due_ns) continue;
    w.due_ns = NextDue(now, w.interval_ns);
    // The one before is not read yet: it gets fewer.
    if (std::find(w.waiting.begin(), w.waiting.end(), w.snapshot) != w.waiting.end()) continue;
    if (text == nullptr)
      text = std::make_shared<const std::string>(Frame("snapshot", 0, SnapshotJson(collect_())));
    w.snapshot = text;
    w.waiting.push_back(text);
  }
}

void Watch::Send(Watcher& w, uint64_t now) {
  while (!w.waiting.empty()) {
    const std::string& text = *w.waiting.front();
    const ssize_t n = w.connection.Send(text.data() + w.sent, text.size() - w.sent);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      if (now - w.moved_ns < stuck_ns_) return;
      w.gone = true;
      ++dropped_;
      return;
    }
    if (n < 0) {
      w.gone = true;
      return;
    }
    w.moved_ns = now;
    w.sent += static_cast<size_t>(n);
    if (w.sent < text.size()) continue;
    w.sent = 0;
    w.waiting.pop_front();
  }
  w.moved_ns = now;
}

int Watch::Timeout(uint64_t now) const {
  if (watchers_.empty()) return -1;
  uint64_t next = UINT64_MAX;
  for (const Watcher& w : watchers_) {
    next = std::min(next, w.due_ns);
    if (!w.waiting.empty()) next = std::min(next, w.moved_ns + stuck_ns_);
  }
  return next <= now ? 0 : static_cast<int>((next - now + kMs - 1) / kMs);
}

void Watch::Run() {
  std::vector<pollfd> fds;
  while (!stopping_) {
    fds.assign(1, {wake_.get(), POLLIN, 0});
    for (const Watcher& w : watchers_) {
      const int send = w.waiting.empty() ? 0 : w.connection.to_send();
      fds.push_back({w.connection.fd(), static_cast<short>(w.connection.to_receive() | send), 0});
    }
    ::poll(fds.data(), fds.size(), Timeout(MonotonicNs()));
    uint64_t count;
    while (::read(wake_.get(), &count, sizeof count) > 0) continue;
    for (size_t i = 0; i < watchers_.size(); ++i) {
      char rest[256];  // a watcher has nothing more to say: what it sends is thrown away
      Connection& connection = watchers_[i].connection;
      if ((fds[i + 1].revents & (connection.to_receive() | POLLHUP | POLLERR)) == 0) continue;
      const ssize_t n = connection.Receive(rest, sizeof rest);
      if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) watchers_[i].gone = true;
    }
    TakeNew();
    const uint64_t now = MonotonicNs();
    if (!watchers_.empty()) QueueEvents();
    QueueSnapshots(now);
    for (Watcher& w : watchers_)
      if (!w.gone) Send(w, now);
    places_ -= std::erase_if(watchers_, [](const Watcher& w) { return w.gone; });
  }
}

}  // namespace divvy::daemon
