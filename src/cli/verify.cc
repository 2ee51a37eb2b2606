// divvy verify: whether a share holds, on the device at hand.
#include <cstdio>
#include <utility>

#include "src/cli/app.h"
#include "src/cli/load/paths.h"
#include "src/cli/table.h"
#include "src/cli/verbs.h"
#include "src/cli/verify/memory.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

struct VerifyOptions {
  ShareRequest request;
  std::string gpu;
  std::string paths;
  Format format = Format::kText;
};

std::vector<std::string> PathNames(const std::string& list) {
  std::vector<std::string> names;
  if (list.empty()) {
    for (const PathInfo& path : MemoryPaths()) names.emplace_back(path.name);
    return names;
  }
  std::stringstream stream(list);
  for (std::string name; std::getline(stream, name, ',');) {
    OrFail(FindMemoryPath(name));
    names.push_back(name);
  }
  return names;
}

json ToJson(const MemoryRow& row) {
  json out{{"path", row.path},
           {"granted_bytes", row.granted_bytes},
           {"refused_at_bytes", row.refused_at_bytes},
           {"over_limit_bytes", row.over_limit_bytes},
           {"again_bytes", row.again_bytes},
           {"tried", row.tried},
           {"passed", row.Passed()}};
  if (!row.tried) out["error"] = row.note;
  return out;
}

void PrintLine(const MemoryRow& row) {
  if (!row.tried) {
    std::printf("%-13s  not tried: %s\n", row.path.c_str(), row.note.c_str());
  } else {
    std::printf("%-13s  %-11s  %-11s  %-12s  %-11s  %s\n", row.path.c_str(),
                Amount(row.granted_bytes).c_str(), Amount(row.refused_at_bytes).c_str(),
                SignedAmount(row.over_limit_bytes).c_str(), Amount(row.again_bytes).c_str(),
                row.Passed() ? "ok" : "BROKEN");
  }
  std::fflush(stdout);
}

void Memory(VerifyOptions& options) {
  if (options.request.mem.n == 0) Fail(Invalid("say the limit to try: --mem 2GiB"));
  const std::vector<std::string> names = PathNames(options.paths);
  if (!options.gpu.empty()) options.request.gpus = {options.gpu};
  options.request.command = {"divvy", "verify", "memory"};
  const bool text = options.format == Format::kText;
  bool headed = false;
  const std::vector<MemoryRow> rows =
      OrFail(VerifyMemory(options.request, names, [&](const MemoryRow& row) {
        if (text && !std::exchange(headed, true))
          std::printf("%-13s  %-11s  %-11s  %-12s  %-11s\n", "PATH", "GRANTED", "REFUSED AT",
                      "OVER LIMIT", "AGAIN");
        if (text) PrintLine(row);
      }));
  size_t passed = 0, untried = 0;
  json list = json::array();
  for (const MemoryRow& row : rows) {
    passed += row.Passed();
    untried += !row.tried;
    list.push_back(ToJson(row));
  }
  if (text) {
    const std::string not_tried =
        untried == 0 ? "" : " (" + std::to_string(untried) + " could not be tried)";
    std::printf(
        "\n%zu of %zu paths hold a limit of %s%s. OVER LIMIT is NVML's figure for all that the "
        "share\nholds, the driver's own memory included, minus the limit; up to 2 MiB is a "
        "block of the driver.\n",
        passed, rows.size(), ToString(options.request.mem).c_str(), not_tried.c_str());
  } else {
    PrintJson({{"machine", options.request.sim.empty() ? "real" : "sim/" + options.request.sim},
               {"limit_bytes", options.request.mem.n},
               {"rows", list},
               {"passed", passed == rows.size()}});
  }
  if (passed != rows.size()) Exit(kFailed);
}

}  // namespace

void AddVerify(CLI::App& app) {
  auto* verb = app.add_subcommand("verify", "whether a share holds, on the device at hand");
  verb->require_subcommand(1);
  auto options = std::make_shared<VerifyOptions>();
  auto* memory = verb->add_subcommand(
      "memory",
      "try every way to allocate against a limit\n\n"
      "Makes a share, and in a process of its own for each memory path allocates until it is\n"
      "refused, gives all back, and does it again. From outside, NVML tells what was really "
      "held.\n\n"
      "  divvy verify memory --sim h100 --mem 2GiB\n"
      "  divvy verify memory --mem 4GiB -o json");
  AddSize(*memory, "--mem", options->request.mem, "the limit to try (required)");
  AddSim(*memory, options->request.sim);
  memory->add_option("--gpu", options->gpu, "the device to try it on (default: one with room)")
      ->type_name("I|UUID");
  memory->add_option("--path", options->paths, "only these paths, with commas")
      ->type_name("PATH,...");
  AddFormat(*memory, options->format);
  memory->footer(
      "Exit status: 0 every path holds, 1 one does not or could not be tried, 3 no room "
      "for the share.");
  memory->callback([options] { Memory(*options); });
  AddVerifyCompute(*verb);
}

}  // namespace divvy::cli
