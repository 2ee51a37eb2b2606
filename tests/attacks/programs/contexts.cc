// Memory that contexts cost: as many as the driver makes, and the heaps they may be given.
//   contexts many   cuCtxCreate again and again       contexts heap   a large malloc heap in one
//   contexts stack  deeper and deeper stacks for the device's threads
#include "tests/attacks/attack.h"

int main(int, char** argv) {
  const auto cu = attack::Driver(attack::ByName());
  if (std::string(argv[1]) == "heap") {
    const CUresult entered = attack::Enter(cu);
    if (entered != CUDA_SUCCESS) return attack::Report({.last = entered, .note = "no context"});
    const CUresult r = cu.cuCtxSetLimit(CU_LIMIT_MALLOC_HEAP_SIZE, 4 * attack::kGiB);
    attack::Holding holding = attack::TakeLinear(cu);
    holding.note = "heap: " + std::to_string(r);
    return attack::Report(holding);
  }
  if (std::string(argv[1]) == "stack") {
    const CUresult entered = attack::Enter(cu);
    if (entered != CUDA_SUCCESS) return attack::Report({.last = entered, .note = "no context"});
    size_t stack = 1024;
    CUresult r = CUDA_SUCCESS;
    for (; r == CUDA_SUCCESS && stack < 64 << 10; stack += 256)
      r = cu.cuCtxSetLimit(CU_LIMIT_STACK_SIZE, stack);
    attack::Holding holding = attack::TakeLinear(cu);
    holding.note = "stacks of " + std::to_string(stack) + ": " + std::to_string(r);
    return attack::Report(holding);
  }
  attack::Holding holding;
  CUresult r = cu.cuInit(0);
  unsigned made = 0;
  for (CUcontext context; r == CUDA_SUCCESS && made < 64; made += r == CUDA_SUCCESS)
    r = cu.cuCtxCreate_v2(&context, 0, 0);
  if (made > 0) holding = attack::TakeLinear(cu);
  holding.note = std::to_string(made) + " contexts";
  return attack::Report(holding);
}
