// The HTTP+JSON API on a Unix socket (docs/api.md): routes in, node calls out. Only who may write
// to the socket file (the daemon's user, root) gets in: the kernel checks.
//
// Threads: a few workers of its own; handlers are stateless.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "src/base/result.h"
#include "src/daemon/events.h"
#include "src/daemon/node.h"

namespace divvy::daemon {

struct ApiOptions {
  std::string socket_path;
  bool hami_metrics = false;  // /metrics has HAMi's names, too
};

class Api {
 public:
  // Listens before it returns: a client that sees the socket is answered.
  static Result<std::unique_ptr<Api>> Start(const ApiOptions& options, Node& node, Events& events,
                                            std::function<void()> shutdown);
  virtual ~Api() = default;  // stops the workers; requests in flight are finished
};

int HttpStatus(ErrorCode code);
const char* ErrorWord(ErrorCode code);

}  // namespace divvy::daemon
