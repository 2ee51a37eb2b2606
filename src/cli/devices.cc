// divvy devices: the GPUs of a machine: their memory, what of it is promised, what is outside.
#include <cstdio>

#include "src/cli/app.h"
#include "src/cli/machines.h"
#include "src/cli/table.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

struct DevicesOptions {
  Format format = Format::kText;
  std::string sim;
};

// The machine asked for, else the real one; its daemon is started if need be. On a machine without
// a GPU the simulated machines that run are shown instead.
std::vector<Machine> MachinesToShow(const std::string& sim) {
  const Machine machine = MachineOf(sim);
  const Status started = EnsureDaemon(machine);
  Machines machines = MachinesWithTenants(sim);
  if (started.ok() && machines.live.empty()) machines.live.push_back(machine);
  if (machines.live.empty()) Fail(started.error());
  return machines.live;
}

void Devices(const DevicesOptions& options) {
  json all = json::array();
  for (const Machine& machine : MachinesToShow(options.sim)) {
    for (json device : OrFail(machine.api.Get("/v1/devices")).value("devices", json::array())) {
      device["machine"] = machine.Name();
      all.push_back(std::move(device));
    }
  }
  if (options.format == Format::kJson) {
    std::printf("%s\n", json{{"devices", all}}.dump(2).c_str());
    return;
  }
  Table table({"GPU", "NAME", "TOTAL", "PROMISED", "FREE TO PROMISE", "USED", "LEAVING", "OUTSIDE",
               "TENANTS", "UUID"});
  for (const json& d : all) {
    const std::string machine = d.value("machine", "");
    table.Add({(machine == "real" ? "" : machine + ":") + std::to_string(d.value("index", 0)),
               d.value("name", ""), Amount(d.value("total_bytes", uint64_t{0})),
               Amount(d.value("promised_bytes", uint64_t{0})),
               Amount(d.value("free_to_promise_bytes", uint64_t{0})),
               Amount(d.value("used_bytes", uint64_t{0})),
               Amount(d.value("leaving_bytes", uint64_t{0})),
               Amount(d.value("outside_bytes", uint64_t{0})),
               std::to_string(d.value("tenants", json::array()).size()), d.value("uuid", "")});
  }
  std::fputs(table.ToString().c_str(), stdout);
  for (const json& d : all)
    if (d.value("health", "ok") != "ok")
      std::printf("FAULT: GPU %d of %s does not answer, its figures are old: %s\n",
                  d.value("index", 0), d.value("machine", "").c_str(),
                  d.value("health", "").c_str());
}

}  // namespace

void AddDevices(CLI::App& app) {
  auto options = std::make_shared<DevicesOptions>();
  auto* verb = app.add_subcommand(
      "devices",
      "the GPUs and what of them is promised\n\n"
      "PROMISED is the sum of the shares, FREE TO PROMISE what a new share may ask for, OUTSIDE "
      "what\n"
      "processes hold that run without Divvy, LEAVING what ended processes have not yet freed.\n\n"
      "  divvy devices\n"
      "  divvy devices --sim h100x4");
  AddFormat(*verb, options->format);
  AddSim(*verb, options->sim);
  verb->callback([options] { Devices(*options); });
}

}  // namespace divvy::cli
