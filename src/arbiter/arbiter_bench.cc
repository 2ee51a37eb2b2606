// The cost of one poll of the arbiter (feeding every tenant's sample, one tick, reading what
// changed) with 2 to 256 saturating tenants, and of folding a tenant's streams.
#include <benchmark/benchmark.h>

#include <vector>

#include "src/arbiter/arbiter.h"

namespace divvy::arbiter {
namespace {

void PollTick(benchmark::State& state) {
  const auto n = TenantIndex(state.range(0));
  Arbiter arbiter(n, 1, {});
  std::vector<Progress> progress(n);
  Nanos now{0};
  for (TenantIndex t = 0; t < n; ++t) (void)arbiter.Join(t, 0, {.weight = 1.0 + t % 7}, now);
  uint64_t changed = 0;
  for (auto _ : state) {
    for (TenantIndex t = 0; t < n; ++t) {
      Progress& p = progress[t];
      const bool open = arbiter.GateOf(t, 0).open();
      p.issued += open ? 2 : 0;
      p.done = open ? p.issued - 1 : p.issued;
      p.begun = open;
      p.waiters = !open;
      arbiter.Observe(t, 0, p);
    }
    now += microseconds(50);
    benchmark::DoNotOptimize(arbiter.Tick(0, now));
    changed += arbiter.Changed(0).size();
  }
  state.counters["changes/tick"] =
      benchmark::Counter(double(changed), benchmark::Counter::kAvgIterations);
}
BENCHMARK(PollTick)->Arg(2)->Arg(8)->Arg(64)->Arg(256);

void FoldStreams(benchmark::State& state) {
  std::vector<StreamSample> streams(size_t(state.range(0)));
  for (size_t i = 0; i < streams.size(); ++i) {
    streams[i] = {.issued = 100 + i, .start = 90, .marker = MarkerWord(95, MarkerKind::kDone)};
  }
  for (auto _ : state) {
    Progress p{.paused = true};
    for (const StreamSample& s : streams) Fold(s, p);
    benchmark::DoNotOptimize(p);
  }
}
BENCHMARK(FoldStreams)->Arg(1)->Arg(64);

}  // namespace
}  // namespace divvy::arbiter

BENCHMARK_MAIN();
