#include "src/cli/api/client.h"

#include <httplib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <csignal>

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

// Nothing that the daemon is asked takes a second, but for a new share whose name is leaving (3 s).
constexpr int kLookSeconds = 5, kChangeSeconds = 12;

httplib::Client Connect(const std::string& socket, int answer_seconds) {
  httplib::Client client(socket);
  client.set_address_family(AF_UNIX);
  client.set_default_headers({{"Host", "localhost"}});
  client.set_connection_timeout(5);
  client.set_read_timeout(answer_seconds);
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

Result<nlohmann::json> Read(const ApiClient& client, const httplib::Result& answer) {
  if (!answer) {
    const pid_t pid = client.ServerPid();
    if (answer.error() == httplib::Error::Read && pid > 0)
      return Unavailable("divvyd (pid " + std::to_string(pid) + ", at " + client.socket_path() +
                         ") accepts requests but does not answer; look whether it is stopped or "
                         "stuck, or end it: its tenants keep their limits and the next one takes "
                         "them over");
    return Unavailable("no answer from divvyd at " + client.socket_path() + " (" +
                       httplib::to_string(answer.error()) + ")");
  }
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

UniqueFd Dial(const std::string& socket_path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof(address.sun_path)) return UniqueFd();
  socket_path.copy(address.sun_path, socket_path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd.valid() &&
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    fd.reset();
  return fd;
}

Result<nlohmann::json> ApiClient::Get(const std::string& path) const {
  const NoSigpipe guard;
  return Read(*this, Connect(socket_, kLookSeconds).Get(path));
}

Result<nlohmann::json> ApiClient::Post(const std::string& path, const nlohmann::json& body) const {
  const NoSigpipe guard;
  return Read(*this, Connect(socket_, kChangeSeconds).Post(path, body.dump(), kJson));
}

Result<nlohmann::json> ApiClient::Patch(const std::string& path, const nlohmann::json& body) const {
  const NoSigpipe guard;
  return Read(*this, Connect(socket_, kChangeSeconds).Patch(path, body.dump(), kJson));
}

Result<nlohmann::json> ApiClient::Delete(const std::string& path) const {
  const NoSigpipe guard;
  return Read(*this, Connect(socket_, kChangeSeconds).Delete(path));
}

bool ApiClient::Alive() const { return Dial(socket_).valid(); }

pid_t ApiClient::ServerPid() const {
  const UniqueFd fd = Dial(socket_);
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (!fd.valid() || ::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return 0;
  return peer.pid;
}

}  // namespace divvy::cli
