// divvyd's command line.
#pragma once

#include <string>

#include "src/daemon/connection.h"
#include "src/daemon/node.h"

namespace divvy::daemon {

struct Options {
  std::string runtime_dir;  // before the simulated machine's part
  std::string sim_profile;
  bool private_daemon = false;
  bool foreground = false;
  int ready_fd = -1;
  std::string api_tcp, api_token_file;
  TlsFiles api_tls;
  bool hami_metrics = false;
  std::string journal;  // journald's socket; "" = none
  NodeOptions node;
};

// Returns true when there is something to run; otherwise `exit_code` says how to end (--help, a bad
// option: already told).
bool ParseOptions(int argc, char** argv, Options& out, int& exit_code);

}  // namespace divvy::daemon
