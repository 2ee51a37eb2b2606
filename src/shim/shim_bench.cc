// What the shim adds to a call, measured in one run against a driver that does nothing: times per
// call without and with the hook, and their difference. No claim about a GPU; the driver's part is
// a few instructions, so the ratio is an upper bound.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "src/shim/driver.h"
#include "src/shim/generated/hooks.h"
#include "src/shim/testing/fake_daemon.h"
#include "src/shim/testing/idle_driver.h"

namespace divvy::shim {
namespace {

double CpuNs() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

// By the thread's own CPU time, in short rounds of which the best counts: other work on the machine
// takes caches at most.
template <typename Body>
double NanosecondsPerCall(unsigned calls, const Body& body) {
  constexpr unsigned kRounds = 50;
  double best = 1e9;
  for (unsigned round = 0; round < kRounds; ++round) {
    const double start = CpuNs();
    for (unsigned i = 0; i < calls / kRounds; ++i) body();
    best = std::min(best, (CpuNs() - start) / (calls / kRounds));
  }
  return best;
}

void Print(const char* what, double native, double shim) {
  printf("%-36s %8.1f ns %8.1f ns %8.1f ns %7.2f\n", what, native, shim, shim - native,
         shim / native);
}

void AllocFree(const char* what, unsigned live) {
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

// Processes of the same tenant, each with memory of its own; they end with the object.
class Siblings {
 public:
  Siblings(testing::FakeDaemon& daemon, unsigned count) {
    const unsigned before = daemon.hellos();
    for (unsigned i = 0; i < count; ++i) {
      const pid_t pid = fork();
      if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        CUdeviceptr p;
        if (hook_cuInit(0) != CUDA_SUCCESS || hook_cuMemAlloc_v2(&p, 4096) != CUDA_SUCCESS)
          _exit(1);
        for (;;) pause();
      }
      pids_.push_back(pid);
    }
    while (daemon.hellos() - before < count) usleep(1000);
  }
  ~Siblings() {
    for (const pid_t pid : pids_) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
  }

 private:
  std::vector<pid_t> pids_;
};

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

  printf("%-36s %11s %11s %11s %7s\n", "call", "native", "with shim", "added", "ratio");
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
  AllocFree("cuMemAlloc + cuMemFree, 0 live", 0);
  AllocFree("cuMemAlloc + cuMemFree, 100000 live", 100000);
  testing::SetAlwaysFresh(true);  // no address twice: each finds a place that no cache holds
  AllocFree("the same, no address twice", 100000);
  testing::SetAlwaysFresh(false);
  {
    const Siblings siblings(daemon, 64);
    AllocFree("cuMemAlloc + cuMemFree, 64 processes", 0);
  }
  size_t free, total;
  Print("cuMemGetInfo",
        NanosecondsPerCall(500000, [&] { g_driver.cuMemGetInfo_v2(&free, &total); }),
        NanosecondsPerCall(500000, [&] { hook_cuMemGetInfo_v2(&free, &total); }));
  printf("A function that is not hooked is the driver's own: nothing is added.\n");
  testing::FreshProcess("");
  return 0;
}
