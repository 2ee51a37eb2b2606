// May this much memory of a device be promised? Pure arithmetic over one device's books, and the
// sentence that says who holds what when the answer is no.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "src/base/bytes.h"
#include "src/base/result.h"

namespace divvy::daemon {

struct DeviceBooks {
  unsigned index = 0;
  std::string name;
  Bytes total;
  Bytes driver;  // what no process and no tenant accounts for
  struct Promise {
    std::string tenant;
    Bytes promised;
    Bytes used;  // may be more: a lowered limit, memory above the promise
  };
  std::vector<Promise> promises;
  struct Outside {
    pid_t pid;
    std::string command;
    Bytes used;
  };
  std::vector<Outside> outside;
  Bytes outside_unlisted;  // where the driver gives no per-process figures
};

Bytes PromisedSum(const DeviceBooks& books);  // each max(promised, used)
Bytes OutsideSum(const DeviceBooks& books);
Bytes FreeToPromise(const DeviceBooks& books);

// kNoRoom naming every holder, largest first. `overcommit` lifts all but the device's size.
Status Admit(const DeviceBooks& books, Bytes wanted, bool overcommit);
// Whether a tenant may ever use `most`, above its promise: kNoRoom where the device is smaller.
Status AdmitMost(const DeviceBooks& books, Bytes most);

}  // namespace divvy::daemon
