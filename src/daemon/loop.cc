#include "src/daemon/loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cerrno>

namespace divvy::daemon {
namespace {
constexpr uint64_t kWake = 1, kTimer = 2;

bool Watch(int epoll, int fd, uint64_t id, bool priority = false) {
  epoll_event event{};
  event.events = priority ? EPOLLPRI : EPOLLIN;
  event.data.u64 = id;
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}
}  // namespace

Result<std::unique_ptr<Loop>> Loop::Create() {
  std::unique_ptr<Loop> loop(new Loop);
  loop->epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  loop->wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  loop->timer_ = UniqueFd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!loop->epoll_.valid() || !loop->wake_.valid() || !loop->timer_.valid() ||
      !Watch(loop->epoll_.get(), loop->wake_.get(), kWake) ||
      !Watch(loop->epoll_.get(), loop->timer_.get(), kTimer))
    return IoError("cannot make an event loop", errno);
  return loop;
}

uint64_t Loop::Add(int fd, Callback on_ready, bool priority) {
  const std::lock_guard lock(mutex_);
  const uint64_t id = next_id_++;
  callbacks_[id] = std::make_shared<Callback>(std::move(on_ready));
  if (Watch(epoll_.get(), fd, id, priority)) return id;
  callbacks_.erase(id);
  return 0;
}

void Loop::Remove(uint64_t id, int fd) {
  if (id == 0) return;
  const std::lock_guard lock(mutex_);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  callbacks_.erase(id);
}

void Loop::SetTimer(std::chrono::milliseconds period, Callback on_tick) {
  const std::lock_guard lock(mutex_);
  on_tick_ = std::make_shared<Callback>(std::move(on_tick));
  itimerspec spec{};
  spec.it_interval.tv_sec = period.count() / 1000;
  spec.it_interval.tv_nsec = period.count() % 1000 * 1'000'000;
  spec.it_value = spec.it_interval;
  ::timerfd_settime(timer_.get(), 0, &spec, nullptr);
}

void Loop::Drain(int fd) {
  uint64_t n = 0;
  while (::read(fd, &n, sizeof n) > 0) {
  }
}

void Loop::Run() {
  epoll_event events[64];
  for (;;) {
    const int n = ::epoll_wait(epoll_.get(), events, 64, -1);
    if (n < 0 && errno != EINTR) return;
    for (int i = 0; i < n; ++i) {
      const uint64_t id = events[i].data.u64;
      if (id == kWake) return;
      if (id == kTimer) Drain(timer_.get());
      std::shared_ptr<Callback> callback;
      {
        const std::lock_guard lock(mutex_);
        if (id == kTimer) {
          callback = on_tick_;
        } else if (const auto it = callbacks_.find(id); it != callbacks_.end()) {
          callback = it->second;
        }
      }
      if (callback) (*callback)();
    }
  }
}

void Loop::Stop() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
}

}  // namespace divvy::daemon
