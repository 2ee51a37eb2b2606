// divvy pause, divvy resume: shuts a tenant's gates and opens them again. What it has submitted
// runs to its end, its memory stays.
#include <cstdio>

#include "src/cli/app.h"
#include "src/cli/machines.h"
#include "src/cli/tenancy.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

struct PauseOptions {
  Format format = Format::kText;
  std::string sim;
  std::string name;
};

void Pause(const PauseOptions& options, bool paused) {
  OrFail(CheckName(options.name));
  const Machine machine = OrFail(FindTenant(options.name, options.sim));
  const auto tenant =
      OrFail(machine.api.Patch("/v1/tenants/" + options.name, {{"paused", paused}}));
  if (options.format == Format::kJson)
    PrintJson(tenant);
  else
    std::printf("%s: %s\n", options.name.c_str(),
                paused ? "paused; it keeps its memory (divvy resume)" : "runs");
}

void AddVerb(CLI::App& app, bool paused, const char* name, const char* about) {
  auto options = std::make_shared<PauseOptions>();
  auto* verb = app.add_subcommand(name, about);
  verb->add_option("name", options->name, "the tenant, as `divvy ps` names it")
      ->required()
      ->type_name("");
  AddFormat(*verb, options->format);
  AddSim(*verb, options->sim)->description("the machine, when several have a tenant of that name");
  verb->callback([options, paused] { Pause(*options, paused); });
}

}  // namespace

void AddPause(CLI::App& app) {
  AddVerb(app, true, "pause",
          "let a tenant submit no more GPU work\n\n"
          "What it has submitted runs to its end; its memory and its processes stay. Its launches\n"
          "wait until `divvy resume`, also over a restart of the daemon.\n\n"
          "  divvy pause batch-3");
  AddVerb(app, false, "resume",
          "let a paused tenant go on\n\n"
          "  divvy resume batch-3");
}

}  // namespace divvy::cli
