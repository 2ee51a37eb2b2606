#include "src/cli/load/work.h"

#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "src/base/clock.h"
#include "src/cli/load/operation.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

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

// What has been done so far, for whoever prints lines meanwhile.
class Tally {
 public:
  void Request(int64_t latency_ns) {
    const std::lock_guard lock(mutex_);
    recent_.push_back(latency_ns);
  }
  std::vector<int64_t> TakeRecent() {
    const std::lock_guard lock(mutex_);
    return std::exchange(recent_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<int64_t> recent_;
};

// Prints a line every so often, by the clock, whatever the submitting thread waits for.
class Reporter {
 public:
  Reporter(const WorkOptions& options, std::vector<std::unique_ptr<Operation>>& operations,
           Tally& tally, int64_t began, void (*progress)(const json&))
      : options_(options),
        operations_(operations),
        tally_(tally),
        began_(began),
        progress_(progress) {
    if (options.every_ns > 0) thread_ = std::thread([this] { Run(); });
  }
  ~Reporter() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

 private:
  void Run() {
    int64_t from = began_;
    uint64_t before = 0;
    std::unique_lock lock(mutex_);
    while (!over_) {
      wake_.wait_for(lock, std::chrono::nanoseconds(from + options_.every_ns - NowNs()),
                     [this] { return over_; });
      const uint64_t done = Done();
      const int64_t now = NowNs();
      const std::vector<int64_t> recent = tally_.TakeRecent();
      json line = Summary(options_, done - before, now - from, recent);
      line["at_s"] = static_cast<double>(now - began_) / 1e9;
      line["now_ns"] = now;
      line["done"] = done;
      // Requests that are waited for are few; whoever reads the lines can choose their own stretch.
      if (options_.on_word && options_.sync_every > 0) {
        json& each = line["requests_us"] = json::array();
        for (const int64_t ns : recent) each.push_back(ns / 1000);
      }
      progress_(line);
      from = now;
      before = done;
    }
  }
  uint64_t Done() {
    uint64_t sum = 0;
    for (const auto& operation : operations_) {
      operation->driver()->cuCtxSetCurrent(operation->driver().context());
      sum += operation->Done();
    }
    return sum;
  }

  const WorkOptions& options_;
  std::vector<std::unique_ptr<Operation>>& operations_;
  Tally& tally_;
  const int64_t began_;
  void (*const progress_)(const json&);
  std::mutex mutex_;
  std::condition_variable wake_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace

Result<json> RunWork(const std::vector<Driver>& devices, const WorkOptions& options,
                     const volatile std::sig_atomic_t* stop, void (*progress)(const json&)) {
  std::vector<std::unique_ptr<Operation>> operations;
  for (const Driver& device : devices) {
    operations.push_back(std::make_unique<Operation>(device, options));
    DIVVY_CU(device, cuCtxSetCurrent, device.context());
    if (const Status s = operations.back()->Prepare(); !s.ok()) return s.error();
  }
  if (options.on_word) {
    std::printf("ready\n");
    std::fflush(stdout);
    if (std::getchar() == EOF) return Unavailable("told to end before it began");
  }
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // think times and rates of microseconds mean what they say
  const bool together = options.several == "together";
  const unsigned batch = std::max(1u, options.sync_every);
  const int64_t began = NowNs(), end = began + options.for_ns;
  std::vector<int64_t> latencies;
  Tally tally;
  uint64_t submitted = 0, requests = 0;
  int64_t due = began, burst_end = began + options.burst_ns;
  const Reporter reporter(options, operations, tally, began, progress);
  std::mt19937_64 random(1);
  const auto uniform = [&] {  // above 0; the same numbers with every C++ library
    return static_cast<double>((random() >> 11) + 1) * 0x1p-53;
  };
  // One device by turns, or all of them.
  const auto each = [&](auto&& what) -> Status {
    for (size_t i = 0; i < operations.size(); ++i) {
      if (!together && i != requests % operations.size()) continue;
      if (operations.size() > 1) DIVVY_CU(devices[i], cuCtxSetCurrent, devices[i].context());
      if (const Status s = what(*operations[i]); !s.ok()) return s;
    }
    return {};
  };
  // One request at least.
  const auto more = [&] {
    const bool stopped = requests > 0 && (*stop != 0 || NowNs() >= end);
    return operations[0]->More(stopped);
  };
  while (more()) {
    if (options.rate > 0) {
      SleepUntil(std::min(due, end));
      if (*stop != 0 || (requests > 0 && due >= end)) break;
    }
    // By the clock: a request that had to wait for the one before counts from when it was due.
    const int64_t from = options.rate > 0 ? due : NowNs();
    for (unsigned i = 0; i < batch; ++i) {
      const Status s = each([&](Operation& operation) {
        ++submitted;
        return operation.Submit();
      });
      if (!s.ok()) return s.error();
    }
    if (options.sync_every > 0)
      if (const Status s = each([](Operation& operation) { return operation.Wait(); }); !s.ok())
        return s.error();
    ++requests;
    const int64_t now = NowNs();
    latencies.push_back(now - from);
    if (options.every_ns > 0) tally.Request(now - from);
    if (options.rate > 0) {
      const double gap = (options.poisson ? -std::log(uniform()) : 1) * 1e9 / options.rate;
      due += static_cast<int64_t>(std::min(gap, 1e18));
    }
    if (options.think_ns > 0) SleepUntil(std::min(now + options.think_ns, end));
    if (options.burst_ns > 0 && NowNs() >= burst_end) {
      SleepUntil(std::min(burst_end + options.rest_ns, end));
      burst_end = NowNs() + options.burst_ns;
    }
  }
  for (size_t i = 0; i < operations.size(); ++i) {
    DIVVY_CU(devices[i], cuCtxSetCurrent, devices[i].context());
    if (const Status s = operations[i]->Wait(); !s.ok()) return s.error();
  }
  return Summary(options, submitted, NowNs() - began, latencies);
}

}  // namespace divvy::cli
