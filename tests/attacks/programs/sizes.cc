// Allocations whose size is not what they take: `sizes odd` (a little more than a block of the
// driver each), `sizes half` (a little more than half of one), `sizes holes` (many small ones, of
// which one stays in each block, and then large ones).
#include <map>

#include "tests/attacks/attack.h"

namespace {

constexpr size_t kBlock = 2 * attack::kMiB;

attack::Holding TakeMany(const divvy::abi::DriverFns& cu, size_t bytes) {
  attack::Holding got;
  while (got.held < attack::kWanted) {
    CUdeviceptr at = 0;
    got.last = cu.cuMemAlloc_v2(&at, bytes);
    if (got.last != CUDA_SUCCESS) break;
    got.held += bytes;
  }
  return got;
}

attack::Holding TakeBetweenHoles(const divvy::abi::DriverFns& cu) {
  constexpr size_t kSmall = 32 << 10;
  std::map<CUdeviceptr, size_t> kept;  // by block
  std::vector<CUdeviceptr> others;
  CUdeviceptr at = 0;
  while (kept.size() * kBlock < attack::kWanted && cu.cuMemAlloc_v2(&at, kSmall) == CUDA_SUCCESS)
    if (!kept.emplace(at / kBlock, kSmall).second) others.push_back(at);
  for (const CUdeviceptr one : others) cu.cuMemFree_v2(one);
  attack::Holding got = attack::TakeLinear(cu);
  got.held += kept.size() * kBlock;
  return got;
}

}  // namespace

int main(int, char** argv) {
  const std::string way = argv[1];
  const auto cu = attack::Driver(attack::ByName());
  const CUresult entered = attack::Enter(cu);
  if (entered != CUDA_SUCCESS) return attack::Report({.last = entered, .note = "no context"});
  if (way == "holes") return attack::Report(TakeBetweenHoles(cu));
  return attack::Report(TakeMany(cu, (way == "odd" ? kBlock : kBlock / 2) + 1));
}
