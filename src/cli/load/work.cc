#include "src/cli/load/work.h"

#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <vector>

namespace divvy::cli {
namespace {

using nlohmann::json;

// sm_50 is the oldest that drivers still translate from, so it runs on every GPU since Maxwell.
constexpr char kPtx[] = R"(
.version 6.0
.target sm_50
.address_size 64
.visible .entry spin(.param .u64 ns)
{
  .reg .pred %p<2>;
  .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [ns];
  mov.u64 %rd2, %globaltimer;
again:
  mov.u64 %rd3, %globaltimer;
  sub.u64 %rd4, %rd3, %rd2;
  setp.lt.u64 %p1, %rd4, %rd1;
  @%p1 bra again;
  ret;
}
)";
constexpr int kGraphKernels = 10;

int64_t NowNs() {
  timespec t;
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

void SleepUntil(int64_t when_ns) {
  const timespec t{when_ns / 1'000'000'000, when_ns % 1'000'000'000};
  ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr);
}

// One operation on one stream, in the variant of the API that the stream asks for.
class Operation {
 public:
  Operation(Driver driver, const WorkOptions& options)
      : driver_(driver), options_(options), ptsz_(options.stream == "ptsz") {}

  Status Prepare() {
    if (options_.stream == "own")
      DIVVY_CU(driver_, cuStreamCreate, &stream_, CU_STREAM_NON_BLOCKING);
    CUmodule module = nullptr;
    DIVVY_CU(driver_, cuModuleLoadData, &module, kPtx);
    DIVVY_CU(driver_, cuModuleGetFunction, &spin_, module, "spin");
    if (options_.graph_ns > 0)
      if (const Status s = BuildGraph(); !s.ok()) return s;
    if (options_.copy.n > 0) {
      DIVVY_CU(driver_, cuMemHostAlloc, &host_, options_.copy.n, 0);
      DIVVY_CU_TAKE(driver_, options_.copy, cuMemAlloc_v2, &target_, options_.copy.n);
    }
    return {};
  }

  Status Submit() {
    if (options_.kernel_ns > 0) {
      auto ns = static_cast<uint64_t>(options_.kernel_ns);
      void* params[] = {&ns};
      if (ptsz_)
        DIVVY_CU(driver_, cuLaunchKernel_ptsz, spin_, 1, 1, 1, 1, 1, 1, 0, nullptr, params,
                 nullptr);
      else
        DIVVY_CU(driver_, cuLaunchKernel, spin_, 1, 1, 1, 1, 1, 1, 0, stream_, params, nullptr);
    }
    if (exec_ != nullptr) {
      if (ptsz_)
        DIVVY_CU(driver_, cuGraphLaunch_ptsz, exec_, nullptr);
      else
        DIVVY_CU(driver_, cuGraphLaunch, exec_, stream_);
    }
    if (host_ != nullptr) {
      if (ptsz_)
        DIVVY_CU(driver_, cuMemcpyHtoDAsync_v2_ptsz, target_, host_, options_.copy.n, nullptr);
      else
        DIVVY_CU(driver_, cuMemcpyHtoDAsync_v2, target_, host_, options_.copy.n, stream_);
    }
    return {};
  }

  Status Wait() {
    if (ptsz_)
      DIVVY_CU(driver_, cuStreamSynchronize_ptsz, nullptr);
    else
      DIVVY_CU(driver_, cuStreamSynchronize, stream_);
    return {};
  }

 private:
  Status BuildGraph() {
    CUgraph graph = nullptr;
    DIVVY_CU(driver_, cuGraphCreate, &graph, 0);
    auto ns = static_cast<uint64_t>(options_.graph_ns / kGraphKernels);
    void* params[] = {&ns};
    CUDA_KERNEL_NODE_PARAMS_v1 kernel{};
    kernel.func = spin_;
    kernel.gridDimX = kernel.gridDimY = kernel.gridDimZ = 1;
    kernel.blockDimX = kernel.blockDimY = kernel.blockDimZ = 1;
    kernel.kernelParams = params;
    CUgraphNode before = nullptr;
    for (int i = 0; i < kGraphKernels; ++i) {
      CUgraphNode node = nullptr;
      DIVVY_CU(driver_, cuGraphAddKernelNode, &node, graph, &before, i == 0 ? 0 : 1, &kernel);
      before = node;
    }
    DIVVY_CU(driver_, cuGraphInstantiateWithFlags, &exec_, graph, 0);
    DIVVY_CU(driver_, cuGraphDestroy, graph);
    return {};
  }

  Driver driver_;
  const WorkOptions& options_;
  const bool ptsz_;
  CUstream stream_ = nullptr;  // the NULL stream
  CUfunction spin_ = nullptr;
  CUgraphExec exec_ = nullptr;
  void* host_ = nullptr;
  CUdeviceptr target_ = 0;
};

json Latencies(std::vector<int64_t> ns) {
  if (ns.empty()) return nullptr;
  std::sort(ns.begin(), ns.end());
  const auto at = [&](double q) {
    return static_cast<double>(ns[static_cast<size_t>(q * static_cast<double>(ns.size() - 1))]) /
           1e3;
  };
  double sum = 0;
  for (const int64_t one : ns) sum += static_cast<double>(one);
  return {{"mean", sum / static_cast<double>(ns.size()) / 1e3},
          {"p50", at(0.5)},
          {"p95", at(0.95)},
          {"p99", at(0.99)},
          {"max", at(1)}};
}

json Summary(const WorkOptions& options, uint64_t operations, int64_t elapsed_ns,
             const std::vector<int64_t>& latencies) {
  const auto count = static_cast<double>(operations);
  return {{"operations", operations},
          {"requests", latencies.size()},
          {"elapsed_s", static_cast<double>(elapsed_ns) / 1e9},
          {"gpu_time_s", count * static_cast<double>(options.kernel_ns + options.graph_ns) / 1e9},
          {"copied_bytes", operations * options.copy.n},
          {"latency_us", Latencies(latencies)}};
}

}  // namespace

Result<json> RunWork(Driver driver, const WorkOptions& options,
                     const volatile std::sig_atomic_t* stop, void (*progress)(const json&)) {
  Operation operation(driver, options);
  if (const Status s = operation.Prepare(); !s.ok()) return s.error();
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // think times and rates of microseconds mean what they say
  const unsigned batch = std::max(1u, options.sync_every);
  const int64_t began = NowNs(), end = began + options.for_ns;
  std::vector<int64_t> latencies, recent;
  uint64_t operations = 0, reported = 0;
  int64_t due = began, report_at = began + options.every_ns, report_from = began;
  do {
    if (options.rate > 0) {
      SleepUntil(due);
      if (*stop != 0) break;
    }
    // By the clock: a request that had to wait for the one before counts from when it was due.
    const int64_t from = options.rate > 0 ? due : NowNs();
    for (unsigned i = 0; i < batch; ++i)
      if (const Status s = operation.Submit(); !s.ok()) return s.error();
    if (options.sync_every > 0)
      if (const Status s = operation.Wait(); !s.ok()) return s.error();
    operations += batch;
    const int64_t now = NowNs();
    latencies.push_back(now - from);
    if (options.every_ns > 0) {
      recent.push_back(now - from);
      if (now >= report_at) {
        json line = Summary(options, operations - reported, now - report_from, recent);
        line["at_s"] = static_cast<double>(now - began) / 1e9;
        progress(line);
        recent.clear();
        reported = operations;
        report_from = now;
        report_at = now + options.every_ns;
      }
    }
    if (options.rate > 0) due += static_cast<int64_t>(1e9 / options.rate);
    if (options.think_ns > 0) SleepUntil(now + options.think_ns);
  } while (*stop == 0 && NowNs() < end);
  if (const Status s = operation.Wait(); !s.ok()) return s.error();
  return Summary(options, operations, NowNs() - began, latencies);
}

}  // namespace divvy::cli
