// The ring of things worth telling a person: refusals, findings, limits changed, processes gone.
//
// Side: the daemon. Rate-limited per (tenant, cause), so that a tenant in a refusal loop can push
// nobody else's events out; what was held back is told in the next one's message.
// Threads: one lock of its own; the API reads while the loop writes.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace divvy::daemon {

struct Event {
  uint64_t sequence = 0;
  double time = 0;  // seconds since the epoch
  std::string tenant;
  int pid = 0;
  std::string device;  // UUID, or ""
  std::string cause;   // a fixed word: docs/api.md lists them
  uint64_t bytes = 0;
  uint64_t limit_bytes = 0;
  uint32_t symbol = 0;  // index into the driver table; 0 = none
  std::string message;  // one line
};

class Events {
 public:
  static constexpr size_t kKept = 4096;
  static constexpr unsigned kPerWindow = 20;  // per (tenant, cause)
  static constexpr double kWindowSeconds = 10;

  // Gives the event its number and `now` its time. Returns false when it was held back.
  bool Add(Event event, double now);
  // Those after `since`, oldest first.
  std::vector<Event> Since(uint64_t since) const;
  uint64_t Newest() const;  // number of the last one; 0 = none yet
  // Called after each event, under the lock of this: must be quick and not call back. nullptr:
  // none.
  void OnAdd(std::function<void()> told);
  void Forget(const std::string& tenant);  // its rate, when its name may be used anew

 private:
  struct Rate {
    double window_start = 0;
    unsigned count = 0;
    uint64_t held_back = 0;
  };
  mutable std::mutex mutex_;
  std::function<void()> told_;
  uint64_t next_ = 1;
  std::deque<Event> ring_;
  std::map<std::pair<std::string, std::string>, Rate> rates_;
};

}  // namespace divvy::daemon
