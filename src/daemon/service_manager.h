// What divvyd tells systemd, or whatever else set NOTIFY_SOCKET, of itself (sd_notify(3)'s
// protocol: datagrams of NAME=VALUE lines). Without that variable nothing happens.
//
// Not thread-safe: made before, and used by, the thread that runs the loop.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <cstdint>
#include <string_view>

#include "src/base/unique_fd.h"

namespace divvy::daemon {

class ServiceManager {
 public:
  // Takes NOTIFY_SOCKET and WATCHDOG_USEC out of the environment: what divvyd starts is not it.
  ServiceManager();

  void Tell(std::string_view state);  // "READY=1"; never blocks
  void Alive(uint64_t now_ns);        // at each turn of the loop; tells it as often as was asked

 private:
  UniqueFd socket_;  // invalid: nobody asked
  sockaddr_un to_{};
  socklen_t to_size_ = 0;
  uint64_t every_ns_ = 0, told_ns_ = 0;  // 0: no watchdog
};

}  // namespace divvy::daemon
