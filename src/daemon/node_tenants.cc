// The node: a tenant is made (node_create.cc decides whether), changes and ends.
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "src/abi/generated/driver_fns.h"
#include "src/base/cgroup.h"
#include "src/base/paths.h"
#include "src/daemon/node.h"
#include "src/daemon/state_file.h"

namespace divvy::daemon {
namespace {

std::string TenantDir(const NodeOptions& options, const std::string& name) {
  return paths::TenantsDir(options.machine_dir) + "/" + name;
}

}  // namespace

const char* ToString(AuditAction action) {
  switch (action) {
    case AuditAction::kWarn:
      return "warn";
    case AuditAction::kGate:
      return "gate";
    case AuditAction::kKill:
      return "kill";
  }
  return "?";
}

namespace {
std::vector<DeviceTiming> TimingsOf(const device::Source& source, const NodeOptions& options) {
  std::vector<DeviceTiming> out;
  for (const device::Info& info : source.devices()) {
    out.push_back(TimingOf(info.name));
    if (options.slice_us != 0) out.back().slice_us = options.slice_us;
    if (options.switch_us != 0) out.back().switch_us = options.switch_us;
  }
  return out;
}
}  // namespace

Node::Node(NodeOptions options, device::Source& source, Loop& loop, Events& events,
           std::function<void(bool)> on_change)
    : options_(std::move(options)),
      source_(source),
      loop_(loop),
      events_(events),
      on_change_(std::move(on_change)),
      // Unique per start, never 0, never going back within a boot.
      generation_(static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch() /
                                        std::chrono::nanoseconds(1))),
      started_ns_(MonotonicNs()),
      compute_(TimingsOf(source, options_), options_.sim_profile),
      spare_fd_(::open("/dev/null", O_RDONLY | O_CLOEXEC)),
      devices_(source.devices().size()) {}

Node::~Node() = default;

void Node::Tell(Event event) {
  if (event.pid != 0 && event.command.empty()) {
    if (const Tenant* tenant = FindTenant(event.tenant))
      for (const auto& [slot, process] : tenant->processes)
        if (process.id.pid == event.pid) event.command = process.command;
    if (event.command.empty()) event.command = CommandOf(event.pid);
  }
  if (event.symbol != 0 && event.symbol < abi::kDriverSymbolCount)
    event.call = abi::driver_name(static_cast<abi::DriverSymbol>(event.symbol));
  events_.Add(std::move(event), WallClock());
}

// A process that did not end by itself and well. How it ended is not always to be known.
void Node::TellEnd(const Tenant& tenant, const Process& process) {
  const std::optional<int> end = EndOf(process.pidfd.get(), process.id);
  if (!end || *end == 0) return;
  const bool asked_for =
      WIFSIGNALED(*end) && (WTERMSIG(*end) == SIGTERM || WTERMSIG(*end) == SIGINT || tenant.ending);
  Tell({.cause = WIFSIGNALED(*end) && !asked_for ? "crashed" : "failed",
        .tenant = tenant.record.name,
        .pid = process.id.pid,
        .command = process.command,
        .message = DescribeEnd(*end)});
}

Tenant* Node::FindTenant(const std::string& name) {
  for (auto& [id, tenant] : tenants_)
    if (tenant.record.name == name) return &tenant;
  return nullptr;
}

Tenant* Node::FindTenant(uint64_t id) {
  const auto it = tenants_.find(id);
  return it == tenants_.end() ? nullptr : &it->second;
}

Result<Tenant*> Node::MakeTenant(TenantRecord record, const std::vector<unsigned>& devices) {
  Result<std::unique_ptr<Segments>> segments = Segments::Create(record.name, generation_);
  if (!segments.ok()) return segments.error();
  const uint64_t id = next_tenant_++;
  Tenant& tenant = tenants_[id];
  tenant.id = id;
  tenant.record = std::move(record);
  tenant.segments = std::shared_ptr<Segments>(std::move(*segments));
  for (const unsigned d : devices) {
    devices_[d].shares.push_back({&tenant, static_cast<unsigned>(tenant.shares.size())});
    tenant.shares.push_back({.device = d});
  }
  WritePolicy(tenant);
  Status s = WatchRunner(tenant);
  if (s.ok()) s = OpenTenantSocket(tenant);
  if (!s.ok()) {
    RemoveTenant(id, "");
    return s.error();
  }
  JoinCompute(tenant);
  return &tenant;
}

void Node::WritePolicy(Tenant& tenant) {
  region::Policy& policy = tenant.segments->policy();
  policy.device_count = static_cast<uint32_t>(tenant.shares.size());
  for (unsigned s = 0; s < tenant.shares.size(); ++s) {
    const device::Info& info = source_.devices()[tenant.shares[s].device];
    region::PolicyDevice& d = policy.device[s];
    std::memcpy(d.uuid, info.uuid.bytes.data(), 16);
    d.nvml_index = info.index;
    d.total_bytes = info.total.n;
    d.limit_bytes = tenant.record.share.mem.n;
    tenant.shares[s].highest_limit = tenant.record.share.mem.n;
    tenant.shares[s].highest_room = static_cast<int64_t>(tenant.record.share.mem.n);
    d.rest_bytes = UINT64_MAX;
    d.context_bytes =
        learned_.Context(Learned::Key(info.name, source_.driver_version(), tenant.module_loading))
            .n;
    d.guaranteed_milli = tenant.record.share.compute.milli;
    d.cap_milli = tenant.record.share.compute_max.milli;
  }
  policy.on_full_wait_ms = tenant.record.share.on_full_wait_ms;
  policy.flags = (options_.deny_on_fault ? region::kFlagDenyOnFault : 0u) |
                 (tenant.record.cooperative ? region::kFlagCooperative : 0u) |
                 (tenant.record.overcommit ? region::kFlagOvercommit : 0u);
  policy.heartbeat_ns = MonotonicNs();
}

Status Node::WatchRunner(Tenant& tenant) {
  if (tenant.record.runner.pid == 0) return {};
  Result<UniqueFd> pidfd = OpenPidfd(tenant.record.runner.pid);
  // Opened first, compared after: the pidfd is of the process whose start time is read now, or of a
  // dead one, which reads as ended.
  if (!pidfd.ok() || !Alive(tenant.record.runner)) {
    tenant.runner_gone = true;
    return pidfd.ok() || pidfd.error().code == ErrorCode::kNotFound ? Status() : pidfd.error();
  }
  tenant.runner_pidfd = std::move(*pidfd);
  const uint64_t id = tenant.id;
  tenant.runner_watch = loop_.Add(tenant.runner_pidfd.get(), [this, id] {
    const std::lock_guard lock(mutex_);
    Tenant* t = FindTenant(id);
    if (t == nullptr || t->runner_gone) return;
    t->runner_gone = true;
    loop_.Remove(t->runner_watch, t->runner_pidfd.get());
    t->runner_watch = 0;
    EndIfOver(*t);
  });
  return tenant.runner_watch != 0 ? Status() : Internal("no room for another watch");
}

Status Node::OpenTenantSocket(Tenant& tenant) {
  // The folder itself is kept over restarts: a private mount namespace may have it bound.
  const std::string dir = TenantDir(options_, tenant.record.name);
  if (::mkdir(dir.c_str(), 0755) != 0 && errno != EEXIST)
    return IoError("cannot create " + dir, errno);
  // Whoever gets here through that mount may have any uid; from outside, tenants/ is 0700.
  ::chmod(dir.c_str(), 0755);
  const UniqueFd marker(
      ::open((dir + "/tenant").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  const std::string text = tenant.record.name + "\n";
  if (!marker.valid() ||
      ::write(marker.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return IoError("cannot write " + dir + "/tenant", errno);
  ::fchmod(marker.get(), 0644);
  Result<UniqueFd> listener = ListenUnix(dir + "/tenant.sock", SOCK_SEQPACKET, 0666);
  if (!listener.ok()) return listener.error();
  tenant.listener = std::move(*listener);
  const uint64_t id = tenant.id;
  tenant.listener_watch = loop_.Add(tenant.listener.get(), [this, id] { OnListener(id); });
  return tenant.listener_watch != 0 ? Status() : Internal("no room for another watch");
}

Result<nlohmann::json> Node::PatchTenant(const std::string& name, const TenantPatch& patch) {
  std::vector<unsigned> devices;
  {
    const std::lock_guard lock(mutex_);
    const Tenant* tenant = FindTenant(name);
    if (tenant == nullptr) return NotFound("there is no tenant '" + name + "'");
    for (const Share& share : tenant->shares) devices.push_back(share.device);
  }
  if (patch.mem || patch.mem_max)
    for (const unsigned d : devices) Sample(d);
  const std::lock_guard lock(mutex_);
  Tenant* tenant = FindTenant(name);
  if (tenant == nullptr) return NotFound("there is no tenant '" + name + "'");
  const Result<ShareSpec> next = Patched(tenant->record.share, patch);
  if (!next.ok()) return next.error();
  const ShareSpec before = tenant->record.share;
  if (next->mem > before.mem) {
    for (const unsigned d : devices) {
      DeviceBooks books = BooksOf(d);
      // Its own promise makes room for the new one.
      std::erase_if(books.promises, [&](const auto& p) { return p.tenant == name; });
      if (Status s = Admit(books, next->mem, tenant->record.overcommit); !s.ok()) return s.error();
    }
  }
  if (next->mem_max > before.mem_max)
    for (const unsigned d : devices)
      if (Status s = AdmitMost(BooksOf(d), next->mem_max); !s.ok()) return s.error();
  for (const unsigned d : devices) {
    if (next->compute <= before.compute) break;
    if (Status s = AdmitCompute(source_.devices()[d].index, ComputePromises(d, name), next->compute,
                                tenant->record.overcommit);
        !s.ok())
      return s.error();
  }
  tenant->record.share = *next;
  MustSave(*tenant);
  if (Status s = SaveState(); !s.ok()) {
    tenant->record.share = before;
    MustSave(*tenant);
    return Unavailable(s.error().message + ": nothing was changed");
  }
  region::Policy& policy = tenant->segments->policy();
  policy.on_full_wait_ms = next->on_full_wait_ms;
  for (unsigned s = 0; s < tenant->shares.size(); ++s) {
    policy.device[s].guaranteed_milli = next->compute.milli;
    policy.device[s].cap_milli = next->compute_max.milli;
    policy.device[s].limit_bytes = next->mem.n;
  }
  PublishTerms(*tenant);
  for (const unsigned d : devices) Publish(d);
  tenant->segments->WakePolicyWaiters();
  tenant->segments->WakeRoomWaiters();
  if (next->paused != before.paused)
    Tell({.cause = next->paused ? "paused" : "resumed",
          .tenant = name,
          .message = next->paused ? "submits no more GPU work, keeps its memory" : "goes on"});
  ShareSpec but_for_pause = *next;
  but_for_pause.paused = before.paused;
  if (ToText(but_for_pause) != ToText(before) || next->mem_max != before.mem_max ||
      next->on_full_wait_ms != before.on_full_wait_ms)
    Tell({.cause = "changed",
          .tenant = name,
          .bytes = next->mem.n,
          .message = "share is now " + ToText(*next)});
  return TenantJson(*tenant);
}

Status Node::DeleteTenant(const std::string& name, bool force) {
  const std::lock_guard lock(mutex_);
  Tenant* tenant = FindTenant(name);
  if (tenant == nullptr) return NotFound("there is no tenant '" + name + "'");
  unsigned live = 0;
  for (auto& [slot, process] : tenant->processes) {
    if (process.state == Process::State::kLeaving) continue;
    ++live;
    if (force && process.pidfd.valid())
      ::syscall(SYS_pidfd_send_signal, process.pidfd.get(), SIGKILL, nullptr, 0);
  }
  for (const ProcessId& id : tenant->awaited) {
    if (!Alive(id)) continue;
    ++live;
    const Result<UniqueFd> pidfd = OpenPidfd(id.pid);
    if (force && pidfd.ok() && Alive(id))
      ::syscall(SYS_pidfd_send_signal, pidfd->get(), SIGKILL, nullptr, 0);
  }
  // What has not said hello counts, too: it may be about to.
  if (live == 0 && !tenant->ending && cgroup::IsPopulated(tenant->record.cgroup)) ++live;
  if (live != 0 && force) cgroup::Kill(tenant->record.cgroup);
  if (live != 0 && !force)
    return Error{ErrorCode::kExists, "tenant '" + name + "' has live processes; end them, or " +
                                         "delete it with ?force=1"};
  tenant->ending = true;
  tenant->runner_gone = true;
  EndIfOver(*tenant);
  return {};
}

// Forgets awaited processes that ended without saying hello again, once the driver has, too.
void Node::PruneAwaited(Tenant& tenant) {
  std::erase_if(tenant.awaited, [&](const ProcessId& id) {
    if (Alive(id)) return false;
    for (const Share& share : tenant.shares)
      for (const device::ProcessMemory& p : devices_[share.device].reading.processes)
        if (p.pid == id.pid) return false;
    return true;
  });
}

void Node::EndIfOver(Tenant& tenant) {
  if (tenant.record.runner.pid == 0 && !tenant.ending) return;
  if (!tenant.runner_gone || !tenant.processes.empty()) return;
  PruneAwaited(tenant);
  if (tenant.awaited.empty() && !CgroupLives(tenant)) RemoveTenant(tenant.id, "ended");
}

// Whether processes that the command left behind live on in the tenant's cgroup: they have not said
// hello yet and may do so at any time. Watches it from then on.
bool Node::CgroupLives(Tenant& tenant) {
  if (tenant.record.cgroup.empty()) return false;
  if (tenant.cgroup_watch != 0) return cgroup::IsPopulatedBy(tenant.cgroup_events.get());
  tenant.cgroup_events = cgroup::OpenEvents(tenant.record.cgroup);
  if (!tenant.cgroup_events.valid() || !cgroup::IsPopulatedBy(tenant.cgroup_events.get()))
    return false;
  const uint64_t id = tenant.id;
  tenant.cgroup_watch = loop_.Add(
      tenant.cgroup_events.get(),
      [this, id] {
        const std::lock_guard lock(mutex_);
        Tenant* t = FindTenant(id);
        if (t == nullptr || t->cgroup_watch == 0) return;
        const bool lives = cgroup::IsPopulatedBy(t->cgroup_events.get());  // also rearms it
        if (!lives) EndIfOver(*t);
      },
      /*priority=*/true);
  return tenant.cgroup_watch != 0;
}

void Node::RemoveTenant(uint64_t id, const std::string& why) {
  Tenant* tenant = FindTenant(id);
  if (tenant == nullptr) return;
  for (auto& [slot, process] : tenant->processes) loop_.Remove(process.watch, process.pidfd.get());
  loop_.Remove(tenant->listener_watch, tenant->listener.get());
  loop_.Remove(tenant->runner_watch, tenant->runner_pidfd.get());
  loop_.Remove(tenant->cgroup_watch, tenant->cgroup_events.get());
  std::vector<uint64_t> open;
  for (auto& [connection_id, connection] : connections_)
    if (connection.tenant == id) open.push_back(connection_id);
  for (const uint64_t connection_id : open) CloseConnection(connection_id);
  std::error_code ignored;
  std::filesystem::remove_all(TenantDir(options_, tenant->record.name), ignored);
  std::erase_if(attributions_, [&](const auto& a) { return a.second.tenant == id; });
  std::vector<unsigned> devices;
  for (const Share& share : tenant->shares) {
    devices.push_back(share.device);
    std::erase_if(devices_[share.device].shares,
                  [tenant](const ShareOf& of) { return of.tenant == tenant; });
  }
  const std::string name = tenant->record.name, its_cgroup = tenant->record.cgroup;
  compute_.Leave(id);
  tenants_.erase(id);
  who_stale_ = true;
  if (why.empty()) return;  // it never was: nothing to tell or save
  cgroup::Remove(its_cgroup);
  if (Status s = SaveState(); !s.ok()) dirty_ = true;
  for (const unsigned d : devices) Publish(d);
  Tell({.cause = why, .tenant = name, .message = "its share is free again"});
  events_.Forget(name);
  ended_.notify_all();
  on_change_(!tenants_.empty());
}

bool Node::CloseIfEmpty() {
  const std::lock_guard lock(mutex_);
  closed_ = closed_ || tenants_.empty();
  return closed_;
}

bool Node::HasTenants() const {
  const std::lock_guard lock(mutex_);
  return !tenants_.empty();
}

}  // namespace divvy::daemon
