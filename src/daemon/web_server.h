// httplib's server on a listener of ours, with bounds that it does not have: so many connections
// wait, each request has its limits (web_stream.h), and a handler may keep the connection for
// itself (GET /v1/watch). Who may ask is asked before any handler (web_guard.h).
//
// Threads: one accepts, kWorkers handle; a handler runs on one of them.
#pragma once

#include <httplib.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "src/base/result.h"
#include "src/base/unique_fd.h"
#include "src/daemon/connection.h"
#include "src/daemon/web_guard.h"

namespace divvy::daemon {

class WebServer : public httplib::Server {
 public:
  static constexpr size_t kWorkers = 16;   // a client that keeps its connection holds one for 2 s
  static constexpr size_t kWaiting = 256;  // connections beyond are answered 503 and closed
  // ... and so is what has waited this long for a worker: clients give up after 5 s (the CLI).
  static constexpr std::chrono::seconds kLongestWait{2};
  static constexpr size_t kLargestBody = 64 << 10;

  // `tls`: null = none.
  explicit WebServer(Door door, std::unique_ptr<TlsContext> tls = nullptr);
  ~WebServer() override;
  Status Serve(UniqueFd listener);

  // From within a handler: when its answer is sent, the connection is `take`'s.
  static void TakeConnection(std::function<void(Connection)> take);

 private:
  class Queue;
  bool process_and_close_socket(socket_t socket) override;
  bool Guard(const httplib::Request& in, httplib::Response& out) const;

  const Door door_;
  const std::unique_ptr<TlsContext> tls_;
  UniqueFd stop_;
  std::atomic<size_t> waiting_ = 0;
  std::thread thread_;
};

// "127.0.0.1:9434", "[::1]:9434", ":9434" (every address). Port 0: any that is free. kInvalid, kIo.
Result<UniqueFd> ListenTcp(const std::string& address);
std::string BoundAddress(int listener);  // with the port it got

}  // namespace divvy::daemon
