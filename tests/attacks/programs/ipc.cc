// Memory of another process of the tenant: taken by one, opened by others, and given up by the one
// that took it while the others still hold it. `ipc`; `ipc measured`: the same after the daemon has
// had time to compare what both are charged with what the driver shows, and the importer then takes
// all that there is.
#include <unistd.h>

#include <cstring>

#include "tests/attacks/attack.h"

constexpr unsigned kMeasuredUs = 2'000'000;  // many readings

int main(int argc, char** argv) {
  const bool measured = argc > 1 && std::strcmp(argv[1], "measured") == 0;
  int up[2], down[2];
  if (::pipe(up) != 0 || ::pipe(down) != 0) return 1;
  const attack::Holding sum = attack::InChildren(2, [&](unsigned index) -> attack::Holding {
    const auto cu = attack::Driver(attack::ByName());
    const CUresult r = attack::Enter(cu);
    CUdeviceptr p = 0;
    CUipcMemHandle handle{};
    char go = 0;
    if (index == 0) {
      CUresult made = r;
      if (made == CUDA_SUCCESS) made = cu.cuMemAlloc_v2(&p, 512 * attack::kMiB);
      if (made == CUDA_SUCCESS) made = cu.cuIpcGetMemHandle(&handle, p);
      if (::write(up[1], &handle, sizeof(handle)) != sizeof(handle)) return {.last = -1};
      if (::read(down[0], &go, 1) != 1) return {.last = -1};
      if (measured) ::usleep(kMeasuredUs);
      if (made == CUDA_SUCCESS) cu.cuMemFree_v2(p);  // the importer keeps it alive
      if (measured && ::write(up[1], &go, 1) != 1) return {.last = -1};
      if (measured) return {.last = made};
      return made == CUDA_SUCCESS ? attack::TakeLinear(cu) : attack::Holding{.last = made};
    }
    if (::read(up[0], &handle, sizeof(handle)) != sizeof(handle)) return {.last = -1};
    const CUresult opened = r == CUDA_SUCCESS ? cu.cuIpcOpenMemHandle_v2(&p, handle, 1) : r;
    if (::write(down[1], &go, 1) != 1) return {.last = -1};
    attack::Holding mine{.last = opened};
    if (measured && ::read(up[0], &go, 1) != 1) return {.last = -1};
    if (r == CUDA_SUCCESS) mine = attack::TakeLinear(cu);
    if (opened == CUDA_SUCCESS) mine.held += 512 * attack::kMiB;
    return mine;
  });
  return attack::Report(sum);
}
