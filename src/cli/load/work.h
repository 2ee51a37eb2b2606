// Timed GPU work: kernels, graphs or copies, submitted in requests, with their latencies.
// Used by `divvy load`. The spin kernel is PTX that watches the GPU's clock; the simulator times
// any kernel called "spin" by its first parameter. One thread submits; another one, when lines are
// asked for, counts what is finished.
#pragma once

#include <csignal>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/base/bytes.h"
#include "src/base/result.h"
#include "src/cli/load/driver.h"

namespace divvy::cli {

struct WorkOptions {
  int64_t kernel_ns = 0;              // a kernel this long in each operation; 0 = none
  int64_t graph_ns = 0;               // a graph of ten kernels, this long together; 0 = none
  Bytes copy;                         // host to device in each operation
  bool event = false;                 // records an event in each operation
  double vary = 1;                    // kernels last from kernel_ns/vary to kernel_ns*vary, or so
  std::string meet;                   // FILE,SIDE: each operation meets another load's (Meeting)
  int64_t for_ns = 0;                 // how long to go on; 0 = one request
  std::string stream = "own";         // null, own, ptsz
  int streams = 1;                    // so many own streams in turn
  bool cooperative = false;           // kernels are launched cooperatively
  std::string several;                // of several devices: "alternate" by request, or "together"
  unsigned sync_every = 1;            // operations in a request, then wait for them; 0 = never wait
  int64_t think_ns = 0;               // of the host, between requests
  int64_t burst_ns = 0, rest_ns = 0;  // work for so long, then rest for so long
  double rate = 0;                    // requests per second, by the clock; 0 = as fast as they end
  bool poisson = false;               // ... at random times, the same each time
  int64_t every_ns = 0;               // print a line this often; 0 = never
  bool on_word = false;               // says "ready", then begins when a line comes on stdin

  bool Any() const { return kernel_ns > 0 || graph_ns > 0 || copy.n > 0 || event; }
  int64_t OperationNs() const { return kernel_ns + graph_ns; }
};

// Runs on each of `devices` until the time is over or *stop is set. `progress` gets a line of JSON
// every every_ns, from another thread: operations finished since the last one, how many there are
// by now (done), now_ns (CLOCK_MONOTONIC), and the fields of the result; of a program that began on
// a word and waits for its requests also requests_us, how long each of them took. The result:
// operations, requests, elapsed_s, gpu_time_s (of operations; what was asked of the GPU),
// copied_bytes, latency_us {mean, p50, p95, p99, max} of requests.
Result<nlohmann::json> RunWork(const std::vector<Driver>& devices, const WorkOptions& options,
                               const volatile std::sig_atomic_t* stop,
                               void (*progress)(const nlohmann::json&));

}  // namespace divvy::cli
