#include "src/daemon/log_queue.h"

#include <chrono>
#include <thread>
#include <utility>

namespace divvy::daemon {

LogQueue::LogQueue(std::function<void(const std::string&)> write)
    : state_(std::make_shared<State>()) {
  state_->write = std::move(write);
  std::thread([state = state_] { Run(state); }).detach();
}

LogQueue::~LogQueue() {
  std::unique_lock lock(state_->mutex);
  state_->stopping = true;
  state_->wake.notify_one();
  state_->ended.wait_for(lock, std::chrono::milliseconds(500), [this] { return state_->over; });
}

void LogQueue::Add(std::string line) {
  const std::lock_guard lock(state_->mutex);
  if (state_->bytes + line.size() > kMostBytes) {
    state_->dropped.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  state_->bytes += line.size();
  state_->lines.push_back(std::move(line));
  state_->wake.notify_one();
}

void LogQueue::Run(const std::shared_ptr<State>& state) {
  uint64_t told = 0;
  std::unique_lock lock(state->mutex);
  for (;;) {
    state->wake.wait(lock, [&] { return state->stopping || !state->lines.empty(); });
    if (state->lines.empty()) break;
    std::deque<std::string> lines;
    lines.swap(state->lines);
    state->bytes = 0;
    // Lines are only dropped while others wait: those that are missing came after these.
    const uint64_t dropped = state->dropped.load(std::memory_order_relaxed);
    if (dropped != told)
      lines.push_back("[divvyd] " + std::to_string(dropped - told) +
                      " lines are missing here: nobody took them in time\n");
    told = dropped;
    lock.unlock();
    for (const std::string& line : lines) state->write(line);
    lock.lock();
  }
  state->over = true;
  state->ended.notify_one();
}

}  // namespace divvy::daemon
