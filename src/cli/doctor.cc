// divvy doctor: whether shares can work on this machine, and what to do where they cannot.
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "src/cli/app.h"
#include "src/cli/doctor/checks.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using doctor::Finding;
using doctor::Level;
using nlohmann::json;

struct DoctorOptions {
  Format format = Format::kText;
  std::string sim;
  bool quiet = false;
};

size_t Count(const std::vector<Finding>& findings, Level level) {
  return static_cast<size_t>(std::count_if(findings.begin(), findings.end(),
                                           [&](const Finding& f) { return f.level == level; }));
}

// Words of `text` in lines of at most `width`, the later ones behind `indent`.
std::string Wrapped(const std::string& text, size_t indent, size_t width) {
  std::string out, line;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (!line.empty() && line.size() + 1 + word.size() > width) {
      out += line + "\n" + std::string(indent, ' ');
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
    at = end + 1;
  }
  return out + line;
}

void PrintText(const std::vector<Finding>& findings, bool quiet) {
  constexpr size_t kIndent = 26, kWidth = 74;
  for (const Finding& f : findings) {
    if (quiet && f.level == Level::kOk) continue;
    std::printf("%-8s %-16s %s\n", doctor::Word(f.level), f.check.c_str(),
                Wrapped(f.message, kIndent, kWidth).c_str());
    if (!f.advice.empty())
      std::printf("%*s-> %s\n", static_cast<int>(kIndent), "",
                  Wrapped(f.advice, kIndent + 3, kWidth - 3).c_str());
    if (!f.command.empty())
      std::printf("%*s   $ %s\n", static_cast<int>(kIndent), "", f.command.c_str());
  }
  const size_t stops = Count(findings, Level::kStop), warnings = Count(findings, Level::kWarning);
  if (stops > 0)
    std::printf("\nshares do not work like this: %zu to be put right first, %zu warnings\n", stops,
                warnings);
  else
    std::printf("\nshares work here%s\n",
                warnings > 0 ? (", with " + std::to_string(warnings) + " warnings").c_str() : "");
}

void Doctor(const DoctorOptions& options) {
  OrFail(CheckOutside());
  const doctor::World world = OrFail(doctor::ReadWorld(options.sim));
  const std::vector<Finding> findings = doctor::Examine(world);
  const size_t stops = Count(findings, Level::kStop);
  if (options.format == Format::kJson) {
    json list = json::array();
    for (const Finding& f : findings)
      list.push_back({{"check", f.check},
                      {"level", doctor::Word(f.level)},
                      {"message", f.message},
                      {"advice", f.advice},
                      {"command", f.command}});
    PrintJson({{"machine", MachineOf(options.sim).Name()},
               {"works", stops == 0},
               {"stops", stops},
               {"warnings", Count(findings, Level::kWarning)},
               {"findings", list}});
  } else {
    PrintText(findings, options.quiet);
  }
  std::fflush(stdout);
  if (stops > 0) Exit(kFailed);
}

}  // namespace

void AddDoctor(CLI::App& app) {
  auto options = std::make_shared<DoctorOptions>();
  auto* verb = app.add_subcommand(
      "doctor",
      "whether shares can work here, and what to do where not\n\n"
      "Looks at the driver and its libraries, modes of the devices (compute mode, MIG, "
      "confidential\n"
      "computing), MPS and others that share or hand out GPUs, rights, limits, container "
      "runtimes,\n"
      "and Divvy's own daemon. Changes nothing; it asks for no more than cuInit of the GPU.\n"
      "stop: shares do not work until it is put right; warning: they do, but not as one would "
      "want.\n\n"
      "  divvy doctor\n"
      "  divvy doctor -q            only what is not as it should be\n"
      "  divvy doctor --sim h100    of a simulated machine");
  AddFormat(*verb, options->format);
  AddSim(*verb, options->sim);
  verb->add_flag("-q,--quiet", options->quiet, "leave out what is as it should be");
  verb->footer("Exit status: 0 nothing stops it (there may be warnings), 1 something does.");
  verb->callback([options] { Doctor(*options); });
}

}  // namespace divvy::cli
