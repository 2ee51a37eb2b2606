#include "src/cli/tenancy.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "src/base/paths.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

json Body(const ShareRequest& request, const Delivery& delivery) {
  json body{{"mem_bytes", request.mem.n},
            {"on_full", {{"mode", request.on_full_wait_ns > 0 ? "wait" : "fail"}}},
            {"command", request.command},
            {"cooperative", !delivery.isolated}};
  if (!request.lasting) body["runner_pid"] = ::getpid();
  if (!delivery.cgroup.path.empty()) body["cgroup"] = delivery.cgroup.path;
  if (request.on_full_wait_ns > 0)
    body["on_full"]["wait_ms"] = std::max<int64_t>(1, request.on_full_wait_ns / 1'000'000);
  if (!request.name.empty()) body["name"] = request.name;
  if (request.gpus.empty()) body["gpu_count"] = request.gpu_count;
  for (const std::string& gpu : request.gpus) {
    const bool index = gpu.size() < 5 && std::all_of(gpu.begin(), gpu.end(),
                                                     [](char c) { return c >= '0' && c <= '9'; });
    body["gpus"].push_back(index ? json(std::stoi(gpu)) : json(gpu));
  }
  if (request.mem_max.n != 0) body["mem_max_bytes"] = request.mem_max.n;
  if (request.overcommit) body["overcommit"] = true;
  request.compute.PutInto(body);
  return body;
}

}  // namespace

Status CheckName(const std::string& name) {
  const bool fits = !name.empty() && name.size() < 64 && name[0] != '.' && name[0] != '-' &&
                    std::all_of(name.begin(), name.end(), [](char c) {
                      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                             (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
                    });
  if (fits) return {};
  return Invalid("'" + name +
                 "' is no name for a tenant: letters, digits, '.', '-' and '_', at "
                 "most 63, a letter or digit first");
}

Status CheckHoldsContext(Bytes mem, const std::string& typed, Bytes context,
                         const std::string& where) {
  if (mem >= context) return {};
  std::string meant;
  const bool bare = typed.find_first_not_of("0123456789.") == std::string::npos;
  if (!typed.empty() && bare && mem < 1_MiB)
    meant = "; was --mem " + typed + (mem.n < 1024 ? "GiB" : "MiB") + " meant?";
  return Invalid("a share of " + ToString(mem) + " is too small for any CUDA program: a context " +
                 "alone takes " + ToString(context) + " of " + where + meant);
}

namespace {

// Whether each of the devices that it was given leaves it enough for a context.
Status CheckHoldsContexts(const ShareRequest& request, const json& tenant) {
  if (request.overcommit) return {};
  for (const json& share : tenant.value("shares", json::array())) {
    const Status holds =
        CheckHoldsContext(std::max(request.mem, request.mem_max), request.mem_typed,
                          Bytes{share.value("context_bytes", uint64_t{0})},
                          "GPU " + std::to_string(share.value("index", 0)));
    if (!holds.ok()) return holds;
  }
  return {};
}

// A private daemon may end between our look and our request; then the next one is started. One that
// says that it is ending needs some time for it. What one says that lives on is its answer, also
// that it does not answer.
Result<json> Ask(const Machine& machine, const json& body) {
  constexpr int kTries = 3, kTriesWhileEnding = 500;
  constexpr std::chrono::milliseconds kPause{20};
  for (int attempt = 1;; ++attempt) {
    if (const Status up = EnsureDaemon(machine); !up.ok()) return up.error();
    Result<json> answer = machine.api.Post("/v1/tenants", body);
    if (answer.ok()) return answer;
    const ErrorCode code = answer.error().code;
    int tries = 0;
    if (code == ErrorCode::kEnding) tries = kTriesWhileEnding;
    if (code == ErrorCode::kUnavailable && !machine.api.Alive()) tries = kTries;
    if (attempt >= tries) return answer;
    if (code == ErrorCode::kEnding) std::this_thread::sleep_for(kPause);
  }
}

}  // namespace

Result<Tenancy> MakeTenant(const ShareRequest& request) {
  if (const std::string own = OwnTenant(); !own.empty())
    return Invalid("this process already runs in the share of tenant '" + own +
                   "'; make shares from outside of it");
  if (!request.name.empty())
    if (const Status fits = CheckName(request.name); !fits.ok()) return fits.error();
  Tenancy tenancy{MachineOf(request.sim), "", json::array(), {}};
  Delivery& delivery = tenancy.delivery;
  delivery.isolated = request.lasting || CanIsolate();  // lasting: a container runtime does it
  delivery.runtime_dir = paths::RuntimeDir();
  if (!request.sim.empty()) delivery.sim_dir = paths::SimDir(tenancy.machine.dir);
  if (const Status there = CheckInstalled(delivery); !there.ok()) return there.error();
  if (!request.lasting) delivery.cgroup = MakeCgroup();
  const Result<json> answer = Ask(tenancy.machine, Body(request, delivery));
  if (!answer.ok()) {
    RemoveCgroup(delivery.cgroup);
    return answer.error();
  }
  tenancy.name = answer->value("name", "");
  tenancy.devices = answer->value("devices", json::array());
  delivery.tenant_dir = answer->value("dir", "");
  delivery.socket = answer->value("socket", "");
  if (tenancy.name.empty() || delivery.tenant_dir.empty() || delivery.socket.empty())
    return Internal("divvyd's answer lacks name, dir or socket; is it of another version?");
  if (const Status holds = CheckHoldsContexts(request, *answer); !holds.ok()) {
    DropTenant(tenancy);
    return holds.error();
  }
  return tenancy;
}

void DropTenant(const Tenancy& tenancy) {
  // Best effort: the daemon does the same when this process ends.
  const auto dropped = tenancy.machine.api.Delete("/v1/tenants/" + tenancy.name);
  static_cast<void>(dropped.ok());
  RemoveCgroup(tenancy.delivery.cgroup);
}

}  // namespace divvy::cli
