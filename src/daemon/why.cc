#include "src/daemon/why.h"

#include <algorithm>
#include <cstdio>
#include <numeric>

namespace divvy::daemon {
namespace {

using Json = nlohmann::json;

// Less than this is no reason: everybody waits a little.
constexpr int kMuchTenths = 150;

struct Row {
  const char* what;
  bool estimated;
  int64_t ns;
};

std::string Text(double percent) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g %%", percent);
  return text;
}

std::string Tenth(int tenths) { return Text(tenths / 10.0); }

std::string WhoHas(const WhyOther& other) {
  std::string out = "'" + other.name + "'";
  if (other.guaranteed_percent > 0)
    out += ", who has " + Text(other.guaranteed_percent) + " guaranteed";
  return out;
}

std::string TurnVerdict(const WhyInput& in, int gpu_tenths) {
  const auto other = std::find_if(in.others.begin(), in.others.end(),
                                  [](const WhyOther& o) { return !o.name.empty(); });
  std::string out = "waits for its turn";
  if (other != in.others.end()) out = "waits for tenant " + WhoHas(*other);
  if (in.batch) return out + "; class batch gets what the others leave";
  const double due = in.guaranteed_percent > 0 ? in.guaranteed_percent : in.part_percent;
  // What it is due, to a tenth of it.
  if (due > 0 && gpu_tenths / 10.0 >= 0.9 * due)
    return out + "; it gets its " + Text(due) +
           (in.guaranteed_percent > 0 ? " guaranteed" : " part") +
           ", more would be a larger --compute";
  return out;
}

std::string Verdict(const WhyInput& in, const std::string& by, int gpu, int its) {
  if (by == "absent") return "had no process on the device";
  if (by == "alone")
    return "has the device to itself: Divvy holds nothing back, and nothing is measured (divvy "
           "record shows its operations)";
  if (by == "paused") return "paused by an operator (divvy resume)";
  if (by == "audit") return "shut by the audit: " + (in.audit.empty() ? "a finding" : in.audit);
  if (by == "cap") return "limited by its cap of " + Text(in.cap_percent);
  if (by == "others") return TurnVerdict(in, gpu);
  if (by == "copies") return "limited by its copies between host and device";
  if (by == "refused")
    return "was refused memory " + std::to_string(in.refusals) +
           (in.refusals == 1 ? " time" : " times") +
           ", and did no GPU work meanwhile (divvy set --mem)";
  if (by == "host" && in.waiting_for_room > 0)
    return "waits for room in its share, " + std::to_string(in.waiting_for_room) +
           (in.waiting_for_room == 1 ? " thread" : " threads") +
           " now (--on-full wait; divvy set --mem makes some)";
  if (by == "host")
    return "limited by its host: for " + Tenth(its) + " of the time it asks nothing of the GPU";
  return "limited by its own GPU work: the GPU runs it for " + Tenth(gpu) + " of the time";
}

}  // namespace

std::vector<int> Tenths(const std::vector<int64_t>& ns) {
  const int64_t all = std::accumulate(ns.begin(), ns.end(), int64_t{0});
  std::vector<int> out(ns.size(), 0);
  if (all <= 0) return out;
  std::vector<std::pair<double, size_t>> rest;
  int left = 1000;
  for (size_t i = 0; i < ns.size(); ++i) {
    const double exact = 1000.0 * static_cast<double>(ns[i]) / static_cast<double>(all);
    out[i] = static_cast<int>(exact);
    left -= out[i];
    rest.emplace_back(exact - out[i], i);
  }
  std::stable_sort(rest.begin(), rest.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  for (size_t i = 0; left > 0; i = (i + 1) % rest.size(), --left) ++out[rest[i].second];
  return out;
}

Json Explain(const WhyInput& in) {
  const Ledger& l = in.spent;
  // Blocking copies look like the host's own time: the host is in the call.
  const int64_t copying = std::clamp<int64_t>(l.copying_ns, 0, l[Part::kHost]);
  const int64_t refused = std::clamp<int64_t>(in.refused_ns, 0, l[Part::kHost] - copying);
  const std::vector<Row> rows = {
      {"gpu", false, l[Part::kGpu]},     {"others", true, l[Part::kTurn]},
      {"cap", true, l[Part::kCap]},      {"paused", true, l[Part::kPaused]},
      {"audit", true, l[Part::kAudit]},  {"copies", true, l[Part::kCopies] + copying},
      {"refused", true, refused},        {"host", true, l[Part::kHost] - copying - refused},
      {"alone", false, l[Part::kAlone]}, {"absent", false, l[Part::kAbsent]},
  };
  std::vector<int64_t> ns;
  for (const Row& row : rows) ns.push_back(row.ns);
  const std::vector<int> tenths = Tenths(ns);
  Json parts = Json::array();
  size_t most = 0;  // gpu, unless something else is much
  for (size_t i = 0; i < rows.size(); ++i) {
    if (tenths[i] != 0)
      parts.push_back({{"what", rows[i].what},
                       {"percent", tenths[i] / 10.0},
                       {"estimated", rows[i].estimated}});
    if (i != 0 && tenths[i] >= kMuchTenths && (most == 0 || tenths[i] > tenths[most])) most = i;
  }
  Json waited = Json::array();
  std::vector<int64_t> shares;
  for (const WhyOther& other : in.others) shares.push_back(other.wait_ns);
  const std::vector<int> of_wait = Tenths(shares);
  for (size_t i = 0; i < in.others.size(); ++i)
    waited.push_back({{"tenant", in.others[i].name},
                      {"percent", of_wait[i] / 10.0},
                      {"guaranteed_percent", in.others[i].guaranteed_percent}});
  const std::string by = rows[most].what;
  return {{"limited_by", by},
          {"verdict", Verdict(in, by, tenths[0], tenths[most])},
          {"parts", std::move(parts)},
          {"waited_for", std::move(waited)},
          {"refusals", in.refusals}};
}

}  // namespace divvy::daemon
