#include "src/daemon/watch_frame.h"

#include <cmath>
#include <utility>

namespace divvy::daemon {
namespace {

using Json = nlohmann::json;

double Rounded(double percent) { return std::round(percent * 100) / 100; }

Json DeviceJson(const DeviceFigures& d) {
  return {{"uuid", d.uuid},
          {"index", d.index},
          {"name", d.name},
          {"total_bytes", d.total_bytes},
          {"used_bytes", d.used_bytes},
          {"driver_reserved_bytes", d.driver_bytes},
          {"outside_bytes", d.outside_bytes},
          {"outside_processes", d.outside_processes},
          {"promised_bytes", d.promised_bytes},
          {"leaving_bytes", d.leaving_bytes},
          {"free_to_promise_bytes", d.free_to_promise_bytes},
          {"compute_promised_percent", Rounded(d.compute_promised_percent)},
          {"health", d.fault.empty() ? "ok" : d.fault},
          {"cordoned", !d.cordon.empty()}};
}

Json ShareJson(const ShareFigures& s, const DeviceFigures& device) {
  return {{"device", device.uuid},
          {"index", device.index},
          {"limit_bytes", s.limit_bytes},
          {"promised_bytes", s.promised_bytes},
          {"used_bytes", s.used_bytes},
          {"overhead_bytes", s.overhead_bytes},
          {"leaving_bytes", s.leaving_bytes},
          {"over", s.over},
          {"gated", s.shut_by_audit},
          {"part_percent", Rounded(s.part_percent)},
          {"metered", s.metered},
          {"used_percent_1s", s.known ? Json(Rounded(s.used_percent_1s)) : Json()},
          {"used_percent_60s", s.known ? Json(Rounded(s.used_percent_60s)) : Json()},
          {"used_ns", s.used_ns},
          {"operations", s.operations},
          {"gate_wait_percent", Rounded(s.gate_wait_percent)},
          {"throttled_by_cap", s.shut_by_cap}};
}

Json TenantJson(const TenantFigures& t, const Figures& all) {
  Json shares = Json::array();
  for (const ShareFigures& s : t.shares) shares.push_back(ShareJson(s, all.devices[s.device]));
  uint64_t refusals = 0;
  for (const auto& [cause, count] : t.refusals) refusals += count;
  return {{"name", t.name},
          {"command", t.command},
          {"class", t.share_class},
          {"state", t.state},
          {"waiting_for_room", t.waiting_for_room},
          {"paused", t.paused},
          {"cooperative", t.cooperative},
          {"processes", t.processes},
          {"compute_percent", t.guaranteed_percent},
          {"compute_max_percent", t.cap_percent},
          {"weight", t.weight},
          {"refusals", refusals},
          {"findings", t.findings.size()},
          {"shares", std::move(shares)}};
}

}  // namespace

Json SnapshotJson(const Figures& figures) {
  Json devices = Json::array(), tenants = Json::array();
  for (const DeviceFigures& d : figures.devices) devices.push_back(DeviceJson(d));
  for (const TenantFigures& t : figures.tenants) tenants.push_back(TenantJson(t, figures));
  return {{"time", figures.time}, {"devices", std::move(devices)}, {"tenants", std::move(tenants)}};
}

Json EventJson(const Event& e) {
  return {{"seq", e.sequence},
          {"time", e.time},
          {"kind", e.kind},
          {"cause", e.cause},
          {"severity", ToString(e.severity)},
          {"tenant", e.tenant},
          {"pid", e.pid},
          {"command", e.command},
          {"device", e.device},
          {"bytes", e.bytes},
          {"limit_bytes", e.limit_bytes},
          {"symbol", e.symbol},
          {"call", e.call},
          {"suppressed", e.suppressed},
          {"message", e.message}};
}

std::string Frame(const char* type, uint64_t id, const Json& data) {
  std::string out = std::string("event: ") + type + "\n";
  if (id != 0) out += "id: " + std::to_string(id) + "\n";
  // One line: JSON has no line breaks of its own. Bytes that are not UTF-8 are replaced.
  out += "data: " + data.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n\n";
  return out;
}

}  // namespace divvy::daemon
