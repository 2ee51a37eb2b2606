// arbiter_model: the tables of docs/arbiter.md. `cases [FILTER]` runs the standard cases,
// `random [COUNT] [SECONDS]` the random saturating mixes. One thread; a tool for developers and CI.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "src/arbiter/model/cases.h"
#include "src/arbiter/model/measure.h"

namespace divvy::arbiter::model {
namespace {

int Cases(const char* filter, unsigned seeds) {
  std::printf(
      "| case | budgeted figure | native | progress (useful) | native | P99 x solo | native | "
      "switches/s |\n");
  std::printf("|---|---|---|---|---|---|---|---|\n");
  for (const Mix& mix : StandardCases()) {
    if (!std::strstr(mix.name.c_str(), filter)) continue;
    const MixReport r = Measure(mix, {}, {.seeds = seeds});
    const Spread& e = r.saturating ? r.share_error_percent : r.shortfall_percent;
    std::printf("| %s | %s %.2f [%.2f] %% | %.1f %% | %.3f [%.3f] (%.3f) | %.3f (%.3f) |",
                r.name.c_str(), r.saturating ? "error" : "shortfall", e.median, e.worst,
                r.native_error_percent.median, r.progress.median, r.progress.worst, r.busy.median,
                r.native_progress.median, r.native_busy.median);
    const TenantReport& t = r.tenants[0];
    if (t.latency_p99_ratio.median > 0) {
      std::printf(" %.2f [%.2f] | %.2f |", t.latency_p99_ratio.median, t.latency_p99_ratio.worst,
                  t.native_latency_p99_ratio.median);
    } else {
      std::printf(" | |");
    }
    std::printf(" %.0f |\n", r.switches_per_second);
    if (std::getenv("ARBITER_MODEL_TENANTS")) {
      for (const TenantReport& x : r.tenants) {
        std::printf("    %-10s want %5.1f solo %5.1f got %5.2f short %5.1f prog %.3f native %.3f\n",
                    x.name.c_str(), x.wanted_percent, x.solo_percent, x.got_percent.median,
                    x.shortfall_percent.median, x.progress.median, x.native_progress.median);
      }
    }
    std::fflush(stdout);
  }
  return 0;
}

// Error beyond the part of it that the length of the run explains: budget 1 % + (Q + longest
// operation) / (part * length).
int RandomMixes(int count, double seconds, int first) {
  std::vector<double> errors, useful, of_budget;
  const Tunables k;
  int worst = 0;
  for (int i = first; i < first + count; ++i) {
    Mix mix = RandomMix(uint64_t(i));
    mix.seconds = seconds;
    mix.warmup_seconds = seconds / 8;
    const WorldResult run = World(mix, uint64_t(i), &k).Run();
    errors.push_back(ShareError(mix, run));
    useful.push_back(run.busy);
    double least = 1e9, sum = 0, longest = 0;
    for (const MixTenant& t : mix.tenants) {
      least = std::min(least, t.share.weight);
      sum += t.share.weight;
      longest = std::max(longest, t.threads[0].steps[0].duration.mean_us);
    }
    const double budget = 1 + 100 * (double(k.window_longest.count()) / 1e9 + longest / 1e6) /
                                  (least / sum * seconds);
    of_budget.push_back(errors.back() / budget);
    if (errors.back() >= errors[size_t(worst)]) worst = int(errors.size()) - 1;
  }
  const auto over =
      std::count_if(of_budget.begin(), of_budget.end(), [](double x) { return x > 1; });
  std::printf(
      "%d random mixes of %.1f s: share error median %.2f %%, p95 %.2f %%, worst %.2f %% "
      "(mix %d); useful median %.3f, worst %.3f; error/budget p95 %.2f, worst %.2f, over "
      "budget %ld\n",
      count, seconds, Percentile(errors, .5), Percentile(errors, .95), errors[size_t(worst)],
      first + worst, Percentile(useful, .5), *std::min_element(useful.begin(), useful.end()),
      Percentile(of_budget, .95), *std::max_element(of_budget.begin(), of_budget.end()),
      long(over));
  return over == 0 ? 0 : 1;
}

}  // namespace
}  // namespace divvy::arbiter::model

int main(int argc, char** argv) {
  using namespace divvy::arbiter::model;
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "cases")
    return Cases(argc > 2 ? argv[2] : "", argc > 3 ? unsigned(atoi(argv[3])) : 5);
  if (what == "random") {
    return RandomMixes(argc > 2 ? atoi(argv[2]) : 2000, argc > 3 ? atof(argv[3]) : 3,
                       argc > 4 ? atoi(argv[4]) : 0);
  }
  std::fprintf(stderr, "usage: arbiter_model cases [FILTER [SEEDS]] | random [COUNT [SECONDS]]\n");
  return 2;
}
