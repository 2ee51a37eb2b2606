#include "src/daemon/web_guard.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <fstream>

namespace divvy::daemon {
namespace {

constexpr std::string_view kBearer = "Bearer ";
constexpr size_t kShortestToken = 16, kLongestToken = 256;

// Without the port: "[::1]:80" -> "[::1]", "localhost:80" -> "localhost".
std::string_view NameOf(std::string_view host) {
  if (host.starts_with('[')) return host.substr(0, host.find(']') + 1);
  return host.substr(0, host.find(':'));
}

// A name that nobody else can make mean this machine: without a dot, or an address of its own.
bool OurName(std::string_view name) {
  return name.find('.') == std::string_view::npos || name.starts_with("127.");
}

std::string_view HostOf(std::string_view origin) {
  const size_t at = origin.find("://");
  return at == std::string_view::npos ? std::string_view() : origin.substr(at + 3);
}

bool Changes(std::string_view method) { return method != "GET" && method != "HEAD"; }

Error Denied(std::string message) { return {ErrorCode::kDenied, std::move(message)}; }

}  // namespace

bool SameSecret(std::string_view a, std::string_view b) {
  unsigned char differ = a.size() != b.size();
  for (size_t i = 0; i < a.size(); ++i)
    differ |= static_cast<unsigned char>(a[i]) ^
              static_cast<unsigned char>(b.empty() ? 0 : b[i % b.size()]);
  return differ == 0;
}

bool NeedsToken(std::string_view path) { return path != "/" && !path.starts_with("/web/"); }

Status MayAsk(const WebRequest& r, const Door& door) {
  if (!door.token.empty()) {
    if (!NeedsToken(r.path)) return {};
    if (!r.authorization.starts_with(kBearer))
      return Denied("send the token: Authorization: Bearer TOKEN");
    if (!SameSecret(r.authorization.substr(kBearer.size()), door.token))
      return Denied("the token is wrong");
    return {};
  }
  // With TLS the browser has checked that the name is this server's.
  if (!door.certificate && !OurName(NameOf(r.host)))
    return Denied("ask for host localhost: a name with a dot may be another's");
  if (Changes(r.method) && !r.origin.empty() && HostOf(r.origin) != r.host)
    return Denied("a page of another origin may change nothing");
  return {};
}

Result<std::string> ReadToken(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!file || !std::getline(file, line))
    return IoError("cannot read a token from " + path, file ? ENODATA : errno);
  while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back()))) line.pop_back();
  const auto printable = [](unsigned char c) { return c > ' ' && c < 127; };
  if (line.size() < kShortestToken || line.size() > kLongestToken ||
      !std::all_of(line.begin(), line.end(), printable))
    return Invalid("the first line of " + path +
                   " must be a token of 16 to 256 printable characters; e.g. openssl rand -hex 16");
  return line;
}

}  // namespace divvy::daemon
