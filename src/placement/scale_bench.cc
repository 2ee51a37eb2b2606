// Cost of decisions against the size of the cluster: the openb nodes copied 1, 8 and 82 times (or
// a made-up cluster of that kind where the trace is absent), filled to 130 % arrival by pods in
// random order. Prints decisions per second of CPU time, percentiles per decision, the longest
// pause (in CPU time, from a second run: on a busy machine the wall clock shows other programs) and
// memory. CPU figures of the machine it runs on.
#include <malloc.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "src/placement/policies/policies.h"
#include "src/placement/sim/order.h"
#include "src/placement/sim/protocol.h"
#include "src/placement/trace_data_test.h"

namespace divvy::placement {
namespace {

using Clock = std::chrono::steady_clock;

double ResidentMb() {
  std::ifstream statm("/proc/self/statm");
  size_t total = 0, resident = 0;
  statm >> total >> resident;
  return static_cast<double>(resident) * 4096 / 1e6;
}

Inventory MadeUp() {
  Inventory inventory;
  Rng rng(1);
  for (int i = 0; i < 1213; ++i) {
    NodeSpec n;
    n.name = "node-" + std::to_string(i);
    n.devices = rng.Below(2) != 0 ? 8 : 2;
    n.cpu_milli = n.devices * 12000;
    n.memory_mib = n.devices * 98304;
    n.model = static_cast<uint8_t>(rng.Below(4));
    inventory.nodes.push_back(n);
    inventory.closed.push_back(false);
  }
  for (int i = 0; i < 8000; ++i) {
    Pod p;
    p.name = "pod-" + std::to_string(i);
    const uint64_t kind = rng.Below(100);
    Shape& s = p.request.shape;
    s.cpu_milli = 1000 * static_cast<int32_t>(1 + rng.Below(16));
    s.memory_mib = 8192;
    s.devices = kind < 12 ? 0 : kind < 14 ? 8 : 1;
    s.compute_milli = s.devices == 0 ? 0
                      : kind < 60    ? 1000
                                     : 100 * static_cast<int32_t>(1 + rng.Below(9));
    inventory.pods.push_back(p);
  }
  return inventory;
}

// CPU time of this thread.
double CpuNs() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return 1e9 * static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec);
}

struct Figures {
  uint64_t decisions = 0;
  double cpu_ns = 0, p50_us = 0, p99_us = 0, longest_ms = 0, engine_mb = 0, resident_mb = 0;
  double allocated = 0;
  size_t nodes = 0;
};

Figures Fill(const Inventory& inventory, const std::string& policy, uint32_t copies,
             bool by_cpu_time) {
  const Order order = DrawOrder(inventory, 42, kInflateRatio);
  malloc_trim(0);
  const double before_mb = ResidentMb();
  Bench bench(inventory, order.node_rank, copies, MakePolicy(policy, 42));
  Engine& engine = bench.engine();
  const std::vector<uint32_t> by_name = PodsByName(inventory);
  Rng rng(7);
  Figures f;
  f.decisions = uint64_t{copies} * order.arrivals.size();
  std::vector<uint32_t> ns;
  ns.reserve(f.decisions);
  const double start = CpuNs();
  for (uint64_t i = 0; i < f.decisions; ++i) {
    const uint32_t pod = by_name[order.arrivals[rng.Below(order.arrivals.size())]];
    const Request& request = inventory.pods[pod].request;
    if (by_cpu_time) {
      const double t0 = CpuNs();
      engine.Place(bench.ShapeOf(pod), request);
      ns.push_back(static_cast<uint32_t>(CpuNs() - t0));
    } else {
      const Clock::time_point t0 = Clock::now();
      engine.Place(bench.ShapeOf(pod), request);
      ns.push_back(static_cast<uint32_t>(
          std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - t0).count()));
    }
  }
  f.cpu_ns = CpuNs() - start;
  f.resident_mb = ResidentMb() - before_mb - static_cast<double>(ns.size() * 4) / 1e6;
  f.engine_mb = static_cast<double>(engine.BytesUsed()) / 1e6;
  f.nodes = engine.cluster().size();
  f.allocated = 100.0 * static_cast<double>(engine.cluster().used_milli()) /
                static_cast<double>(engine.cluster().total_milli());
  std::sort(ns.begin(), ns.end());
  const auto at = [&](double q) {
    return ns[static_cast<size_t>(q * static_cast<double>(ns.size() - 1))] / 1e3;
  };
  f.p50_us = at(0.5);
  f.p99_us = at(0.99);
  f.longest_ms = ns.back() / 1e6;
  return f;
}

void Measure(const Inventory& inventory, const std::string& policy, uint32_t copies) {
  const Figures f = Fill(inventory, policy, copies, false);
  const double longest = Fill(inventory, policy, copies, true).longest_ms;
  const auto n = static_cast<double>(f.decisions);
  std::printf("%-9s %7zu %9llu %9.0f %9.2f %8.2f %8.1f %9.2f %9.1f %8.1f %8.2f\n", policy.c_str(),
              f.nodes, static_cast<unsigned long long>(f.decisions), 1e9 * n / f.cpu_ns,
              f.cpu_ns / 1e3 / n, f.p50_us, f.p99_us, longest, f.engine_mb, f.resident_mb,
              f.allocated);
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  Inventory inventory;
  const std::string trace = argc > 1 ? argv[1] : "default";
  if (!ReadTrace(trace, &inventory)) {
    std::printf("no openb trace in %s (DIVVY_TRACE_DIR): a made-up cluster instead\n",
                TraceDir().c_str());
    inventory = MadeUp();
  }
  std::printf("%-9s %7s %9s %9s %9s %8s %8s %9s %9s %8s %8s\n", "policy", "nodes", "decisions",
              "per s", "mean us", "p50 us", "p99 us", "max ms", "engine MB", "RSS MB", "alloc %");
  for (const uint32_t copies : {1u, 8u, 82u}) Measure(inventory, "default", copies);
  return 0;
}

}  // namespace
}  // namespace divvy::placement

int main(int argc, char** argv) { return divvy::placement::Main(argc, argv); }
