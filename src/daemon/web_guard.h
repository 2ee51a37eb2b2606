// Who may ask: the token on TCP, and what a browser says about the page that asks.
//
// The Unix socket's permissions say who may connect, but `ssh -L 8080:.../divvyd.sock` puts a
// browser behind it, and any page that the browser has open can make it send requests. So: names of
// hosts that a stranger can point at this machine are refused, and so is a change that another
// site's page asks for.
//
// Pure. Threads: any.
#pragma once

#include <string>
#include <string_view>

#include "src/base/result.h"

namespace divvy::daemon {

struct WebRequest {
  std::string_view method, path;
  std::string_view host, origin, authorization;  // headers; "" = absent
};

// What a listener asks of those who come. On the Unix socket nothing: the kernel has asked.
struct Door {
  std::string token;         // everything but the page itself needs it; "" = none
  bool certificate = false;  // TLS has seen the client's, signed by whom it must be
};

// kDenied when it may not. With a token such a denial is for lack of it, and only where
// NeedsToken(path).
Status MayAsk(const WebRequest& request, const Door& door);
bool NeedsToken(std::string_view path);
// In a time that does not tell how much of it was right.
bool SameSecret(std::string_view a, std::string_view b);

// The one line of the file. kInvalid: shorter than 16 characters, or not printable.
Result<std::string> ReadToken(const std::string& path);

}  // namespace divvy::daemon
