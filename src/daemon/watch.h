// Those who watch: connections that get a snapshot at a rate of their choice, and events as they
// come (GET /v1/watch, server-sent events).
//
// Side: the daemon. One thread serves them all and sleeps while there are none. A frame is made
// once for all who are due and shared; what waits for a slow watcher is bounded: a snapshot is left
// out while the one before is not read, events are kept up to kMostFrames, and who has read nothing
// for kStuckNs is dropped. Threads: Reserve, Add and Wake may be called from any.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "src/base/result.h"
#include "src/base/unique_fd.h"
#include "src/daemon/connection.h"
#include "src/daemon/events.h"
#include "src/daemon/figures.h"

namespace divvy::daemon {

struct WatchTerms {
  uint64_t interval_ns = 1'000'000'000;  // between snapshots
  std::optional<uint64_t> since;         // events after this one; absent: those to come
};

class Watch {
 public:
  static constexpr size_t kMostWatchers = 128;
  static constexpr size_t kMostFrames = 256;  // waiting for one watcher
  static constexpr uint64_t kStuckNs = 10'000'000'000;

  // `stuck_ns`: who has read nothing for so long is dropped.
  Watch(std::function<Figures()> collect, const Events& events, uint64_t stuck_ns = kStuckNs);
  ~Watch();  // closes them all
  Status Start();

  // A place for one more, until Add or Release. False: there are kMostWatchers.
  bool Reserve();
  void Release() { --places_; }
  void Add(Connection connection, const WatchTerms& terms);  // the place is its own now
  void Wake();                                               // there is a new event

  size_t watchers() const { return places_; }
  uint64_t dropped() const { return dropped_; }  // for not reading

 private:
  using Text = std::shared_ptr<const std::string>;
  struct Watcher {
    Connection connection;
    uint64_t interval_ns = 0;
    uint64_t seen = 0;  // the newest event that was queued
    uint64_t due_ns = 0;
    uint64_t moved_ns = 0;  // read something, or had nothing to read
    std::deque<Text> waiting;
    size_t sent = 0;  // of the first
    Text snapshot;    // the newest that was queued
    bool gone = false;
  };

  void Run();
  void TakeNew();
  void QueueEvents();
  void QueueSnapshots(uint64_t now);
  void Send(Watcher& watcher, uint64_t now);
  int Timeout(uint64_t now) const;

  const std::function<Figures()> collect_;
  const Events& events_;
  const uint64_t stuck_ns_;
  UniqueFd wake_;
  std::atomic<size_t> places_ = 0;
  std::atomic<uint64_t> dropped_ = 0;
  std::atomic<bool> stopping_ = false;
  std::mutex mutex_;
  std::vector<Watcher> arrived_;   // under mutex_
  std::vector<Watcher> watchers_;  // the thread's alone
  std::thread thread_;
};

// interval_ms (100 to 60,000; 1,000) and since, as they stand in the request. kInvalid.
Result<WatchTerms> ParseWatchTerms(const std::string& interval_ms, const std::string& since);

}  // namespace divvy::daemon
