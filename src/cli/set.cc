// divvy set: changes a tenant's share while it runs.
#include <cstdio>

#include "src/cli/app.h"
#include "src/cli/machines.h"
#include "src/cli/table.h"
#include "src/cli/tenancy.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

struct SetOptions {
  Format format = Format::kText;
  std::string sim;
  std::string name;
  Bytes mem, mem_max;  // 0 = not said
  std::string mem_typed;
  ComputeOptions compute;
};

std::string PercentText(double percent) {
  char text[32];
  std::snprintf(text, sizeof text, "%g %%", percent);
  return text;
}

std::string ComputeText(const json& compute) {
  const double percent = compute.value("percent", 0.0), most = compute.value("max_percent", 100.0);
  std::string text = percent > 0 ? PercentText(percent) : "unpromised";
  if (most < 100) text += ", at most " + PercentText(most);
  return text + ", class " + compute.value("class", "");
}

void Set(const SetOptions& options) {
  OrFail(CheckName(options.name));
  if (options.mem.n == 0 && options.mem_max.n == 0 && !options.compute.Any())
    Fail(Invalid("say what to change, e.g. `divvy set NAME --mem 6GiB` or `--compute 30`"));
  const Machine machine = OrFail(FindTenant(options.name, options.sim));
  const std::string path = "/v1/tenants/" + options.name;
  if (options.mem.n != 0) {
    const json before = OrFail(machine.api.Get(path));
    for (const json& share : before.value("shares", json::array()))
      OrFail(CheckHoldsContext(options.mem, options.mem_typed,
                               Bytes{share.value("context_bytes", uint64_t{0})},
                               "GPU " + std::to_string(share.value("index", 0))));
  }
  json body = json::object();
  if (options.mem.n != 0) body["mem_bytes"] = options.mem.n;
  if (options.mem_max.n != 0) body["mem_max_bytes"] = options.mem_max.n;
  options.compute.PutInto(body);
  OrFail(machine.api.Patch(path, body));
  const json tenant = OrFail(machine.api.Get(path));
  if (options.format == Format::kJson) {
    PrintJson(tenant);
    return;
  }
  for (const json& share : tenant.value("shares", json::array())) {
    std::printf("%s: GPU %d limit %s, used %s%s; compute %s\n", options.name.c_str(),
                share.value("index", 0), Amount(share.value("limit_bytes", uint64_t{0})).c_str(),
                Amount(share.value("used_bytes", uint64_t{0})).c_str(),
                share.value("over", false)
                    ? " (over: nothing is taken away, but nothing new is granted)"
                    : "",
                ComputeText(share.value("compute", json::object())).c_str());
  }
}

}  // namespace

void AddSet(CLI::App& app) {
  auto options = std::make_shared<SetOptions>();
  auto* verb = app.add_subcommand("set",
                                  "change a share while it runs\n\n"
                                  "Takes effect at the tenant's next allocation, compute at once "
                                  "(milliseconds). A limit below\n"
                                  "what the tenant holds takes nothing away: it gets no more until "
                                  "it is below, and `divvy ps`\n"
                                  "shows it as over.\n\n"
                                  "  divvy set web --mem 6GiB\n"
                                  "  divvy set web --mem 6GiB --mem-max 20GiB\n"
                                  "  divvy set web --compute 15 --compute-max 50\n"
                                  "  divvy set nightly --compute 0 --class batch");
  verb->add_option("name", options->name, "the tenant, as `divvy ps` names it")
      ->required()
      ->type_name("");
  AddSize(*verb, "--mem", options->mem, "the new limit on each of its devices",
          &options->mem_typed);
  AddSize(*verb, "--mem-max", options->mem_max,
          "it may now use up to this while nobody else was promised it");
  AddComputeOptions(*verb, options->compute, true);
  AddFormat(*verb, options->format);
  AddSim(*verb, options->sim)->description("the machine, when several have a tenant of that name");
  verb->callback([options] { Set(*options); });
}

}  // namespace divvy::cli
