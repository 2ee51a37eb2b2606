#include "src/daemon/history.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace divvy::daemon {
namespace {

using Json = nlohmann::json;
constexpr float kUnknown = std::numeric_limits<float>::quiet_NaN();
constexpr double kMib = 1 << 20;

Json OrNull(float value) {
  return std::isnan(value) ? Json() : Json(std::round(value * 100) / 100);
}

Json WholeOrNull(float mib) {
  return std::isnan(mib) ? Json() : Json(static_cast<uint64_t>(static_cast<double>(mib) * kMib));
}

}  // namespace

UseHistory::Series::Series() {
  fine.fill({kUnknown, kUnknown});
  coarse.fill({kUnknown, kUnknown});
}

void UseHistory::Series::Put(unsigned at, const Point& point) {
  fine[at] = point;
  if (!std::isnan(point.memory_mib)) {
    sum.memory_mib += point.memory_mib;
    ++memory_points;
  }
  if (!std::isnan(point.percent)) {
    sum.percent += point.percent;
    ++percent_points;
  }
}

void UseHistory::Series::CloseCoarse(unsigned at) {
  const auto mean = [](float total, unsigned n) {
    return n == 0 ? kUnknown : total / static_cast<float>(n);
  };
  coarse[at] = {mean(sum.memory_mib, memory_points), mean(sum.percent, percent_points)};
  sum = {};
  memory_points = percent_points = 0;
}

bool UseHistory::Due(double now) const {
  const std::lock_guard lock(mutex_);
  return now - last_ >= kFineSeconds || now < last_;
}

UseHistory::Series* UseHistory::At(const Key& key, double now) {
  auto found = series_.find(key);
  if (found == series_.end()) {
    if (series_.size() >= kMostSeries) {
      // The one that has been gone for longest gives way; one that was just fed does not.
      const auto oldest = std::min_element(
          series_.begin(), series_.end(),
          [](const auto& a, const auto& b) { return a.second.last < b.second.last; });
      if (now - oldest->second.last < 2 * kFineSeconds) return nullptr;
      series_.erase(oldest);
    }
    found = series_.try_emplace(key).first;
  }
  found->second.last = now;
  return &found->second;
}

void UseHistory::Add(const Figures& figures) {
  const std::lock_guard lock(mutex_);
  const double now = figures.time;
  const unsigned at = fine_next_;
  fine_next_ = (at + 1) % kFine;
  fine_times_[at] = now;
  last_ = now;
  if (coarse_since_ == 0) coarse_since_ = now;
  left_out_ = 0;
  for (auto& [key, s] : series_) s.fine[at] = {kUnknown, kUnknown};
  const auto put = [&](const Key& key, const std::string& tenant, const std::string& device,
                       uint64_t bytes, double percent) {
    Series* s = At(key, now);
    if (s == nullptr) {
      ++left_out_;
      return;
    }
    s->tenant = tenant;
    s->device = device;
    s->Put(at,
           {static_cast<float>(static_cast<double>(bytes) / kMib), static_cast<float>(percent)});
  };
  for (unsigned d = 0; d < figures.devices.size(); ++d)
    put({0, d}, "", figures.devices[d].uuid, figures.devices[d].used_bytes, kUnknown);
  for (const TenantFigures& t : figures.tenants)
    for (const ShareFigures& s : t.shares)
      put({t.id, s.device}, t.name, figures.devices[s.device].uuid, s.used_bytes,
          s.known ? s.used_percent_1s : kUnknown);
  if (now - coarse_since_ < kCoarseSeconds) return;
  const unsigned slot = coarse_next_;
  coarse_next_ = (slot + 1) % kCoarse;
  coarse_times_[slot] = now;
  coarse_since_ = now;
  for (auto& [key, s] : series_) s.CloseCoarse(slot);
  std::erase_if(series_, [now](const auto& entry) {
    return now - entry.second.last > kCoarse * kCoarseSeconds;
  });
}

Result<Json> UseHistory::ToJson(const std::string& span) const {
  const bool fine = span.empty() || span == "60s";
  if (!fine && span != "1h") return Invalid("span must be 60s or 1h");
  const std::lock_guard lock(mutex_);
  const unsigned size = fine ? kFine : kCoarse, next = fine ? fine_next_ : coarse_next_;
  std::vector<unsigned> order;  // oldest first, those that there are
  Json times = Json::array();
  for (unsigned i = 0; i < size; ++i) {
    const unsigned at = (next + i) % size;
    const double time = fine ? fine_times_[at] : coarse_times_[at];
    if (time == 0) continue;
    order.push_back(at);
    times.push_back(std::round(time * 1000) / 1000);
  }
  Json devices = Json::array(), tenants = Json::array();
  for (const auto& [key, s] : series_) {
    Json bytes = Json::array(), percents = Json::array();
    bool any = false;
    for (const unsigned at : order) {
      const Point& p = fine ? s.fine[at] : s.coarse[at];
      any = any || !std::isnan(p.memory_mib);
      bytes.push_back(WholeOrNull(p.memory_mib));
      percents.push_back(OrNull(p.percent));
    }
    if (!any) continue;
    if (key.first == 0) {
      devices.push_back({{"device", s.device}, {"used_bytes", bytes}});
    } else {
      tenants.push_back({{"tenant", s.tenant},
                         {"device", s.device},
                         {"used_bytes", bytes},
                         {"used_percent", percents}});
    }
  }
  return Json{{"interval_s", fine ? kFineSeconds : kCoarseSeconds},
              {"times", times},
              {"devices", devices},
              {"tenants", tenants},
              {"left_out", left_out_}};
}

}  // namespace divvy::daemon
