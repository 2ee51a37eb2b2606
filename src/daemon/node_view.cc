// The node as JSON (docs/api.md), and the tick that keeps what people and shims see fresh.
#include <unistd.h>

#include <algorithm>

#include "src/daemon/node.h"
#include "src/daemon/version.h"

namespace divvy::daemon {
namespace {

using Json = nlohmann::json;
const char* const kKindNames[region::kKinds] = {"linear", "managed", "array",  "vmm",
                                                "pool",   "graph",   "import", "context"};

Json FindingJson(const Finding& f) {
  return {{"code", f.code}, {"pid", f.pid},       {"device", f.device}, {"bytes", f.bytes},
          {"time", f.time}, {"action", f.action}, {"active", f.active}, {"message", f.message}};
}

}  // namespace

Json Node::StatusJson() const {
  const std::lock_guard lock(mutex_);
  return {{"version", kVersion},
          {"api", 1},
          {"generation", generation_},
          {"pid", ::getpid()},
          {"sim", options_.sim_profile},
          {"uptime_s", static_cast<double>(MonotonicNs() - started_ns_) / 1e9},
          {"runtime_dir", options_.machine_dir},
          {"driver_version", source_.driver_version()},
          {"tenants", tenants_.size()},
          {"audit", ToString(options_.audit)},
          {"on_fault", options_.deny_on_fault ? "deny" : "open"},
          {"overcommit", options_.overcommit},
          {"private", options_.private_daemon}};
}

Json Node::DevicesJson() const {
  const std::lock_guard lock(mutex_);
  Json out = Json::array();
  for (unsigned d = 0; d < devices_.size(); ++d) {
    const device::Info& info = source_.devices()[d];
    const DeviceState& state = devices_[d];
    const DeviceBooks books = BooksOf(d);
    uint64_t promised = 0, leaving = 0;
    Json tenants = Json::array();
    for (const auto& [id, tenant] : tenants_)
      for (unsigned s = 0; s < tenant.shares.size(); ++s) {
        if (tenant.shares[s].device != d) continue;
        promised += tenant.record.share.mem.n;
        leaving += LeavingBytes(tenant, s);
        tenants.push_back(tenant.record.name);
      }
    Json outside = Json::array();
    for (const DeviceBooks::Outside& o : books.outside)
      outside.push_back({{"pid", o.pid}, {"command", o.command}, {"used_bytes", o.used.n}});
    out.push_back({{"uuid", device::ToString(info.uuid)},
                   {"index", info.index},
                   {"name", info.name},
                   {"pci_bus_id", info.pci_bus_id},
                   {"total_bytes", info.total.n},
                   {"used_bytes", state.reading.used.n},
                   {"free_bytes", state.reading.free.n},
                   {"driver_reserved_bytes", state.driver.n},
                   {"outside_bytes", OutsideSum(books).n},
                   {"promised_bytes", promised},
                   {"leaving_bytes", leaving},
                   {"free_to_promise_bytes", FreeToPromise(books).n},
                   {"context_bytes",
                    learned_.Context(Learned::Key(info.name, source_.driver_version(), "")).n},
                   {"readings", state.readings},
                   {"lists_processes", state.reading.lists_processes},
                   {"tenants", tenants},
                   {"outside", outside},
                   {"health", state.fault.empty() ? "ok" : state.fault}});
  }
  return {{"devices", out}};
}

Json Node::TenantJson(const Tenant& tenant) const {
  const TenantRecord& r = tenant.record;
  Json shares = Json::array(), devices = Json::array();
  const TenantView view = compute_.ViewOf(tenant.id);
  for (unsigned s = 0; s < tenant.shares.size(); ++s) {
    const Share& share = tenant.shares[s];
    const device::Info& info = source_.devices()[share.device];
    const region::PolicyDevice& policy = tenant.segments->policy().device[s];
    const uint64_t limit = policy.limit_bytes.load(std::memory_order_relaxed);
    const uint64_t used = UsedBytes(tenant, s);
    const int64_t overhead = share.overhead.bytes() + static_cast<int64_t>(share.unattached_bytes);
    Json kinds = Json::object();
    for (unsigned k = 0; k < region::kKinds; ++k)
      kinds[kKindNames[k]] = KindBytes(tenant, s, static_cast<region::Kind>(k));
    shares.push_back(
        {{"device", device::ToString(info.uuid)},
         {"index", info.index},
         {"limit_bytes", limit},
         {"promised_bytes", r.share.mem.n},
         {"limit_max_bytes", r.share.mem_max.n},
         {"used_bytes", used},
         {"charged_bytes", ChargedBytes(tenant, s)},
         {"charged_peak_bytes", ChargedPeakBytes(tenant, s)},
         {"nvml_bytes", share.nvml_bytes},
         {"kinds", kinds},
         {"overhead_bytes", overhead},
         {"unattached_bytes", share.unattached_bytes},
         {"context_bytes", policy.context_bytes.load(std::memory_order_relaxed)},
         {"leaving_bytes", LeavingBytes(tenant, s)},
         {"measured", share.measured},
         {"health", devices_[share.device].fault.empty() ? "ok" : devices_[share.device].fault},
         {"over", used > limit},
         {"gated", share.gated},
         {"compute_percent", r.share.compute.milli / 1000.0},
         {"compute_max_percent", r.share.compute_max.milli / 1000.0},
         {"weight", r.share.weight},
         {"compute", ComputeJson(tenant, s, view)}});
    devices.push_back(
        {{"uuid", device::ToString(info.uuid)}, {"index", info.index}, {"pci", info.pci_bus_id}});
  }
  Json awaited = Json::array();
  for (const ProcessId& id : tenant.awaited) awaited.push_back(id.pid);
  Json findings = Json::array();
  for (const Finding& f : tenant.findings)
    if (f.readings >= 2 || !f.action.empty()) findings.push_back(FindingJson(f));
  const std::string dir = options_.machine_dir + "/tenants/" + r.name;
  return {{"name", r.name},
          {"dir", dir},
          {"socket", dir + "/tenant.sock"},
          {"devices", devices},
          {"class", ToString(r.share.share_class)},
          {"cooperative", r.cooperative},
          {"paused", r.share.paused},
          {"overcommit", r.overcommit},
          {"on_full", r.share.on_full_wait_ms == 0
                          ? Json{{"mode", "fail"}}
                          : Json{{"mode", "wait"}, {"wait_ms", r.share.on_full_wait_ms}}},
          {"created", r.created},
          {"command", r.command},
          {"runner_pid", r.runner.pid},
          {"state", StateOf(tenant)},
          {"shares", shares},
          {"processes", ProcessesJson(tenant)},
          {"awaited", awaited},
          {"refusals", tenant.refusals},
          {"findings", findings}};
}

namespace {

struct Row {
  pid_t pid = 0;
  uint32_t ns_pid = 0, slot = 0;
  std::string command;
  const char* state = "";
  uint64_t charged = 0, nvml = 0;
};

// What of the tenant's use each row stands for, so that the rows never sum to more: NVML's word
// where there is one, else its charges as far as they fit into the rest.
Json ToJson(const std::vector<Row>& rows, uint64_t used) {
  uint64_t rest = used;
  for (const Row& row : rows) rest -= std::min(rest, row.nvml);
  Json out = Json::array();
  for (const Row& row : rows) {
    const uint64_t its = row.nvml != 0 ? std::min(row.nvml, used) : std::min(row.charged, rest);
    if (row.nvml == 0) rest -= its;
    out.push_back({{"pid", row.pid},
                   {"ns_pid", row.ns_pid},
                   {"command", row.command},
                   {"slot", row.slot},
                   {"state", row.state},
                   {"used_bytes", its},
                   {"charged_bytes", row.charged},
                   {"nvml_bytes", row.nvml}});
  }
  return out;
}

}  // namespace

Json Node::ProcessesJson(const Tenant& tenant) const {
  std::vector<Row> rows;
  uint64_t used = 0;
  for (unsigned s = 0; s < tenant.shares.size(); ++s) used += UsedBytes(tenant, s);
  for (const auto& [slot, process] : tenant.processes) {
    Row row{.pid = process.id.pid,
            .ns_pid = process.ns_pid,
            .slot = slot,
            .command = process.command,
            .state = process.state == Process::State::kLive      ? "live"
                     : process.state == Process::State::kLeaving ? "leaving"
                                                                 : "replaced"};
    for (unsigned s = 0; s < tenant.shares.size(); ++s) {
      row.charged += process.state == Process::State::kLive
                         ? SlotBytes(tenant, slot, s)
                         : process.device[s].held_units * region::kUnitBytes;
      // What its pid holds now is the newer image's.
      if (process.state != Process::State::kReplaced) row.nvml += process.device[s].nvml_bytes;
    }
    rows.push_back(std::move(row));
  }
  // Those that have not said hello (again): known from before a restart, or only from NVML.
  std::map<pid_t, Row> silent;
  for (const ProcessId& id : tenant.awaited) silent[id.pid].state = "awaited";
  for (const Share& share : tenant.shares)
    for (const device::ProcessMemory& p : devices_[share.device].reading.processes) {
      const auto known = attributions_.find(p.pid);
      const bool its = known != attributions_.end() && known->second.tenant == tenant.id;
      if (!its && !silent.contains(p.pid)) continue;
      if (std::any_of(rows.begin(), rows.end(), [&](const Row& r) { return r.pid == p.pid; }))
        continue;
      Row& row = silent[p.pid];
      if (*row.state == '\0') row.state = "no_hello";
      row.nvml += p.used.value_or(Bytes{}).n;
    }
  for (auto& [pid, row] : silent) {
    const auto known = attributions_.find(pid);
    row.pid = pid;
    row.command = known != attributions_.end() ? known->second.command : CommandOf(pid);
    rows.push_back(std::move(row));
  }
  return ToJson(rows, used);
}

Result<Json> Node::TenantsJson(const std::string& name) {
  const std::lock_guard lock(mutex_);
  Json list = Json::array();
  for (auto& [id, tenant] : tenants_) {
    if (!name.empty() && tenant.record.name != name) continue;
    // What a process that has just ended was refused is not left for the next tick.
    HarvestEvents(tenant);
    if (!name.empty()) return TenantJson(tenant);
    list.push_back(TenantJson(tenant));
  }
  if (!name.empty()) return NotFound("there is no tenant '" + name + "'");
  return Json{{"tenants", list}};
}

void Node::Tick() {
  const std::lock_guard lock(mutex_);
  const uint64_t now = MonotonicNs();
  const bool arbiter_alive = compute_.Alive();
  for (auto& [id, tenant] : tenants_) {
    if (tenant.processes.empty()) continue;  // nobody looks; a Hello finds a fresh heartbeat
    region::Policy& policy = tenant.segments->policy();
    if (arbiter_alive) policy.heartbeat_ns.store(now, std::memory_order_relaxed);
    policy.heartbeat_word.fetch_add(1, std::memory_order_relaxed);
    HarvestEvents(tenant);
    TellCompute(tenant);
    EndRecording(tenant, now);
  }
  constexpr uint64_t kHelloWithinNs = 5'000'000'000;
  std::vector<uint64_t> silent;
  for (const auto& [id, connection] : connections_)
    if (connection.slot == 0 && now - connection.since_ns > kHelloWithinNs) silent.push_back(id);
  for (const uint64_t id : silent) CloseConnection(id);
}

}  // namespace divvy::daemon
