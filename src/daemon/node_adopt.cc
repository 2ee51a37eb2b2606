// The node: what it takes over from the daemon before it, and what it keeps for the one after.
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "src/base/cgroup.h"
#include "src/base/paths.h"
#include "src/daemon/node.h"
#include "src/daemon/state_file.h"

namespace divvy::daemon {
namespace {
std::string StatePath(const NodeOptions& options) { return options.machine_dir + "/state.json"; }
}  // namespace

Status Node::Start() {
  if (Status s = compute_.Start(); !s.ok()) return s;
  const std::string tenants_dir = paths::TenantsDir(options_.machine_dir);
  if (::mkdir(tenants_dir.c_str(), 0700) != 0 && errno != EEXIST)
    return IoError("cannot create " + tenants_dir, errno);
  for (unsigned d = 0; d < devices_.size(); ++d) Sample(d);
  Result<State> state = LoadState(StatePath(options_));
  const std::lock_guard lock(mutex_);
  if (!state.ok()) {
    if (state.error().code != ErrorCode::kInvalid) return state.error();
    const std::string kept = StatePath(options_) + ".damaged";
    ::rename(StatePath(options_).c_str(), kept.c_str());
    Tell({.cause = "state_damaged", .message = state.error().message + "; kept as " + kept});
    state = State{};
  }
  learned_.Load(state->learned);
  for (unsigned d = 0; d < devices_.size(); ++d)
    if (const auto it = state->cordons.find(device::ToString(source_.devices()[d].uuid));
        it != state->cordons.end())
      devices_[d].cordon = it->second;
  for (TenantRecord& record : state->tenants) {
    const std::string name = record.name;
    if (Status s = Adopt(std::move(record)); !s.ok())
      Tell({.cause = "not_adopted", .tenant = name, .message = s.error().message});
  }
  const std::string who = "divvyd pid " + std::to_string(::getpid());
  if (state->tenants.empty())
    Tell({.cause = "started", .pid = ::getpid(), .message = who + " serves this machine"});
  else
    Tell({.cause = "takeover",
          .pid = ::getpid(),
          .message = who + " took over " + std::to_string(tenants_.size()) + " of " +
                     std::to_string(state->tenants.size()) +
                     " tenants from the one before, whose events are gone"});
  // Folders of tenants that ended while no daemon looked.
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(tenants_dir, ignored))
    if (FindTenant(entry.path().filename().string()) == nullptr)
      std::filesystem::remove_all(entry.path(), ignored);
  for (unsigned d = 0; d < devices_.size(); ++d) Publish(d);
  if (Status s = SaveState(); !s.ok()) return s;
  on_change_(!tenants_.empty());
  return {};
}

Status Node::Adopt(TenantRecord record) {
  std::vector<std::string> uuids = record.device_uuids;
  const Result<std::vector<unsigned>> devices = NamedDevices(uuids);
  if (!devices.ok()) return devices.error();
  const bool runner_lives = record.runner.pid == 0 || Alive(record.runner);
  std::vector<ProcessId> awaited;
  for (const ProcessId& id : record.processes) {
    bool listed = false;  // dead, but the driver may hold its memory still
    for (const unsigned d : *devices)
      for (const device::ProcessMemory& p : devices_[d].reading.processes)
        listed = listed || p.pid == id.pid;
    const std::optional<ProcessId> now = IdentityOf(id.pid);
    if (now ? *now == id : listed) awaited.push_back(id);
  }
  if (!runner_lives && awaited.empty() && !cgroup::IsPopulated(record.cgroup)) {
    cgroup::Remove(record.cgroup);
    return NotFound("its processes ended meanwhile");
  }
  Result<Tenant*> made = MakeTenant(std::move(record), *devices);
  if (!made.ok()) return made.error();
  Tenant& tenant = **made;
  tenant.awaited = std::move(awaited);
  for (const ProcessId& id : tenant.awaited)
    attributions_[id.pid] = {id.start_ticks, tenant.id, CommandOf(id.pid)};
  for (unsigned s = 0; s < tenant.shares.size(); ++s) {
    for (const device::ProcessMemory& p : devices_[tenant.shares[s].device].reading.processes)
      for (const ProcessId& id : tenant.awaited)
        if (p.pid == id.pid) tenant.shares[s].unattached_bytes += p.used.value_or(Bytes{}).n;
    PublishOverhead(tenant, s);
  }
  Tell({.cause = "adopted",
        .tenant = tenant.record.name,
        .message = "adopted after a restart; " + std::to_string(tenant.awaited.size()) +
                   " processes are awaited"});
  return {};
}

Status Node::SaveState() {
  std::vector<const std::string*> texts;
  for (auto& [id, tenant] : tenants_) {
    if (tenant.saved.empty()) {
      TenantRecord record = tenant.record;
      record.processes = tenant.awaited;
      for (const auto& [slot, process] : tenant.processes) record.processes.push_back(process.id);
      tenant.saved = RecordText(record);
    }
    texts.push_back(&tenant.saved);
  }
  std::map<std::string, std::string> cordons;
  for (unsigned d = 0; d < devices_.size(); ++d)
    if (!devices_[d].cordon.empty())
      cordons[device::ToString(source_.devices()[d].uuid)] = devices_[d].cordon;
  Status s = SaveStateFile(StatePath(options_), texts, learned_.ToJson(), options_.private_daemon,
                           cordons);
  if (s.ok()) dirty_ = false;
  return s;
}

void Node::MustSave(Tenant& tenant) {
  tenant.saved.clear();
  dirty_ = true;
}

Status Node::SaveIfDirty() {
  const std::lock_guard lock(mutex_);
  return dirty_ ? SaveState() : Status();
}

}  // namespace divvy::daemon
