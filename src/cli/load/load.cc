// divvy load: an ordinary CUDA program that takes memory and launches timed work, to try a share.
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "src/base/clock.h"
#include "src/cli/app.h"
#include "src/cli/load/driver.h"
#include "src/cli/load/ipc_helper.h"
#include "src/cli/load/paths.h"
#include "src/cli/load/probe.h"
#include "src/cli/load/work.h"
#include "src/cli/load/write_value.h"
#include "src/cli/table.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

struct LoadOptions {
  Bytes alloc;
  std::string path = "linear";
  int64_t hold_ns = 0;
  bool touch = false;
  int device = 0;
  std::string devices;  // several: "0,1"
  WorkOptions work;
  Format format = Format::kText;
  bool export_ipc = false;
  bool write_value = false;
  bool probe = false;
  ProbeOptions probe_options;
};

volatile std::sig_atomic_t g_stop = 0;
int g_stop_event = -1;  // readable once a signal came, on whatever thread: a wait cannot miss it

// The first signal ends it in order, its queued work included; the second at once.
void StopOnSignals() {
  g_stop_event = ::eventfd(0, EFD_CLOEXEC);
  struct sigaction act = {};
  act.sa_handler = [](int) {
    const int kept = errno;
    g_stop = 1;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(g_stop_event, &one, sizeof one);
    errno = kept;
  };
  act.sa_flags = SA_RESETHAND;  // no SA_RESTART: sleeps end
  ::sigaction(SIGINT, &act, nullptr);
  ::sigaction(SIGTERM, &act, nullptr);
}

void Hold(int64_t ns) {
  const int64_t end = NowNs() + ns;
  for (int64_t left = ns; g_stop == 0 && left > 0; left = end - NowNs()) {
    const timespec rest{left / 1'000'000'000, left % 1'000'000'000};
    pollfd stop{g_stop_event, POLLIN, 0};
    ::ppoll(&stop, 1, &rest, nullptr);
  }
}

// Of a path that takes what it takes: again and again, until so much less is free. What was taken
// is known by that alone.
Status TakeUnsized(const LoadOptions& options, Driver driver, MemoryPath& path, json& out) {
  const auto before = driver.MemoryInfo();
  if (!before.ok()) return before.error();
  Bytes taken;
  int times = 0;
  for (; taken < options.alloc; ++times) {
    if (const Status one = path.Take({}); !one.ok()) {
      if (one.error().code != ErrorCode::kNoRoom || times == 0) return one;
      return NoRoom(one.error().message + ", after " + std::to_string(times) + " that took " +
                    ToString(taken) + " of " + ToString(options.alloc));
    }
    const auto now = driver.MemoryInfo();
    if (!now.ok()) return now.error();
    const Bytes more = before->free.Less(now->free);
    if (more <= taken)
      return Internal(options.path + ": one more took nothing of what the driver says is free, " +
                      ToString(taken) + " of " + ToString(options.alloc) + " so far");
    taken = more;
  }
  out["alloc"] = {{"path", options.path}, {"bytes", taken.n}, {"times", times}};
  return {};
}

Status TakeMemory(const LoadOptions& options, Driver driver, MemoryPath& path, json& out) {
  const uint64_t multiple = path.Multiple().n;
  const Bytes amount{(options.alloc.n + multiple - 1) / multiple * multiple};
  if (const Status taken = path.Take(amount); !taken.ok()) return taken;
  out["alloc"] = {{"path", options.path}, {"bytes", amount.n}};
  if (options.touch && path.Last() != 0) {
    DIVVY_CU(driver, cuMemsetD8_v2, path.Last(), 0xa5, amount.n);
    DIVVY_CU(driver, cuCtxSynchronize);
  }
  return {};
}

// " x 3": of what has no size of its own, how many were taken.
std::string Times(const json& alloc) {
  return alloc.contains("times") ? " x " + std::to_string(alloc.value("times", 0)) : "";
}

void PrintText(const json& out) {
  const json& memory = out["memory"];
  std::printf("device      %s, %s, %s free\n", out.value("device", "").c_str(),
              Amount(memory.value("total_bytes", uint64_t{0})).c_str(),
              Amount(memory.value("free_bytes", uint64_t{0})).c_str());
  if (out.contains("alloc"))
    std::printf("allocated   %s (%s%s)\n", Amount(out["alloc"].value("bytes", uint64_t{0})).c_str(),
                out["alloc"].value("path", "").c_str(), Times(out["alloc"]).c_str());
  if (!out.contains("work")) return;
  const json& work = out["work"];
  const double elapsed = work.value("elapsed_s", 0.0), gpu = work.value("gpu_time_s", 0.0);
  const auto operations = work.value("operations", uint64_t{0});
  std::printf("operations  %llu in %.2f s (%.1f/s)\n", static_cast<unsigned long long>(operations),
              elapsed, static_cast<double>(operations) / elapsed);
  std::printf("GPU time    %.3f s (%.1f %% of the time)\n", gpu, 100 * gpu / elapsed);
  if (const auto copied = work.value("copied_bytes", uint64_t{0}); copied > 0)
    std::printf("copied      %s (%s/s)\n", Amount(copied).c_str(),
                Amount(static_cast<uint64_t>(static_cast<double>(copied) / elapsed)).c_str());
  const json& latency = work["latency_us"];
  if (latency.is_null()) return;
  const auto us = [&](const char* key) { return DurationText(latency.value(key, 0.0) * 1e3); };
  std::printf("latency     p50 %s, p95 %s, p99 %s, max %s\n", us("p50").c_str(), us("p95").c_str(),
              us("p99").c_str(), us("max").c_str());
}

void PrintProgress(const json& line) {
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

void Print(const LoadOptions& options, const json& out) {
  if (options.format == Format::kText) return PrintText(out);
  // One line where there are others, or where somebody reads while we hold.
  const bool line = options.work.every_ns > 0 || options.hold_ns > 0;
  std::printf("%s\n", out.dump(line ? -1 : 2).c_str());
}

Status DoLoad(const LoadOptions& options, json& out) {
  const auto info = FindMemoryPath(options.path);
  if (!info.ok()) return info.error();
  const auto driver = Driver::Open(options.device);
  if (!driver.ok()) return driver.error();
  if (options.export_ipc) return ExportIpc(*driver);
  if (options.write_value) {
    auto measured = MeasureWriteValue(*driver);
    if (!measured.ok()) return measured.error();
    out["write_value"] = std::move(*measured);
    return {};
  }
  const std::unique_ptr<MemoryPath> path = (*info)->make(*driver);
  if (options.probe) return Probe(*driver, *path, options.probe_options);
  const auto name = driver->DeviceName();
  if (!name.ok()) return name.error();
  out["device"] = *name;
  if (options.alloc.n != 0)
    if (const Status s = (*info)->sized ? TakeMemory(options, *driver, *path, out)
                                        : TakeUnsized(options, *driver, *path, out);
        !s.ok())
      return s;
  const auto memory = driver->MemoryInfo();
  if (!memory.ok()) return memory.error();
  out["memory"] = {{"total_bytes", memory->total.n}, {"free_bytes", memory->free.n}};
  if (options.work.Any()) {
    std::vector<Driver> devices{*driver};
    std::stringstream list(options.devices);
    for (std::string one; std::getline(list, one, ',');) {
      if (std::atoi(one.c_str()) == options.device) continue;
      const auto other = Driver::Open(std::atoi(one.c_str()));
      if (!other.ok()) return other.error();
      devices.push_back(*other);
    }
    auto work = RunWork(devices, options.work, &g_stop, PrintProgress);
    if (!work.ok()) return work.error();
    out["work"] = std::move(*work);
  }
  if (options.hold_ns > 0) {
    Print(options, out);  // what it has done is known now, not only when it ends
    std::fflush(stdout);
    Hold(options.hold_ns);
  }
  return path->ReleaseAll();
}

void Load(const LoadOptions& options) {
  const bool service = options.export_ipc || options.probe || options.write_value;
  if (!service && options.alloc.n == 0 && !options.work.Any())
    Fail(
        Invalid("say what to do, e.g. `divvy load --alloc 1GiB` or `divvy load --kernel 3ms "
                "--for 10s`"));
  const std::string& stream = options.work.stream;
  if (stream != "null" && stream != "own" && stream != "ptsz")
    Fail(Invalid("--stream: '" + stream + "' is not null, own or ptsz"));
  if (!(options.work.rate >= 0 && options.work.rate <= 1e9))
    Fail(Invalid("--rate: give requests per second, e.g. 200"));
  if (options.work.poisson && options.work.rate == 0)
    Fail(Invalid("--poisson: give the mean --rate, too"));
  if (!options.work.meet.empty() && options.work.sync_every > 1)
    Fail(Invalid("--meet: one operation in a request"));
  if (!(options.work.vary >= 1 && options.work.vary <= 1000))
    Fail(Invalid("--vary: give a number from 1 to 1000"));
  if (options.work.streams < 1 || options.work.streams > 1000)
    Fail(Invalid("--streams: give a number from 1 to 1000"));
  if ((options.work.burst_ns > 0) != (options.work.rest_ns > 0))
    Fail(Invalid("--burst and --rest go together, e.g. --burst 20ms --rest 180ms"));
  const std::string& several = options.work.several;
  if (several != "" && several != "alternate" && several != "together")
    Fail(Invalid("--several: '" + several + "' is not alternate or together"));
  if (options.devices.find_first_not_of("0123456789,") != std::string::npos)
    Fail(Invalid("--devices: give numbers with commas, e.g. 0,1"));
  if (!service) StopOnSignals();
  json out = json::object();
  const Status done = DoLoad(options, out);
  if (!done.ok()) Fail(done.error());
  if (options.write_value) std::printf("%s\n", out.dump(2).c_str());
  if (service) return;
  if (options.hold_ns == 0) Print(options, out);
}

std::string PathHelp() {
  std::string text = "Memory paths (--path):\n";
  for (const PathInfo& path : MemoryPaths())
    text += "  " + std::string(path.name) + std::string(14 - std::string(path.name).size(), ' ') +
            path.about + "\n";
  return text +
         "\nExit status: 0 done, 2 bad command line, 3 CUDA_ERROR_OUT_OF_MEMORY, 4 no driver or "
         "device,\n1 anything else.";
}

}  // namespace

void AddLoad(CLI::App& app) {
  auto options = std::make_shared<LoadOptions>();
  WorkOptions& work = options->work;
  auto* verb = app.add_subcommand(
      "load",
      "take GPU memory and launch timed work, to try a share\n\n"
      "An ordinary CUDA program: it knows nothing of shares and runs with or without one.\n\n"
      "  divvy run --mem 2GiB -- divvy load --alloc 3GiB              is refused\n"
      "  divvy load --alloc 1GiB --path pool --hold 10s\n"
      "  divvy load --kernel 20us --sync-every 30 --think 100us --for 10s\n"
      "  divvy load --graph 25ms --stream null --for 5s -o json\n"
      "  divvy load --kernel 1ms --rate 200 --for 10s                 200 requests a second");
  AddSize(*verb, "--alloc", options->alloc, "device memory to take and keep");
  verb->add_option("--path", options->path, "how to take it (list below; default linear)")
      ->type_name("PATH");
  AddDuration(*verb, "--hold", options->hold_ns, "keep it this long before ending");
  verb->add_flag("--touch", options->touch, "write all of it from the GPU");
  verb->add_option("--device", options->device, "which of the devices that this process sees")
      ->type_name("I");
  AddDuration(*verb, "--kernel", work.kernel_ns, "launch kernels that take this long");
  AddDuration(*verb, "--graph", work.graph_ns, "launch graphs of ten kernels, this long together");
  verb->add_option("--vary", work.vary,
                   "kernels of unlike lengths: from a F-th to F times, --kernel on average")
      ->type_name("F");
  AddSize(*verb, "--copy", work.copy, "copy this much from host to device in each operation");
  AddDuration(*verb, "--for", work.for_ns, "go on this long (default: one request)");
  verb->add_option("--stream", work.stream,
                   "null, own (default) or ptsz: each thread's default stream")
      ->type_name("STREAM");
  verb->add_option("--streams", work.streams, "so many own streams in turn")->type_name("N");
  verb->add_flag("--cooperative", work.cooperative, "launch kernels cooperatively");
  verb->add_option("--devices", options->devices, "work on several devices, e.g. 0,1")
      ->type_name("I,...");
  verb->add_option("--several", work.several,
                   "of several devices: alternate from request to request (default), or together")
      ->type_name("HOW");
  AddDuration(*verb, "--burst", work.burst_ns, "work for this long, then rest (--rest)");
  AddDuration(*verb, "--rest", work.rest_ns, "rest for this long between bursts");
  verb->add_option("--sync-every", work.sync_every,
                   "operations in a request, then wait for them (default 1; 0: never wait)")
      ->type_name("N");
  AddDuration(*verb, "--think", work.think_ns, "host time between requests");
  verb->add_option("--rate", work.rate, "requests per second, by the clock")->type_name("R");
  verb->add_flag("--poisson", work.poisson, "... by chance, the same times in every run");
  AddDuration(*verb, "--every", work.every_ns, "print a line of JSON this often while working");
  verb->add_flag("--on-word", work.on_word, "say \"ready\", begin when a line comes on stdin");
  AddFormat(*verb, options->format);
  verb->add_flag("--export-ipc", options->export_ipc)->group("");
  verb->add_flag("--probe", options->probe)->group("");
  verb->add_flag("--write-value", options->write_value)->group("");
  verb->add_flag("--event", work.event)->group("");
  verb->add_option("--meet", work.meet)->group("");
  AddSize(*verb, "--probe-cap", options->probe_options.cap, "")->group("");
  verb->footer(PathHelp());
  verb->callback([options] { Load(*options); });
}

}  // namespace divvy::cli
