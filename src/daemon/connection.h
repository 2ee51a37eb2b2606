// A connected socket, plain or with TLS, with the semantics of non-blocking recv(2) and send(2).
//
// Side: the daemon; the other end is nobody's friend. One thread at a time; it may be handed from
// one thread to another (GET /v1/watch). Never blocks: who waits polls fd().
#pragma once

#include <poll.h>
#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <string>

#include "src/base/result.h"
#include "src/base/unique_fd.h"

struct ssl_st;
struct ssl_ctx_st;

namespace divvy::daemon {

class Connection {
 public:
  Connection() = default;
  explicit Connection(UniqueFd fd) : fd_(std::move(fd)) {}
  // TLS's server end; the handshake is made by Handshake.
  Connection(UniqueFd fd, ssl_ctx_st* context);

  bool valid() const { return fd_.valid(); }
  int fd() const { return fd_.get(); }
  // -1 and errno: EAGAIN when there is nothing (no room) now; else the connection is of no more
  // use. 0 from Receive: the other end has closed it.
  ssize_t Receive(void* to, size_t size);
  ssize_t Send(const void* from, size_t size);
  // What to poll(2) for before the next try, after EAGAIN: to read TLS may have to write first (an
  // answer to new keys), and POLLIN alone would be true without end.
  short to_receive() const { return to_receive_; }
  short to_send() const { return to_send_; }
  bool Pending() const;  // bytes that poll(2) cannot see any more
  // One step of it. 1: done; 0: poll `events` and come again; -1: it failed.
  int Handshake(short& events);
  void Finish();  // says that nothing more will come

 private:
  struct FreeSsl {
    void operator()(ssl_st* ssl) const;
  };
  ssize_t Answer(int result, short& to_poll) const;

  UniqueFd fd_;
  std::unique_ptr<ssl_st, FreeSsl> ssl_;  // null: plain
  short to_receive_ = POLLIN, to_send_ = POLLOUT;
};

// The server's certificate, its key, and whose certificates clients must have.
struct TlsFiles {
  std::string certificate, key;  // PEM; "" = no TLS
  std::string client_ca;         // PEM; "" = clients need none

  bool Any() const { return !certificate.empty() || !key.empty() || !client_ca.empty(); }
};

// TLS 1.2 and later. kInvalid names the file that cannot be used, and why.
class TlsContext {
 public:
  static Result<std::unique_ptr<TlsContext>> Make(const TlsFiles& files);
  ssl_ctx_st* get() const { return context_.get(); }

 private:
  struct FreeContext {
    void operator()(ssl_ctx_st* context) const;
  };
  std::unique_ptr<ssl_ctx_st, FreeContext> context_;
};

}  // namespace divvy::daemon
