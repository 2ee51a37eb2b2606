// JSON to Mix and back.
#include "src/arbiter/model/mix_file.h"

#include <cerrno>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

namespace divvy::arbiter::model {
namespace {

using nlohmann::json;
constexpr double kLongestUs = 1e9;
constexpr size_t kMostTenants = 256;

// Thrown inside this file only, turned into an Error at its border.
struct Bad {
  std::string message;
};
[[noreturn]] void Fail(const std::string& where, const std::string& what) {
  throw Bad{(where.empty() ? "" : where + ": ") + what};
}

const std::map<std::string, StepKind> kSteps = {{"kernel", StepKind::kKernel},
                                                {"graph", StepKind::kGraph},
                                                {"copy", StepKind::kCopy},
                                                {"sync", StepKind::kSync},
                                                {"think", StepKind::kThink},
                                                {"arrive", StepKind::kArrive},
                                                {"collective", StepKind::kCollective},
                                                {"meet", StepKind::kMeet}};
const std::map<std::string, TenantClass> kClasses = {{"latency", TenantClass::kLatency},
                                                     {"standard", TenantClass::kStandard},
                                                     {"batch", TenantClass::kBatch}};
struct MachineField {
  const char* name;
  double Machine::*field;
};
const MachineField kMachine[] = {{"slice_us", &Machine::slice_us},
                                 {"switch_us", &Machine::switch_us},
                                 {"poll_late_us", &Machine::poll_late_us},
                                 {"gate_wake_us", &Machine::gate_wake_us},
                                 {"bound_wake_us", &Machine::bound_wake_us},
                                 {"sync_wake_us", &Machine::sync_wake_us},
                                 {"tail_us", &Machine::tail_us},
                                 {"marker_us", &Machine::marker_us}};

template <typename T>
std::string NameOf(const std::map<std::string, T>& names, T value) {
  for (const auto& [name, v] : names) {
    if (v == value) return name;
  }
  return "";
}

void Only(const json& j, const std::string& where, const std::set<std::string>& known) {
  if (!j.is_object()) Fail(where, "must be an object");
  for (const auto& [key, value] : j.items()) {
    if (!known.contains(key)) Fail(where, "unknown field '" + key + "'");
  }
}

double Number(const json& j, const std::string& where, double low, double high) {
  if (!j.is_number()) Fail(where, "must be a number");
  const double x = j.get<double>();
  if (!(x >= low && x <= high)) {
    std::ostringstream text;
    text << "must be between " << low << " and " << high;
    Fail(where, text.str());
  }
  return x;
}
double NumberAt(const json& j, const std::string& where, const char* key, double otherwise,
                double low, double high) {
  return j.contains(key) ? Number(j[key], where + "." + key, low, high) : otherwise;
}
std::string TextAt(const json& j, const std::string& where, const char* key) {
  if (!j.contains(key)) return "";
  if (!j[key].is_string()) Fail(where + "." + key, "must be a string");
  return j[key].get<std::string>();
}

Duration ParseDuration(const json& j, const std::string& where) {
  if (j.is_number()) return Duration::Constant(Number(j, where, 0, kLongestUs));
  Only(j, where, {"mean", "spread", "exponential", "histogram", "sequence"});
  Duration d;
  if (j.contains("sequence")) {
    d.kind = Duration::Kind::kSequence;
    if (!j["sequence"].is_array() || j["sequence"].empty()) Fail(where, "an empty sequence");
    for (const json& x : j["sequence"]) {
      d.sequence_us.push_back(Number(x, where + ".sequence", 0, kLongestUs));
    }
  } else if (j.contains("histogram")) {
    d.kind = Duration::Kind::kHistogram;
    if (!j["histogram"].is_array() || j["histogram"].empty()) Fail(where, "an empty histogram");
    for (const json& bin : j["histogram"]) {
      if (!bin.is_array() || bin.size() != 2) Fail(where, "a bin is [microseconds, count]");
      d.bins.push_back({Number(bin[0], where + ".histogram", 0, kLongestUs),
                        Number(bin[1], where + ".histogram", 1e-9, 1e18)});
    }
  } else if (j.contains("exponential")) {
    d = Duration::Exponential(Number(j["exponential"], where + ".exponential", 0, kLongestUs));
  } else if (j.contains("mean")) {
    d = Duration::Lognormal(Number(j["mean"], where + ".mean", 0, kLongestUs),
                            NumberAt(j, where, "spread", 0, 0, 10));
  } else {
    Fail(where, "needs mean, exponential, histogram or sequence");
  }
  return d;
}

json DurationToJson(const Duration& d) {
  switch (d.kind) {
    case Duration::Kind::kConstant:
      return d.mean_us;
    case Duration::Kind::kLognormal:
      return {{"mean", d.mean_us}, {"spread", d.spread}};
    case Duration::Kind::kExponential:
      return {{"exponential", d.mean_us}};
    case Duration::Kind::kSequence:
      return {{"sequence", d.sequence_us}};
    case Duration::Kind::kHistogram:
      break;
  }
  json bins = json::array();
  for (const auto& b : d.bins) bins.push_back({b.us, b.count});
  return {{"histogram", bins}};
}

bool NeedsDuration(StepKind k) { return k != StepKind::kSync; }

Step ParseStep(const json& j, const std::string& where, unsigned devices) {
  Only(j, where, {"do", "us", "launch_us", "times", "device", "estimate"});
  Step s;
  const std::string what = TextAt(j, where, "do");
  const auto kind = kSteps.find(what);
  if (kind == kSteps.end()) Fail(where, "unknown step '" + what + "'");
  s.kind = kind->second;
  if (j.contains("us")) {
    s.duration = ParseDuration(j["us"], where + ".us");
  } else if (NeedsDuration(s.kind)) {
    Fail(where, "needs us");
  }
  if (j.contains("launch_us")) s.launch = ParseDuration(j["launch_us"], where + ".launch_us");
  s.repeat = uint32_t(NumberAt(j, where, "times", 1, 1, 1e9));
  s.device = DeviceIndex(NumberAt(j, where, "device", 0, 0, devices - 1));
  s.estimate = NumberAt(j, where, "estimate", 1, 0, 1000);
  return s;
}

MixTenant ParseTenant(const json& j, const std::string& where, unsigned devices) {
  Only(j, where,
       {"name", "compute_percent", "compute_max_percent", "class", "count", "programs", "joins_s",
        "partner"});
  MixTenant t;
  t.name = TextAt(j, where, "name");
  if (t.name.empty()) Fail(where, "needs a name");
  t.share.weight = NumberAt(j, where, "compute_percent", 100, .001, 100);
  t.share.cap = NumberAt(j, where, "compute_max_percent", 100, .001, 100) / 100;
  const std::string cls = TextAt(j, where, "class");
  if (!cls.empty()) {
    const auto found = kClasses.find(cls);
    if (found == kClasses.end())
      Fail(where, "class is latency, standard or batch, not '" + cls + "'");
    t.share.cls = found->second;
  }
  t.joins_us = 1e6 * NumberAt(j, where, "joins_s", 0, 0, 3600);
  if (!j.contains("programs") || !j["programs"].is_array() || j["programs"].empty()) {
    Fail(where, "needs programs: a list of lists of steps");
  }
  for (size_t p = 0; p < j["programs"].size(); ++p) {
    const json& steps = j["programs"][p];
    const std::string at = where + ".programs[" + std::to_string(p) + "]";
    if (!steps.is_array() || steps.empty()) Fail(at, "must be a list of steps");
    Program program;
    for (size_t i = 0; i < steps.size(); ++i) {
      program.steps.push_back(ParseStep(steps[i], at + "[" + std::to_string(i) + "]", devices));
    }
    t.threads.push_back(std::move(program));
  }
  return t;
}

Mix Parse(const json& j) {
  Only(j, "", {"divvy_mix", "name", "seconds", "warmup_seconds", "machine", "tenants"});
  if (!j.contains("divvy_mix")) Fail("", "not a mix file: no field divvy_mix");
  if (j["divvy_mix"] != 1) Fail("divvy_mix", "only version 1 is known");
  Mix m;
  m.name = TextAt(j, "", "name");
  m.seconds = NumberAt(j, "", "seconds", 10, .01, 3600);
  m.warmup_seconds = NumberAt(j, "", "warmup_seconds", 1, 0, 3600);
  if (j.contains("machine")) {
    const json& machine = j["machine"];
    std::set<std::string> known = {"devices"};
    for (const auto& f : kMachine) known.insert(f.name);
    Only(machine, "machine", known);
    m.machine.devices = unsigned(NumberAt(machine, "machine", "devices", 1, 1, 16));
    for (const auto& f : kMachine) {
      m.machine.*f.field = NumberAt(machine, "machine", f.name, m.machine.*f.field, 0, 1e6);
    }
    if (m.machine.slice_us < 10) Fail("machine.slice_us", "must be at least 10");
  }
  if (!j.contains("tenants") || !j["tenants"].is_array() || j["tenants"].empty()) {
    Fail("tenants", "must be a list of at least one tenant");
  }
  std::vector<std::string> partners;
  for (size_t i = 0; i < j["tenants"].size(); ++i) {
    const std::string where = "tenants[" + std::to_string(i) + "]";
    const MixTenant t = ParseTenant(j["tenants"][i], where, m.machine.devices);
    const auto count =
        size_t(NumberAt(j["tenants"][i], where, "count", 1, 1, double(kMostTenants)));
    for (size_t n = 0; n < count; ++n) {
      m.tenants.push_back(t);
      if (count > 1) m.tenants.back().name += "-" + std::to_string(n);
      partners.push_back(TextAt(j["tenants"][i], where, "partner"));
    }
  }
  if (m.tenants.size() > kMostTenants) Fail("tenants", "at most 256");
  for (size_t i = 0; i < m.tenants.size(); ++i) {
    for (size_t k = 0; k < m.tenants.size(); ++k) {
      if (!partners[i].empty() && m.tenants[k].name == partners[i]) m.tenants[i].partner = int(k);
      if (i < k && m.tenants[i].name == m.tenants[k].name) {
        Fail("tenants", "two are called '" + m.tenants[i].name + "'");
      }
    }
    if (!partners[i].empty() && m.tenants[i].partner < 0) {
      Fail("tenants", "nobody is called '" + partners[i] + "'");
    }
  }
  return m;
}

}  // namespace

Result<Mix> ParseMix(std::string_view text) {
  const json j = json::parse(text, nullptr, /*allow_exceptions=*/false, /*ignore_comments=*/true);
  if (j.is_discarded()) return Invalid("not JSON");
  if (!j.is_object()) return Invalid("a mix is a JSON object");
  try {
    return Parse(j);
  } catch (const Bad& bad) {
    return Invalid(bad.message);
  }
}

Result<Mix> ReadMixFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) return IoError(path, errno);
  std::stringstream text;
  text << file.rdbuf();
  Result<Mix> mix = ParseMix(text.str());
  if (!mix.ok()) return Invalid(path + ": " + mix.error().message);
  return mix;
}

std::string MixToJson(const Mix& mix) {
  json j = {{"divvy_mix", 1},
            {"name", mix.name},
            {"seconds", mix.seconds},
            {"warmup_seconds", mix.warmup_seconds}};
  j["machine"]["devices"] = mix.machine.devices;
  for (const auto& f : kMachine) j["machine"][f.name] = mix.machine.*f.field;
  j["tenants"] = json::array();
  for (const MixTenant& t : mix.tenants) {
    json tenant = {{"name", t.name},
                   {"compute_percent", t.share.weight},
                   {"compute_max_percent", t.share.cap * 100},
                   {"class", NameOf(kClasses, t.share.cls)},
                   {"joins_s", t.joins_us / 1e6},
                   {"programs", json::array()}};
    if (t.partner >= 0) tenant["partner"] = mix.tenants[size_t(t.partner)].name;
    for (const Program& p : t.threads) {
      json steps = json::array();
      for (const Step& s : p.steps) {
        json step = {{"do", NameOf(kSteps, s.kind)},
                     {"device", s.device},
                     {"times", s.repeat},
                     {"launch_us", DurationToJson(s.launch)},
                     {"estimate", s.estimate}};
        if (NeedsDuration(s.kind)) step["us"] = DurationToJson(s.duration);
        steps.push_back(std::move(step));
      }
      tenant["programs"].push_back(std::move(steps));
    }
    j["tenants"].push_back(std::move(tenant));
  }
  return j.dump(1);
}

}  // namespace divvy::arbiter::model
