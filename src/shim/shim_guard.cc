// Counts instructions, under callgrind (tests/perf_guard/perf_guard.py): each measured loop is one
// dump named after it. Loops of the same shape with and without the hook, so that what the loop
// itself costs cancels out.
#include <valgrind/callgrind.h>

#include "src/shim/driver.h"
#include "src/shim/generated/hooks.h"
#include "src/shim/testing/fake_daemon.h"
#include "src/shim/testing/idle_driver.h"

namespace {

constexpr int kCalls = 1000;

template <typename Body>
__attribute__((noinline)) void Measure(const char* name, const Body& body) {
  // First uses, and a table that happens to grow, are not what is measured.
  for (int i = 0; i < 4 * kCalls; ++i) body();
  CALLGRIND_ZERO_STATS;
  for (int i = 0; i < kCalls; ++i) body();
  CALLGRIND_DUMP_STATS_AT(name);
}

}  // namespace

int main() {
  using namespace divvy::shim;
  testing::FakeDaemon daemon({testing::FakeShare{1, uint64_t{64} << 30}});
  testing::InstallIdleDriver();
  testing::FreshProcess(daemon.socket());
  if (hook_cuInit(0) != CUDA_SUCCESS) return 1;
  auto* volatile launch = g_driver.cuLaunchKernel;
  const auto call_launch = [&] { launch(nullptr, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr); };
  Measure("launch native", call_launch);
  launch = &hook_cuLaunchKernel;
  Measure("launch hooked", call_launch);
  // Others contend: a marker each 250 us of 50 us operations, the device two markers behind.
  const auto stream = reinterpret_cast<CUstream>(uint64_t{0x10000});
  daemon.gate().bound_us = 1000;
  daemon.gate().space_us = 250;
  daemon.gate().patience_us = 2000;
  daemon.SetGate(divvy::region::kGateMetered);
  testing::SetMarkersBehind(2);
  Measure("launch contended",
          [&] { launch(nullptr, 1, 1, 1, 1, 1, 1, 0, stream, nullptr, nullptr); });
  daemon.gate().bound_us = 0;
  daemon.SetGate(0);
  call_launch();
  auto* volatile wait = g_driver.cuStreamWaitEvent;
  const auto call_wait = [&] { wait(nullptr, nullptr, 0); };
  Measure("forwarded native", call_wait);
  wait = &hook_cuStreamWaitEvent;
  Measure("forwarded hooked", call_wait);
  auto* volatile alloc = g_driver.cuMemAlloc_v2;
  auto* volatile free = g_driver.cuMemFree_v2;
  const auto call_alloc = [&] {
    CUdeviceptr p;
    alloc(&p, 4096);
    free(p);
  };
  Measure("alloc native", call_alloc);
  alloc = &hook_cuMemAlloc_v2;
  free = &hook_cuMemFree_v2;
  Measure("alloc hooked", call_alloc);
  for (int i = 0; i < 100000; ++i) {
    CUdeviceptr p;
    hook_cuMemAlloc_v2(&p, 512);
  }
  Measure("alloc hooked 100k", call_alloc);
  testing::FreshProcess("");
  return 0;
}
