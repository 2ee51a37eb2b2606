#include "src/cli/api/client.h"

#include <httplib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <csignal>

#include "src/base/unique_fd.h"

namespace divvy::cli {
namespace {

constexpr char kJson[] = "application/json";

// A daemon that goes away in the middle of a request is an error, not the end of this process. Not
// process-wide: what runs in a share inherits ignored signals.
class NoSigpipe {
 public:
  NoSigpipe() { before_ = std::signal(SIGPIPE, SIG_IGN); }
  ~NoSigpipe() { std::signal(SIGPIPE, before_); }

 private:
  void (*before_)(int);
};

httplib::Client Connect(const std::string& socket) {
  httplib::Client client(socket);
  client.set_address_family(AF_UNIX);
  client.set_default_headers({{"Host", "localhost"}});
  client.set_connection_timeout(5);
  client.set_read_timeout(30);
  client.set_write_timeout(5);
  return client;
}

ErrorCode CodeOf(int http_status) {
  switch (http_status) {
    case 400:
      return ErrorCode::kInvalid;
    case 403:
      return ErrorCode::kDenied;
    case 404:
      return ErrorCode::kNotFound;
    case 409:
      return ErrorCode::kExists;
    case 503:
      return ErrorCode::kUnavailable;
    case 507:
      return ErrorCode::kNoRoom;
    default:
      return ErrorCode::kInternal;
  }
}

Result<nlohmann::json> Read(const std::string& socket, const httplib::Result& answer) {
  if (!answer)
    return Unavailable("no answer from divvyd at " + socket + " (" +
                       httplib::to_string(answer.error()) + ")");
  const auto body = nlohmann::json::parse(answer->body, nullptr, /*allow_exceptions=*/false);
  if (answer->status / 100 == 2) return body.is_discarded() ? nlohmann::json::object() : body;
  if (!body.is_object() || !body.contains("error") || !body["error"].is_object())
    return Error{CodeOf(answer->status),
                 "divvyd answered with HTTP status " + std::to_string(answer->status)};
  const nlohmann::json& error = body["error"];
  const bool ending = error.value("code", std::string()) == "ending";
  return Error{ending ? ErrorCode::kEnding : CodeOf(answer->status),
               error.value("message", std::string("no message"))};
}

}  // namespace

Result<nlohmann::json> ApiClient::Get(const std::string& path) const {
  const NoSigpipe guard;
  return Read(socket_, Connect(socket_).Get(path));
}

Result<nlohmann::json> ApiClient::Post(const std::string& path, const nlohmann::json& body) const {
  const NoSigpipe guard;
  return Read(socket_, Connect(socket_).Post(path, body.dump(), kJson));
}

Result<nlohmann::json> ApiClient::Patch(const std::string& path, const nlohmann::json& body) const {
  const NoSigpipe guard;
  return Read(socket_, Connect(socket_).Patch(path, body.dump(), kJson));
}

Result<nlohmann::json> ApiClient::Delete(const std::string& path) const {
  const NoSigpipe guard;
  return Read(socket_, Connect(socket_).Delete(path));
}

bool ApiClient::Alive() const {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_.size() >= sizeof(address.sun_path)) return false;
  socket_.copy(address.sun_path, socket_.size());
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return fd.valid() &&
         ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
}

}  // namespace divvy::cli
