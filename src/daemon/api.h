// The HTTP+JSON API (docs/api.md), the metrics and the dashboard's files: routes in, node calls
// out. On the Unix socket only who may write to its file (the daemon's user, root) gets in: the
// kernel checks. On TCP, where it was asked for, who has the token or a certificate.
//
// Threads: a few workers per listener and one for those who watch; handlers are stateless.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "src/base/result.h"
#include "src/daemon/connection.h"
#include "src/daemon/events.h"
#include "src/daemon/history.h"
#include "src/daemon/node.h"

namespace divvy::daemon {

struct ApiOptions {
  std::string socket_path;
  std::string tcp;            // ADDRESS:PORT to listen on, too; "" = none
  std::string token_file;     // whose first line everyone on TCP must know; "" = none
  TlsFiles tls;               // on TCP; a client CA stands for a token
  bool hami_metrics = false;  // /metrics has HAMi's names, too
  // Log lines and journal entries that nobody took in time.
  std::function<uint64_t()> log_dropped;
};

class Api {
 public:
  // Listens before it returns: a client that sees the socket is answered.
  static Result<std::unique_ptr<Api>> Start(const ApiOptions& options, Node& node, Events& events,
                                            const UseHistory& history,
                                            std::function<void()> shutdown);
  virtual ~Api() = default;  // stops the workers; requests in flight are finished
};

int HttpStatus(ErrorCode code);
std::string ErrorBody(const Error& error);  // {"error": {"code", "message"}}

}  // namespace divvy::daemon
