// divvy simulate device --mix FILE: runs a mix in the arbiter's discrete-event model, beside the
// same mix without Divvy and each tenant alone, and prints who got what. No device, no daemon.
#include "src/cli/simulate_device.h"

#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "src/arbiter/model/measure.h"
#include "src/arbiter/model/mix_file.h"
#include "src/cli/app.h"
#include "src/cli/table.h"

namespace divvy::cli {
namespace {

using arbiter::model::MeasureOptions;
using arbiter::model::Mix;
using arbiter::model::MixReport;
using arbiter::model::Spread;
using arbiter::model::TenantReport;
using nlohmann::json;

struct SimulateDeviceOptions {
  std::string file;
  Format format = Format::kText;
  unsigned seeds = 5;
  double seconds = 0;
  bool native = true;
};

double Rounded(double x) { return std::round(x * 1000) / 1000; }

// Figures that do not apply are null.
json Row(const MixReport& mix, const TenantReport& t, bool native) {
  const bool requests = t.latency_p99_ratio.median > 0;
  json row = {{"case", mix.name},
              {"tenant", t.name},
              {"wanted_percent", Rounded(t.wanted_percent)},
              {"solo_percent", Rounded(t.solo_percent)},
              {"got_percent", Rounded(t.got_percent.median)},
              {"share_error_percent", nullptr},
              {"shortfall_percent", nullptr},
              {"progress", Rounded(t.progress.median)},
              {"native_progress", nullptr},
              {"latency_p99_ratio", nullptr},
              {"native_latency_p99_ratio", nullptr}};
  if (mix.saturating) {
    row["share_error_percent"] = Rounded(t.share_error_percent.median);
    row["share_error_percent_worst"] = Rounded(t.share_error_percent.worst);
  } else {
    row["shortfall_percent"] = Rounded(t.shortfall_percent.median);
    row["shortfall_percent_worst"] = Rounded(t.shortfall_percent.worst);
  }
  if (requests) row["latency_p99_ratio"] = Rounded(t.latency_p99_ratio.median);
  if (native) {
    row["native_progress"] = Rounded(t.native_progress.median);
    if (requests) row["native_latency_p99_ratio"] = Rounded(t.native_latency_p99_ratio.median);
  }
  return row;
}

json ToJson(const Mix& mix, const MixReport& report, const SimulateDeviceOptions& options) {
  json out = {{"source", "simulated (model)"},
              {"case", report.name},
              {"seconds", mix.seconds},
              {"seeds", options.seeds},
              {"saturating", report.saturating},
              {"useful", Rounded(report.busy.median)},
              {"progress", Rounded(report.progress.median)},
              {"switches_per_second", Rounded(report.switches_per_second)},
              {"polls_per_second", Rounded(report.polls_per_second)},
              {"rows", json::array()}};
  if (options.native) {
    out["native_useful"] = Rounded(report.native_busy.median);
    out["native_progress"] = Rounded(report.native_progress.median);
  }
  for (const TenantReport& t : report.tenants)
    out["rows"].push_back(Row(report, t, options.native));
  return out;
}

std::string Figure(double x, const char* format = "%.1f") {
  char text[32];
  std::snprintf(text, sizeof text, format, x);
  return text;
}

void PrintText(const Mix& mix, const MixReport& r, const SimulateDeviceOptions& options) {
  std::printf("%s: %zu tenants, %u device%s, %s s, median of %u seeds, simulated (model)\n",
              r.name.empty() ? "mix" : r.name.c_str(), r.tenants.size(), mix.machine.devices,
              mix.machine.devices == 1 ? "" : "s", Figure(mix.seconds).c_str(), options.seeds);
  Table table({"TENANT", "WANTED %", "ALONE %", "GOT %", r.saturating ? "ERROR %" : "SHORT %",
               "PROGRESS", "NATIVE", "P99 x ALONE", "NATIVE"});
  for (const TenantReport& t : r.tenants) {
    const Spread& error = r.saturating ? t.share_error_percent : t.shortfall_percent;
    const bool requests = t.latency_p99_ratio.median > 0;
    table.Add(
        {t.name, Figure(t.wanted_percent), Figure(t.solo_percent), Figure(t.got_percent.median),
         Figure(error.median, "%.2f"), Figure(t.progress.median, "%.3f"),
         options.native ? Figure(t.native_progress.median, "%.3f") : "-",
         requests ? Figure(t.latency_p99_ratio.median, "%.2f") : "-",
         requests && options.native ? Figure(t.native_latency_p99_ratio.median, "%.2f") : "-"});
  }
  std::fputs(table.ToString().c_str(), stdout);
  std::printf("all: progress %s", Figure(r.progress.median, "%.3f").c_str());
  if (options.native)
    std::printf(" (without Divvy %s)", Figure(r.native_progress.median, "%.3f").c_str());
  std::printf(", useful %s of the device time, %s switches/s, %s polls/s\n",
              Figure(r.busy.median, "%.3f").c_str(), Figure(r.switches_per_second, "%.0f").c_str(),
              Figure(r.polls_per_second, "%.0f").c_str());
}

void SimulateDevice(const SimulateDeviceOptions& options) {
  const Result<Mix> read = arbiter::model::ReadMixFile(options.file);
  if (!read.ok()) Fail(read.error(), kBadInput);
  Mix mix = *read;
  if (options.seconds > 0) mix.seconds = options.seconds;
  const auto us = [](double x) { return arbiter::Nanos(int64_t(x * 1000)); };
  const auto tunables = arbiter::Tunables::For(us(mix.machine.slice_us), us(mix.machine.switch_us));
  const MixReport report =
      Measure(mix, tunables, MeasureOptions{.seeds = options.seeds, .native = options.native});
  if (options.format == Format::kJson) {
    PrintJson(ToJson(mix, report, options));
  } else {
    PrintText(mix, report, options);
  }
}

}  // namespace

void AddSimulateDevice(CLI::App& simulate) {
  auto options = std::make_shared<SimulateDeviceOptions>();
  CLI::App* verb = simulate.add_subcommand(
      "device",
      "what each tenant of a mix would get of a device, and what it would get without Divvy\n\n"
      "Runs the daemon's own arbiter in a discrete-event model: hosts, queues, time slices. Takes\n"
      "a fraction of the simulated time and needs neither a GPU nor a daemon. WANTED is the\n"
      "guaranteed part, ALONE what the tenant uses by itself, ERROR the relative error of its\n"
      "share (when all tenants can fill the device), SHORT what is missing from the lesser of\n"
      "WANTED and ALONE, PROGRESS its speed relative to running alone. docs/mix-file.md describes\n"
      "the file; docs/mixes has examples. The figures are a model's, not a measurement.");
  verb->add_option("--mix", options->file, "the mix file (JSON)")->required()->type_name("FILE");
  verb->add_option("--seeds", options->seeds, "runs, 1 to 100; the median is printed (default 5)")
      ->check(NumberFrom(1, 100, Kind::kWhole))
      ->type_name("N");
  verb->add_option("--seconds", options->seconds,
                   "simulated seconds, 0.01 to 3600 (default: the file's)")
      ->check(NumberFrom(0.01, 3600))
      ->type_name("SECONDS");
  verb->add_flag_callback(
      "--no-native", [options] { options->native = false; }, "do not run the mix without Divvy");
  AddFormat(*verb, options->format);
  verb->callback([options] { SimulateDevice(*options); });
}

}  // namespace divvy::cli
