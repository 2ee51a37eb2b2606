// `divvy load --probe`: the inside half of `divvy verify memory`. Finds the edge of the share by
// one memory path, gives all back, finds it again; after each step it writes one line of JSON to
// stdout and waits for a line on stdin, so that the outside can measure meanwhile.
#pragma once

#include "src/base/bytes.h"
#include "src/base/result.h"
#include "src/cli/load/driver.h"
#include "src/cli/load/paths.h"

namespace divvy::cli {

struct ProbeOptions {
  Bytes cap;  // never hold more than this, refused or not; 0 = no cap
};

// Lines: {"at":"idle"}, {"at":"full",granted_bytes,refused_at_bytes,takes,refusal},
// {"at":"released"}, {"at":"again",...}.
Status Probe(Driver driver, MemoryPath& path, const ProbeOptions& options);

}  // namespace divvy::cli
