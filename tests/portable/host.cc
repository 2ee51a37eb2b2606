// A program that runs on every system from glibc 2.17 on and on musl, to load the probe into.
//
//   portable_host           the probe came by LD_PRELOAD and getpriority is its own
//   portable_host LIB.so    the probe comes by dlopen
#include <dlfcn.h>
#include <stdio.h>
#include <sys/resource.h>

#include <cstdint>

int main(int argc, char** argv) {
  void* library = nullptr;
  if (argc > 1 && !(library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL))) {
    printf("dlopen: %s\n", dlerror());
    return 1;
  }
  const int priority = getpriority(PRIO_PROCESS, 0);
  using Run = const char*(uint64_t*);
  auto* run = reinterpret_cast<Run*>(dlsym(library ? library : RTLD_DEFAULT, "divvy_probe_run"));
  if (!run) {
    printf("divvy_probe_run is not there\n");
    return 1;
  }
  uint64_t interposed = 0;
  const char* failed = run(&interposed);
  if (failed) {
    printf("the check '%s' fails\n", failed);
    return 1;
  }
  // The system's own priorities are -20 to 19; the probe adds 40.
  const bool by_preload = !library;
  if (interposed != (by_preload ? 1u : 0u) || (priority >= 20) != by_preload) {
    printf("interposed %d calls, priority %d\n", static_cast<int>(interposed), priority);
    return 1;
  }
  printf("probe ok (%s)\n", by_preload ? "preload" : "dlopen");
  return 0;
}
