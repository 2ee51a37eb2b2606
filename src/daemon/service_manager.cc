#include "src/daemon/service_manager.h"

#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

namespace divvy::daemon {

ServiceManager::ServiceManager() {
  const char* named = ::getenv("NOTIFY_SOCKET");
  const std::string path = named == nullptr ? "" : named;
  const char* watchdog = ::getenv("WATCHDOG_USEC");
  const char* whom = ::getenv("WATCHDOG_PID");
  if (watchdog != nullptr && (whom == nullptr || std::strtol(whom, nullptr, 10) == ::getpid()))
    every_ns_ = std::strtoull(watchdog, nullptr, 10) * 1000 / 3;
  for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) ::unsetenv(name);
  if (path.size() < 2 || (path[0] != '/' && path[0] != '@') || path.size() >= sizeof to_.sun_path)
    return;
  to_.sun_family = AF_UNIX;
  std::memcpy(to_.sun_path, path.data(), path.size());
  if (path[0] == '@') to_.sun_path[0] = '\0';  // an abstract one
  to_size_ = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  socket_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

void ServiceManager::Tell(std::string_view state) {
  if (!socket_.valid()) return;
  // Who does not listen misses it; that is no reason not to serve.
  [[maybe_unused]] const ssize_t n =
      ::sendto(socket_.get(), state.data(), state.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&to_), to_size_);
}

void ServiceManager::Alive(uint64_t now_ns) {
  if (every_ns_ == 0 || now_ns - told_ns_ < every_ns_) return;
  told_ns_ = now_ns;
  Tell("WATCHDOG=1");
}

}  // namespace divvy::daemon
