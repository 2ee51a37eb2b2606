// One HTTP connection's bytes, bounded: a request has so many bytes and so much time, an answer so
// much time, whatever the other end does. What httplib reads and writes goes through here.
//
// Side: the daemon; the other end is nobody's friend. One thread at a time. Blocks in poll(2),
// never longer than the limits; the connection itself is the caller's to close.
#pragma once

#include <httplib.h>

#include <array>
#include <cstdint>

#include "src/daemon/connection.h"

namespace divvy::daemon {

class WebStream : public httplib::Stream {
 public:
  static constexpr size_t kRequestBytes = 256 << 10;  // head and body
  static constexpr int kRequestMs = 10'000;           // from its first byte to its last
  static constexpr int kAnswerMs = 15'000;
  static constexpr int kIdleMs = 2'000;  // between requests of one connection

  // `stop` becomes readable when the server ends.
  WebStream(Connection& connection, int stop) : connection_(connection), stop_(stop) {}

  // TLS's handshake, within a request's time; true at once where there is none.
  bool Handshake();

  // Waits for a request and gives it new limits. False: none came, the other end closed, or stop.
  bool AwaitRequest();
  // After an answer that is the last: lets the other end read it although it has not said all it
  // wanted to (closing at once would take the answer back).
  void Linger();

  bool is_readable() const override;
  bool is_writable() const override;
  ssize_t read(char* to, size_t size) override;
  ssize_t write(const char* from, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return connection_.fd(); }

 private:
  bool Wait(short events, uint64_t until_ns, bool or_stop = true) const;

  Connection& connection_;
  const int stop_;
  std::array<char, 4096> buffer_;
  size_t begin_ = 0, end_ = 0;
  size_t left_ = 0;  // bytes that this request may still have
  uint64_t read_until_ns_ = 0, write_until_ns_ = 0;
};

}  // namespace divvy::daemon
