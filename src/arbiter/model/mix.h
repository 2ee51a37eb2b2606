// A mix: the tenants of a machine, what their programs do over and over, and the machine. The input
// of the model; mix_file.h reads one from JSON.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/arbiter/model/sampler.h"
#include "src/arbiter/types.h"

namespace divvy::arbiter::model {

enum class StepKind : uint8_t {
  kKernel,      // one submission of GPU work (a kernel, a memset, a device-to-device copy)
  kGraph,       // the same; a graph launch is one operation
  kCopy,        // host<->device copy on a copy engine, in stream order
  kSync,        // the host waits for its stream
  kThink,       // the host does something else
  kArrive,      // the host waits for the next request of an open stream of requests
  kCollective,  // GPU work that progresses only while all devices of the tenant are on it
  kMeet,        // GPU work that waits until the partner tenant has come as far
};

struct Step {
  StepKind kind = StepKind::kKernel;
  Duration duration;
  Duration launch = Duration::Constant(4);  // host time from this submission to the next
  uint32_t repeat = 1;                      // for kernels, graphs, collectives, meetings
  DeviceIndex device = 0;
  double estimate = 1;  // what the tenant's shim believes, relative to the true mean
  bool known = true;    // the shim has an estimate at all
};

// One host thread and what it repeats for ever.
struct Program {
  std::vector<Step> steps;
};

struct MixTenant {
  std::string name;
  ComputeShare share;
  std::vector<Program> threads;
  int partner = -1;      // of kMeet steps: index of the other tenant
  double joins_us = 0;   // arrives at this time
  double stops_us = -1;  // its host threads stop here for good (SIGSTOP)
  enum class Cheat : uint8_t {
    kNone,
    kGarbage,      // random counters
    kDoneAhead,    // says that all is done, and more
    kAlwaysWaits,  // pretends that somebody waits at its gate
    kAlwaysPaused  // pretends to wait for its copies
  } cheat = Cheat::kNone;
};

struct Machine {
  unsigned devices = 1;
  double slice_us = 2000;
  double switch_us = 60;
  double poll_late_us = 5;   // mean lateness of the polling thread
  double gate_wake_us = 30;  // from a gate's change to its waiter's next instruction
  double bound_wake_us = 5;  // from a marker to a caller that waits for its bound
  double sync_wake_us = 10;  // from the end of work to a host that synchronises
  double tail_us = 30;       // a helper marks a tail older than this
  double marker_us = 1.5;    // host time to queue a marker
  unsigned queue_depth = 1024;
};

struct Mix {
  std::string name;
  Machine machine;
  std::vector<MixTenant> tenants;
  double seconds = 10;
  double warmup_seconds = 1;
};

}  // namespace divvy::arbiter::model
