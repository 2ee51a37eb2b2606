// divvy version: what this is, and what each running daemon is.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "src/cli/app.h"
#include "src/cli/machines.h"
#include "src/cli/verbs.h"

namespace divvy::cli {

void AddVersion(CLI::App& app) {
  auto* verb = app.add_subcommand("version", "the version of divvy and of the daemons that run");
  auto format = std::make_shared<Format>(Format::kText);
  AddFormat(*verb, *format);
  verb->callback([format] {
    nlohmann::json out{{"version", DIVVY_VERSION}, {"daemons", nlohmann::json::array()}};
    for (const Machine& machine : RunningMachines()) {
      const auto status = machine.api.Get("/v1/status");
      if (status.ok()) out["daemons"].push_back(*status);
    }
    if (*format == Format::kJson) {
      PrintJson(out);
      return;
    }
    std::printf("divvy %s\n", DIVVY_VERSION);
    for (const auto& d : out["daemons"])
      std::printf("divvyd %s, pid %d, %s\n", d.value("version", "?").c_str(), d.value("pid", 0),
                  d.value("runtime_dir", "").c_str());
  });
}

}  // namespace divvy::cli
