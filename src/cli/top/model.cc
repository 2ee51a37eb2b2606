#include "src/cli/top/model.h"

namespace divvy::cli::top {
namespace {

using nlohmann::json;

const json* Find(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() ? nullptr : &*it;
}

const json& List(const json& object, const char* key) {
  static const json none = json::array();
  const json* found = Find(object, key);
  return found != nullptr && found->is_array() ? *found : none;
}

std::string Text(const json& object, const char* key) {
  const json* found = Find(object, key);
  return found != nullptr && found->is_string() ? Printable(found->get<std::string>()) : "";
}

uint64_t Whole(const json& object, const char* key) {
  const json* found = Find(object, key);
  if (found == nullptr || !found->is_number_integer()) return 0;
  return found->is_number_unsigned() || *found >= 0 ? found->get<uint64_t>() : 0;
}

std::optional<double> Maybe(const json& object, const char* key) {
  const json* found = Find(object, key);
  return found != nullptr && found->is_number() ? std::optional(found->get<double>())
                                                : std::nullopt;
}

bool Flag(const json& object, const char* key) {
  const json* found = Find(object, key);
  return found != nullptr && found->is_boolean() && found->get<bool>();
}

ProcessRow ProcessOf(const json& p) {
  return {.pid = static_cast<int>(Whole(p, "pid")),
          .command = Text(p, "command"),
          .state = Text(p, "state"),
          .used_bytes = Whole(p, "used_bytes")};
}

std::string Joined(const json& words) {
  std::string line;
  for (const json& word : words)
    if (word.is_string()) line += (line.empty() ? "" : " ") + word.get<std::string>();
  return Printable(line);
}

// In few letters, the worst first.
std::string StateOf(const json& tenant, const json& share, const json& compute) {
  std::string out;
  const auto add = [&](bool is, const char* word) {
    if (is) out += (out.empty() ? "" : ",") + std::string(word);
  };
  const json& findings = List(tenant, "findings");
  bool found = false;
  for (const json& f : findings) found = found || Flag(f, "active");
  add(found, "finding");
  add(Text(share, "health") != "ok", "fault");
  add(Flag(share, "over"), "over");
  add(Flag(tenant, "paused"), "paused");
  add(Whole(tenant, "waiting_for_room") > 0, "no room");
  add(Flag(compute, "distrusted"), "garbage");
  add(Flag(compute, "throttled_by_cap"), "capped");
  add(Flag(compute, "entangled"), "entangled");
  add(Flag(compute, "stalled"), "stalled");
  const std::string state = Text(tenant, "state");
  add(state != "running", state.c_str());
  return out.empty() ? "ok" : out;
}

void AddTenant(const std::string& machine, const json& tenant, Model& model) {
  uint64_t refusals = 0;
  if (const json* by_cause = Find(tenant, "refusals"); by_cause != nullptr && by_cause->is_object())
    for (const json& count : *by_cause)
      if (count.is_number_unsigned()) refusals += count.get<uint64_t>();
  bool first = true;
  for (const json& share : List(tenant, "shares")) {
    const json* compute_json = Find(share, "compute");
    const json compute = compute_json != nullptr ? *compute_json : json::object();
    ShareRow row{.machine = machine,
                 .tenant = Text(tenant, "name"),
                 .uuid = Text(share, "device"),
                 .share_class = Text(tenant, "class"),
                 .state = StateOf(tenant, share, compute),
                 .command = Joined(List(tenant, "command")),
                 .index = static_cast<unsigned>(Whole(share, "index")),
                 .used_bytes = Whole(share, "used_bytes"),
                 .limit_bytes = Whole(share, "limit_bytes"),
                 .metered = Flag(compute, "metered"),
                 .paused = Flag(tenant, "paused"),
                 .over = Flag(share, "over"),
                 .got_1s = Maybe(compute, "used_percent_1s"),
                 .got_60s = Maybe(compute, "used_percent_60s"),
                 .wanted_1s = Maybe(compute, "wanted_percent_1s"),
                 .wanted_60s = Maybe(compute, "wanted_percent_60s"),
                 .guaranteed = Maybe(compute, "percent").value_or(0),
                 .cap = Maybe(compute, "max_percent").value_or(100),
                 .part = Maybe(compute, "part_percent").value_or(0),
                 .wait_percent = Maybe(compute, "gate_wait_percent").value_or(0),
                 .refusals = refusals};
    for (const json& p : List(tenant, "processes")) {
      ++row.process_count;
      if (first) row.processes.push_back(ProcessOf(p));
    }
    first = false;
    model.shares.push_back(std::move(row));
  }
}

}  // namespace

std::string Printable(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte & 0xc0) == 0x80) continue;  // the rest of a character of UTF-8
    out += byte >= 0x20 && byte < 0x7f ? c : '?';
  }
  return out;
}

void AddMachine(const std::string& machine, const json& devices, const json& tenants,
                Model& model) {
  const size_t first_share = model.shares.size();
  for (const json& tenant : List(tenants, "tenants")) AddTenant(machine, tenant, model);
  for (const json& d : List(devices, "devices")) {
    DeviceRow row{.machine = machine,
                  .uuid = Text(d, "uuid"),
                  .name = Text(d, "name"),
                  .health = Text(d, "health"),
                  .cordon = Text(d, "cordon_reason"),
                  .index = static_cast<unsigned>(Whole(d, "index")),
                  .total_bytes = Whole(d, "total_bytes"),
                  .used_bytes = Whole(d, "used_bytes"),
                  .promised_bytes = Whole(d, "promised_bytes"),
                  .outside_bytes = Whole(d, "outside_bytes")};
    for (const json& p : List(d, "outside")) row.outside.push_back(ProcessOf(p));
    for (size_t s = first_share; s < model.shares.size(); ++s) {
      const ShareRow& share = model.shares[s];
      if (share.uuid != row.uuid) continue;
      ++row.tenants;
      row.promised_percent += share.guaranteed;
      if (share.got_1s) row.used_percent = row.used_percent.value_or(0) + *share.got_1s;
    }
    model.devices.push_back(std::move(row));
  }
}

}  // namespace divvy::cli::top
