// divvy run: a command in a share. Asks the daemon (starting one if none runs), puts the shim into
// the command, and then behaves as the command would.
#include <algorithm>
#include <cstdio>
#include <optional>
#include <sstream>

#include "src/cli/app.h"
#include "src/cli/in_share.h"
#include "src/cli/table.h"
#include "src/cli/tenancy.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

struct RunOptions {
  ShareRequest request;
  std::string gpu;
  std::optional<int> gpus;
  std::string on_full = "fail";
  Format format = Format::kText;
};

Status ReadOnFull(const std::string& text, int64_t& wait_ns) {
  if (text == "fail") return {};
  if (text.rfind("wait=", 0) == 0) {
    const Result<int64_t> parsed = ParseDurationNs(text.substr(5));
    if (!parsed.ok()) return parsed.error();
    wait_ns = *parsed;
    return {};
  }
  return Invalid("--on-full: '" + text + "' is not fail or wait=TIME, e.g. wait=30s");
}

Status Complete(RunOptions& options, const std::vector<std::string>& rest) {
  ShareRequest& request = options.request;
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
  if (request.mem.n == 0) return Invalid("say how much memory the share has: --mem 4GiB");
  if (request.mem_max.n != 0 && request.mem_max < request.mem)
    return Invalid("--mem-max " + ToString(request.mem_max) + " is below --mem " +
                   ToString(request.mem));
  std::stringstream list(options.gpu);
  for (std::string one; std::getline(list, one, ',');) request.gpus.push_back(one);
  const bool gap = std::find(request.gpus.begin(), request.gpus.end(), "") != request.gpus.end();
  if (!options.gpu.empty() && (gap || options.gpu.back() == ','))
    return Invalid("--gpu '" + options.gpu +
                   "': give indices or UUIDs with a comma between two, as `divvy devices` lists "
                   "them");
  if (options.gpus) {
    if (!request.gpus.empty()) return Invalid("give --gpu or --gpus, not both");
    if (*options.gpus < 1 || *options.gpus > 16)
      return Invalid("--gpus " + std::to_string(*options.gpus) + ": give a number from 1 to 16");
    request.gpu_count = static_cast<unsigned>(*options.gpus);
  }
  return ReadOnFull(options.on_full, request.on_full_wait_ns);
}

// One line after a command that failed and had been refused memory: why, and what of the share was
// the driver's.
void ExplainRefusals(const Tenancy& tenancy) {
  const auto tenant = tenancy.machine.api.Get("/v1/tenants/" + tenancy.name);
  if (!tenant.ok()) return;
  const json refusals = tenant->value("refusals", json::object());
  const auto out_of_share = refusals.value("out_of_share", uint64_t{0});
  const auto device_full = refusals.value("device_full", uint64_t{0});
  if (out_of_share + device_full == 0) return;
  const json shares = tenant->value("shares", json::array());
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

void Run(RunOptions& options, const std::vector<std::string>& rest) {
  ErrorsAsJsonTo(options.format == Format::kJson ? stderr : nullptr);
  if (const Status complete = Complete(options, rest); !complete.ok())
    Fail(complete.error(), kRunFailed);
  const Result<Tenancy> made = MakeTenant(options.request);
  if (!made.ok()) Fail(made.error(), kRunFailed);
  const Tenancy& tenancy = *made;
  const InShare command(tenancy, options.request.command);
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
  if (ended.status != 0) ExplainRefusals(tenancy);
  RemoveCgroup(tenancy.delivery.cgroup);
  Exit(ended.status);
}

}  // namespace

void AddRun(CLI::App& app) {
  auto options = std::make_shared<RunOptions>();
  ShareRequest& request = options->request;
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
  AddSize(*verb, "--mem", request.mem, "memory of the share, on each of its devices (required)");
  AddSize(*verb, "--mem-max", request.mem_max,
          "may use up to this while nobody else was promised it");
  AddComputeOptions(*verb, request.compute);
  verb->add_option("--gpu", options->gpu,
                   "which devices: indices or UUIDs, with commas (see `divvy devices`)")
      ->type_name("I|UUID,...");
  verb->add_option("--gpus", options->gpus, "how many devices, chosen by the daemon (default 1)")
      ->type_name("N");
  AddSim(*verb, request.sim);
  verb->add_option("--name", request.name, "what `divvy ps` and `divvy set` call it")
      ->check([](const std::string& name) {
        const Status fits = CheckName(name);
        return fits.ok() ? std::string() : fits.error().message;
      })
      ->type_name("NAME");
  verb->add_option(
          "--on-full", options->on_full,
          "what an allocation beyond the share gets: fail (default), or wait=TIME for room")
      ->type_name("fail|wait=TIME");
  verb->add_flag(
      "--overcommit", request.overcommit,
      "promise more than the device has, or less than a context takes; allocations may then "
      "fail within the share");
  AddFormat(*verb, options->format)
      ->description("json: one line about the tenant on stderr at the end; stdout is CMD's");
  verb->prefix_command();
  verb->footer(
      "Exit status: CMD's own, 128 + n when signal n ended it; 125 Divvy failed and CMD was not\n"
      "started, 126 CMD cannot be executed, 127 CMD was not found.");
  verb->callback([options, verb] { Run(*options, verb->remaining()); });
}

}  // namespace divvy::cli
