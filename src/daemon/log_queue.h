// Lines of the daemon's log on their way to where they are written: a pipe that nobody empties or a
// disk that hangs holds up a thread of its own and nothing else.
//
// Side: the daemon. Any thread adds, also under locks: Add never blocks. What does not fit is
// dropped and counted; a line in the log says how many are missing where they are.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

namespace divvy::daemon {

class LogQueue {
 public:
  static constexpr size_t kMostBytes = 1 << 20;  // waiting to be written
  // `write` gets one line (with its line break) at a time, on the queue's thread, and may block
  // for ever: it must stay valid until the process ends.
  explicit LogQueue(std::function<void(const std::string&)> write);
  // Waits for what is queued, at most half a second; a write that hangs is left behind.
  ~LogQueue();
  LogQueue(const LogQueue&) = delete;
  LogQueue& operator=(const LogQueue&) = delete;

  void Add(std::string line);
  uint64_t dropped() const { return state_->dropped.load(std::memory_order_relaxed); }

 private:
  struct State {
    std::function<void(const std::string&)> write;
    std::mutex mutex;
    std::condition_variable wake, ended;
    std::deque<std::string> lines;
    size_t bytes = 0;
    std::atomic<uint64_t> dropped = 0;
    bool stopping = false, over = false;
  };
  static void Run(const std::shared_ptr<State>& state);

  const std::shared_ptr<State> state_;  // the thread's, too
};

}  // namespace divvy::daemon
