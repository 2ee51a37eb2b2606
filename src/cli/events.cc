// divvy events: what happened to tenants and devices: refusals, changes, findings, crashes.
#include <poll.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <optional>

#include "src/cli/api/stream.h"
#include "src/cli/app.h"
#include "src/cli/machines.h"
#include "src/cli/tenancy.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

struct EventsOptions {
  Format format = Format::kText;
  std::string sim, tenant, kind, since;
  bool follow = false;
};

const char* const kKinds[] = {"tenant",  "change",     "refusal", "finding", "crash",
                              "compute", "connection", "device",  "daemon"};

std::string Kinds() {
  std::string list;
  for (const char* kind : kKinds) list += std::string(list.empty() ? "" : ", ") + kind;
  return list;
}

// From when on: the number of an event, or a moment.
struct Start {
  uint64_t seq = 0;
  double time = 0;
};

Result<Start> ParseStart(const std::string& text) {
  Start start;
  if (text.empty()) return start;
  const char* end = text.data() + text.size();
  if (const auto [at, error] = std::from_chars(text.data(), end, start.seq);
      error == std::errc() && at == end)
    return start;
  const Result<int64_t> ago = ParseDurationNs(text);
  if (!ago.ok())
    return Invalid("--since '" + text + "': give an event's number, or how long ago: 10m, 30s");
  start = {};
  start.time = static_cast<double>(std::time(nullptr)) - static_cast<double>(*ago) / 1e9;
  return start;
}

bool Wanted(const json& event, const EventsOptions& options, const Start& start) {
  return (options.tenant.empty() || event.value("tenant", "") == options.tenant) &&
         (options.kind.empty() || event.value("kind", "") == options.kind) &&
         event.value("time", 0.0) >= start.time;
}

// Bytes that a terminal would act on come from programs' names: they are not shown.
std::string Printable(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return text;
}

std::string LineOf(const json& event) {
  const double time = event.value("time", 0.0);
  const auto seconds = static_cast<time_t>(time);
  tm local{};
  ::localtime_r(&seconds, &local);
  char head[160];
  std::snprintf(head, sizeof head, "%02d:%02d:%02d.%03d  %-7s  %-16s  %-15s  ", local.tm_hour,
                local.tm_min, local.tm_sec, static_cast<int>((time - std::floor(time)) * 1000),
                event.value("severity", "").c_str(), event.value("tenant", "-").c_str(),
                event.value("cause", "").c_str());
  std::string line = head;
  if (const int pid = event.value("pid", 0); pid != 0) {
    line += "pid " + std::to_string(pid);
    if (const std::string name = event.value("command", ""); !name.empty())
      line += " (" + name.substr(0, 40) + ")";
    line += " ";
  }
  if (const std::string call = event.value("call", ""); !call.empty()) line += call + " ";
  line += event.value("message", "");
  if (const std::string device = event.value("device", ""); !device.empty())
    line += " [" + device + "]";
  return Printable(line);
}

void Show(const json& event, Format format) {
  if (format == Format::kJson)
    PrintJsonLine(event);
  else
    std::printf("%s\n", LineOf(event).c_str());
}

std::string GenerationOf(const Machine& machine) {
  const auto status = machine.api.Get("/v1/status");
  return status.ok() ? status->value("generation", json()).dump() : "";
}

// One machine that is followed, over restarts of its daemon.
struct Followed {
  Machine machine;
  std::string generation;
  uint64_t seen = 0;
  std::optional<EventStream> stream;

  // False: nobody is there now.
  bool Connect() {
    const std::string now = GenerationOf(machine);
    if (now.empty()) return false;
    if (now != generation) seen = 0;  // another daemon counts anew
    generation = now;
    auto opened = EventStream::Open(machine.api.socket_path(),
                                    "/v1/watch?interval_ms=60000&since=" + std::to_string(seen));
    if (!opened.ok()) return false;
    stream.emplace(std::move(*opened));
    return true;
  }
};

void Follow(std::vector<Followed> all, const EventsOptions& options, const Start& start) {
  constexpr int kRetryMs = 500;
  for (;;) {
    std::vector<pollfd> fds;
    bool missing = false;
    for (Followed& f : all) {
      if (!f.stream && !f.Connect()) missing = true;
      fds.push_back({f.stream ? f.stream->fd() : -1, POLLIN, 0});
    }
    ::poll(fds.data(), fds.size(), missing ? kRetryMs : -1);
    for (size_t i = 0; i < all.size(); ++i) {
      if (fds[i].revents == 0) continue;
      Followed& f = all[i];
      std::vector<StreamFrame> frames;
      const bool open = f.stream->Read(frames);
      for (StreamFrame& frame : frames) {
        if (frame.type != "event") continue;
        f.seen = frame.data.value("seq", f.seen);
        if (!Wanted(frame.data, options, start)) continue;
        frame.data["machine"] = f.machine.Name();
        Show(frame.data, options.format);
      }
      if (!open) f.stream.reset();
    }
    if (std::fflush(stdout) != 0) Exit(kFailed);  // nobody reads any more
  }
}

void Events(const EventsOptions& options) {
  if (!options.tenant.empty()) OrFail(CheckName(options.tenant));
  const Start start = OrFail(ParseStart(options.since));
  OrFail(CheckFolder(options.sim));
  const std::vector<Machine> machines = RunningMachines(options.sim);
  if (machines.empty())
    Fail(NotFound("no daemon runs" + (options.sim.empty() ? "" : " for sim/" + options.sim) +
                  ", and events end with their daemon; its log keeps them: " +
                  MachineOf(options.sim).dir + "/divvyd.log"));
  std::vector<Followed> followed;
  std::vector<json> all;
  for (const Machine& machine : machines) {
    Followed f{.machine = machine, .generation = GenerationOf(machine), .seen = start.seq};
    for (json event : OrFail(machine.api.Get("/v1/events?since=" + std::to_string(start.seq)))
                          .value("events", json::array())) {
      f.seen = std::max(f.seen, event.value("seq", uint64_t{0}));
      if (!Wanted(event, options, start)) continue;
      event["machine"] = machine.Name();
      all.push_back(std::move(event));
    }
    followed.push_back(std::move(f));
  }
  std::stable_sort(all.begin(), all.end(), [](const json& a, const json& b) {
    return a.value("time", 0.0) < b.value("time", 0.0);
  });
  if (options.format == Format::kJson && !options.follow) {
    PrintJson({{"events", std::move(all)}});
    return;
  }
  for (const json& event : all) Show(event, options.format);
  std::fflush(stdout);
  if (options.follow) Follow(std::move(followed), options, start);
}

}  // namespace

void AddEvents(CLI::App& app) {
  auto options = std::make_shared<EventsOptions>();
  auto* verb = app.add_subcommand(
      "events",
      "what happened: refusals, changes, findings, crashes, sick devices\n\n"
      "The newest 4096 that the daemon has; they end with it (its log, divvyd.log, and journald\n"
      "keep them longer). Of one tenant and cause at most 20 in 10 s are kept, and how many were\n"
      "not is told. With -o json and --follow each event is a line of its own.\n\n"
      "  divvy events --follow\n"
      "  divvy events --tenant web --kind refusal --since 10m\n"
      "  divvy events --since 4711 -o json");
  verb->add_flag("-f,--follow", options->follow, "go on with what comes, also over a restart");
  verb->add_option("--tenant", options->tenant, "only this tenant's")->type_name("NAME");
  verb->add_option("--kind", options->kind, "only these: " + Kinds())
      ->check([](const std::string& text) {
        for (const char* kind : kKinds)
          if (text == kind) return std::string();
        return "'" + text + "' is no kind of event; there are " + Kinds();
      })
      ->type_name("KIND");
  verb->add_option("--since", options->since,
                   "those after this event's number, or of so long ago: 10m")
      ->type_name("SEQ|TIME");
  AddFormat(*verb, options->format);
  AddSim(*verb, options->sim)->description("only this simulated machine's");
  verb->callback([options] { Events(*options); });
}

}  // namespace divvy::cli
