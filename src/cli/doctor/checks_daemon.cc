// Divvy itself: what is installed, its runtime folder, its daemon and what that one sees.
#include "src/base/bytes.h"
#include "src/cli/doctor/checks.h"
#include "src/cli/table.h"

namespace divvy::cli::doctor {
namespace {

using nlohmann::json;

json List(const json& answer, const char* key) {
  return answer.is_object() ? answer.value(key, json::array()) : json::array();
}

}  // namespace

void Installation(const World& world, std::vector<Finding>& out) {
  if (world.missing_file.empty())
    out.push_back({"installation", Level::kOk, "divvy " + world.version + ", complete", "", ""});
  else
    out.push_back({"installation", Level::kStop, world.missing_file,
                   "install Divvy whole, or say where its libraries lie",
                   "export DIVVY_LIB_DIR=/usr/lib/divvy"});
}

void RuntimeFolder(const World& world, std::vector<Finding>& out) {
  const DaemonFacts& d = world.daemon;
  const char* const check = "runtime-folder";
  const auto stop = [&](const std::string& what, const std::string& advice,
                        const std::string& command) {
    out.push_back({check, Level::kStop, what, advice, command});
  };
  const std::string elsewhere = "export DIVVY_RUNTIME_DIR=/tmp/divvy-of-mine";
  if (d.dir_too_long)
    return stop(d.dir + " has a name too long for sockets in it", "choose a shorter one",
                elsewhere);
  if (d.dir_foreign && world.uid != 0)
    return stop(d.dir + " belongs to another user", "choose one of your own", elsewhere);
  if (!d.dir_writable) return stop(d.dir + " cannot be written", "choose another", elsewhere);
  if (d.dir_free_bytes < (1_MiB).n)
    return stop(d.dir + " is on a full file system (" + Amount(d.dir_free_bytes) + " free)",
                "free some, or choose another", "df " + d.dir);
  out.push_back({check, Level::kOk, d.dir + (d.dir_exists ? "" : " (not made yet)"), "", ""});
}

void Daemon(const World& world, std::vector<Finding>& out) {
  const DaemonFacts& d = world.daemon;
  const char* const check = "daemon";
  if (!d.answers) {
    if (d.tenants_left > 0)
      out.push_back({check, d.left_private ? Level::kWarning : Level::kStop,
                     "divvyd is gone, and left " + std::to_string(d.tenants_left) + " shares",
                     d.left_private ? "any verb starts it again, and it adopts them"
                                    : "start it again in the same folder: it adopts them",
                     d.left_private ? "divvy ps" : "systemctl start divvyd"});
    else if (d.socket_exists)
      out.push_back({check, Level::kNote,
                     "no daemon runs; the last one's socket is left, which does no harm",
                     "`divvy run` starts one", ""});
    else
      out.push_back(
          {check, Level::kOk, "none runs; `divvy run` starts one when it needs it", "", ""});
    return;
  }
  if (!d.error.empty()) {
    out.push_back({check, Level::kStop, "the daemon does not answer: " + d.error,
                   "see its log; its tenants run on when it is started anew",
                   "tail " + d.dir + "/divvyd.log"});
    return;
  }
  const std::string version = d.status.value("version", "");
  if (version != world.version)
    out.push_back(
        {check, Level::kWarning, "divvyd is of version " + version + ", divvy of " + world.version,
         "stop the old one; tenants run on and the next one adopts them", "divvy daemon stop"});
  out.push_back({check, Level::kOk,
                 "pid " + std::to_string(d.status.value("pid", 0)) + ", version " + version +
                     ", up " + Age(d.status.value("uptime_s", 0.0)) + ", " +
                     std::to_string(List(d.tenants, "tenants").size()) + " tenants",
                 "", ""});
}

void Devices(const World& world, std::vector<Finding>& out) {
  for (const json& device : List(world.daemon.devices, "devices")) {
    const std::string gpu = "GPU " + std::to_string(device.value("index", 0));
    if (const std::string health = device.value("health", "ok"); health != "ok")
      out.push_back({"devices", Level::kStop, gpu + " does not answer: " + health,
                     "no share is promised of it; move its tenants away, then reset it",
                     "nvidia-smi -r -i " + std::to_string(device.value("index", 0))});
    if (!device.value("lists_processes", true))
      out.push_back({"devices", Level::kWarning,
                     "NVML lists no processes on " + gpu + ": the audit is blind there",
                     "run divvyd outside of containers and virtual machines, where NVML lists them",
                     ""});
    const json outside = device.value("outside", json::array());
    if (outside.empty()) continue;
    std::string who;
    for (const json& p : outside)
      who += (who.empty() ? "" : ", ") + std::to_string(p.value("pid", 0)) + " " +
             Shortened(p.value("command", ""), 32);
    out.push_back({"devices", Level::kNote,
                   Amount(device.value("outside_bytes", uint64_t{0})) + " of " + gpu +
                       " are held by processes outside of Divvy, which nothing limits: " + who,
                   "start them in shares", "divvy run --mem SIZE -- CMD"});
  }
}

void Tenants(const World& world, std::vector<Finding>& out) {
  for (const json& tenant : List(world.daemon.tenants, "tenants")) {
    const std::string name = tenant.value("name", "");
    for (const json& finding : tenant.value("findings", json::array()))
      if (finding.value("active", true))
        out.push_back({"tenants", Level::kWarning,
                       "the audit has a finding on '" + name + "': " + finding.value("code", "") +
                           ", " + finding.value("message", ""),
                       "docs/api.md says what each means; divvyd --audit kill acts on it",
                       "divvy ps -p"});
    for (const json& share : tenant.value("shares", json::array()))
      if (share.value("over", false))
        out.push_back(
            {"tenants", Level::kWarning, "'" + name + "' uses more than its limit",
             "its limit was lowered below its use: raise it, or let it shrink",
             "divvy set " + name + " --mem " + Amount(share.value("used_bytes", uint64_t{0}))});
  }
}

}  // namespace divvy::cli::doctor
