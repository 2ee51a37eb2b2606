#include "src/daemon/events.h"

namespace divvy::daemon {

bool Events::Add(Event event, double now) {
  const std::lock_guard lock(mutex_);
  Rate& rate = rates_[{event.tenant, event.cause}];
  if (now - rate.window_start >= kWindowSeconds) {
    rate.window_start = now;
    rate.count = 0;
  }
  if (rate.count >= kPerWindow) {
    ++rate.held_back;
    return false;
  }
  ++rate.count;
  if (rate.held_back != 0) {
    event.message += " (" + std::to_string(rate.held_back) + " alike not shown)";
    rate.held_back = 0;
  }
  event.sequence = next_++;
  event.time = now;
  ring_.push_back(std::move(event));
  if (ring_.size() > kKept) ring_.pop_front();
  if (told_) told_();
  return true;
}

std::vector<Event> Events::Since(uint64_t since) const {
  const std::lock_guard lock(mutex_);
  std::vector<Event> out;
  for (const Event& e : ring_)
    if (e.sequence > since) out.push_back(e);
  return out;
}

uint64_t Events::Newest() const {
  const std::lock_guard lock(mutex_);
  return next_ - 1;
}

void Events::OnAdd(std::function<void()> told) {
  const std::lock_guard lock(mutex_);
  told_ = std::move(told);
}

void Events::Forget(const std::string& tenant) {
  const std::lock_guard lock(mutex_);
  for (auto it = rates_.begin(); it != rates_.end();)
    it = it->first.first == tenant ? rates_.erase(it) : std::next(it);
}

}  // namespace divvy::daemon
