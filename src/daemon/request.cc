#include "src/daemon/request.h"

#include <cmath>
#include <set>

#include "src/region/layout.h"

namespace divvy::daemon {
namespace {

using Json = nlohmann::json;

// At most `longest` bytes, and no character of UTF-8 cut in two: half of one is no JSON text.
std::string Cut(std::string text, size_t longest) {
  if (text.size() <= longest) return text;
  while (longest > 0 && (static_cast<unsigned char>(text[longest]) & 0xc0) == 0x80) --longest;
  text.resize(longest);
  return text;
}

// Reads fields of one object, each at most once, and remembers the first error. What was not asked
// for by name is unknown, and unknown is an error: a misspelt limit must not be no limit.
class Fields {
 public:
  explicit Fields(const Json& object, std::string prefix = "")
      : object_(object), prefix_(std::move(prefix)) {
    if (!object.is_object())
      Fail(prefix_.empty() ? "the body is not a JSON object" : prefix_ + " is not an object");
  }

  const Json* Take(const char* name) {
    asked_.insert(name);
    if (error_ || !object_.is_object()) return nullptr;
    const auto it = object_.find(name);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  void Fail(const std::string& message) {
    if (!error_) error_ = Invalid(message);
  }
  void Bad(const char* name, const char* wanted) { Fail(prefix_ + name + " must be " + wanted); }

  std::optional<uint64_t> Integer(const char* name, uint64_t low, uint64_t high,
                                  const char* wanted) {
    const Json* v = Take(name);
    if (v == nullptr) return std::nullopt;
    if (v->is_number_unsigned() && v->get<uint64_t>() >= low && v->get<uint64_t>() <= high)
      return v->get<uint64_t>();
    Bad(name, wanted);
    return std::nullopt;
  }
  std::optional<Bytes> Memory(const char* name) {
    const auto n = Integer(name, 1, region::kMaxUnits * region::kUnitBytes,
                           "a whole number of bytes, from 1 to 32 TiB");
    return n ? std::optional(Bytes{*n}) : std::nullopt;
  }
  std::optional<Percent> PercentOf(const char* name, bool zero) {
    const Json* v = Take(name);
    if (v == nullptr) return std::nullopt;
    if (v->is_number()) {
      const double n = v->get<double>();
      if (std::isfinite(n) && ((n >= 0.001 && n <= 100) || (zero && n == 0)))
        return Percent{static_cast<uint32_t>(std::lround(n * 1000))};
    }
    Bad(name, zero ? "a number up to 100, 0 for none" : "a number above 0 and up to 100");
    return std::nullopt;
  }
  std::optional<bool> Bool(const char* name) {
    const Json* v = Take(name);
    if (v == nullptr) return std::nullopt;
    if (v->is_boolean()) return v->get<bool>();
    Bad(name, "true or false");
    return std::nullopt;
  }
  std::optional<std::string> Text(const char* name, size_t longest) {
    const Json* v = Take(name);
    if (v == nullptr) return std::nullopt;
    if (v->is_string() && v->get_ref<const std::string&>().size() <= longest)
      return v->get<std::string>();
    Bad(name, "a (short) text");
    return std::nullopt;
  }
  std::optional<Class> ClassOf(const char* name) {
    const std::optional<std::string> text = Text(name, 32);
    if (!text) return std::nullopt;
    for (const Class c : {Class::kLatency, Class::kStandard, Class::kBatch})
      if (*text == ToString(c)) return c;
    Bad(name, "latency, standard or batch");
    return std::nullopt;
  }
  std::optional<uint32_t> OnFull(const char* name) {
    const Json* v = Take(name);
    if (v == nullptr) return std::nullopt;
    Fields inner(*v, std::string(name) + ".");
    const std::optional<std::string> mode = inner.Text("mode", 8);
    const auto wait = inner.Integer("wait_ms", 1, 86'400'000, "1 ms to one day");
    if (Status s = inner.Done(); !s.ok()) {
      Fail(s.error().message);
    } else if (mode == "fail" && !wait) {
      return 0;
    } else if (mode == "wait") {
      return static_cast<uint32_t>(wait.value_or(30'000));
    } else {
      Bad(name, R"({"mode":"fail"} or {"mode":"wait","wait_ms":N})");
    }
    return std::nullopt;
  }
  std::vector<std::string> Texts(const char* name, size_t most, size_t longest, bool cut) {
    std::vector<std::string> out;
    const Json* v = Take(name);
    if (v == nullptr) return out;
    if (!v->is_array()) Bad(name, "a list of texts");
    for (const Json& item : *v) {
      if (out.size() == most) {
        if (!cut) Bad(name, "a shorter list");
        break;
      }
      if (item.is_string() && (cut || item.get_ref<const std::string&>().size() <= longest)) {
        out.push_back(Cut(item.get<std::string>(), longest));
      } else if (item.is_number_unsigned() && item.get<uint64_t>() < 1'000'000) {
        out.push_back(std::to_string(item.get<uint64_t>()));
      } else {
        Bad(name, "a list of texts");
        break;
      }
    }
    return out;
  }
  ProcessId Process(const char* name) {
    const Json* v = Take(name);
    if (v == nullptr) return {};
    return ProcessOf(*v);
  }
  ProcessId ProcessOf(const Json& v) {
    Fields inner(v, "process.");
    ProcessId id;
    id.pid = static_cast<pid_t>(inner.Integer("pid", 0, 1 << 30, "a pid").value_or(0));
    id.start_ticks = inner.Integer("start", 0, UINT64_MAX, "a start time").value_or(0);
    if (Status s = inner.Done(); !s.ok()) Fail(s.error().message);
    return id;
  }

  Status Done() {
    if (!error_ && object_.is_object())
      for (const auto& [key, value] : object_.items())
        if (!asked_.contains(key)) Fail("unknown field '" + prefix_ + key.substr(0, 64) + "'");
    return error_ ? Status(*error_) : Status();
  }

 private:
  const Json& object_;
  std::string prefix_;
  std::set<std::string> asked_;
  std::optional<Error> error_;
};

// `change`: of a share that is there, whose promise 0 takes away.
TenantPatch TakePatch(Fields& f, bool change) {
  TenantPatch p;
  p.mem = f.Memory("mem_bytes");
  p.mem_max = f.Memory("mem_max_bytes");
  p.compute = f.PercentOf("compute_percent", change);
  p.compute_max = f.PercentOf("compute_max_percent", false);
  const auto weight = f.Integer("weight", 1, 10'000, "1 to 10000");
  if (weight) p.weight = static_cast<uint32_t>(*weight);
  p.share_class = f.ClassOf("class");
  p.on_full_wait_ms = f.OnFull("on_full");
  p.paused = f.Bool("paused");
  return p;
}

Result<Json> Parse(const std::string& body) {
  Json j = Json::parse(body, nullptr, false);
  if (j.is_discarded()) return Invalid("the body is not JSON");
  return j;
}

}  // namespace

const char* ToString(Class c) {
  switch (c) {
    case Class::kLatency:
      return "latency";
    case Class::kStandard:
      return "standard";
    case Class::kBatch:
      return "batch";
  }
  return "?";
}

std::string ToText(const ShareSpec& share) {
  std::string text = ToString(share.mem);
  if (share.compute.milli != 0) text += ", " + ToString(share.compute) + " of the compute";
  if (share.compute_max.milli < 100'000) text += ", at most " + ToString(share.compute_max);
  if (share.weight != 0) text += ", weight " + std::to_string(share.weight);
  if (share.share_class != Class::kStandard)
    text += ", class " + std::string(ToString(share.share_class));
  return share.paused ? text + ", paused" : text;
}

bool ValidName(const std::string& name) {
  if (name.empty() || name.size() >= region::kNameBytes) return false;
  for (const char& c : name) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!letter && (&c == name.data() || (c != '.' && c != '_' && c != '-'))) return false;
  }
  return true;
}

Result<ShareSpec> Patched(const ShareSpec& share, const TenantPatch& patch) {
  ShareSpec s = share;
  if (patch.mem) {
    s.mem = *patch.mem;
    if (!patch.mem_max && (share.mem_max == share.mem || s.mem_max < s.mem)) s.mem_max = s.mem;
  }
  if (patch.mem_max) s.mem_max = *patch.mem_max;
  if (s.mem_max < s.mem)
    return Invalid("mem_max_bytes (" + ToString(s.mem_max) + ") is less than mem_bytes (" +
                   ToString(s.mem) + ")");
  if (patch.compute) s.compute = *patch.compute;
  if (patch.compute_max) s.compute_max = *patch.compute_max;
  if (s.compute_max < s.compute)
    return Invalid("compute_max_percent (" + ToString(s.compute_max) +
                   ") is less than compute_percent (" + ToString(s.compute) + ")");
  if (patch.weight) s.weight = *patch.weight;
  if (patch.share_class) s.share_class = *patch.share_class;
  if (s.share_class == Class::kBatch && s.compute.milli != 0)
    return Invalid("class batch is promised no compute, it gets what the others leave; " +
                   std::string(patch.compute ? "leave compute_percent out"
                                             : "take the promise away with compute_percent 0") +
                   ", or choose class standard");
  if (patch.on_full_wait_ms) s.on_full_wait_ms = *patch.on_full_wait_ms;
  if (patch.paused) s.paused = *patch.paused;
  return s;
}

Result<TenantRequest> ParseTenantRequest(const std::string& body) {
  const Result<Json> j = Parse(body);
  if (!j.ok()) return j.error();
  Fields f(*j);
  TenantRequest r;
  r.name = f.Text("name", 255).value_or("");
  if (!r.name.empty() && !ValidName(r.name))
    f.Fail("name must be 1 to 63 letters, digits, '.', '_' or '-', the first a letter or digit");
  r.gpus = f.Texts("gpus", region::kMaxDevices, 64, false);
  const auto count =
      f.Integer("gpu_count", 1, region::kMaxDevices, "a number of devices from 1 to 16");
  if (count && !r.gpus.empty()) f.Fail("give gpus or gpu_count, not both");
  r.gpu_count = static_cast<unsigned>(count.value_or(1));
  const TenantPatch patch = TakePatch(f, false);
  r.runner_pid = static_cast<pid_t>(f.Integer("runner_pid", 0, 1 << 30, "a pid").value_or(0));
  r.cgroup = f.Text("cgroup", 4096).value_or("");
  r.command = f.Texts("command", 32, 200, true);
  r.cooperative = f.Bool("cooperative").value_or(false);
  r.overcommit = f.Bool("overcommit").value_or(false);
  if (Status s = f.Done(); !s.ok()) return s.error();
  if (!patch.mem) return Invalid("mem_bytes is missing: how much memory the share has");
  const Result<ShareSpec> share = Patched(ShareSpec{}, patch);
  if (!share.ok()) return share.error();
  r.share = *share;
  return r;
}

Result<TenantPatch> ParseTenantPatch(const std::string& body) {
  const Result<Json> j = Parse(body);
  if (!j.ok()) return j.error();
  Fields f(*j);
  const TenantPatch p = TakePatch(f, true);
  if (Status s = f.Done(); !s.ok()) return s.error();
  if (j->empty()) return Invalid("nothing to change was given");
  return p;
}

Result<DevicePatch> ParseDevicePatch(const std::string& body) {
  const Result<Json> j = Parse(body);
  if (!j.ok()) return j.error();
  Fields f(*j);
  const auto cordoned = f.Bool("cordoned");
  const auto reason = f.Text("reason", 200);
  if (Status s = f.Done(); !s.ok()) return s.error();
  if (!cordoned) return Invalid("cordoned is missing: true or false");
  return DevicePatch{*cordoned, reason.value_or("")};
}

Result<uint64_t> ParseRecording(const std::string& body) {
  const Result<Json> j = Parse(body);
  if (!j.ok()) return j.error();
  Fields f(*j);
  const auto for_ms = f.Integer("for_ms", 1, 3'600'000, "1 ms to one hour");
  if (Status s = f.Done(); !s.ok()) return s.error();
  if (!for_ms) return Invalid("for_ms is missing: how long to record");
  return *for_ms;
}

Json ToJson(const TenantRecord& r) {
  const auto id = [](const ProcessId& p) {
    return Json{{"pid", static_cast<unsigned>(p.pid)}, {"start", p.start_ticks}};
  };
  Json j{{"name", r.name},
         {"devices", r.device_uuids},
         {"mem_bytes", r.share.mem.n},
         {"mem_max_bytes", r.share.mem_max.n},
         {"compute_max_percent", r.share.compute_max.milli / 1000.0},
         {"class", ToString(r.share.share_class)},
         {"runner", id(r.runner)},
         {"runner_uid", r.runner_uid},
         {"cgroup", r.cgroup},
         {"command", r.command},
         {"cooperative", r.cooperative},
         {"overcommit", r.overcommit},
         {"created", r.created},
         {"processes", Json::array()}};
  if (r.share.compute.milli != 0) j["compute_percent"] = r.share.compute.milli / 1000.0;
  if (r.share.weight != 0) j["weight"] = r.share.weight;
  if (r.share.paused) j["paused"] = true;
  if (r.share.on_full_wait_ms != 0)
    j["on_full"] = {{"mode", "wait"}, {"wait_ms", r.share.on_full_wait_ms}};
  for (const ProcessId& p : r.processes) j["processes"].push_back(id(p));
  return j;
}

Result<TenantRecord> RecordFromJson(const Json& j) {
  Fields f(j);
  TenantRecord r;
  r.name = f.Text("name", 255).value_or("");
  if (!ValidName(r.name)) f.Fail("a tenant has a bad name");
  r.device_uuids = f.Texts("devices", region::kMaxDevices, 64, false);
  TenantPatch patch = TakePatch(f, false);
  // What former versions let it promise was never kept.
  if (patch.share_class == Class::kBatch) patch.compute.reset();
  r.runner = f.Process("runner");
  r.runner_uid = static_cast<uid_t>(f.Integer("runner_uid", 0, UINT32_MAX, "a uid").value_or(0));
  r.cgroup = f.Text("cgroup", 4096).value_or("");
  r.command = f.Texts("command", 32, 200, true);
  r.cooperative = f.Bool("cooperative").value_or(false);
  r.overcommit = f.Bool("overcommit").value_or(false);
  if (const Json* v = f.Take("created"); v != nullptr && v->is_number()) r.created = *v;
  if (const Json* v = f.Take("processes"); v != nullptr && v->is_array())
    for (const Json& p : *v) r.processes.push_back(f.ProcessOf(p));
  if (Status s = f.Done(); !s.ok()) return s.error();
  if (!patch.mem || r.device_uuids.empty()) return Invalid("a tenant without a share");
  const Result<ShareSpec> share = Patched(ShareSpec{}, patch);
  if (!share.ok()) return share.error();
  r.share = *share;
  return r;
}

}  // namespace divvy::daemon
