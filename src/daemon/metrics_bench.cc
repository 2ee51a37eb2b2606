// A scrape of 200 tenants on eight devices, without the collecting: the text alone. What a scrape
// costs in all is measured against a live daemon (tests/api/scrape_bench.py).
#include <benchmark/benchmark.h>

#include "src/daemon/metrics.h"

namespace divvy::daemon {
namespace {

void TextOf200Tenants(benchmark::State& state) {
  Figures f{.driver_version = "580"};
  for (unsigned d = 0; d < 8; ++d) f.devices.push_back({.uuid = "GPU-" + std::to_string(d)});
  for (unsigned t = 0; t < 200; ++t) {
    f.tenants.push_back({.name = "tenant-" + std::to_string(t), .refusals = {{"out_of_share", t}}});
    f.tenants.back().shares.push_back(
        {.device = t % 8, .measured = true, .used_ns = t * 333'333'333ull});
  }
  for (auto _ : state) benchmark::DoNotOptimize(MetricsText(f, {}, {}));
}
BENCHMARK(TextOf200Tenants)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace divvy::daemon
BENCHMARK_MAIN();
