// The ring of things worth telling a person: refusals, findings, limits changed, crashes, sick
// devices. What it holds ends with the daemon; each event also goes to the log and the journal
// (event_log.h).
//
// Side: the daemon. Rate-limited per (tenant, cause), so that a tenant in a refusal loop can push
// nobody else's events out; how many were held back stands in the next one's `suppressed`, or in
// one of their own when none follows (Flush).
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

enum class Severity : uint8_t { kInfo, kNotice, kWarning, kError };
const char* ToString(Severity severity);  // info, notice, warning, error

struct Event {
  uint64_t sequence = 0;
  double time = 0;   // seconds since the epoch
  std::string kind;  // tenant, change, refusal, finding, crash, compute, connection, device, daemon
  std::string cause;  // a fixed word: docs/api.md lists them
  Severity severity = Severity::kInfo;
  std::string tenant;
  int pid = 0;
  std::string command;  // of pid, where known
  std::string device;   // UUID, or ""
  uint64_t bytes = 0;
  uint64_t limit_bytes = 0;
  uint32_t symbol = 0;      // index into the driver table of the call that met it; 0 = none
  std::string call;         // its name
  uint64_t suppressed = 0;  // as many alike before it are not shown
  std::string message;      // one line
};

class Events {
 public:
  static constexpr size_t kKept = 4096;
  static constexpr unsigned kPerWindow = 20;  // per (tenant, cause)
  static constexpr double kWindowSeconds = 10;

  // Gives the event its number, `now` its time, and kind and severity by its cause where it has
  // none. Returns false when it was held back.
  bool Add(Event event, double now);
  // Tells of those held back whose tenant and cause have been quiet since.
  void Flush(double now);
  // Those after `since`, oldest first.
  std::vector<Event> Since(uint64_t since) const;
  uint64_t Newest() const;  // number of the last one; 0 = none yet
  // Called after each event, under the lock of this: must be quick and not call back. nullptr:
  // none.
  void OnAdd(std::function<void()> told);
  // Where each event is written, too; the same rules. Set before the first.
  void WriteTo(std::function<void(const Event&)> log);
  void Forget(const std::string& tenant);  // its rate, when its name may be used anew

 private:
  struct Rate {
    double window_start = 0;
    unsigned count = 0;
    uint64_t held_back = 0;
    std::string kind;
  };
  void Put(Event event, double now);

  mutable std::mutex mutex_;
  std::function<void()> told_;
  std::function<void(const Event&)> log_;
  uint64_t next_ = 1;
  std::deque<Event> ring_;
  std::map<std::pair<std::string, std::string>, Rate> rates_;
};

}  // namespace divvy::daemon
