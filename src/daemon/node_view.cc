// The node as JSON (docs/api.md), and the tick that keeps what people and shims see fresh.
#include <unistd.h>

#include <algorithm>
#include <cmath>

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

// One device; `f` are its figures.
Json JsonOf(const DeviceFigures& f, const device::Reading& reading, uint64_t context_bytes,
            Json tenants, Json outside) {
  return {{"uuid", f.uuid},
          {"index", f.index},
          {"name", f.name},
          {"pci_bus_id", f.pci_bus_id},
          {"total_bytes", f.total_bytes},
          {"used_bytes", f.used_bytes},
          {"free_bytes", f.free_bytes},
          {"driver_reserved_bytes", f.driver_bytes},
          {"outside_bytes", f.outside_bytes},
          {"promised_bytes", f.promised_bytes},
          {"leaving_bytes", f.leaving_bytes},
          {"free_to_promise_bytes", f.free_to_promise_bytes},
          {"context_bytes", context_bytes},
          {"readings", f.readings},
          {"lists_processes", reading.lists_processes},
          {"tenants", std::move(tenants)},
          {"outside", std::move(outside)},
          {"health", f.fault.empty() ? "ok" : f.fault},
          {"cordoned", !f.cordon.empty()},
          {"cordon_reason", f.cordon}};
}

double Rounded(double percent) { return std::round(percent * 100) / 100; }

Json ComputeJson(const TenantFigures& t, const ShareFigures& f) {
  return {{"percent", t.guaranteed_percent},
          {"max_percent", t.cap_percent},
          {"class", t.share_class},
          {"weight", t.weight},
          {"paused", t.paused},
          {"part_percent", Rounded(f.part_percent)},
          {"metered", f.metered},
          {"used_percent_1s", f.known ? Json(Rounded(f.used_percent_1s)) : Json()},
          {"used_percent_60s", f.known ? Json(Rounded(f.used_percent_60s)) : Json()},
          {"wanted_percent_1s", f.known ? Json(Rounded(f.wanted_percent_1s)) : Json()},
          {"wanted_percent_60s", f.known ? Json(Rounded(f.wanted_percent_60s)) : Json()},
          {"used_ns", f.used_ns},
          {"billed_ns", f.billed_ns},
          {"windows", f.windows},
          {"waits", f.waits},
          {"gate_wait_percent", Rounded(f.gate_wait_percent)},
          {"forced", f.forced},
          {"operations", f.operations},
          {"launches", f.launches},
          {"copied_bytes", f.copied_bytes},
          {"overruns", f.overruns},
          {"faults", f.faults},
          {"distrusted", f.distrusted},
          {"entangled", f.entangled},
          {"stalled", f.stalled},
          {"light", f.light},
          {"throttled_by_cap", f.shut_by_cap}};
}

// One share; `f` are its figures.
Json ShareJson(const ShareSpec& spec, const TenantFigures& t, const ShareFigures& f,
               const device::Info& info, const std::string& fault, uint64_t context_bytes,
               Json kinds) {
  return {{"device", device::ToString(info.uuid)},
          {"index", info.index},
          {"limit_bytes", f.limit_bytes},
          {"promised_bytes", f.promised_bytes},
          {"limit_max_bytes", spec.mem_max.n},
          {"used_bytes", f.used_bytes},
          {"charged_bytes", f.charged_bytes},
          {"charged_peak_bytes", f.charged_peak_bytes},
          {"nvml_bytes", f.nvml_bytes},
          {"kinds", std::move(kinds)},
          {"overhead_bytes", f.overhead_bytes},
          {"unattached_bytes", f.unattached_bytes},
          {"context_bytes", context_bytes},
          {"leaving_bytes", f.leaving_bytes},
          {"measured", f.measured},
          {"health", fault.empty() ? "ok" : fault},
          {"over", f.over},
          {"gated", f.shut_by_audit},
          {"compute_percent", t.guaranteed_percent},
          {"compute_max_percent", t.cap_percent},
          {"weight", t.weight},
          {"compute", ComputeJson(t, f)}};
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

Json Node::DeviceJson(unsigned d) const {
  const DeviceState& state = devices_[d];
  Json tenants = Json::array(), outside = Json::array();
  for (const auto& [tenant, s] : state.shares) tenants.push_back(tenant->record.name);
  for (const DeviceBooks::Outside& o : state.outside)
    outside.push_back({{"pid", o.pid}, {"command", o.command}, {"used_bytes", o.used.n}});
  const Bytes context =
      learned_.Context(Learned::Key(source_.devices()[d].name, source_.driver_version(), ""));
  return JsonOf(FiguresOf(d), state.reading, context.n, std::move(tenants), std::move(outside));
}

Json Node::DevicesJson() const {
  const std::lock_guard lock(mutex_);
  Json out = Json::array();
  for (unsigned d = 0; d < devices_.size(); ++d) out.push_back(DeviceJson(d));
  return {{"devices", std::move(out)}};
}

Json Node::TenantJson(const Tenant& tenant) const {
  const TenantRecord& r = tenant.record;
  const TenantFigures figures = FiguresOf(tenant);
  Json shares = Json::array(), devices = Json::array();
  for (unsigned s = 0; s < tenant.shares.size(); ++s) {
    const unsigned d = tenant.shares[s].device;
    const device::Info& info = source_.devices()[d];
    Json kinds = Json::object();
    for (unsigned k = 0; k < region::kKinds; ++k)
      kinds[kKindNames[k]] = KindBytes(tenant, s, static_cast<region::Kind>(k));
    kinds[kKindNames[static_cast<unsigned>(region::Kind::kImport)]] = ImportedBytes(tenant, s);
    shares.push_back(
        ShareJson(r.share, figures, figures.shares[s], info, devices_[d].fault,
                  tenant.segments->policy().device[s].context_bytes.load(std::memory_order_relaxed),
                  std::move(kinds)));
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
          {"devices", std::move(devices)},
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
          {"waiting_for_room", figures.waiting_for_room},
          {"shares", std::move(shares)},
          {"processes", ProcessesJson(tenant)},
          {"awaited", std::move(awaited)},
          {"refusals", tenant.refusals},
          {"findings", std::move(findings)}};
}

namespace {

struct Row {
  pid_t pid = 0;
  uint32_t ns_pid = 0, slot = 0;
  std::string command;
  const char* state = "";
  uint64_t charged = 0, nvml = 0, waiting_for_room = 0;
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
                   {"nvml_bytes", row.nvml},
                   {"waiting_for_room", row.waiting_for_room}});
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
                                                                 : "replaced",
            .waiting_for_room = RoomWaiters(tenant, process)};
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
  return Json{{"tenants", std::move(list)}};
}

void Node::Tick() {
  const std::lock_guard lock(mutex_);
  const uint64_t now = MonotonicNs();
  const bool arbiter_alive = compute_.Alive();
  ++ticks_;
  // Without a process nobody looks; a Hello finds a fresh heartbeat.
  for (Tenant* const there : WhoIsThere().tenants) {
    Tenant& tenant = *there;
    region::Policy& policy = tenant.segments->policy();
    if (arbiter_alive) policy.heartbeat_ns.store(now, std::memory_order_relaxed);
    policy.heartbeat_word.fetch_add(1, std::memory_order_relaxed);
    // Rarely anything to tell, and each look is at cold memory.
    if (ticks_ % 2 == 0) HarvestEvents(tenant);
    if (ticks_ % 4 == 0) TellCompute(tenant);
    EndRecording(tenant, now);
  }
  constexpr uint64_t kHelloWithinNs = 5'000'000'000;
  std::vector<uint64_t> silent;
  for (const auto& [id, connection] : connections_)
    if (connection.slot == 0 && now - connection.since_ns > kHelloWithinNs) silent.push_back(id);
  for (const uint64_t id : silent) CloseConnection(id);
}

}  // namespace divvy::daemon
