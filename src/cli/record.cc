// divvy record: writes down how long a running tenant's operations take and what its host does in
// between, as a mix file for `divvy simulate device --mix`. Lengths and gaps, no data.
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>

#include "src/base/clock.h"
#include "src/cli/app.h"
#include "src/cli/machines.h"
#include "src/cli/recording.h"
#include "src/cli/tenancy.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

constexpr size_t kMostOperations = 5000;  // the file repeats them for ever
constexpr timespec kBetween{0, 20'000'000};

struct Options {
  std::string sim, name, file;
  int64_t for_ns = 10'000'000'000;
};

using Operation = Recording::Operation;

double Rounded(double us) { return std::round(us * 10) / 10; }

// The operations as steps, in their order: runs of one kind on one device between two waits.
json Steps(const std::vector<Operation>& operations) {
  json steps = json::array();
  double since_sync_us = 0;
  for (size_t i = 0; i < operations.size();) {
    const Operation& first = operations[i];
    if (first.synced && i > 0) {
      steps.push_back({{"do", "sync"}});
      // The gap holds the wait for the device, too.
      const double think = first.gap_us - since_sync_us;
      if (think >= 1) steps.push_back({{"do", "think"}, {"us", Rounded(think)}});
      since_sync_us = 0;
    }
    json lengths = json::array(), gaps = json::array();
    size_t n = i;
    do {
      lengths.push_back(std::max(0.1, Rounded(operations[n].length_us)));
      since_sync_us += operations[n].length_us;
      const bool last = n + 1 == operations.size() || operations[n + 1].synced;
      gaps.push_back(last ? 4.0 : std::max(0.1, Rounded(operations[n + 1].gap_us)));
      ++n;
    } while (n < operations.size() && !operations[n].synced && operations[n].kind == first.kind &&
             operations[n].device == first.device);
    json step{{"do", first.kind == 1   ? "graph"
                     : first.kind == 3 ? "copy"
                                       : "kernel"},
              {"times", n - i}};
    if (n - i == 1) {
      step["us"] = lengths[0];
      step["launch_us"] = gaps[0];
    } else {
      step["us"] = {{"sequence", lengths}};
      step["launch_us"] = {{"sequence", gaps}};
    }
    if (first.device != 0) step["device"] = first.device;
    steps.push_back(std::move(step));
    i = n;
  }
  if (!operations.empty() && operations.front().synced) steps.push_back({{"do", "sync"}});
  return steps;
}

json MixOf(const json& tenant, const std::vector<Operation>& operations) {
  const json share = tenant.value("shares", json::array()).at(0);
  const json compute = share.value("compute", json::object());
  unsigned devices = 1;
  for (const Operation& o : operations) devices = std::max(devices, o.device + 1);
  const double percent = compute.value("percent", 0.0);
  json one{{"name", tenant.value("name", "")},
           {"compute_percent",
            percent > 0 ? percent : std::max(0.1, compute.value("part_percent", 100.0))},
           {"class", compute.value("class", "standard")},
           {"programs", {Steps(operations)}}};
  if (compute.value("max_percent", 100.0) < 100)
    one["compute_max_percent"] = compute.value("max_percent", 100.0);
  json mix{{"divvy_mix", 1}, {"name", "recorded " + tenant.value("name", "")}, {"tenants", {one}}};
  if (devices > 1) mix["machine"] = {{"devices", devices}};
  return mix;
}

void Record(const Options& options) {
  ErrorsAsJsonTo(nullptr);  // its -o is a file
  OrFail(CheckName(options.name));
  const Machine machine = OrFail(FindTenant(options.name, options.sim));
  const json tenant = OrFail(machine.api.Get("/v1/tenants/" + options.name));
  Recording recording =
      OrFail(Recording::Begin(machine, options.name, options.for_ns / 1'000'000 + 2000));
  size_t seen = 0;
  std::vector<Operation> operations;
  for (const double until = NowS() + static_cast<double>(options.for_ns) / 1e9; NowS() < until;) {
    ::nanosleep(&kBetween, nullptr);
    const auto part = recording.Read();
    if (!part.ok()) break;  // it has ended: what was recorded is told
    seen += part->size();
    const size_t room = kMostOperations - operations.size();
    operations.insert(operations.end(), part->begin(),
                      part->begin() + static_cast<ptrdiff_t>(std::min(room, part->size())));
  }
  recording.End();
  if (operations.empty())
    Fail(Unavailable("'" + options.name + "' submitted no GPU work while it was recorded"));
  const std::string text = MixOf(tenant, operations).dump(1) + "\n";
  if (options.file.empty() || options.file == "-") {
    std::fputs(text.c_str(), stdout);
  } else {
    std::ofstream out(options.file);
    if (!(out << text) || !out.flush()) Fail(Error{ErrorCode::kIo, "cannot write " + options.file});
  }
  std::fprintf(stderr, "divvy: %zu of %llu operations written%s\n", operations.size(),
               static_cast<unsigned long long>(seen + recording.lost()),
               recording.lost() > 0 ? "; some came too fast to be read" : "");
}

}  // namespace

void AddRecord(CLI::App& app) {
  auto options = std::make_shared<Options>();
  auto* verb = app.add_subcommand(
      "record",
      "write down what a running tenant asks of the GPU\n\n"
      "Lengths of its operations and the gaps between them, no data, as a mix file: ask `divvy\n"
      "simulate device --mix FILE` what it would get beside others. Each operation is marked "
      "while\n"
      "this runs, which slows the tenant a little.\n\n"
      "  divvy record web --for 10s -o web.json && divvy simulate device --mix web.json");
  verb->add_option("name", options->name, "the tenant, as `divvy ps` names it")->required();
  AddDuration(*verb, "--for", options->for_ns, "how long (default 10s)");
  verb->add_option("-o,--output", options->file, "the mix file to write (default: stdout)")
      ->type_name("FILE");
  AddSim(*verb, options->sim)->description("the machine, when several have a tenant of that name");
  verb->callback([options] { Record(*options); });
}

}  // namespace divvy::cli
