#include "src/daemon/web_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>

#include "src/daemon/api.h"
#include "src/daemon/web_guard.h"
#include "src/daemon/web_stream.h"

namespace divvy::daemon {
namespace {

std::string TooMany() {
  const std::string body = ErrorBody(Unavailable("too many connections wait; try again in 1 s"));
  return "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
         "Retry-After: 1\r\nConnection: close\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

thread_local bool refuse = false;  // this connection came when too many waited, or waited too long
thread_local std::function<void(Connection)> take_connection;

}  // namespace

// httplib's pool, with two bounds: what comes when too many wait is answered by the accepting
// thread at once, and what has waited too long is sent away instead of being served.
class WebServer::Queue : public httplib::TaskQueue {
 public:
  explicit Queue(WebServer& server) : server_(server), pool_(kWorkers) {}
  void enqueue(std::function<void()> serve) override {
    if (server_.waiting_.load() >= kWaiting) {
      refuse = true;
      serve();
      refuse = false;
      return;
    }
    ++server_.waiting_;
    pool_.enqueue([this, serve = std::move(serve), since = Clock::now()] {
      --server_.waiting_;
      // Whoever asked would soon take this daemon for one that does not answer.
      refuse = Clock::now() - since > kLongestWait;
      serve();
      refuse = false;
    });
  }
  void shutdown() override { pool_.shutdown(); }

 private:
  using Clock = std::chrono::steady_clock;
  WebServer& server_;
  httplib::ThreadPool pool_;
};

WebServer::WebServer(Door door, std::unique_ptr<TlsContext> tls)
    : door_(std::move(door)),
      tls_(std::move(tls)),
      stop_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  new_task_queue = [this] { return new Queue(*this); };
  set_payload_max_length(kLargestBody);
  set_pre_routing_handler([this](const httplib::Request& in, httplib::Response& out) {
    return Guard(in, out) ? HandlerResponse::Unhandled : HandlerResponse::Handled;
  });
}

WebServer::~WebServer() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(stop_.get(), &one, sizeof one);
  stop();
  if (thread_.joinable()) thread_.join();
}

Status WebServer::Serve(UniqueFd listener) {
  if (!stop_.valid()) return IoError("cannot make an eventfd", errno);
  ::fcntl(listener.get(), F_SETFL, 0);  // its accept blocks
  svr_sock_ = listener.release();
  thread_ = std::thread([this] { listen_after_bind(); });
  while (!is_running()) std::this_thread::yield();  // or a stop() right away would be lost
  return {};
}

void WebServer::TakeConnection(std::function<void(Connection)> take) {
  take_connection = std::move(take);
}

bool WebServer::Guard(const httplib::Request& in, httplib::Response& out) const {
  const std::string host = in.get_header_value("Host"), origin = in.get_header_value("Origin"),
                    authorization = in.get_header_value("Authorization");
  const Status s = MayAsk({in.method, in.path, host, origin, authorization}, door_);
  if (s.ok()) return true;
  out.status = door_.token.empty() ? 403 : 401;
  if (!door_.token.empty()) out.set_header("WWW-Authenticate", "Bearer");
  // The rest of the request is not read: the next one cannot be found.
  out.set_header("Connection", "close");
  out.set_content(ErrorBody(s.error()), "application/json");
  return false;
}

bool WebServer::process_and_close_socket(socket_t socket) {
  UniqueFd fd(socket);
  if (refuse) {
    static const std::string answer = TooMany();
    [[maybe_unused]] const ssize_t n =
        ::send(socket, answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return true;
  }
  Connection connection =
      tls_ != nullptr ? Connection(std::move(fd), tls_->get()) : Connection(std::move(fd));
  if (!connection.valid()) return false;
  WebStream stream(connection, stop_.get());
  if (!stream.Handshake()) return false;
  take_connection = nullptr;
  for (size_t left = keep_alive_max_count_; left > 0 && stream.AwaitRequest(); --left) {
    bool closed = false;
    const bool served = process_request(stream, left == 1, closed, nullptr);
    if (take_connection != nullptr) {
      const auto take = std::exchange(take_connection, nullptr);
      take(served ? std::move(connection) : Connection());
      return served;
    }
    if (!served || closed) {
      stream.Linger();
      return served;
    }
  }
  return true;
}

Result<UniqueFd> ListenTcp(const std::string& address) {
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon == std::string::npos ? 0 : colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const std::string port = colon == std::string::npos ? "" : address.substr(colon + 1);
  addrinfo hints{}, *found = nullptr;
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV;
  if (port.empty() ||
      ::getaddrinfo(host.empty() ? nullptr : host.c_str(), port.c_str(), &hints, &found) != 0)
    return Invalid("--api-tcp '" + address + "': give ADDRESS:PORT, e.g. 127.0.0.1:9434");
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> list(found, ::freeaddrinfo);
  UniqueFd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  if (fd.valid()) ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (!fd.valid() || ::bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0 ||
      ::listen(fd.get(), 64) != 0)
    return IoError("cannot listen on " + address, errno);
  return fd;
}

std::string BoundAddress(int listener) {
  sockaddr_storage at{};
  socklen_t size = sizeof at;
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (::getsockname(listener, reinterpret_cast<sockaddr*>(&at), &size) != 0 ||
      ::getnameinfo(reinterpret_cast<sockaddr*>(&at), size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return "";
  return (at.ss_family == AF_INET6 ? "[" + std::string(host) + "]" : std::string(host)) + ":" +
         port;
}

}  // namespace divvy::daemon
