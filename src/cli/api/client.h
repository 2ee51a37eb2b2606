// The daemon's HTTP+JSON API, version 1, as the CLI calls it over a Unix socket.
// Holds no connection between calls. Exceptions of the HTTP and JSON libraries stay inside.
#pragma once

#include <sys/types.h>

#include <nlohmann/json.hpp>
#include <string>

#include "src/base/result.h"
#include "src/base/unique_fd.h"

namespace divvy::cli {

// A connection to a Unix socket, without a request; invalid when nobody listens there, or (errno
// EAGAIN) when the backlog stays full for 5 s, or (EACCES) when it is another user's.
UniqueFd Dial(const std::string& socket_path);

class ApiClient {
 public:
  explicit ApiClient(std::string socket_path) : socket_(std::move(socket_path)) {}

  // kUnavailable: nobody listens there, none answers within 5 s (a change: 12 s), or it stays too
  // busy for 30 s. Otherwise the daemon's own message with the code that its HTTP status stands for
  // (400 invalid, 403 denied, 404 not found, 409 exists, 507 no room).
  Result<nlohmann::json> Get(const std::string& path) const;
  Result<nlohmann::json> Post(const std::string& path, const nlohmann::json& body) const;
  Result<nlohmann::json> Patch(const std::string& path, const nlohmann::json& body) const;
  Result<nlohmann::json> Delete(const std::string& path) const;

  // Whether somebody accepts connections there; no request is made. True also of a daemon that has
  // stopped accepting and has a full backlog: that takes 5 s to find out.
  bool Alive() const;
  // Whether there is a socket that this user may not connect to: another user's.
  bool Denied() const;
  // Who does, as this process sees it; 0 = nobody, or somebody in a pid namespace out of sight.
  pid_t ServerPid() const;
  const std::string& socket_path() const { return socket_; }

 private:
  std::string socket_;
};

}  // namespace divvy::cli
