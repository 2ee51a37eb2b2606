#include "src/cli/api/stream.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>

#include "src/cli/api/client.h"

namespace divvy::cli {
namespace {

constexpr size_t kMostHead = 64 << 10;

// One "name: value" line of a frame; "" = it has none.
std::string FieldOf(const std::string& frame, const std::string& name) {
  const std::string key = name + ": ";
  size_t at = frame.rfind(key, 0) == 0 ? 0 : frame.find("\n" + key);
  if (at == std::string::npos) return "";
  if (at != 0) ++at;
  const size_t from = at + key.size();
  return frame.substr(from, frame.find('\n', from) - from);
}

}  // namespace

Result<EventStream> EventStream::Open(const std::string& socket_path, const std::string& path) {
  EventStream out;
  out.fd_ = Dial(socket_path);
  if (!out.fd_.valid()) return Unavailable("no divvyd at " + socket_path);
  const timeval limit{5, 0};
  ::setsockopt(out.fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  const std::string ask = "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n";
  if (::send(out.fd_.get(), ask.data(), ask.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(ask.size()))
    return Unavailable("divvyd at " + socket_path + " takes no request");
  size_t end = std::string::npos;
  while (end == std::string::npos && out.text_.size() < kMostHead) {
    char some[4096];
    const ssize_t n = ::recv(out.fd_.get(), some, sizeof some, 0);
    if (n <= 0) return Unavailable("divvyd at " + socket_path + " does not answer");
    out.text_.append(some, static_cast<size_t>(n));
    end = out.text_.find("\r\n\r\n");
  }
  const std::string head = out.text_.substr(0, end);
  if (head.rfind("HTTP/1.1 200", 0) != 0)
    return Unavailable("divvyd refuses to be watched: " + head.substr(0, head.find('\r')));
  out.text_.erase(0, end + 4);
  ::fcntl(out.fd_.get(), F_SETFL, O_NONBLOCK);
  return out;
}

bool EventStream::Read(std::vector<StreamFrame>& out) {
  bool open = true;
  for (;;) {
    char some[16384];
    const ssize_t n = ::recv(fd_.get(), some, sizeof some, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    open = n > 0;
    if (!open) break;
    text_.append(some, static_cast<size_t>(n));
  }
  for (size_t end; (end = text_.find("\n\n")) != std::string::npos; text_.erase(0, end + 2)) {
    const std::string frame = text_.substr(0, end);
    nlohmann::json data =
        nlohmann::json::parse(FieldOf(frame, "data"), nullptr, /*allow_exceptions=*/false);
    if (!data.is_discarded()) out.push_back({FieldOf(frame, "event"), std::move(data)});
  }
  return open;
}

}  // namespace divvy::cli
