// What devices there are and what the driver says of them, as the daemon sees it.
//
// Side: the daemon's. One Source is NVML (nvml.h), real or simulated; tests have a table of their
// own. Threads: one caller at a time per Source (the daemon's sampler, or its start), but for
// WaitFault.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/base/bytes.h"
#include "src/base/result.h"
#include "src/device/uuid.h"

namespace divvy::device {

// Constant for the life of the driver.
struct Info {
  Uuid uuid;
  unsigned index = 0;  // NVML's
  std::string name;    // "NVIDIA H100 80GB HBM3"
  std::string pci_bus_id;
  Bytes total;
};

struct ProcessMemory {
  pid_t pid = 0;              // in the daemon's pid namespace
  std::optional<Bytes> used;  // absent where the driver gives no figure (MIG, some VMs)
};

// One look at one device.
struct Reading {
  Bytes total;
  Bytes reserved;  // by the driver and firmware; 0 where it is not told apart
  Bytes used;      // everything that is not free, `reserved` included
  Bytes free;
  bool lists_processes = false;  // `processes` is the driver's list, not an absence of one
  std::vector<ProcessMemory> processes;

  const ProcessMemory* Find(pid_t pid) const {  // nullptr: not listed
    for (const ProcessMemory& p : processes)
      if (p.pid == pid) return &p;
    return nullptr;
  }
};

// Part of a device's time that one process's kernels took lately, as the driver saw it.
struct ProcessUse {
  pid_t pid = 0;
  double percent = 0;
};

// A fault that the driver reports by itself: an Xid, as its kernel log calls them.
struct Fault {
  unsigned device = 0;
  uint64_t xid = 0;
};

class Source {
 public:
  virtual ~Source() = default;
  virtual const std::vector<Info>& devices() const = 0;
  virtual const std::string& driver_version() const = 0;
  // kUnavailable: the device is lost or the driver gave an error; the message names the call.
  virtual Result<Reading> Read(unsigned device) = 0;
  // Since the last call for this device; empty when the driver says nothing (new). Not all devices
  // and drivers tell.
  virtual std::vector<ProcessUse> Uses(unsigned device) = 0;
  // Whether the driver reports faults at all; asks for them to be reported from now on.
  virtual bool WatchFaults() = 0;
  // The next one; nullopt when none came within the time. On a thread of its own: it may run while
  // another calls any of the others.
  virtual std::optional<Fault> WaitFault(std::chrono::milliseconds timeout) = 0;
};

}  // namespace divvy::device
