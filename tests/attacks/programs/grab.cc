// No attack: takes all it can by the plainest path, or MIB of it. `grab [MIB]`. What other programs
// turn into once they have got rid of something, the suite's own control, and the neighbour that
// some attacks need.
#include <cstdlib>

#include "tests/attacks/attack.h"

int main(int argc, char** argv) {
  const auto cu = attack::Driver(attack::ByName());
  if (argc == 1) return attack::Report(attack::EnterAndTake(cu));
  attack::Holding holding{.held = static_cast<size_t>(std::atoi(argv[1])) * attack::kMiB};
  holding.last = attack::Enter(cu);
  CUdeviceptr p = 0;
  if (holding.last == CUDA_SUCCESS) holding.last = cu.cuMemAlloc_v2(&p, holding.held);
  if (holding.last != CUDA_SUCCESS) holding.held = 0;
  return attack::Report(holding);
}
