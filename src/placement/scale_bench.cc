// Cost of decisions against the size of the cluster: the openb nodes copied 1, 8 and 82 times (or
// a made-up cluster of that kind where the trace is absent), filled to 130 % arrival by pods in
// random order. Prints decisions per second of CPU time, percentiles per decision, the longest
// pause and memory. Runs are alike decision by decision, so each decision counts with the least
// time it took in several: what other programs add on a busy machine falls away. One more run takes
// over a policy that learnt beside it when the cluster is half full: "relearn" is the longest that
// anything took then.
//   placement_scale_bench [TRACE [COPIES [RUNS]]]
#include <malloc.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
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
  double allocated = 0, relearn_ms = 0;
  size_t nodes = 0;
};

// Sets `least` to the least of what it holds and of what each decision takes now.
Figures Fill(const Inventory& inventory, const std::string& policy, uint32_t copies, bool relearn,
             std::vector<uint32_t>* least) {
  const Order order = DrawOrder(inventory, 42, kInflateRatio);
  malloc_trim(0);
  least->resize(uint64_t{copies} * order.arrivals.size(), ~uint32_t{0});
  const double before_mb = ResidentMb();
  Bench bench(inventory, order.node_rank, copies, MakePolicy(policy, 42));
  Engine& engine = bench.engine();
  const std::vector<uint32_t> by_name = PodsByName(inventory);
  Rng rng(7);
  Figures f;
  f.decisions = uint64_t{copies} * order.arrivals.size();
  const double start = CpuNs();
  double longest_ns = 0;  // of what follows the change of policy
  for (uint64_t i = 0; i < f.decisions; ++i) {
    if (relearn && i == f.decisions / 2) {
      std::unique_ptr<Policy> fresh = MakePolicy(policy, 42);
      fresh->Learn(bench.mix(), engine.cluster().hardware());
      const double before = CpuNs();
      fresh = engine.Adopt(std::move(fresh));
      longest_ns = CpuNs() - before;
    }
    const double from_ns = longest_ns > 0 ? CpuNs() : 0;
    const uint32_t pod = by_name[order.arrivals[rng.Below(order.arrivals.size())]];
    const Request request = inventory.pods[pod].request;  // at hand, as if just received
    const ShapeId shape = bench.ShapeOf(pod);
    const Clock::time_point t0 = Clock::now();
    engine.Place(shape, request);
    const std::chrono::nanoseconds took = Clock::now() - t0;
    (*least)[i] = std::min((*least)[i], static_cast<uint32_t>(took.count()));
    if (longest_ns > 0) longest_ns = std::max(longest_ns, CpuNs() - from_ns);
  }
  f.relearn_ms = longest_ns / 1e6;
  f.cpu_ns = CpuNs() - start;
  f.resident_mb = ResidentMb() - before_mb;
  f.engine_mb = static_cast<double>(engine.BytesUsed()) / 1e6;
  f.nodes = engine.cluster().size();
  f.allocated = 100.0 * static_cast<double>(engine.cluster().used_milli()) /
                static_cast<double>(engine.cluster().total_milli());
  return f;
}

void Measure(const Inventory& inventory, const std::string& policy, uint32_t copies,
             uint32_t runs) {
  std::vector<uint32_t> least;
  Figures f = Fill(inventory, policy, copies, false, &least);
  for (uint32_t run = 1; run < runs; ++run) {
    f.cpu_ns = std::min(f.cpu_ns, Fill(inventory, policy, copies, false, &least).cpu_ns);
  }
  std::vector<uint32_t> other;
  f.relearn_ms = Fill(inventory, policy, copies, true, &other).relearn_ms;
  if (runs > 1) {
    f.relearn_ms = std::min(f.relearn_ms, Fill(inventory, policy, copies, true, &other).relearn_ms);
  }
  std::sort(least.begin(), least.end());
  const auto at = [&](double q) {
    return least[static_cast<size_t>(q * static_cast<double>(least.size() - 1))] / 1e3;
  };
  f.p50_us = at(0.5);
  f.p99_us = at(0.99);
  f.longest_ms = at(1) / 1e3;
  const auto n = static_cast<double>(f.decisions);
  std::printf("%-9s %7zu %9llu %9.0f %9.2f %8.2f %8.1f %9.2f %8.2f %9.1f %8.1f %8.2f\n",
              policy.c_str(), f.nodes, static_cast<unsigned long long>(f.decisions),
              1e9 * n / f.cpu_ns, f.cpu_ns / 1e3 / n, f.p50_us, f.p99_us, f.longest_ms,
              f.relearn_ms, f.engine_mb, f.resident_mb, f.allocated);
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
  std::printf("%-9s %7s %9s %9s %9s %8s %8s %9s %8s %9s %8s %8s\n", "policy", "nodes", "decisions",
              "per s", "mean us", "p50 us", "p99 us", "max ms", "relearn", "engine MB", "RSS MB",
              "alloc %");
  std::vector<uint32_t> sizes = {1, 8, 82};
  if (argc > 2) sizes = {static_cast<uint32_t>(std::clamp(std::atoi(argv[2]), 1, 1000))};
  const int runs = argc > 3 ? std::clamp(std::atoi(argv[3]), 1, 100) : 3;
  for (const uint32_t copies : sizes) {
    Measure(inventory, "default", copies, static_cast<uint32_t>(runs));
  }
  return 0;
}

}  // namespace
}  // namespace divvy::placement

int main(int argc, char** argv) { return divvy::placement::Main(argc, argv); }
