// divvy verify compute: options and printing; src/cli/verify/compute.h does the work.
#include <cstdio>
#include <sstream>

#include "src/cli/app.h"
#include "src/cli/table.h"
#include "src/cli/verbs.h"
#include "src/cli/verify/compute.h"

namespace divvy::cli {
namespace {

struct Options {
  VerifyComputeOptions verify;
  std::string cases;
  bool list = false;
  Format format = Format::kText;
};

std::string Figure(double x, const char* format = "%.1f") {
  char text[32];
  std::snprintf(text, sizeof text, format, x);
  return text;
}

std::string Text(const Spread& s, const char* format) {
  return Figure(s.median, format) + " [" + Figure(s.least, format) + ", " + Figure(s.most, format) +
         "]";
}

constexpr const char* kLine = "%-32s %-12s %7s %22s %22s %8s %8s %7s %7s %s\n";

void PrintHeader() {
  std::printf(kLine, "CASE", "TENANT", "WANTED", "GOT % [LEAST, MOST]", "ERROR/SHORT %", "BUDGET",
              "PROGRESS", "NATIVE", "P99 x", "");
}

void Print(const std::vector<ComputeRow>& rows) {
  for (const ComputeRow& row : rows) {
    const bool shortfall = row.of->kind == CaseKind::kLight || row.of->kind == CaseKind::kAlone;
    std::printf(
        kLine, &row == rows.data() ? row.of->name.c_str() : "", row.tenant.c_str(),
        Figure(row.wanted_percent).c_str(), Text(row.got_percent, "%.1f").c_str(),
        ((shortfall ? "short " : "") + Text(row.error_percent, "%.1f")).c_str(),
        row.budget_percent > 0 ? Figure(row.budget_percent).c_str() : "-",
        Figure(row.progress.median, "%.2f").c_str(), Figure(row.native_progress, "%.2f").c_str(),
        row.latency_p99_ratio.median > 0 ? Figure(row.latency_p99_ratio.median, "%.2f").c_str()
                                         : "-",
        row.Within() ? "" : "BEYOND");
  }
  std::fflush(stdout);
}

void Verify(Options& options) {
  for (const Case& c : StandardCases()) {
    bool chosen = options.cases.empty();
    std::stringstream words(options.cases);
    for (std::string word; std::getline(words, word, ',');)
      chosen = chosen || (!word.empty() && c.name.find(word) != std::string::npos);
    if (chosen) options.verify.cases.push_back(&c);
    if (options.list && chosen) std::printf("%s\n", c.name.c_str());
  }
  if (options.list) return;
  if (options.verify.cases.empty())
    Fail(Invalid("no case is called '" + options.cases + "'; --list names them"));
  const bool text = options.format == Format::kText;
  if (text) PrintHeader();
  const ComputeReport report =
      OrFail(VerifyCompute(options.verify, [&](const std::vector<ComputeRow>& rows) {
        if (text) Print(rows);
      }));
  const nlohmann::json out = ToJson(report);
  const auto within = out.value("within_budget", size_t{0}),
             with_budget = out.value("with_budget", size_t{0});
  if (text) {
    for (const std::string& line : report.skipped) std::printf("not run: %s\n", line.c_str());
    std::printf(
        "\n%zu of %zu figures with a budget are within it. %s, durations x %g, %g s measured, "
        "median of 3.\nGOT: GPU time of finished kernels. SHORT: from the lesser of solo use and "
        "guarantee. NATIVE:\nprogress of the same programs without Divvy.\n",
        within, with_budget,
        report.machine == "real" ? "Measured" : ("Simulated (" + report.machine + ")").c_str(),
        report.dilation, report.seconds);
  } else {
    PrintJson(out);
  }
  if (within != with_budget) Exit(kFailed);
}

void AddVerifyHardware(CLI::App& verify) {
  auto options = std::make_shared<VerifyComputeOptions>();
  auto* verb = verify.add_subcommand(
      "hardware",
      "measure what compute shares stand on\n\n"
      "The device's time slice, the cost of a switch, whether it switches at once when a queue "
      "runs\ndry, what a marker and the gate cost, how fast pinned copies are. Figures in JSON; "
      "the device\nshould have nothing else to do.\n\n"
      "  divvy verify hardware --gpu 0");
  AddSim(*verb, options->sim);
  verb->add_option("--gpu", options->gpu, "index of the real device (default 0)")
      ->check(NumberFrom(0, 63, Kind::kWhole))
      ->type_name("I");
  verb->add_option("--seconds", options->seconds, "of each measurement (default 1.5)")
      ->check(NumberFrom(0.2, 60))
      ->type_name("S");
  verb->callback([options] { PrintJson(OrFail(VerifyHardware(*options))); });
}

}  // namespace

void AddVerifyCompute(CLI::App& verify) {
  AddVerifyHardware(verify);
  auto options = std::make_shared<Options>();
  auto* verb = verify.add_subcommand(
      "compute",
      "run the standard mixes of tenants and measure who gets what\n\n"
      "Each case runs three times with real shares, once without Divvy, and each of its programs\n"
      "once alone. With --sim on machines of its own, four runs at once on four devices, every\n"
      "duration ten times as long (thirty times where one takes turns on devices), so that the "
      "host's\n"
      "jitter does not show.\n\n"
      "  divvy verify compute --sim h100\n"
      "  divvy verify compute --sim h100@x20 --case bursty,cap -o json\n"
      "  divvy verify compute --gpu 0");
  AddSim(*verb, options->verify.sim);
  verb->add_option("--gpu", options->verify.gpu, "index of the real device (default 0)")
      ->check(NumberFrom(0, 63, Kind::kWhole))
      ->type_name("I");
  verb->add_option("--case", options->cases, "only cases with one of these in their names")
      ->check([](const std::string& given) {
        return given.empty() ? std::string("name a part of a case's name") : std::string();
      })
      ->type_name("TEXT,...");
  verb->add_flag("--list", options->list, "name the cases");
  verb->add_option("--seconds", options->verify.seconds, "measured, of each run")
      ->check(NumberFrom(0.5, 600))
      ->type_name("S");
  AddFormat(*verb, options->format);
  verb->footer("Exit status: 0 all figures are within their budgets, 1 one is not.");
  verb->callback([options] { Verify(*options); });
}

}  // namespace divvy::cli
