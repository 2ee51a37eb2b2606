// divvy advise: runs a program alone on a GPU, watched, and says which share to ask for.
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <thread>

#include "src/base/clock.h"
#include "src/base/unique_fd.h"
#include "src/cli/advise/observation.h"
#include "src/cli/app.h"
#include "src/cli/in_share.h"
#include "src/cli/recording.h"
#include "src/cli/table.h"
#include "src/cli/tenancy.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using advise::Advice;
using advise::Observation;
using nlohmann::json;

constexpr int kBetweenMs = 20;
constexpr int kLooksBetween = 2;  // at memory, of those at operations
constexpr int64_t kLongestMs = 3'600'000;

struct AdviseOptions {
  std::string sim, gpu, file;
  Format format = Format::kText;
};

// Reads what the tenant's recording gained, until told to stop; then once more.
class Watcher {
 public:
  Watcher(const Tenancy& tenancy, Recording recording)
      : api_(tenancy.machine.api),
        path_("/v1/tenants/" + tenancy.name),
        recording_(std::move(recording)),
        began_s_(NowS()),
        stop_(::eventfd(0, EFD_CLOEXEC)),
        thread_([this] { Run(); }) {}
  ~Watcher() { Stop(); }
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  const Observation& Stop() {
    if (!thread_.joinable()) return seen_;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(stop_.get(), &one, sizeof one);
    thread_.join();
    Read(true);
    return seen_;
  }
  double Seconds() const { return (NowS() - began_s_) / recording_.dilation(); }
  uint64_t refused() const { return refused_; }

 private:
  void Run() {
    pollfd stop{stop_.get(), POLLIN, 0};
    for (int round = 0; ::poll(&stop, 1, kBetweenMs) <= 0; ++round)
      Read(round % kLooksBetween == 0);
  }
  void Read(bool memory) {
    const double now_s = Seconds();
    const uint64_t lost_before = recording_.lost();
    if (const auto part = recording_.Read(); part.ok()) {
      seen_.Lost(recording_.lost() - lost_before);
      for (const Recording::Operation& one : *part)
        seen_.Add(
            static_cast<Observation::Kind>(std::min<unsigned>(one.kind, Observation::kKinds - 1)),
            one.length_us, one.synced);
      seen_.Mark(now_s);
    }
    if (!memory) return;
    const auto tenant = api_.Get(path_);
    if (!tenant.ok()) return;
    const json shares = tenant->value("shares", json::array());
    if (!shares.empty()) seen_.Look(shares.front());
    refused_ = 0;
    const json refusals = tenant->value("refusals", json::object());
    for (const auto& [cause, count] : refusals.items())
      if (cause == "out_of_share" || cause == "device_full") refused_ += count.get<uint64_t>();
  }

  const ApiClient api_;
  const std::string path_;
  Recording recording_;
  uint64_t refused_ = 0;
  const double began_s_;
  Observation seen_;
  UniqueFd stop_;
  std::thread thread_;
};

// The device to run on: the one asked for, else the one with most room; all of its room.
struct Place {
  std::string uuid, name;
  unsigned index = 0;
  Bytes room;
  size_t tenants = 0;
};

Result<Place> Choose(const Machine& machine, const std::string& gpu) {
  if (const Status up = EnsureDaemon(machine); !up.ok()) return up.error();
  const auto answer = machine.api.Get("/v1/devices");
  if (!answer.ok()) return answer.error();
  Place best;
  for (const json& d : answer->value("devices", json::array())) {
    const std::string uuid = d.value("uuid", ""), index = std::to_string(d.value("index", 0));
    const Bytes room{d.value("free_to_promise_bytes", uint64_t{0})};
    if (gpu.empty() ? !best.uuid.empty() && room <= best.room : gpu != uuid && gpu != index)
      continue;
    best = {uuid, d.value("name", ""), d.value("index", 0u), room,
            d.value("tenants", json::array()).size()};
  }
  if (best.uuid.empty())
    return NotFound(gpu.empty() ? "there is no GPU" : "no GPU is '" + gpu + "'; see divvy devices");
  if (best.room < 1_GiB)
    return Error{ErrorCode::kNoRoom,
                 "only " + ToString(best.room) + " of GPU " + std::to_string(best.index) +
                     " are free to promise; `divvy ps` says who holds the rest"};
  return best;
}

std::string Quoted(const std::vector<std::string>& command) {
  std::string text;
  for (const std::string& word : command) {
    const bool plain = !word.empty() && word.find_first_not_of(
                                            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                            "0123456789_-./=:,@%+") == std::string::npos;
    std::string quoted = "'";
    for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    text += (text.empty() ? "" : " ") + (plain ? word : quoted + "'");
  }
  return text;
}

std::string RunLine(const Advice& advice, const std::vector<std::string>& command) {
  std::string line = "divvy run --mem " + std::to_string(advice.mem.n >> 20) + "MiB";
  if (advice.compute > 0) line += " --compute " + std::to_string(advice.compute);
  if (advice.share_class != "standard") line += " --class " + advice.share_class;
  return line + " -- " + Quoted(command);
}

json Report(const Observation& seen, const Advice& advice, const Place& place, double seconds,
            uint64_t refused, const std::vector<std::string>& command) {
  const uint64_t launches = seen.operations(Observation::kKernel) +
                            seen.operations(Observation::kGraph) +
                            seen.operations(Observation::kOnDevice);
  const double active = seen.ActiveSeconds();
  return {{"device", {{"index", place.index}, {"uuid", place.uuid}, {"name", place.name}}},
          {"alone", place.tenants == 0},
          {"seconds", seconds},
          {"memory",
           {{"peak_bytes", seen.peak().n + seen.overhead().n},
            {"charged_peak_bytes", seen.peak().n},
            {"overhead_bytes", seen.overhead().n},
            {"kinds_peak_bytes", seen.kinds()},
            {"refused", refused}}},
          {"gpu",
           {{"active_s", active},
            {"duty_percent", seen.Duty()},
            {"busiest_second_percent", seen.BusiestDuty()}}},
          {"operations",
           {{"kernels", seen.operations(Observation::kKernel)},
            {"graphs", seen.operations(Observation::kGraph)},
            {"on_device", seen.operations(Observation::kOnDevice)},
            {"copies", seen.operations(Observation::kCopy)},
            {"per_s", active > 0 ? static_cast<double>(launches) / active : 0},
            {"p50_us", seen.Length(0.5)},
            {"p95_us", seen.Length(0.95)},
            {"max_us", seen.Length(1)},
            {"burst_p95_us", seen.Burst(0.95)},
            {"not_read", seen.lost()}}},
          {"copies", {{"bytes", seen.copied_bytes()}, {"seconds", seen.copy_seconds()}}},
          {"advice",
           {{"mem_bytes", advice.mem.n},
            {"compute_percent", advice.compute},
            {"class", advice.share_class},
            {"why_mem", advice.why_mem},
            {"why_compute", advice.why_compute},
            {"why_class", advice.why_class},
            {"notes", advice.notes},
            {"run", RunLine(advice, command)}}}};
}

std::string TextOf(const json& r) {
  char line[256];
  std::string out;
  const auto add = [&](const auto&... arguments) {
    std::snprintf(line, sizeof line, arguments...);
    out += line;
  };
  const json &memory = r["memory"], &gpu = r["gpu"], &ops = r["operations"], &advice = r["advice"];
  add("\n%.1f s on GPU %u (%s)%s\n", r.value("seconds", 0.0), r["device"].value("index", 0u),
      r["device"].value("name", "").c_str(),
      r.value("alone", true) ? "" : ", NOT alone: others have shares of it");
  out += "memory     " + Amount(memory.value("peak_bytes", uint64_t{0})) + " at most";
  std::string kinds;
  for (const auto& [kind, bytes] : memory["kinds_peak_bytes"].items())
    if (bytes.get<uint64_t>() > 0)
      kinds += (kinds.empty() ? ": " : ", ") + kind + " " + Amount(bytes.get<uint64_t>());
  if (const auto over = memory.value("overhead_bytes", uint64_t{0}); over > 0)
    kinds += ", the driver's beside " + Amount(over);
  out += kinds + "\n";
  add("GPU        busy %.1f %% of %.1f s, %.1f %% in the busiest second\n",
      gpu.value("duty_percent", 0.0), gpu.value("active_s", 0.0),
      gpu.value("busiest_second_percent", 0.0));
  add("work       %llu kernels, %llu graphs, %llu memsets and device copies (%.0f/s)\n",
      ops.value("kernels", 0ull), ops.value("graphs", 0ull), ops.value("on_device", 0ull),
      ops.value("per_s", 0.0));
  const auto us = [&](const char* key) { return DurationText(ops.value(key, 0.0) * 1e3); };
  out += "lengths    p50 " + us("p50_us") + ", p95 " + us("p95_us") + ", longest " + us("max_us") +
         "; between waits of the host p95 " + us("burst_p95_us") + "\n";
  out += "copies     " + Amount(r["copies"].value("bytes", uint64_t{0})) +
         " between host and device\n\n  " + advice.value("run", "") + "\n\n";
  out += "--mem      " + advice.value("why_mem", "") + "\n--compute  " +
         advice.value("why_compute", "") + "\n--class    " + advice.value("why_class", "") + "\n";
  for (const json& note : advice["notes"]) out += "note       " + note.get<std::string>() + "\n";
  return out;
}

void Tell(const AdviseOptions& options, const json& report) {
  const std::string text =
      options.format == Format::kJson ? JsonText(report) + "\n" : TextOf(report);
  if (options.file.empty()) {
    std::fputs(text.c_str(), stderr);  // stdout is the command's
    return;
  }
  std::ofstream out(options.file);
  if (!(out << text) || !out.flush())
    Fail(Error{ErrorCode::kIo, "cannot write " + options.file}, kRunFailed);
}

void Advise(const AdviseOptions& options, const std::vector<std::string>& rest) {
  const auto fail = [](const Error& error) { Fail(error, kRunFailed); };
  std::vector<std::string> command = CommandLine();
  if (command.empty()) command = rest;
  if (command.empty()) fail(Invalid("say what to run: divvy advise -- python train.py"));
  const Machine machine = MachineOf(options.sim);
  const Result<Place> place = Choose(machine, options.gpu);
  if (!place.ok()) fail(place.error());
  ShareRequest request;
  request.sim = options.sim;
  request.gpus = {place->uuid};
  request.mem = place->room;
  request.command = command;
  const Result<Tenancy> made = MakeTenant(request);
  if (!made.ok()) fail(made.error());
  const Tenancy& tenancy = *made;
  Result<Recording> recording = Recording::Begin(tenancy.machine, tenancy.name, kLongestMs);
  if (!recording.ok()) {
    DropTenant(tenancy);
    fail(recording.error());
  }
  const InShare running(tenancy, command);
  Watcher watcher(tenancy, std::move(*recording));
  const Ended ended = running.Await();
  const double seconds = watcher.Seconds();
  const Observation& seen = watcher.Stop();
  Advice advice = AdviceFor(seen);
  if (place->tenants > 0)
    advice.notes.push_back(
        "others have shares of this GPU: its figures may hold waiting for them; --gpu chooses "
        "another");
  if (watcher.refused() > 0)
    advice.notes.push_back("it was refused memory although it had all that is free (" +
                           ToString(place->room) + "): it may want more than it got");
  if (ended.status != 0)
    advice.notes.push_back("it ended with status " + std::to_string(ended.status) +
                           ": a whole run may need more");
  if (seen.lost() > seen.operations(Observation::kKernel) / 100)
    advice.notes.push_back(std::to_string(seen.lost()) +
                           " operations came too fast to be read: it was busier than this says");
  Tell(options, Report(seen, advice, *place, seconds, watcher.refused(), command));
  RemoveCgroup(tenancy.delivery.cgroup);
  Exit(ended.status);
}

}  // namespace

void AddAdvise(CLI::App& app) {
  auto options = std::make_shared<AdviseOptions>();
  auto* verb = app.add_subcommand(
      "advise",
      "run a program alone and say which share it needs\n\n"
      "The program gets all that is free of one GPU, and each of its operations is marked and "
      "timed\n"
      "(which slows it a little). At its end, on stderr: peak memory by kind, how busy the GPU "
      "was,\n"
      "lengths of its kernels, copies, and the `divvy run` line to start it with, with reasons.\n"
      "Let it do what it will do later: the same model, the same batch size, some requests.\n\n"
      "  divvy advise -- python infer.py --requests 1000\n"
      "  divvy advise --gpu 1 -o json --to advice.json -- ./train --steps 50\n"
      "  divvy advise --sim h100 -- divvy load --alloc 1GiB --kernel 1ms --rate 200 --for 5s");
  verb->add_option("--gpu", options->gpu, "which device: index or UUID (default: most free)")
      ->type_name("I|UUID");
  AddSim(*verb, options->sim);
  AddFormat(*verb, options->format)->description("text or json; either goes to stderr or --to");
  verb->add_option("--to", options->file, "write the report there instead of to stderr")
      ->type_name("FILE");
  verb->prefix_command();
  verb->footer(
      "Exit status: CMD's own, 128 + n when signal n ended it; 125 Divvy failed and CMD was not\n"
      "started, 126 CMD cannot be executed, 127 CMD was not found.");
  verb->callback([options, verb] { Advise(*options, verb->remaining()); });
}

}  // namespace divvy::cli
