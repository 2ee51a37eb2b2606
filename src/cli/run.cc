// divvy run: a command in a share. Asks the daemon (starting one if none runs), puts the shim into
// the command, and then behaves as the command would.
#include <cstdio>

#include "src/cli/app.h"
#include "src/cli/in_share.h"
#include "src/cli/share_options.h"
#include "src/cli/table.h"
#include "src/cli/tenancy.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

struct RunOptions {
  ShareOptions share;
  Format format = Format::kText;
};

Status Complete(RunOptions& options, const std::vector<std::string>& rest) {
  ShareRequest& request = options.share.request;
  request.command = CommandLine();
  if (request.command.empty()) {
    if (!rest.empty() && rest.front().rfind('-', 0) == 0)
      return Invalid("unknown option '" + rest.front() + "' (see 'divvy run --help')");
    request.command = rest;
  } else if (!rest.empty()) {
    return Invalid("'" + rest.front() +
                   "' before '--' is no option of divvy run (see 'divvy run "
                   "--help')");
  }
  if (request.command.empty())
    return Invalid("say what to run: divvy run --mem 4GiB -- python train.py");
  return CompleteShare(options.share);
}

// A line for each time that the audit ended something of the tenant's: by nothing else would its
// owner know where the signal came from.
void ExplainKills(const Tenancy& tenancy, const json& tenant) {
  for (const json& finding : tenant.value("findings", json::array())) {
    if (finding.value("action", "") != "kill") continue;
    const int pid = finding.value("pid", 0);
    std::fprintf(stderr, "divvy: the audit killed %s of '%s': %s (finding %s)\n",
                 pid != 0 ? ("pid " + std::to_string(pid)).c_str() : "the processes",
                 tenancy.name.c_str(), finding.value("message", "").c_str(),
                 finding.value("code", "").c_str());
  }
}

// One line after a command that failed and had been refused memory: why, and what of the share was
// the driver's.
void ExplainRefusals(const Tenancy& tenancy, const json& tenant) {
  const json refusals = tenant.value("refusals", json::object());
  const auto out_of_share = refusals.value("out_of_share", uint64_t{0});
  const auto device_full = refusals.value("device_full", uint64_t{0});
  if (out_of_share + device_full == 0) return;
  const json shares = tenant.value("shares", json::array());
  if (shares.empty()) return;
  const json& share = shares.front();
  const json kinds = share.value("kinds", json::object());
  const int64_t driver =
      kinds.value("context", int64_t{0}) + share.value("overhead_bytes", int64_t{0});
  const std::string times = out_of_share + device_full == 1
                                ? "once"
                                : std::to_string(out_of_share + device_full) + " times";
  std::fprintf(stderr,
               "divvy: '%s' was refused memory %s; its share is %s, %s of it now the driver's "
               "own%s (more: --mem, or `divvy set` while it runs)\n",
               tenancy.name.c_str(), times.c_str(),
               Amount(share.value("limit_bytes", uint64_t{0})).c_str(),
               SignedAmount(driver).c_str(), device_full > 0 ? "; the device itself was full" : "");
}

void ExplainFailure(const Tenancy& tenancy) {
  const auto tenant = tenancy.machine.api.Get("/v1/tenants/" + tenancy.name);
  if (!tenant.ok()) return;
  ExplainKills(tenancy, *tenant);
  ExplainRefusals(tenancy, *tenant);
}

void Run(RunOptions& options, const std::vector<std::string>& rest) {
  ErrorsAsJsonTo(options.format == Format::kJson ? stderr : nullptr);
  if (const Status complete = Complete(options, rest); !complete.ok())
    Fail(complete.error(), kRunFailed);
  const Result<Tenancy> made = MakeTenant(options.share.request);
  if (!made.ok()) Fail(made.error(), kRunFailed);
  const Tenancy& tenancy = *made;
  const InShare command(tenancy, options.share.request.command);
  const Ended ended = command.Await();
  if (options.format == Format::kJson)
    PrintJsonLine({{"name", tenancy.name},
                   {"machine", tenancy.machine.Name()},
                   {"devices", tenancy.devices},
                   {"cooperative", !tenancy.delivery.isolated},
                   {"pid", command.pid()},
                   {"status", ended.status},
                   {"signal", ended.signal}},
                  stderr);
  if (ended.status != 0) ExplainFailure(tenancy);
  RemoveCgroup(tenancy.delivery.cgroup);
  Exit(ended.status);
}

}  // namespace

void AddRun(CLI::App& app) {
  auto options = std::make_shared<RunOptions>();
  auto* verb = app.add_subcommand(
      "run",
      "run a command in a share of a GPU\n\n"
      "The program sees a GPU with as much memory as its share; asking for more gets the driver's\n"
      "own CUDA_ERROR_OUT_OF_MEMORY. With --compute it gets at least that part of the GPU's time\n"
      "whenever it wants it, and more when others leave some; without, an equal part of what "
      "nobody\nwas promised. A daemon is started when none runs and ends with its last\n"
      "tenant. As root the share holds for everything CMD starts, also with an empty environment;\n"
      "otherwise it is delivered by LD_PRELOAD and `divvy ps` says cooperative.\n\n"
      "  divvy run --mem 4GiB -- python train.py\n"
      "  divvy run --gpu 1 --mem 8GiB --name web -- ./serve --port 80\n"
      "  divvy run --mem 4GiB --compute 30 --class latency -- ./serve\n"
      "  divvy run --gpus 2 --mem 20g -- torchrun --nproc-per-node 2 train.py   (20 GiB on each)\n"
      "  divvy run --sim h100 --mem 2GiB -- divvy load --alloc 3GiB             (no GPU needed)");
  AddShareOptions(*verb, options->share);
  AddTenantName(*verb, "--name", options->share.request.name,
                "what `divvy ps` and `divvy set` call it");
  AddFormat(*verb, options->format)
      ->description("json: one line about the tenant on stderr at the end; stdout is CMD's");
  verb->prefix_command();
  verb->footer(
      "Exit status: CMD's own, 128 + n when signal n ended it; 125 Divvy failed and CMD was not\n"
      "started, 126 CMD cannot be executed, 127 CMD was not found.");
  verb->callback([options, verb] { Run(*options, verb->remaining()); });
}

}  // namespace divvy::cli
