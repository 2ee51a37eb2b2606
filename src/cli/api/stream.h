// A connection to /v1/watch: what divvyd sends by itself, frame by frame.
//
// Side: the CLI. The caller polls fd() and calls Read when there is something; nothing blocks but
// Open (5 s at most).
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/base/result.h"
#include "src/base/unique_fd.h"

namespace divvy::cli {

struct StreamFrame {
  std::string type;  // "event", "snapshot"
  nlohmann::json data;
};

class EventStream {
 public:
  // `path`: with its query. kUnavailable: nobody listens, or what they say is no stream (then the
  // message is theirs).
  static Result<EventStream> Open(const std::string& socket_path, const std::string& path);

  int fd() const { return fd_.get(); }
  // What has come since the last call. false: the daemon has ended the stream.
  bool Read(std::vector<StreamFrame>& out);

 private:
  UniqueFd fd_;
  std::string text_;  // not yet a whole frame
};

}  // namespace divvy::cli
