// A share asked of the daemon for a command that this process is about to start: the request, the
// answer, and how the shim will be delivered. Used by `run`, `verify` and `share create`.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/base/bytes.h"
#include "src/base/result.h"
#include "src/cli/compute_options.h"
#include "src/cli/delivery/delivery.h"
#include "src/cli/machines.h"

namespace divvy::cli {

struct ShareRequest {
  std::string sim;
  std::string name;               // "" = the daemon chooses one
  std::vector<std::string> gpus;  // indices or UUIDs; empty = gpu_count of the daemon's choice
  unsigned gpu_count = 1;
  Bytes mem, mem_max;           // mem_max.n == 0: not said
  std::string mem_typed;        // as it was written; "" = not by a person
  int64_t on_full_wait_ns = 0;  // 0 = fail at once
  bool overcommit = false;
  ComputeOptions compute;
  std::vector<std::string> command;
  bool lasting = false;  // lives until it is deleted, not as long as this process
};

struct Tenancy {
  Machine machine;
  std::string name;
  nlohmann::json devices;  // [{uuid, index}]
  Delivery delivery;
};

// Finds or starts the daemon and makes the tenant; if it is not a lasting one, it lives as long as
// this process or one of its own processes does. kNoRoom names who holds what.
Result<Tenancy> MakeTenant(const ShareRequest& request);

// kInvalid when a share of `mem` could not even hold a CUDA context, which costs `context`; `where`
// is the GPU. `typed` is how --mem was written: a number without a unit was meant otherwise.
Status CheckHoldsContext(Bytes mem, const std::string& typed, Bytes context,
                         const std::string& where);

// Ends the promise now instead of with this process. For failures before the command started.
void DropTenant(const Tenancy& tenancy);

// A name that is fit for a path and a table: letters, digits, ".-_", at most 63, not starting with
// a dot or a dash.
Status CheckName(const std::string& name);

}  // namespace divvy::cli
