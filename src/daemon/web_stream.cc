#include "src/daemon/web_stream.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "src/daemon/procfs.h"

namespace divvy::daemon {
namespace {
constexpr uint64_t kMs = 1'000'000;
constexpr int kLingerMs = 1'000, kLastAnswerMs = 1'000;
}  // namespace

bool WebStream::Wait(short events, uint64_t until_ns, bool or_stop) const {
  for (;;) {
    const uint64_t now = MonotonicNs();
    if (now >= until_ns) return false;
    pollfd fds[] = {{connection_.fd(), events, 0}, {stop_, POLLIN, 0}};
    const int n = ::poll(fds, or_stop ? 2 : 1, static_cast<int>((until_ns - now) / kMs + 1));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0 || fds[1].revents != 0) return false;
    return true;
  }
}

bool WebStream::Handshake() {
  // Nobody knows yet who this is: as long as one may be silent.
  const uint64_t until = MonotonicNs() + kIdleMs * kMs;
  for (;;) {
    short events = POLLIN;
    const int done = connection_.Handshake(events);
    if (done != 0) return done > 0;
    if (!Wait(events, until)) return false;
  }
}

bool WebStream::AwaitRequest() {
  if (begin_ == end_ && !connection_.Pending() && !Wait(POLLIN, MonotonicNs() + kIdleMs * kMs))
    return false;
  left_ = kRequestBytes;
  const uint64_t now = MonotonicNs();
  read_until_ns_ = now + kRequestMs * kMs;
  write_until_ns_ = now + (kRequestMs + kAnswerMs) * kMs;
  return true;
}

void WebStream::Linger() {
  connection_.Finish();
  const uint64_t until = MonotonicNs() + kLingerMs * kMs;
  while (Wait(POLLIN, until))
    if (::recv(connection_.fd(), buffer_.data(), buffer_.size(), MSG_DONTWAIT) <= 0) return;
}

bool WebStream::is_readable() const {
  return begin_ < end_ || connection_.Pending() || Wait(POLLIN, read_until_ns_);
}

bool WebStream::is_writable() const { return Wait(POLLOUT, write_until_ns_, false); }

ssize_t WebStream::read(char* to, size_t size) {
  if (left_ == 0) return -1;
  if (begin_ == end_) {
    ssize_t n;
    for (bool wait = !connection_.Pending();; wait = true) {
      if (wait && !Wait(connection_.to_receive(), read_until_ns_)) return -1;
      n = connection_.Receive(buffer_.data(), buffer_.size());
      // Of a record of TLS that has not come whole there is nothing yet.
      if (n >= 0 || (errno != EAGAIN && errno != EINTR)) break;
    }
    if (n <= 0) return n;
    begin_ = 0;
    end_ = static_cast<size_t>(n);
  }
  const size_t n = std::min({size, end_ - begin_, left_});
  std::memcpy(to, buffer_.data() + begin_, n);
  begin_ += n;
  left_ -= n;
  return static_cast<ssize_t>(n);
}

ssize_t WebStream::write(const char* from, size_t size) {
  for (;;) {
    // An answer that has begun is finished, also when the server ends, but then soon.
    pollfd stop{stop_, POLLIN, 0};
    if (::poll(&stop, 1, 0) > 0)
      write_until_ns_ = std::min(write_until_ns_, MonotonicNs() + kLastAnswerMs * kMs);
    if (!Wait(connection_.to_send(), write_until_ns_, false)) return -1;
    const ssize_t n = connection_.Send(from, size);
    if (n >= 0 || (errno != EAGAIN && errno != EINTR)) return n;
  }
}

void WebStream::get_remote_ip_and_port(std::string& ip, int& port) const {
  ip.clear();
  port = 0;
}

void WebStream::get_local_ip_and_port(std::string& ip, int& port) const {
  get_remote_ip_and_port(ip, port);
}

}  // namespace divvy::daemon
