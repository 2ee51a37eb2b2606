// `divvy load --export-ipc`: the other process of the ipc memory path. Reads "take BYTES" and
// "release" from stdin, answers "ok HANDLE", "ok" or "refused MESSAGE"; ends with its stdin.
#pragma once

#include "src/base/result.h"
#include "src/cli/load/driver.h"

namespace divvy::cli {

Status ExportIpc(Driver driver);

}  // namespace divvy::cli
