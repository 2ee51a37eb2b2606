// Runs and figures.
#include "src/arbiter/model/measure.h"

#include <algorithm>
#include <cmath>

namespace divvy::arbiter::model {
namespace {

bool Uses(const MixTenant& t, unsigned device) {
  for (const Program& p : t.threads) {
    for (const Step& s : p.steps) {
      if (s.device == device) return true;
    }
  }
  return false;
}

// Part of one device that the tenant was promised.
double Promise(const Mix& mix, size_t tenant, unsigned device) {
  const MixTenant& me = mix.tenants[tenant];
  if (me.share.cls == TenantClass::kBatch || !Uses(me, device)) return 0;
  double sum = 0;
  for (const MixTenant& t : mix.tenants) {
    if (Uses(t, device) && t.share.cls != TenantClass::kBatch) sum += t.share.weight;
  }
  return std::min(me.share.cap, me.share.weight / sum);
}

double Work(const TenantResult& r) { return r.useful_ns + r.copied_ns; }

// Part of the measured time for which the tenant was there.
double Presence(const Mix& mix, size_t tenant) {
  const double late = mix.tenants[tenant].joins_us / 1e6 - mix.warmup_seconds;
  return std::clamp(1 - late / mix.seconds, 0.0, 1.0);
}

// From min(solo use, guarantee), in percent.
double Shortfall(const Mix& mix, size_t i, const TenantResult& got, const TenantResult& solo) {
  double owed = 0;
  for (unsigned d = 0; d < mix.machine.devices; ++d) {
    owed += std::min(solo.device_ns[d], Promise(mix, i, d) * Presence(mix, i) * mix.seconds * 1e9);
  }
  return owed <= 0 ? 0 : std::max(0.0, 100 * (1 - got.useful_ns / owed));
}

double TenantError(const Mix& mix, size_t i, const WorldResult& run) {
  double sum = 0, weights = 0;
  for (size_t j = 0; j < mix.tenants.size(); ++j) {
    sum += run.tenants[j].useful_ns;
    weights += mix.tenants[j].share.weight;
  }
  const double wanted = mix.tenants[i].share.weight / weights;
  return sum <= 0 ? 100 : 100 * std::fabs(run.tenants[i].useful_ns / sum / wanted - 1);
}

double P99(const TenantResult& r) {
  return r.latencies_us.size() < 50 ? 0 : Percentile(r.latencies_us, .99);
}

Spread Of(const std::vector<double>& v, bool low_is_bad = false) {
  if (v.empty()) return {};
  return {Percentile(v, .5), low_is_bad ? *std::min_element(v.begin(), v.end())
                                        : *std::max_element(v.begin(), v.end())};
}

// The values of one figure: per tenant and for the whole mix, by seed.
struct Series {
  std::vector<std::vector<double>> tenant;
  std::vector<double> mix;
  explicit Series(size_t n) : tenant(n) {}
};

}  // namespace

double Percentile(std::vector<double> values, double part) {
  if (values.empty()) return 0;
  const size_t k = std::min(values.size() - 1, size_t(part * double(values.size())));
  std::nth_element(values.begin(), values.begin() + long(k), values.end());
  return values[k];
}

double ShareError(const Mix& mix, const WorldResult& run) {
  double worst = 0;
  for (size_t i = 0; i < mix.tenants.size(); ++i) worst = std::max(worst, TenantError(mix, i, run));
  return worst;
}

MixReport Measure(const Mix& mix, const Tunables& tunables, const MeasureOptions& options) {
  const size_t n = mix.tenants.size();
  MixReport out;
  out.name = mix.name;
  out.saturating = mix.machine.devices == 1;
  Series error(n), shortfall(n), progress(n), native_progress(n), native_error(n),
      native_shortfall(n), p99(n), native_p99(n), got(n), solo_use(n);
  std::vector<double> busy, native_busy;
  const double seed_count = options.seeds;
  for (unsigned k = 0; k < options.seeds; ++k) {
    const uint64_t seed = options.first_seed + k;
    std::vector<TenantResult> solo;
    for (size_t i = 0; i < n; ++i) {
      solo.push_back(World(mix, seed, nullptr, int(i)).Run().tenants[i]);
    }
    const WorldResult run = World(mix, seed, &tunables).Run();
    WorldResult native;
    if (options.native) native = World(mix, seed, nullptr).Run();
    const double elapsed = mix.seconds * 1e9;
    double worst_shortfall = 0, sum_progress = 0, native_sum = 0, native_short = 0;
    for (size_t i = 0; i < n; ++i) {
      const MixTenant& t = mix.tenants[i];
      if (solo[i].useful_ns < .9 * elapsed || t.share.cap < 1 ||
          t.share.cls == TenantClass::kBatch) {
        out.saturating = false;
      }
      solo_use.tenant[i].push_back(100 * solo[i].useful_ns / elapsed);
      got.tenant[i].push_back(100 * run.tenants[i].useful_ns / elapsed);
      error.tenant[i].push_back(TenantError(mix, i, run));
      shortfall.tenant[i].push_back(Shortfall(mix, i, run.tenants[i], solo[i]));
      worst_shortfall = std::max(worst_shortfall, shortfall.tenant[i].back());
      const double alone = std::max(1.0, Work(solo[i]));
      progress.tenant[i].push_back(Work(run.tenants[i]) / alone);
      sum_progress += progress.tenant[i].back();
      const double solo_p99 = P99(solo[i]);
      p99.tenant[i].push_back(solo_p99 > 0 ? P99(run.tenants[i]) / solo_p99 : 0);
      if (!options.native) continue;
      native_progress.tenant[i].push_back(Work(native.tenants[i]) / alone);
      native_sum += native_progress.tenant[i].back();
      native_p99.tenant[i].push_back(solo_p99 > 0 ? P99(native.tenants[i]) / solo_p99 : 0);
      native_shortfall.tenant[i].push_back(Shortfall(mix, i, native.tenants[i], solo[i]));
      native_short = std::max(native_short, native_shortfall.tenant[i].back());
    }
    error.mix.push_back(ShareError(mix, run));
    shortfall.mix.push_back(worst_shortfall);
    progress.mix.push_back(sum_progress);
    busy.push_back(run.busy);
    out.switches_per_second += run.switches_per_second / seed_count;
    out.polls_per_second += run.polls_per_second / seed_count;
    if (!options.native) continue;
    native_progress.mix.push_back(native_sum);
    native_busy.push_back(native.busy);
    native_error.mix.push_back(ShareError(mix, native));
    native_shortfall.mix.push_back(native_short);
  }
  for (size_t i = 0; i < n; ++i) {
    TenantReport t;
    t.name = mix.tenants[i].name;
    for (unsigned d = 0; d < mix.machine.devices; ++d) t.wanted_percent += 100 * Promise(mix, i, d);
    t.solo_percent = Of(solo_use.tenant[i]).median;
    t.got_percent = Of(got.tenant[i], true);
    t.share_error_percent = Of(error.tenant[i]);
    t.shortfall_percent = Of(shortfall.tenant[i]);
    t.progress = Of(progress.tenant[i], true);
    t.native_progress = Of(native_progress.tenant[i], true);
    t.native_shortfall_percent = Of(native_shortfall.tenant[i]);
    t.latency_p99_ratio = Of(p99.tenant[i]);
    t.native_latency_p99_ratio = Of(native_p99.tenant[i]);
    out.tenants.push_back(std::move(t));
  }
  out.share_error_percent = Of(error.mix);
  out.shortfall_percent = Of(shortfall.mix);
  out.progress = Of(progress.mix, true);
  out.native_progress = Of(native_progress.mix, true);
  out.native_error_percent = Of(out.saturating ? native_error.mix : native_shortfall.mix);
  out.busy = Of(busy, true);
  out.native_busy = Of(native_busy, true);
  return out;
}

}  // namespace divvy::arbiter::model
