// What the shim adds to a call, measured in one run against a driver that does nothing: times per
// call without and with the hook, and their difference. No claim about a GPU; the driver's part is
// a few instructions, so the ratio is an upper bound.
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "src/shim/driver.h"
#include "src/shim/generated/hooks.h"
#include "src/shim/testing/fake_daemon.h"
#include "src/shim/testing/idle_driver.h"

namespace divvy::shim {
namespace {

template <typename Body>
double NanosecondsPerCall(unsigned calls, const Body& body) {
  double best = 1e9;
  for (int round = 0; round < 7; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (unsigned i = 0; i < calls; ++i) body();
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count() / calls);
  }
  return best;
}

void Print(const char* what, double native, double shim) {
  printf("%-34s %8.1f ns %8.1f ns %8.1f ns %7.2f\n", what, native, shim, shim - native,
         shim / native);
}

template <typename Fn>
void AllocFree(const char* what, unsigned live, Fn) {
  std::vector<CUdeviceptr> held(live);
  for (CUdeviceptr& p : held)
    if (hook_cuMemAlloc_v2(&p, 4096) != CUDA_SUCCESS) abort();
  CUdeviceptr p;
  const double native = NanosecondsPerCall(200000, [&] {
    g_driver.cuMemAlloc_v2(&p, 4096);
    g_driver.cuMemFree_v2(p);
  });
  const double shim = NanosecondsPerCall(200000, [&] {
    hook_cuMemAlloc_v2(&p, 4096);
    hook_cuMemFree_v2(p);
  });
  Print(what, native, shim);
  for (CUdeviceptr q : held) hook_cuMemFree_v2(q);
}

}  // namespace
}  // namespace divvy::shim

int main() {
  using namespace divvy::shim;
  testing::FakeDaemon daemon({testing::FakeShare{1, uint64_t{64} << 30}});
  testing::InstallIdleDriver();
  testing::FreshProcess(daemon.socket());
  if (hook_cuInit(0) != CUDA_SUCCESS) return 1;
  const auto launch = [](auto fn) { fn(nullptr, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr); };
  launch(&hook_cuLaunchKernel);

  printf("%-34s %11s %11s %11s %7s\n", "call", "native", "with shim", "added", "ratio");
  // Through pointers that the compiler cannot see through, as a program has them.
  auto* volatile native = g_driver.cuLaunchKernel;
  auto* volatile hooked = &hook_cuLaunchKernel;
  Print("cuLaunchKernel, lone open gate", NanosecondsPerCall(2000000, [&] { launch(native); }),
        NanosecondsPerCall(2000000, [&] { launch(hooked); }));
  // Others contend: a marker each 250 us, 1 ms in flight, 50 us operations.
  const auto stream = reinterpret_cast<CUstream>(uint64_t{0x10000});
  const auto launch_in = [&](auto fn) {
    fn(nullptr, 1, 1, 1, 1, 1, 1, 0, stream, nullptr, nullptr);
  };
  daemon.gate().bound_us = 1000;
  daemon.gate().space_us = 250;
  daemon.gate().patience_us = 2000;
  daemon.SetGate(divvy::region::kGateMetered);
  const double plain = NanosecondsPerCall(2000000, [&] { launch_in(native); });
  testing::SetMarkersBehind(2);
  Print("cuLaunchKernel, contended, busy", plain,
        NanosecondsPerCall(500000, [&] { launch_in(hooked); }));
  testing::SetMarkersBehind(0);
  Print("cuLaunchKernel, contended, dry", plain,
        NanosecondsPerCall(500000, [&] { launch_in(hooked); }));
  daemon.gate().bound_us = 0;
  daemon.SetGate(0);
  launch(hooked);  // sees that it is alone
  auto* volatile native_wait = g_driver.cuStreamWaitEvent;
  auto* volatile hooked_wait = &hook_cuStreamWaitEvent;
  Print("cuStreamWaitEvent, forwarded",
        NanosecondsPerCall(2000000, [&] { native_wait(nullptr, nullptr, 0); }),
        NanosecondsPerCall(2000000, [&] { hooked_wait(nullptr, nullptr, 0); }));
  AllocFree("cuMemAlloc + cuMemFree, 0 live", 0, 0);
  AllocFree("cuMemAlloc + cuMemFree, 100000 live", 100000, 0);
  size_t free, total;
  Print("cuMemGetInfo",
        NanosecondsPerCall(500000, [&] { g_driver.cuMemGetInfo_v2(&free, &total); }),
        NanosecondsPerCall(500000, [&] { hook_cuMemGetInfo_v2(&free, &total); }));
  printf("A function that is not hooked is the driver's own: nothing is added.\n");
  testing::FreshProcess("");
  return 0;
}
