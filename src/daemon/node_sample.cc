// The node: what a reading of NVML says of tenants, of what leaves, and of what is outside.
#include <algorithm>

#include "src/base/paths.h"
#include "src/daemon/node.h"
#include "src/region/shared_memory.h"

namespace divvy::daemon {
namespace {

using std::chrono::milliseconds;

// A sample counts when nothing was booked for this long before it: 100 ms for work in progress, and
// NVML's own lag on top.
constexpr uint64_t kStillNs = 220'000'000;
// What a pool gives back to the driver by itself is credited when the program next waits for the
// device: a while after that.
constexpr uint64_t kPoolsSettledNs = 1'500'000'000;
constexpr uint64_t kActiveNs = 2'000'000'000;
constexpr uint64_t kUnsharedNs = 2'000'000'000;
constexpr unsigned kSettled = 3;
constexpr uint64_t kBlock = uint64_t{2} << 20;

}  // namespace

Node::Plan Node::SamplePlan() {
  const std::lock_guard lock(mutex_);
  Plan plan;
  if (tenants_.empty()) return plan;
  bool leaving = false;
  for (const Tenant* tenant : WhoIsThere().tenants)
    for (const auto& [slot, process] : tenant->processes)
      leaving = leaving || process.state == Process::State::kLeaving;
  bool short_of_memory = false;
  for (unsigned d = 0; d < devices_.size(); ++d) {
    // Nobody's device is looked at now and then: a tenant may be where it has no share.
    if (devices_[d].shares.empty() && MonotonicNs() - devices_[d].read_ns < kUnsharedNs) continue;
    plan.devices.push_back(d);
    short_of_memory = short_of_memory || devices_[d].short_of_memory;
  }
  const bool active = MonotonicNs() - last_change_ns_ < kActiveNs;
  const bool nobody = WhoIsThere().tenants.empty();
  plan.next = leaving           ? milliseconds(60)
              : short_of_memory ? milliseconds(100)
              : active          ? milliseconds(250)
              : nobody          ? milliseconds(1000)
                                : milliseconds(500);
  return plan;
}

void Node::Sample(unsigned device) { SampleSince(device, UINT64_MAX); }

void Node::SampleSince(unsigned device, uint64_t asked_ns) {
  const std::lock_guard one_reader(source_mutex_);
  std::map<uint64_t, BooksLook> before;
  uint64_t begin_ns = 0;
  {
    const std::lock_guard lock(mutex_);
    if (devices_[device].read_ns >= asked_ns) return;
    begin_ns = MonotonicNs();
    for (const auto& [tenant, s] : devices_[device].shares)
      if (!Dormant(*tenant, s)) before[tenant->id] = LookAtBooks(*tenant);
  }
  const Result<device::Reading> reading = source_.Read(device);
  const std::vector<device::ProcessUse> uses =
      !before.empty() && reading.ok() ? source_.Uses(device) : std::vector<device::ProcessUse>();
  const std::lock_guard lock(mutex_);
  if (!reading.ok()) {
    if (devices_[device].fault.empty())
      Tell({.cause = "device_fault",
            .device = device::ToString(source_.devices()[device].uuid),
            .message = reading.error().message});
    devices_[device].fault = reading.error().message;
    ReleaseUnread(device);
    return;
  }
  if (!devices_[device].fault.empty())
    Tell({.cause = "device_recovered",
          .device = device::ToString(source_.devices()[device].uuid),
          .message = "NVML answers again"});
  AuditCompute(device, uses);
  PublishUse(device);
  Apply(device, *reading, begin_ns, before);
}

void Node::Apply(unsigned device, const device::Reading& reading, uint64_t begin_ns,
                 const std::map<uint64_t, BooksLook>& looks_before) {
  DeviceState& state = devices_[device];
  state.fault.clear();
  state.reading = reading;
  state.read_ns = begin_ns;
  ++state.readings;
  std::rotate(state.free_history.rbegin(), state.free_history.rbegin() + 1,
              state.free_history.rend());
  state.free_history[0] = reading.free.n;

  struct Sums {
    uint64_t attached = 0, unattached = 0;
  };
  std::map<uint64_t, Sums> sums;
  const auto& owners = WhoIsThere().owner;
  bool figures = reading.lists_processes;
  Bytes listed_sum;
  state.outside.clear();
  for (const device::ProcessMemory& p : reading.processes) {
    figures = figures && p.used.has_value();
    const Bytes used = p.used.value_or(Bytes{});
    listed_sum += used;
    const auto attached = owners.find(p.pid);
    const Attribution* attribution = attached == owners.end() ? &Attribute(p.pid) : nullptr;
    const uint64_t id = attribution != nullptr ? attribution->tenant : attached->second;
    Tenant* tenant = FindTenant(id);
    if (tenant == nullptr) {
      state.outside.push_back({p.pid, attribution != nullptr ? attribution->command : "", used});
      continue;
    }
    Sums& sum = sums[id];
    (attribution == nullptr ? sum.attached : sum.unattached) += used.n;
    const bool has_share = std::any_of(tenant->shares.begin(), tenant->shares.end(),
                                       [&](const Share& s) { return s.device == device; });
    if (!has_share) {
      Report(*tenant, device, "foreign_device", p.pid, used.n,
             "pid " + std::to_string(p.pid) + " uses a GPU it has no share of");
    } else if (attribution != nullptr &&
               std::none_of(tenant->awaited.begin(), tenant->awaited.end(),
                            [&](const ProcessId& a) { return a.pid == p.pid; })) {
      Report(*tenant, device, "no_hello", p.pid, used.n,
             "pid " + std::to_string(p.pid) + " (" + attribution->command +
                 ") uses the GPU without the shim");
    }
  }
  // What is used and no process holds: the driver's own. Without figures only `reserved` is known.
  state.driver = figures ? reading.used.Less(listed_sum) : reading.reserved;
  state.driver = std::max(state.driver, reading.reserved);
  state.outside_unlisted = Bytes{};

  Bytes tenants_sum;
  for (const ShareOf& of : state.shares) {
    Tenant& tenant = *of.tenant;
    const unsigned s = of.share;
    Share& share = tenant.shares[s];
    if (Dormant(tenant, s) && !sums.contains(tenant.id) && share.measured == figures) continue;
    SettleReplaced(tenant);
    const BooksLook now = LookAtBooks(tenant);
    if (now.sequence != share.sequence_seen) {
      share.sequence_seen = now.sequence;
      share.changed_ns = MonotonicNs();
      last_change_ns_ = share.changed_ns;
    }
    const auto looked = looks_before.find(tenant.id);
    const BooksLook before = looked == looks_before.end() ? BooksLook{} : looked->second;
    const bool quiet = looked != looks_before.end() && before.sequence == now.sequence &&
                       share.changed_ns + kStillNs <= begin_ns;
    share.measured = figures;
    share.unattached_bytes = sums[tenant.id].unattached;
    share.nvml_bytes = sums[tenant.id].attached + sums[tenant.id].unattached;
    for (auto& [slot, process] : tenant.processes) {
      Process::OnDevice& on = process.device[s];
      const device::ProcessMemory* p = reading.Find(process.id.pid);
      const uint64_t bytes = p == nullptr ? 0 : p->used.value_or(Bytes{}).n;
      on.settled_readings = quiet && before.still && now.still && bytes == on.nvml_bytes
                                ? on.settled_readings + 1
                                : 0;
      on.nvml_bytes = bytes;
    }
    if (quiet && (!tenant.segments->UsageHeadIntact() || !BooksAgree(tenant, s)))
      Report(tenant, device, "scribbled", 0, 0,
             "its usage segment was written over: its books no longer add up");
    if (figures) {
      Learn(tenant, s);
      Measure(tenant, s, quiet, before);
    }
    ReleaseLeaving(tenant, s, reading, begin_ns, quiet);
    // What was deducted for over-charged contexts goes with them, not a reading later.
    const uint64_t contexts = KindBytes(tenant, s, region::Kind::kContext);
    if (contexts < share.contexts_seen && share.overhead.bytes() < 0)
      share.overhead.RaiseTo(static_cast<int64_t>(static_cast<double>(share.overhead.bytes()) *
                                                  static_cast<double>(contexts) /
                                                  static_cast<double>(share.contexts_seen)));
    share.contexts_seen = contexts;
    region::DoubledOf(tenant.segments->usage(), s) =
        DoubledBytes(tenant, s) / region::kUnitBytes;  // a killed process may have left it wrong
    const uint64_t charged = ChargedBytes(tenant, s);
    tenants_sum += Bytes{charged};
    share.empty = quiet && BookedBytes(tenant, s) == 0 && contexts == 0 && share.nvml_bytes == 0 &&
                  share.overhead.bytes() == 0 && !share.gated && tenant.segments->UsageHeadIntact();
  }
  if (!figures) state.outside_unlisted = reading.used.Less(reading.reserved).Less(tenants_sum);
  CloseFindings(device);
  Publish(device);

  std::vector<uint64_t> ids;
  for (const auto& [tenant, s] : state.shares) {
    PruneAwaited(*tenant);
    if (tenant->runner_gone) ids.push_back(tenant->id);
  }
  for (const uint64_t id : ids)
    if (Tenant* tenant = FindTenant(id)) EndIfOver(*tenant);
  if (attributions_.size() > 4096)  // pids that came and went
    std::erase_if(attributions_, [&](const auto& a) {
      return !Alive({a.first, a.second.start_ticks});
    });
}

const Node::Inhabited& Node::WhoIsThere() {
  if (who_stale_) {
    who_ = {};
    for (auto& [id, tenant] : tenants_) {
      if (!tenant.processes.empty()) who_.tenants.push_back(&tenant);
      for (const auto& [slot, process] : tenant.processes) who_.owner[process.id.pid] = id;
    }
    who_stale_ = false;
  }
  return who_;
}

Node::Attribution& Node::Attribute(pid_t pid) {
  const std::optional<ProcStat> stat = ReadStat(pid);
  const auto known = attributions_.find(pid);
  // Gone from /proc: what was known of it holds until the driver has freed its memory.
  if (known != attributions_.end() && (!stat || stat->start_ticks == known->second.start_ticks) &&
      (known->second.tenant == 0 || FindTenant(known->second.tenant) != nullptr))
    return known->second;
  Attribution a;
  if (stat) {
    a.start_ticks = stat->start_ticks;
    a.tenant = TenantByAncestry(pid);
    a.command = CommandOf(pid);
  }
  return attributions_[pid] = std::move(a);
}

// One runner may have several tenants: then it is `preferred`'s.
uint64_t Node::TenantByAncestry(pid_t pid, uint64_t preferred) const {
  std::unordered_map<pid_t, uint64_t> roots;
  for (const auto& [id, tenant] : tenants_) {
    if (tenant.record.runner.pid != 0 && !tenant.runner_gone) {
      uint64_t& root = roots[tenant.record.runner.pid];
      if (root != preferred || preferred == 0) root = id;
    }
    for (const auto& [slot, process] : tenant.processes)
      if (process.state != Process::State::kLeaving) roots[process.id.pid] = id;
  }
  // The nearest first: a tenant's process may itself run another tenant.
  pid_t at = pid;
  for (int depth = 0; depth < 64 && at > 1; ++depth) {
    if (const auto root = roots.find(at); root != roots.end()) return root->second;
    const std::optional<ProcStat> stat = ReadStat(at);
    if (!stat) break;
    at = stat->parent;
  }
  const std::string cgroup = CgroupOf(pid);
  for (const auto& [id, tenant] : tenants_) {
    const std::string& own = tenant.record.cgroup;
    if (!own.empty() && (cgroup == own || cgroup.starts_with(own + "/"))) return id;
  }
  // Orphaned, but it still carries what `divvy run` gave it.
  const std::string socket = EnvironmentOf(pid, wire::kSocketVariable);
  for (const auto& [id, tenant] : tenants_)
    if (!socket.empty() && socket == paths::TenantsDir(options_.machine_dir) + "/" +
                                         tenant.record.name + "/tenant.sock")
      return id;
  return 0;
}

// A context's cost, from a process whose books and NVML figure have both been still, and that has
// surely finished making it: it holds more than the context, or has not moved for long.
void Node::Learn(Tenant& tenant, unsigned share) {
  if (!BooksAgree(tenant, share)) return;
  const device::Info& info = source_.devices()[tenant.shares[share].device];
  for (const auto& [slot, process] : tenant.processes) {
    const Process::OnDevice& on = process.device[share];
    if (process.state != Process::State::kLive || on.nvml_bytes == 0 || on.settled_readings < 1)
      continue;
    if (SlotImports(tenant, slot, share)) continue;  // NVML may show it with its exporter
    const uint64_t charged = SlotBytes(tenant, slot, share);
    const uint64_t context = SlotContextBytes(tenant, slot, share);
    if (context == 0 || context > charged) continue;
    if (charged == context && on.settled_readings < kSettled) continue;
    const uint64_t rest = charged - context;
    if (on.nvml_bytes <= rest) continue;
    const std::string key =
        Learned::Key(info.name, source_.driver_version(), tenant.module_loading);
    if (!learned_.Add(key, tenant.id, Bytes{on.nvml_bytes - rest})) continue;
    dirty_ = true;
    for (auto& [id, other] : tenants_)
      for (unsigned s = 0; s < other.shares.size(); ++s) {
        const device::Info& its = source_.devices()[other.shares[s].device];
        if (Learned::Key(its.name, source_.driver_version(), other.module_loading) == key)
          other.segments->policy().device[s].context_bytes = learned_.Context(key).n;
      }
  }
}

void Node::Measure(Tenant& tenant, unsigned share_index, bool quiet, const BooksLook& before) {
  Share& share = tenant.shares[share_index];
  const device::Info& info = source_.devices()[share.device];
  const std::string key = Learned::Key(info.name, source_.driver_version(), tenant.module_loading);
  const auto contexts =
      static_cast<int64_t>(KindBytes(tenant, share_index, region::Kind::kContext));
  int64_t with_context = 0;
  bool settled = true;  // every context is known to be made
  bool listed = true;   // nobody with charges is gone, or about to be found so
  for (const auto& [slot, process] : tenant.processes) {
    const uint64_t context = SlotContextBytes(tenant, slot, share_index);
    const uint64_t held = SlotBytes(tenant, slot, share_index);
    listed = listed && (held == 0 || process.device[share_index].nvml_bytes != 0);
    if (context == 0) continue;
    ++with_context;
    const bool more = held > context;
    settled = settled && (more || process.device[share_index].settled_readings >= kSettled);
  }
  // A process may have several contexts, each charged.
  with_context = std::max(with_context, contexts / static_cast<int64_t>(learned_.Context(key).n));
  const int64_t attached = static_cast<int64_t>(share.nvml_bytes - share.unattached_bytes);
  const int64_t charged = static_cast<int64_t>(ChargedBytes(tenant, share_index));
  const bool pools = KindBytes(tenant, share_index, region::Kind::kPool) != 0 ||
                     KindBytes(tenant, share_index, region::Kind::kGraph) != 0;
  // Last: what was read above is of the reading's moment if the books are as they were before it.
  const BooksLook now = LookAtBooks(tenant);
  const bool comparable =
      quiet && before.still && now.still && before.sequence == now.sequence && listed &&
      LeavingBytes(tenant, share_index) == 0 &&
      (!pools || share.changed_ns + kPoolsSettledNs <= devices_[share.device].read_ns);
  Overhead::Sample sample{
      .gap_bytes = attached - charged,
      .ceiling_bytes = with_context * static_cast<int64_t>(learned_.Ceiling(key).n) - contexts,
      .import_bytes = static_cast<int64_t>(ImportedBytes(tenant, share_index)),
      .floor_bytes = -contexts + contexts / 8,
      .quiet = quiet,
      .comparable = comparable};
  if (!settled && sample.gap_bytes < 0) sample.gap_bytes = 0;
  const int64_t beyond = share.overhead.Add(sample);
  // Whatever it charges, and however restless it is: more than every limit that was in force, for
  // longer than NVML lags.
  const int64_t held = attached - std::max<int64_t>(sample.ceiling_bytes, 0);
  const int64_t over =
      std::max(held - static_cast<int64_t>(share.highest_limit), charged - share.highest_room) -
      static_cast<int64_t>(kBlock);
  share.over_readings = over > 0 ? share.over_readings + 1 : 0;
  const bool beyond_share = share.over_readings >= kSettled;
  const bool beyond_charges = beyond > static_cast<int64_t>(kBlock);
  if (!beyond_share && !beyond_charges) return;
  pid_t worst = 0;
  int64_t most = 0;
  for (const auto& [slot, process] : tenant.processes) {
    const int64_t gap = static_cast<int64_t>(process.device[share_index].nvml_bytes) -
                        static_cast<int64_t>(SlotBytes(tenant, slot, share_index));
    if (process.state == Process::State::kLive && gap > most) {
      most = gap;
      worst = process.id.pid;
    }
  }
  if (beyond_charges)
    Report(tenant, share.device, "beyond_charges", worst, static_cast<uint64_t>(beyond),
           "holds " + ToString(Bytes{static_cast<uint64_t>(beyond)}) +
               " more than it charged and contexts explain");
  if (beyond_share)
    Report(tenant, share.device, "beyond_share", worst, static_cast<uint64_t>(over),
           "holds or charged " + ToString(Bytes{static_cast<uint64_t>(over)}) +
               " more than its share ever was");
}

}  // namespace divvy::daemon
