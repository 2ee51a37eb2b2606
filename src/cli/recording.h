// A running tenant's operations as the daemon records them, read part by part: for `record` and
// `advise`. Each operation is marked while a recording lasts, which slows the tenant a little.
// One thread; each call is one request to the daemon.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/base/result.h"
#include "src/cli/machines.h"

namespace divvy::cli {

class Recording {
 public:
  // What is recorded of one; `kind` as docs/api.md has it: kernel, graph, on the device, copy.
  struct Operation {
    double length_us, gap_us;  // gap: from the end of the one before; undilated
    unsigned device, kind;
    bool synced;  // the host had waited for the device before it
  };

  // Of tenant `name`, for at most `for_ms` from now.
  static Result<Recording> Begin(const Machine& machine, const std::string& name, int64_t for_ms);
  // Before its time; also done by the daemon when the tenant ends.
  void End() const;

  // What came since the last call. An error: the tenant has ended, or the daemon has.
  Result<std::vector<Operation>> Read();

  uint64_t lost() const { return lost_; }  // came too fast to be read
  double dilation() const { return dilation_; }

 private:
  Recording(ApiClient api, std::string path) : api_(std::move(api)), path_(std::move(path)) {}

  ApiClient api_;
  std::string path_;
  uint64_t next_ = 0, lost_ = 0;
  double dilation_ = 1;
};

}  // namespace divvy::cli
