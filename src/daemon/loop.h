// The daemon's one event loop: descriptors in, callbacks out, on one thread.
//
// Add and Remove may be called from any thread; the callbacks run on the thread in Run(), with no
// lock of the loop held. A callback may still run once just after its Remove from another thread:
// it must look its subject up again by name. Idle cost: none; it sleeps in epoll_wait.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "src/base/result.h"
#include "src/base/unique_fd.h"

namespace divvy::daemon {

class Loop {
 public:
  using Callback = std::function<void()>;

  static Result<std::unique_ptr<Loop>> Create();

  // Calls `on_ready` whenever `fd` is readable or hung up, until Remove. The caller keeps `fd` open
  // until then. Returns an id that is never used again; 0 on failure (out of memory or watches).
  // `priority`: when it has urgent data instead, as files of the kernel's say that they changed.
  uint64_t Add(int fd, Callback on_ready, bool priority = false);
  void Remove(uint64_t id, int fd);

  // One repeating timer; zero stops it.
  void SetTimer(std::chrono::milliseconds period, Callback on_tick);

  void Run();   // until Stop()
  void Stop();  // from any thread or a signal handler

 private:
  Loop() = default;
  void Drain(int fd);

  UniqueFd epoll_, wake_, timer_;
  std::mutex mutex_;
  uint64_t next_id_ = 3;
  std::unordered_map<uint64_t, std::shared_ptr<Callback>> callbacks_;
  std::shared_ptr<Callback> on_tick_;
};

}  // namespace divvy::daemon
