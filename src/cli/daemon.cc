// divvy daemon stop|status: for the daemons of this runtime directory.
#include <cstdio>

#include "src/base/paths.h"
#include "src/cli/app.h"
#include "src/cli/machines.h"
#include "src/cli/table.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

struct DaemonOptions {
  Format format = Format::kText;
  std::string sim;
  bool all = false;
};

void Stop(const DaemonOptions& options) {
  OrFail(CheckFolder(options.sim));
  std::vector<Machine> machines = RunningMachines();
  if (!options.all)
    std::erase_if(machines,
                  [&](const Machine& m) { return m.sim != paths::Sanitized(options.sim); });
  if (machines.empty() && !options.all)
    Fail(NotFound("no daemon runs in " + MachineOf(options.sim).dir +
                  "; `divvy daemon status` lists those that do"));
  json stopped = json::array();
  for (const Machine& machine : machines) {
    OrFail(machine.api.Post("/v1/shutdown", json::object()));
    stopped.push_back(machine.Name());
  }
  if (options.format == Format::kJson)
    PrintJson(json{{"stopped", stopped}});
  else
    for (const json& name : stopped) std::printf("stopped %s\n", name.get<std::string>().c_str());
}

void ShowStatus(const DaemonOptions& options) {
  OrFail(CheckFolder(options.sim));
  json all = json::array();
  std::vector<Error> lost;  // those that run, but do not answer
  for (const Machine& machine : RunningMachines(options.sim)) {
    auto status = machine.api.Get("/v1/status");
    if (!status.ok()) {
      if (machine.api.Alive()) lost.push_back(status.error());
      continue;
    }
    (*status)["machine"] = machine.Name();
    all.push_back(std::move(*status));
  }
  if (options.format == Format::kJson) {
    json answer{{"daemons", all}};
    if (!lost.empty()) answer["error"] = ErrorJson(lost.front());
    PrintJson(answer);
    if (!lost.empty()) Fail(lost.front());
    return;
  }
  if (all.empty()) {
    if (!lost.empty()) Fail(lost.front());
    std::printf("no daemon runs; `divvy run` starts one when it needs it\n");
    return;
  }
  Table table({"MACHINE", "PID", "VERSION", "UP", "RUNTIME"});
  for (const json& d : all)
    table.Add({d.value("machine", ""), std::to_string(d.value("pid", 0)), d.value("version", ""),
               Age(d.value("uptime_s", 0.0)), d.value("runtime_dir", "")});
  std::fputs(table.ToString().c_str(), stdout);
  if (!lost.empty()) Fail(lost.front());
}

}  // namespace

void AddDaemon(CLI::App& app) {
  auto options = std::make_shared<DaemonOptions>();
  auto* verb = app.add_subcommand("daemon",
                                  "the daemons that hold the books\n\n"
                                  "`divvy run` starts one by itself. Stopping one ends no program: "
                                  "tenants keep their limits and\n"
                                  "are taken over by the next daemon.\n\n"
                                  "  divvy daemon status\n"
                                  "  divvy daemon stop --sim h100\n"
                                  "  divvy daemon stop --all");
  verb->require_subcommand(1);
  auto* stop = verb->add_subcommand("stop", "end the daemon of one machine, or of all");
  AddFormat(*stop, options->format);
  AddSim(*stop, options->sim);
  stop->add_flag("--all", options->all, "every machine of this runtime folder");
  stop->callback([options] { Stop(*options); });
  auto* status = verb->add_subcommand("status", "which daemons run");
  AddFormat(*status, options->format);
  AddSim(*status, options->sim);
  status->callback([options] { ShowStatus(*options); });
}

}  // namespace divvy::cli
