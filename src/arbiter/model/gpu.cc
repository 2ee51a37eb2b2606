// The modelled GPU's timeline.
#include "src/arbiter/model/gpu.h"

#include <algorithm>

namespace divvy::arbiter::model {

void Gpu::Stream::push(const Item& item) {
  if (size() == ring.size()) {  // grow, keeping the order
    std::vector<Item> bigger(ring.empty() ? 64 : ring.size() * 2);
    const size_t n = size();
    for (size_t i = 0; i < n; ++i) bigger[i] = ring[(head + i) & (ring.size() - 1)];
    ring.swap(bigger);
    head = 0;
    tail = n;
  }
  ring[tail++ & (ring.size() - 1)] = item;
}

Gpu::Gpu(unsigned device, unsigned tenants, const Machine& machine, GpuListener& listener)
    : device_(device),
      slice_(int64_t(machine.slice_us * 1000)),
      switch_(int64_t(machine.switch_us * 1000)),
      listener_(listener),
      streams_(tenants) {}

const Item* Gpu::running(unsigned tenant) const {
  if (current_ != int(tenant) || switching_ || streams_[tenant].empty()) return nullptr;
  return &streams_[tenant].front();
}

void Gpu::SetRunnable(unsigned tenant) {
  Stream& s = streams_[tenant];
  const bool can = !s.empty() && s.front().kind != Item::Kind::kCopy;
  if (can == s.runnable) return;
  s.runnable = can;
  can ? ++runnable_ : --runnable_;
}

void Gpu::Push(unsigned tenant, const Item& item, int64_t now) {
  Stream& s = streams_[tenant];
  s.push(item);
  if (s.size() > 1) return;
  if (item.kind == Item::Kind::kCopy) {
    if (!s.copying) {
      s.copying = true;
      copy_queue_.push_back(tenant);
      StartCopy(now);
    }
    return;
  }
  SetRunnable(tenant);
  if (dispatching_) return;
  if (current_ < 0) {
    Dispatch(now);
  } else if (!switching_) {
    SetTimer(now);  // it may have run alone: slices count from now on
  }
}

void Gpu::StartCopy(int64_t now) {
  if (copy_end_ != kNever || copy_queue_.empty()) return;
  copy_end_ = now + streams_[copy_queue_.front()].front().left;
}

void Gpu::OnCopyTimer(int64_t now) {
  const unsigned tenant = copy_queue_.front();
  copy_queue_.erase(copy_queue_.begin());
  copy_end_ = kNever;
  Stream& s = streams_[tenant];
  s.copied += s.front().left;
  s.copying = false;
  s.pop();
  listener_.OnPop(tenant, device_, now);
  if (!s.empty() && s.front().kind == Item::Kind::kCopy) {
    s.copying = true;
    copy_queue_.push_back(tenant);
  }
  SetRunnable(tenant);
  StartCopy(now);
  if (s.empty()) listener_.OnDrained(tenant, device_, now);
  if (current_ < 0) {
    Dispatch(now);
  } else if (!switching_) {
    Settle(now);
    SetTimer(now);
  }
}

void Gpu::Settle(int64_t now) {
  const int64_t elapsed = now - settled_;
  settled_ = now;
  if (current_ < 0 || switching_ || elapsed <= 0) return;
  Stream& s = streams_[current_];
  if (s.empty() || !progressing_) return;
  const int64_t done = std::min(elapsed, s.front().left);
  s.front().left -= done;
  s.useful += done;
}

void Gpu::OnTimer(int64_t now) {
  Settle(now);
  if (switching_) {
    switching_ = false;
    loaded_ = current_;
    slice_start_ = now;
  } else if (current_ >= 0 && runnable_ > 1 && now >= slice_end_) {
    slice_over_ = true;
  }
  Dispatch(now);
}

// Round robin: the next runnable stream after the current one; the current one if it is alone.
void Gpu::SwitchAway(int64_t now) {
  const int n = int(streams_.size());
  const int from = current_ < 0 ? (loaded_ < 0 ? n - 1 : loaded_) : current_;
  current_ = -1;
  slice_over_ = false;
  if (runnable_ == 0) return;
  for (int i = 1; i <= n; ++i) {
    const int t = (from + i) % n;
    if (!streams_[t].runnable) continue;
    current_ = t;
    break;
  }
  progressing_ = true;
  if (current_ == loaded_) {
    slice_start_ = now;
    return;
  }
  switching_ = true;
  ++switches_;
  next_ = now + switch_;
}

void Gpu::Dispatch(int64_t now) {
  dispatching_ = true;
  for (;;) {
    if (current_ < 0) {
      if (runnable_ == 0) {
        next_ = kNever;
        break;
      }
      SwitchAway(now);
      settled_ = now;
    }
    if (switching_) break;
    Stream& s = streams_[current_];
    const unsigned tenant = unsigned(current_);
    if (s.empty() || s.front().kind == Item::Kind::kCopy) {
      if (!s.empty() && !s.copying) {
        s.copying = true;
        copy_queue_.push_back(tenant);
        StartCopy(now);
      }
      SetRunnable(tenant);
      if (s.empty()) listener_.OnDrained(tenant, device_, now);
      if (!s.runnable) current_ = -1;
      continue;
    }
    Item& item = s.front();
    if (item.kind == Item::Kind::kMarker) {
      const Item marker = item;
      s.pop();
      listener_.OnMarker(tenant, device_, marker, now);
      continue;
    }
    const bool meets = item.kind == Item::Kind::kCollective || item.kind == Item::Kind::kMeet;
    if (slice_over_ && item.left > 0) {
      SwitchAway(now);
      listener_.OnRendezvous(tenant, device_, now);
      continue;
    }
    item.reached = true;
    if (meets) listener_.OnRendezvous(tenant, device_, now);
    if (item.left > 0) {
      progressing_ = !meets || listener_.MayProgress(tenant, device_, item);
      SetTimer(now);
      break;
    }
    s.pop();
    ++s.operations;
    if (meets) listener_.OnRendezvous(tenant, device_, now);
    listener_.OnPop(tenant, device_, now);
  }
  dispatching_ = false;
}

void Gpu::Repace(int64_t now) {
  if (dispatching_ || current_ < 0 || switching_) return;
  const Item& item = streams_[current_].front();
  if (item.kind != Item::Kind::kCollective && item.kind != Item::Kind::kMeet) return;
  Settle(now);
  progressing_ = listener_.MayProgress(unsigned(current_), device_, item);
  SetTimer(now);
}

void Gpu::SetTimer(int64_t now) {
  Settle(now);
  const int64_t left = streams_[current_].front().left;
  next_ = left == 0 ? now : progressing_ ? now + left : kNever;
  if (runnable_ > 1) {
    slice_end_ = slice_start_ + ((now - slice_start_) / slice_ + 1) * slice_;
    next_ = std::min(next_, slice_end_);
  }
}

}  // namespace divvy::arbiter::model
