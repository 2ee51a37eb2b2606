#include "src/cli/recording.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace divvy::cli {

using nlohmann::json;

Result<Recording> Recording::Begin(const Machine& machine, const std::string& name,
                                   int64_t for_ms) {
  Recording out(machine.api, "/v1/tenants/" + name + "/recording");
  const auto begun = out.api_.Post(out.path_, {{"for_ms", for_ms}});
  if (!begun.ok()) return begun.error();
  out.next_ = begun->value("head", uint64_t{0});
  out.dilation_ = std::max(1.0, begun->value("dilation", 1.0));
  return out;
}

void Recording::End() const { static_cast<void>(api_.Delete(path_).ok()); }

Result<std::vector<Recording::Operation>> Recording::Read() {
  const auto part = api_.Get(path_ + "?since=" + std::to_string(next_));
  if (!part.ok()) return part.error();
  next_ = part->value("head", next_);
  lost_ += part->value("lost", uint64_t{0});
  std::vector<Operation> out;
  // [length, gap, key, device, kind, synced], times in tenths of a microsecond
  for (const json& r : part->value("records", json::array()))
    out.push_back({r.at(0).get<double>() / 10 / dilation_, r.at(1).get<double>() / 10 / dilation_,
                   r.at(3), r.at(4), r.at(5).get<int>() != 0});
  return out;
}

}  // namespace divvy::cli
