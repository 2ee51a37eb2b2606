// divvy ps: the tenants of every machine of this runtime directory, one line a share.
#include <cstdio>
#include <ctime>

#include "src/cli/app.h"
#include "src/cli/machines.h"
#include "src/cli/table.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

struct PsOptions {
  Format format = Format::kText;
  std::string sim;
  bool processes = false;
};

std::string Joined(const json& words) {
  std::string line;
  for (const auto& word : words) line += (line.empty() ? "" : " ") + word.get<std::string>();
  return line;
}

// "12.1 / 30 %": used in the last second, and promised; "-" where nothing is measured.
std::string ComputeText(const json& share) {
  const json c = share.value("compute", json::object());
  char text[64];
  const double percent = c.value("percent", 0.0), most = c.value("max_percent", 100.0);
  const json used = c.contains("used_percent_1s") ? c["used_percent_1s"] : json();
  std::string out = "-";
  if (used.is_number()) {
    std::snprintf(text, sizeof text, "%.1f", used.get<double>());
    out = text;
  }
  if (percent > 0)
    std::snprintf(text, sizeof text, " / %g %%", percent);
  else
    std::snprintf(text, sizeof text, " / (%.3g) %%", c.value("part_percent", 0.0));
  out += text;
  if (most < 100) {
    std::snprintf(text, sizeof text, " <= %g %%", most);
    out += text;
  }
  return out;
}

// What the arbiter has seen of it, in words.
std::string SeenText(const json& share) {
  const json c = share.value("compute", json::object());
  std::string out;
  const auto add = [&](const char* key, const char* word) {
    if (c.value(key, false)) out += std::string(",") + word;
  };
  add("paused", "paused");
  add("throttled_by_cap", "capped");
  add("entangled", "entangled");
  add("stalled", "stalled");
  add("distrusted", "garbage");
  return out;
}

std::string StateOf(const json& tenant, const json& share) {
  std::string state = tenant.value("state", "");
  if (tenant.value("waiting_for_room", uint64_t{0}) > 0) state += ",waits-for-room";
  if (share.value("over", false)) state += ",over";
  if (share.value("health", "ok") != "ok") state += ",device-fault";
  state += SeenText(share);
  if (tenant.value("cooperative", false)) state += ",cooperative";
  for (const json& finding : tenant.value("findings", json::array())) {
    if (!finding.value("active", true)) continue;
    state += ",findings";
    break;
  }
  return state;
}

// What of the used bytes is the driver's own: contexts and what it rounds up.
int64_t DriverBytes(const json& share) {
  const json kinds = share.value("kinds", json::object());
  return kinds.value("context", int64_t{0}) + share.value("overhead_bytes", int64_t{0}) -
         share.value("unattached_bytes", int64_t{0});
}

void AddRows(Table& table, const json& tenant, const PsOptions& options) {
  const double age = static_cast<double>(std::time(nullptr)) - tenant.value("created", 0.0);
  const json processes = tenant.value("processes", json::array());
  bool first = true;
  for (const json& share : tenant.value("shares", json::array())) {
    const std::string machine = tenant.value("machine", "");
    table.Add({first ? tenant.value("name", "") : "",
               (machine == "real" ? "" : machine + ":") + std::to_string(share.value("index", 0)),
               Amount(share.value("used_bytes", uint64_t{0})) + " / " +
                   Amount(share.value("limit_bytes", uint64_t{0})),
               SignedAmount(DriverBytes(share)), ComputeText(share),
               first ? std::to_string(processes.size()) : "", tenant.value("class", ""),
               StateOf(tenant, share), first ? Age(age) : "",
               first ? Shortened(Joined(tenant.value("command", json::array())), 48) : ""});
    first = false;
  }
  if (!options.processes) return;
  for (const json& p : processes) {
    std::string its_state = p.value("state", "");
    if (its_state == "live")
      its_state = p.value("waiting_for_room", uint64_t{0}) > 0 ? "waits-for-room" : "";
    table.Add({"  pid " + std::to_string(p.value("pid", 0)), "",
               Amount(p.value("used_bytes", uint64_t{0})), "", "", "", "", its_state, "",
               Shortened(p.value("command", ""), 48)});
  }
}

void Ps(const PsOptions& options) {
  json all = json::array();
  Machines machines = MachinesWithTenants(options.sim);
  for (const Machine& machine : machines.live) {
    const auto answer = machine.api.Get("/v1/tenants");
    if (!answer.ok()) {
      // Otherwise it ended in between.
      if (machine.api.Alive()) machines.lost.push_back(answer.error());
      continue;
    }
    for (json tenant : answer->value("tenants", json::array())) {
      tenant["machine"] = machine.Name();
      all.push_back(std::move(tenant));
    }
  }
  if (options.format == Format::kJson) {
    json answer{{"tenants", std::move(all)}};
    if (!machines.lost.empty()) answer["error"] = ErrorJson(machines.lost.front());
    PrintJson(answer);
  } else if (!all.empty()) {
    Table table({"NAME", "GPU", "USED / LIMIT", "DRIVER", "COMPUTE", "PROCESSES", "CLASS", "STATE",
                 "AGE", "COMMAND"});
    for (const json& tenant : all) AddRows(table, tenant, options);
    std::fputs(table.ToString().c_str(), stdout);
  } else if (machines.lost.empty()) {
    std::printf("no shares%s; `divvy run --mem 4GiB -- CMD` makes one\n",
                options.sim.empty() ? "" : (" on sim/" + options.sim).c_str());
  }
  // What could be had is shown; that it is not all must not go unnoticed.
  if (!machines.lost.empty()) Fail(machines.lost.front());
}

}  // namespace

void AddPs(CLI::App& app) {
  auto options = std::make_shared<PsOptions>();
  auto* verb = app.add_subcommand(
      "ps",
      "who holds what\n\n"
      "One line for each share, over all machines of this user (simulated ones too). USED counts\n"
      "what the tenant asked for and what the driver took for it; DRIVER is the latter alone.\n"
      "COMPUTE: used in the last second / promised (in brackets: its part of what nobody was\n"
      "promised); - where it has the device to itself and nothing is measured.\n"
      "STATE: paused; waits-for-room = an allocation waits until there is some (--on-full "
      "wait);\n"
      "capped = at its --compute-max; entangled = waits for another tenant, both "
      "run\n"
      "together; stalled = asked for the device and did not use it; garbage = its work counters\n"
      "make no sense; cooperative = delivered by LD_PRELOAD, a program could evade it; over = "
      "holds more\n"
      "than its limit since that was lowered; findings = the audit saw something (-o json tells);\n"
      "device-fault = NVML does not answer for its GPU; orphaned = its command has ended, "
      "processes "
      "live on;\n"
      "of a process: awaited = known from before the daemon's restart, has not called since.\n\n"
      "  divvy ps -p           with the processes of each tenant\n"
      "  divvy ps -o json      everything there is to know");
  AddFormat(*verb, options->format);
  AddSim(*verb, options->sim)->description("only the tenants of this simulated machine");
  verb->add_flag("-p,--processes", options->processes, "list each tenant's processes too");
  verb->callback([options] { Ps(*options); });
}

}  // namespace divvy::cli
