#include "src/cli/advise/observation.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "src/cli/table.h"

namespace divvy::cli::advise {
namespace {

using nlohmann::json;

constexpr double kWindowS = 1;            // "the busiest second"
constexpr size_t kMostLengths = 4 << 20;  // kept for percentiles: the first of them
constexpr double kShortRequestUs = 20'000, kLightPercent = 50, kSaturating = 90;
constexpr double kLongKernelUs = 10'000;
constexpr uint64_t kMemStep = uint64_t{64} << 20;
constexpr int kComputeStep = 5;

double Of(std::vector<float>& sorted, double part) {
  if (sorted.empty()) return 0;
  const double at = part * static_cast<double>(sorted.size());
  const size_t index = static_cast<size_t>(std::max(0.0, std::ceil(at) - 1));
  return sorted[std::min(index, sorted.size() - 1)];
}

std::string Text(const char* format, double value) {
  char text[160];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

}  // namespace

void Observation::Add(Kind kind, double length_us, bool synced) {
  ++counts_[kind];
  if (synced && burst_us_ > 0) {
    if (bursts_.size() < kMostLengths) bursts_.push_back(static_cast<float>(burst_us_));
    burst_us_ = 0;
  }
  if (kind == kCopy) {  // copy engines: beside what others compute
    copy_us_ += length_us;
    return;
  }
  busy_us_ += length_us;
  burst_us_ += length_us;
  if (kind != kOnDevice && lengths_.size() < kMostLengths)
    lengths_.push_back(static_cast<float>(length_us));
  sorted_ = false;
}

void Observation::Mark(double at_s) {
  if (busy_us_ <= 0 || (!marks_.empty() && busy_us_ <= marks_.back().busy_us)) return;
  // Before the first work there was none: it began at most as long before as it took.
  if (marks_.empty()) marks_.push_back({std::max(0.0, at_s - busy_us_ / 1e6), 0});
  marks_.push_back({std::max(at_s, marks_.back().at_s), busy_us_});
}

void Observation::Look(const json& share) {
  peak_bytes_ = std::max({peak_bytes_, share.value("charged_peak_bytes", uint64_t{0}),
                          share.value("charged_bytes", uint64_t{0})});
  const int64_t overhead = share.value("overhead_bytes", int64_t{0});
  overhead_bytes_ =
      std::max(overhead_bytes_, static_cast<uint64_t>(std::max<int64_t>(overhead, 0)));
  const json kinds = share.value("kinds", json::object());
  for (const auto& [kind, bytes] : kinds.items())
    kinds_[kind] = std::max(kinds_[kind], bytes.get<uint64_t>());
  copied_bytes_ = std::max(
      copied_bytes_, share.value("compute", json::object()).value("copied_bytes", uint64_t{0}));
}

double Observation::Length(double part) const {
  if (!sorted_) {
    std::sort(lengths_.begin(), lengths_.end());
    std::sort(bursts_.begin(), bursts_.end());
    sorted_ = true;
  }
  return Of(lengths_, part);
}

double Observation::Burst(double part) const {
  static_cast<void>(Length(part));  // sorts
  return Of(bursts_, part);
}

double Observation::ActiveSeconds() const {
  return marks_.empty() ? 0 : marks_.back().at_s - marks_.front().at_s;
}

double Observation::Duty() const {
  const double active = ActiveSeconds();
  return active <= 0 ? 0 : std::min(100.0, busy_us_ / 1e4 / active);
}

double Observation::BusiestDuty() const {
  double most = 0;
  for (size_t from = 0, to = 0; to < marks_.size(); ++to) {
    while (from < to && marks_[to].at_s - marks_[from + 1].at_s >= kWindowS) ++from;
    const double span = marks_[to].at_s - marks_[from].at_s;
    if (span >= kWindowS)
      most = std::max(most, (marks_[to].busy_us - marks_[from].busy_us) / 1e4 / span);
  }
  return std::min(100.0, std::max(most, Duty()));
}

Advice AdviceFor(const Observation& seen) {
  Advice advice;
  const uint64_t peak = seen.peak().n + seen.overhead().n;
  const uint64_t wanted = peak + std::max(peak / 20, kMemStep);
  advice.mem = Bytes{(wanted + kMemStep - 1) / kMemStep * kMemStep};
  advice.why_mem = "the most it held was " + Amount(peak) +
                   ", and 5 % (at least 64 MiB) for inputs " + "that are not those of this run";
  if (!seen.Worked()) {
    advice.share_class = "standard";
    advice.why_compute = "no GPU work was seen";
    advice.why_class = advice.why_compute;
    return advice;
  }
  const double duty = seen.Duty(), busiest = seen.BusiestDuty();
  const int steps = static_cast<int>(std::ceil(busiest / kComputeStep));
  advice.compute = std::clamp(steps * kComputeStep, kComputeStep, 100);
  advice.why_compute =
      "it used " + Text("%.0f %% of the GPU's time, ", duty) +
      Text("%.0f %% in its busiest second; ", busiest) +
      (busiest >= kSaturating ? "it takes all it gets: less makes it slower by as much"
                              : "with this much it is as fast beside others as alone");
  const double burst = seen.Burst(0.95), longest = seen.Length(1);
  if (busiest < kLightPercent && seen.waits() && burst <= kShortRequestUs) {
    advice.share_class = "latency";
    advice.why_class = "it waits for short pieces of work (p95 " + DurationText(burst * 1e3) +
                       ") and leaves the GPU idle in between: served first, it delays nobody";
  } else {
    advice.share_class = "standard";
    advice.why_class =
        busiest >= kSaturating
            ? "it keeps the GPU busy; batch, if nobody waits for its result"
            : "its pieces of work are long, or it does not wait for them: being first gains little";
  }
  if (longest > kLongKernelUs)
    advice.notes.push_back("its longest operation takes " + DurationText(longest * 1e3) +
                           ", and cannot be interrupted: others wait as long for it");
  return advice;
}

}  // namespace divvy::cli::advise
