// divvy top: devices and tenants, live; and pausing or changing one from there.
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <tuple>

#include "src/cli/app.h"
#include "src/cli/machines.h"
#include "src/cli/top/model.h"
#include "src/cli/top/terminal.h"
#include "src/cli/top/view.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

struct TopOptions {
  Format format = Format::kText;
  std::string sim, sort = "compute", filter;
  int64_t interval_ns = 1'000'000'000;
  bool once = false, processes = false;
};

// The machines as they are now; kUnavailable: none, or one that does not answer.
struct Look {
  json devices = json::array(), tenants = json::array();  // each with its machine's name
  top::Model model;
};
Result<Look> LookAt(const std::vector<Machine>& machines) {
  Look out;
  for (const Machine& machine : machines) {
    Result<json> devices = machine.api.Get("/v1/devices");
    if (!devices.ok()) return devices.error();
    Result<json> tenants = machine.api.Get("/v1/tenants");
    if (!tenants.ok()) return tenants.error();
    top::AddMachine(machine.Name(), *devices, *tenants, out.model);
    for (const auto& [from, to, list] : {std::tuple(&*devices, &out.devices, "devices"),
                                         std::tuple(&*tenants, &out.tenants, "tenants")})
      for (json item : from->value(list, json::array())) {
        item["machine"] = machine.Name();
        to->push_back(std::move(item));
      }
  }
  return out;
}

Error NobodyThere(const std::string& sim) {
  return NotFound("no daemon runs" + (sim.empty() ? "" : " for sim/" + sim) +
                  "; `divvy run` starts one when it needs it");
}

std::string Clock() {
  const std::time_t now = std::time(nullptr);
  tm local{};
  ::localtime_r(&now, &local);
  char text[16];
  std::strftime(text, sizeof text, "%H:%M:%S", &local);
  return text;
}

unsigned ColumnsOfOutput() {
  constexpr unsigned kUsual = 80;
  winsize size{};
  if (::isatty(STDOUT_FILENO) != 0 && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 &&
      size.ws_col > 0)
    return size.ws_col;
  const char* columns = std::getenv("COLUMNS");
  const int n = columns != nullptr ? std::atoi(columns) : 0;
  return n > 0 && n < 10'000 ? static_cast<unsigned>(n) : kUsual;
}

top::State FirstState(const TopOptions& options) {
  top::State state;
  for (int s = 0; s < static_cast<int>(top::Sort::kCount); ++s)
    if (options.sort == top::ToString(static_cast<top::Sort>(s)))
      state.sort = static_cast<top::Sort>(s);
  state.filter = options.filter;
  state.processes = options.processes;
  state.clock = Clock();
  return state;
}

void Once(const TopOptions& options) {
  OrFail(CheckFolder(options.sim));
  const std::vector<Machine> machines = RunningMachines(options.sim);
  if (machines.empty()) Fail(NobodyThere(options.sim));
  Look look = OrFail(LookAt(machines));
  if (options.format == Format::kJson) {
    const double now =
        std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    PrintJson({{"time", now},
               {"devices", std::move(look.devices)},
               {"tenants", std::move(look.tenants)}});
    return;
  }
  for (const top::Line& line : top::Draw(look.model, FirstState(options), ColumnsOfOutput(), 0))
    std::printf("%s\n", line.text.c_str());
}

// Sends what a person has confirmed; what came of it, in a line.
std::string Do(const top::Action& action, const std::string& sim) {
  for (const Machine& machine : RunningMachines(sim)) {
    if (machine.Name() != action.machine) continue;
    const auto done = machine.api.Patch("/v1/tenants/" + action.tenant, action.patch);
    return done.ok() ? "'" + action.tenant + "': done" : top::Printable(done.error().message);
  }
  return "no daemon runs for " + action.machine + " any more";
}

void Live(const TopOptions& options) {
  using std::chrono::steady_clock;
  OrFail(top::Terminal::Check());
  OrFail(CheckFolder(options.sim));
  std::vector<Machine> machines = RunningMachines(options.sim);
  if (machines.empty()) Fail(NobodyThere(options.sim));
  Look look = OrFail(LookAt(machines));
  top::State state = FirstState(options);
  const auto interval = std::chrono::nanoseconds(options.interval_ns);
  top::Terminal terminal;
  auto due = steady_clock::now() + interval;
  bool all_again = false;
  while (!state.quit) {
    terminal.Draw(top::Draw(look.model, state, terminal.columns(), terminal.rows()));
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(due - steady_clock::now());
    const int key = terminal.ReadKey(std::max(0, static_cast<int>(left.count())));
    if (key < 0) return;
    if (key > 0) {
      if (const auto action = top::Press(key, look.model, state)) {
        state.message = Do(*action, options.sim);
        all_again = true;
      }
    }
    if (!all_again && steady_clock::now() < due) continue;
    all_again = false;
    due = steady_clock::now() + interval;
    Result<Look> next = LookAt(machines);
    if (!next.ok()) {  // perhaps another daemon has come
      machines = RunningMachines(options.sim);
      next = machines.empty() ? Result<Look>(NobodyThere(options.sim)) : LookAt(machines);
    }
    if (next.ok())
      look = std::move(*next);
    else
      state.message = top::Printable(next.error().message);
    state.clock = Clock() + (next.ok() ? "" : " (old)");
  }
}

}  // namespace

void AddTop(CLI::App& app) {
  auto options = std::make_shared<TopOptions>();
  auto* verb = app.add_subcommand(
      "top",
      "devices and tenants, live, and a hand on them\n\n"
      "GOT% is the part of the GPU's time that a tenant got over 1 s / 60 s, WANT% that and the "
      "time\n"
      "for which it waited for its turn or its cap; - where it has the GPU to itself and nothing "
      "is\n"
      "measured. ? in it lists the keys: pause, resume, change a share (each asks before it "
      "does),\n"
      "sort, filter. It works in any terminal that can place its cursor, without colour where\n"
      "NO_COLOR is set.\n\n"
      "  divvy top\n"
      "  divvy top --sort memory --filter train\n"
      "  divvy top --once -o json      what it shows, for scripts");
  verb->add_flag("--once", options->once, "print it once, and end");
  verb->add_flag("-p,--processes", options->processes, "with each tenant's processes");
  verb->add_option("--sort", options->sort, "by name, GPU, memory, compute, waits, refusals")
      ->check([](const std::string& text) {
        for (int s = 0; s < static_cast<int>(top::Sort::kCount); ++s)
          if (text == top::ToString(static_cast<top::Sort>(s))) return std::string();
        return "'" + text + "' is not name, GPU, memory, compute, waits or refusals";
      })
      ->type_name("BY");
  verb->add_option("--filter", options->filter, "only tenants whose line contains this text")
      ->type_name("TEXT");
  AddDuration(*verb, "--interval", options->interval_ns, "between two looks (1s)");
  AddFormat(*verb, options->format)->description("text (default) or json, which needs --once");
  AddSim(*verb, options->sim)->description("only this simulated machine");
  verb->callback([options] {
    if (options->format == Format::kJson && !options->once)
      Fail(Invalid("-o json needs --once: divvy top --once -o json"));
    constexpr int64_t kShortest = 100'000'000, kLongest = 3'600'000'000'000;
    if (options->interval_ns < kShortest || options->interval_ns > kLongest)
      Fail(Invalid("--interval must be from 100ms to 1h"));
    if (options->once)
      Once(*options);
    else
      Live(*options);
  });
}

}  // namespace divvy::cli
