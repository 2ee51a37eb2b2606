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

// A private daemon may end between our look and our request; then the next one is started. One that
// says that it is ending needs some time for it.
Result<json> Ask(const Machine& machine, const json& body) {
  constexpr int kTries = 3, kTriesWhileEnding = 500;
  constexpr std::chrono::milliseconds kPause{20};
  for (int attempt = 1;; ++attempt) {
    if (const Status up = EnsureDaemon(machine); !up.ok()) return up.error();
    Result<json> answer = machine.api.Post("/v1/tenants", body);
    if (answer.ok()) return answer;
    const ErrorCode code = answer.error().code;
    const int tries = code == ErrorCode::kEnding        ? kTriesWhileEnding
                      : code == ErrorCode::kUnavailable ? kTries
                                                        : 0;
    if (attempt >= tries) return answer;
    if (code == ErrorCode::kEnding) std::this_thread::sleep_for(kPause);
  }
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

Status CheckHoldsContext(Bytes mem, Bytes context, const std::string& where) {
  if (mem >= context) return {};
  std::string meant;
  if (mem.n < 1024)
    meant = "; was " + std::to_string(mem.n) + "GiB meant?";
  else if (mem < 1_MiB)
    meant = "; was " + std::to_string(mem.n) + "MiB meant?";
  return Invalid("a share of " + ToString(mem) + " is too small for any CUDA program: a context " +
                 "alone takes " + ToString(context) + " of " + where + meant);
}

namespace {

// Whether the daemon answers, and the share holds a context: only small ones are looked at, no
// context takes as much.
Status CheckSomeDevice(const Machine& machine, const ShareRequest& request) {
  const Bytes mem = std::max(request.mem, request.mem_max);
  const Result<json> answer = machine.api.Get("/v1/devices");
  // It may have ended: the request itself finds out. One that runs and does not answer is not to be
  // asked again, and waited for longer.
  if (!answer.ok()) return machine.api.Alive() ? Status(answer.error()) : Status();
  if (mem >= 1_GiB || request.overcommit) return {};
  Status fits;
  for (const json& d : answer->value("devices", json::array())) {
    const std::string index = std::to_string(d.value("index", 0));
    const auto named = [&](const std::string& gpu) {
      return gpu == index || gpu == d.value("uuid", "");
    };
    if (!request.gpus.empty() && std::none_of(request.gpus.begin(), request.gpus.end(), named))
      continue;
    const Status holds = CheckHoldsContext(mem, Bytes{d.value("context_bytes", uint64_t{0})},
                                           "GPU " + index + " (" + d.value("name", "") + ")");
    if (request.gpus.empty() && holds.ok()) return {};  // the daemon may choose this one
    if (!holds.ok()) fits = holds;
  }
  return fits;
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
  if (const Status up = EnsureDaemon(tenancy.machine); !up.ok()) return up.error();
  if (const Status holds = CheckSomeDevice(tenancy.machine, request); !holds.ok())
    return holds.error();

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
  return tenancy;
}

void DropTenant(const Tenancy& tenancy) {
  // Best effort: the daemon does the same when this process ends.
  const auto dropped = tenancy.machine.api.Delete("/v1/tenants/" + tenancy.name);
  static_cast<void>(dropped.ok());
  RemoveCgroup(tenancy.delivery.cgroup);
}

}  // namespace divvy::cli
