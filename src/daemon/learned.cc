#include "src/daemon/learned.h"

#include <algorithm>

namespace divvy::daemon {

std::string Learned::Key(const std::string& device_name, const std::string& driver,
                         const std::string& module_loading) {
  // Lazy loading is the default since CUDA 12.2; only EAGER differs.
  return device_name + " | " + driver + " | " + (module_loading == "EAGER" ? "EAGER" : "LAZY");
}

Bytes Learned::Context(const std::string& key) const {
  const auto it = figures_.find(key);
  return it == figures_.end() ? kUnlearned : it->second.context;
}

Bytes Learned::Ceiling(const std::string& key) const {
  const auto it = figures_.find(key);
  const Bytes most = it == figures_.end() ? kUnlearned : it->second.largest;
  return Bytes{most.n + most.n / 4};
}

bool Learned::Add(const std::string& key, uint64_t tenant, Bytes measured) {
  if (measured < kLeast || measured > kMost) return false;
  const auto [it, first] =
      figures_.try_emplace(key, Figure{std::max(measured, kUnlearned), measured});
  Figure& f = it->second;
  if (!first)
    f.largest =
        std::clamp(measured, f.largest, std::min(kMost, Bytes{f.largest.n + f.largest.n / 4}));
  if (measured >= f.context) return first && f.context != kUnlearned;
  const Bytes lower = std::max(measured, Bytes{f.context.n - f.context.n / 4});
  if (f.proposer == 0 || f.proposer == tenant) {
    f.proposer = tenant;
    f.proposed = lower;
    return false;
  }
  f.context = std::max(lower, f.proposed);
  f.proposer = 0;
  return true;
}

nlohmann::json Learned::ToJson() const {
  nlohmann::json j = nlohmann::json::object();
  for (const auto& [key, f] : figures_)
    j[key] = {{"context_bytes", f.context.n}, {"largest_bytes", f.largest.n}};
  return j;
}

void Learned::Load(const nlohmann::json& j) {
  if (!j.is_object()) return;
  for (const auto& [key, v] : j.items()) {
    if (!v.is_object() || !v.contains("context_bytes") || !v.contains("largest_bytes")) continue;
    if (!v["context_bytes"].is_number_unsigned() || !v["largest_bytes"].is_number_unsigned())
      continue;
    const Bytes context{v["context_bytes"].get<uint64_t>()};
    const Bytes largest{v["largest_bytes"].get<uint64_t>()};
    const auto sane = [](Bytes b) { return b >= kLeast && b <= kMost; };
    if (sane(context) && sane(largest)) figures_[key] = {context, largest};
  }
}

}  // namespace divvy::daemon
