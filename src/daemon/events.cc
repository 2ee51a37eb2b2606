#include "src/daemon/events.h"

#include <algorithm>
#include <iterator>

namespace divvy::daemon {
namespace {

struct CauseRow {
  const char* cause;
  const char* kind;
  Severity severity;
};

constexpr CauseRow kCauses[] = {
    {"started", "daemon", Severity::kInfo},
    {"takeover", "daemon", Severity::kNotice},
    {"state_damaged", "daemon", Severity::kError},
    {"created", "tenant", Severity::kInfo},
    {"ended", "tenant", Severity::kInfo},
    {"adopted", "tenant", Severity::kNotice},
    {"not_adopted", "tenant", Severity::kWarning},
    {"leaving", "tenant", Severity::kInfo},
    {"changed", "change", Severity::kNotice},
    {"paused", "change", Severity::kNotice},
    {"resumed", "change", Severity::kNotice},
    {"crashed", "crash", Severity::kError},
    {"failed", "crash", Severity::kWarning},
    {"no_room", "refusal", Severity::kWarning},
    {"out_of_share", "refusal", Severity::kWarning},
    {"device_full", "refusal", Severity::kWarning},
    {"foreign_device", "refusal", Severity::kWarning},
    {"driver_refused", "refusal", Severity::kWarning},
    {"denied", "refusal", Severity::kWarning},
    {"degraded", "compute", Severity::kWarning},
    {"garbage_markers", "compute", Severity::kWarning},
    {"overrun", "compute", Severity::kNotice},
    {"bad_hello", "connection", Severity::kWarning},
    {"not_attached", "connection", Severity::kWarning},
    {"foreign_user", "connection", Severity::kWarning},
    {"foreign_process", "connection", Severity::kWarning},
    {"no_descriptors", "connection", Severity::kError},
    {"device_fault", "device", Severity::kError},
    {"device_recovered", "device", Severity::kNotice},
    {"xid", "device", Severity::kError},
    {"cordoned", "device", Severity::kWarning},
    {"uncordoned", "device", Severity::kNotice},
};

void Classify(Event& event) {
  if (!event.kind.empty()) return;
  const auto row = std::find_if(std::begin(kCauses), std::end(kCauses),
                                [&](const CauseRow& r) { return event.cause == r.cause; });
  // What the audit finds has codes of its own.
  event.kind = row == std::end(kCauses) ? "finding" : row->kind;
  event.severity = row == std::end(kCauses) ? Severity::kError : row->severity;
}

}  // namespace

const char* ToString(Severity severity) {
  switch (severity) {
    case Severity::kInfo:
      return "info";
    case Severity::kNotice:
      return "notice";
    case Severity::kWarning:
      return "warning";
    case Severity::kError:
      return "error";
  }
  return "error";
}

void Events::Put(Event event, double now) {
  event.sequence = next_++;
  event.time = now;
  ring_.push_back(std::move(event));
  if (ring_.size() > kKept) ring_.pop_front();
  if (log_) log_(ring_.back());
  if (told_) told_();
}

bool Events::Add(Event event, double now) {
  Classify(event);
  const std::lock_guard lock(mutex_);
  Rate& rate = rates_[{event.tenant, event.cause}];
  if (now - rate.window_start >= kWindowSeconds) {
    rate.window_start = now;
    rate.count = 0;
  }
  rate.kind = event.kind;
  if (rate.count >= kPerWindow) {
    ++rate.held_back;
    return false;
  }
  ++rate.count;
  if (rate.held_back != 0) {
    event.suppressed = rate.held_back;
    event.message += " (" + std::to_string(rate.held_back) + " alike not shown)";
    rate.held_back = 0;
  }
  Put(std::move(event), now);
  return true;
}

void Events::Flush(double now) {
  const std::lock_guard lock(mutex_);
  for (auto it = rates_.begin(); it != rates_.end();) {
    const auto& [key, rate] = *it;
    if (now - rate.window_start < kWindowSeconds) {
      ++it;
      continue;
    }
    if (rate.held_back != 0)
      Put({.kind = rate.kind,
           .cause = key.second,
           .severity = Severity::kNotice,
           .tenant = key.first,
           .suppressed = rate.held_back,
           .message = std::to_string(rate.held_back) + " more, alike, not shown"},
          now);
    it = rates_.erase(it);
  }
}

std::vector<Event> Events::Since(uint64_t since) const {
  const std::lock_guard lock(mutex_);
  if (ring_.empty() || since >= ring_.back().sequence) return {};
  const uint64_t first = ring_.front().sequence;  // numbers have no gaps
  return {ring_.begin() + static_cast<ptrdiff_t>(since < first ? 0 : since - first + 1),
          ring_.end()};
}

uint64_t Events::Newest() const {
  const std::lock_guard lock(mutex_);
  return next_ - 1;
}

void Events::OnAdd(std::function<void()> told) {
  const std::lock_guard lock(mutex_);
  told_ = std::move(told);
}

void Events::WriteTo(std::function<void(const Event&)> log) {
  const std::lock_guard lock(mutex_);
  log_ = std::move(log);
}

void Events::Forget(const std::string& tenant) {
  const std::lock_guard lock(mutex_);
  for (auto it = rates_.begin(); it != rates_.end();) {
    if (it->first.first != tenant || it->second.held_back != 0)
      ++it;  // Flush tells of those
    else
      it = rates_.erase(it);
  }
}

}  // namespace divvy::daemon
