#include "src/cli/api/client.h"

#include <httplib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <fstream>
#include <iterator>
#include <random>
#include <thread>

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

bool IsStopped(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  const std::string stat((std::istreambuf_iterator<char>(file)), {});
  const size_t name_end = stat.rfind(") ");
  return name_end != std::string::npos && stat[name_end + 2] == 'T';
}

// The pid by the connection; of one that takes no connections by the file that it keeps.
pid_t PidOf(const ApiClient& client) {
  if (const pid_t pid = client.ServerPid(); pid > 0) return pid;
  const std::string& socket = client.socket_path();
  std::ifstream file(socket.substr(0, socket.rfind('/') + 1) + "divvyd.pid");
  pid_t pid = 0;
  return file >> pid && pid > 0 ? pid : 0;
}

Error DoesNotAnswer(const ApiClient& client) {
  const pid_t pid = PidOf(client);
  const std::string number = pid > 0 ? std::to_string(pid) : "PID";
  return Unavailable(
      "divvyd (" + (pid > 0 ? "pid " + number + ", " : "") + "at " + client.socket_path() + ") " +
      (pid > 0 && IsStopped(pid)
           ? "is stopped and does not answer: `kill -CONT " + number + "` lets it go on"
           : "runs but does not answer") +
      "; `kill -9 " + number +
      "` ends it: its tenants keep their limits and the next one takes them over");
}

using Clock = std::chrono::steady_clock;

// An answer, or what it came to, and whether that was a wait for nothing.
struct Reply {
  httplib::Result answer;
  bool timed_out;
};

// Refused because too many ask at once: the daemon has read nothing, so any request may be made
// again.
bool IsBusy(const ApiClient& client, const Reply& reply) {
  if (reply.answer) return reply.answer->status == 503 && reply.answer->has_header("Retry-After");
  if (reply.timed_out) return false;
  const httplib::Error error = reply.answer.error();
  return (error == httplib::Error::Write || error == httplib::Error::Connection) &&
         Dial(client.socket_path()).valid();
}

// Between tries: twice as long each time, by chance half of it to all, so that those who were
// refused together do not come back together.
class BackOff {
 public:
  // False: it is time to give up.
  bool Wait() {
    if (Clock::now() >= end_) return false;
    std::uniform_real_distribution<double> part(0.5, 1);
    std::this_thread::sleep_for(part(random_) * pause_);
    pause_ = std::min(2 * pause_, Milliseconds(1000));
    return true;
  }

 private:
  using Milliseconds = std::chrono::duration<double, std::milli>;
  Clock::time_point end_ = Clock::now() + std::chrono::seconds(30);
  Milliseconds pause_{20};
  std::minstd_rand random_{std::random_device{}()};
};

Result<nlohmann::json> Read(const ApiClient& client, const Reply& reply) {
  const httplib::Result& answer = reply.answer;
  if (!answer) {
    if (reply.timed_out) return DoesNotAnswer(client);
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

// Makes a request, again while the daemon is too busy to take it. One that does not answer is not
// asked again.
template <typename Request>
Result<nlohmann::json> Ask(const ApiClient& client, int answer_seconds, const Request& request) {
  const NoSigpipe guard;
  for (BackOff back_off;;) {
    const Clock::time_point begun = Clock::now();
    httplib::Client http = Connect(client.socket_path(), answer_seconds);
    Reply reply{request(http), false};
    // What waits at all waits for kLookSeconds or longer (less what clocks differ by).
    reply.timed_out = !reply.answer &&
                      Clock::now() - begun >= std::chrono::milliseconds(kLookSeconds * 1000 - 100);
    if (!IsBusy(client, reply) || !back_off.Wait()) return Read(client, reply);
  }
}

}  // namespace

UniqueFd Dial(const std::string& socket_path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof(address.sun_path)) return UniqueFd();
  socket_path.copy(address.sun_path, socket_path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval limit{kLookSeconds, 0};
  if (fd.valid()) ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (fd.valid() &&
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    const int cause = errno;
    fd.reset();
    errno = cause;
  }
  return fd;
}

Result<nlohmann::json> ApiClient::Get(const std::string& path) const {
  return Ask(*this, kLookSeconds, [&](httplib::Client& http) { return http.Get(path); });
}

Result<nlohmann::json> ApiClient::Post(const std::string& path, const nlohmann::json& body) const {
  const std::string text = body.dump();
  return Ask(*this, kChangeSeconds,
             [&](httplib::Client& http) { return http.Post(path, text, kJson); });
}

Result<nlohmann::json> ApiClient::Patch(const std::string& path, const nlohmann::json& body) const {
  const std::string text = body.dump();
  return Ask(*this, kChangeSeconds,
             [&](httplib::Client& http) { return http.Patch(path, text, kJson); });
}

Result<nlohmann::json> ApiClient::Delete(const std::string& path) const {
  return Ask(*this, kChangeSeconds, [&](httplib::Client& http) { return http.Delete(path); });
}

bool ApiClient::Alive() const {
  errno = 0;
  return Dial(socket_).valid() || errno == EAGAIN;
}

bool ApiClient::Denied() const {
  errno = 0;
  return !Dial(socket_).valid() && errno == EACCES;
}

pid_t ApiClient::ServerPid() const {
  const UniqueFd fd = Dial(socket_);
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (!fd.valid() || ::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return 0;
  return peer.pid;
}

}  // namespace divvy::cli
