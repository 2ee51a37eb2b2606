// The node: what `divvy record` reads. While a tenant is recorded its gates ask for a marker around
// each operation, and its shim writes lengths and gaps into its usage segment (no data).
#include <algorithm>

#include "src/daemon/node.h"

namespace divvy::daemon {
namespace {

using Json = nlohmann::json;
constexpr unsigned kKindsOfOperation = 4;

// One entry, copied from memory that may change under us: whole if the number is the same after.
bool Copy(const region::OperationRecord& r, uint64_t sequence, unsigned devices, Json& out) {
  if (r.sequence.load(std::memory_order_acquire) != sequence) return false;  // pairs with the shim
  const auto get = [](const auto& field) {
    return std::atomic_ref(const_cast<std::remove_cvref_t<decltype(field)>&>(field))
        .load(std::memory_order_acquire);
  };
  const uint32_t length = r.length.load(std::memory_order_acquire);
  const uint32_t gap = r.gap.load(std::memory_order_acquire);
  const uint32_t key = r.key.load(std::memory_order_acquire);
  const unsigned device = get(r.device), kind = get(r.kind), synced = get(r.synced);
  if (r.sequence.load(std::memory_order_relaxed) != sequence) return false;
  if (device >= devices || kind >= kKindsOfOperation) return false;
  out = {length, gap, key, device, kind, synced != 0 ? 1 : 0};
  return true;
}

}  // namespace

Result<Json> Node::StartRecording(const std::string& name, uint64_t for_ms) {
  const std::lock_guard lock(mutex_);
  Tenant* tenant = FindTenant(name);
  if (tenant == nullptr) return NotFound("there is no tenant '" + name + "'");
  tenant->record_until_ns = MonotonicNs() + for_ms * 1'000'000;
  compute_.Record(tenant->id, true);
  return Json{{"head", tenant->segments->usage().record_head.load(std::memory_order_acquire)},
              {"dilation", DilationOf(options_.sim_profile)}};
}

Status Node::StopRecording(const std::string& name) {
  const std::lock_guard lock(mutex_);
  Tenant* tenant = FindTenant(name);
  if (tenant == nullptr) return NotFound("there is no tenant '" + name + "'");
  tenant->record_until_ns = 0;
  compute_.Record(tenant->id, false);
  return {};
}

Result<Json> Node::Records(const std::string& name, uint64_t since) const {
  std::shared_ptr<Segments> segments;
  unsigned devices = 0;
  bool recording = false;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, tenant] : tenants_) {
      if (tenant.record.name != name) continue;
      segments = tenant.segments;
      devices = static_cast<unsigned>(tenant.shares.size());
      recording = tenant.record_until_ns != 0;
    }
  }
  if (segments == nullptr) return NotFound("there is no tenant '" + name + "'");
  // Without the lock: the pages stay mapped as long as this does.
  const region::Usage& usage = segments->usage();
  const uint64_t head = usage.record_head.load(std::memory_order_acquire);
  uint64_t from = std::min(since, head), lost = 0;
  if (head - from > region::kMaxRecords) {
    lost = head - from - region::kMaxRecords;
    from = head - region::kMaxRecords;
  }
  Json records = Json::array();
  for (uint64_t n = from; n < head; ++n) {
    Json one;
    if (Copy(usage.record[n % region::kMaxRecords], n + 1, devices, one))
      records.push_back(std::move(one));
    else
      ++lost;
  }
  return Json{{"head", head}, {"lost", lost}, {"recording", recording}, {"records", records}};
}

// A recorder that went away must not leave its tenant slowed down.
void Node::EndRecording(Tenant& tenant, uint64_t now) {
  if (tenant.record_until_ns == 0 || now < tenant.record_until_ns) return;
  tenant.record_until_ns = 0;
  compute_.Record(tenant.id, false);
}

}  // namespace divvy::daemon
