// divvy devices: the GPUs of a machine: their memory, what of it is promised, what is outside.
#include <cctype>
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
  std::string sim, cordon, uncordon, reason;
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

// --cordon, --uncordon: which device of the one machine that is meant.
void Change(const DevicesOptions& options) {
  const bool cordon = !options.cordon.empty();
  const std::string gpu = cordon ? options.cordon : options.uncordon;
  for (const char c : gpu)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-')
      Fail(Invalid("'" + gpu + "' is no GPU: give its index or UUID, as `divvy devices` lists it"));
  json body{{"cordoned", cordon}};
  if (!options.reason.empty()) body["reason"] = options.reason;
  const Machine machine = MachineOf(options.sim);
  OrFail(EnsureDaemon(machine));
  const json device = OrFail(machine.api.Patch("/v1/devices/" + gpu, body));
  if (options.format == Format::kJson)
    PrintJson(device);
  else
    std::printf("GPU %d %s\n", device.value("index", 0),
                cordon ? "is cordoned: it takes no new tenants (divvy devices --uncordon)"
                       : "takes new tenants");
}

void Devices(const DevicesOptions& options) {
  if (!options.cordon.empty() && !options.uncordon.empty())
    Fail(Invalid("give --cordon or --uncordon, not both"));
  if (!options.cordon.empty() || !options.uncordon.empty()) return Change(options);
  if (!options.reason.empty()) Fail(Invalid("--reason goes with --cordon"));
  json all = json::array();
  for (const Machine& machine : MachinesToShow(options.sim)) {
    for (json device : OrFail(machine.api.Get("/v1/devices")).value("devices", json::array())) {
      device["machine"] = machine.Name();
      all.push_back(std::move(device));
    }
  }
  if (options.format == Format::kJson) {
    PrintJson(json{{"devices", all}});
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
  for (const json& d : all)
    if (d.value("cordoned", false))
      std::printf("CORDONED: GPU %d of %s takes no new tenants: %s (divvy devices --uncordon %d)\n",
                  d.value("index", 0), d.value("machine", "").c_str(),
                  d.value("cordon_reason", "").c_str(), d.value("index", 0));
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
      "A GPU is cordoned after a fault of its own (an Xid) or by hand: it takes no new tenants, "
      "those\n"
      "that it has go on.\n\n"
      "  divvy devices\n"
      "  divvy devices --sim h100x4\n"
      "  divvy devices --cordon 1 --reason 'fan is loud'\n"
      "  divvy devices --uncordon 1");
  verb->add_option("--cordon", options->cordon, "let this one take no new tenants")
      ->type_name("I|UUID");
  verb->add_option("--uncordon", options->uncordon, "let it take new tenants again")
      ->type_name("I|UUID");
  verb->add_option("--reason", options->reason, "of --cordon, for people")->type_name("TEXT");
  AddFormat(*verb, options->format);
  AddSim(*verb, options->sim);
  verb->callback([options] { Devices(*options); });
}

}  // namespace divvy::cli
