// Takes memory past the shim while it never stops charging and crediting through it, so that an
// audit that waits for stillness never gets to see it. `restless`.
#include <dlfcn.h>
#include <poll.h>
#include <unistd.h>

#include <cstdio>

#include "tests/attacks/attack.h"

int main() {
  const auto cu = attack::Driver(attack::ByName());
  const CUresult entered = attack::Enter(cu);
  if (entered != CUDA_SUCCESS) return attack::Report({.last = entered, .note = "no context"});
  const auto past = attack::Driver(attack::BySymbolTable(attack::IsDriverObject));
  const attack::Holding holding = attack::TakeLinear(past);
  std::printf("{\"held\": %zu, \"last\": %d, \"breached\": false, \"note\": \"restless\"}\n",
              holding.held, holding.last);
  std::fflush(stdout);
  for (pollfd in{STDIN_FILENO, POLLIN, 0}; ::poll(&in, 1, 1) == 0;) {
    CUdeviceptr p = 0;
    if (cu.cuMemAlloc_v2(&p, 4096) == CUDA_SUCCESS) cu.cuMemFree_v2(p);
  }
  return 0;
}
