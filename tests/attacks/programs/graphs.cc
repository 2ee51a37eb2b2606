// Memory that a graph takes when it is launched: nodes that allocate and never free.
//   graphs once   one graph after another, each launched once
//   graphs clone  one graph, instantiated and launched again and again
#include "tests/attacks/attack.h"

namespace {

CUgraph Make(const divvy::abi::DriverFns& cu, size_t bytes) {
  CUgraph graph = nullptr;
  if (cu.cuGraphCreate(&graph, 0) != CUDA_SUCCESS) return nullptr;
  CUDA_MEM_ALLOC_NODE_PARAMS_v1 node{};
  node.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  node.poolProps.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  node.bytesize = bytes;
  CUgraphNode made = nullptr;
  return cu.cuGraphAddMemAllocNode(&made, graph, nullptr, 0, &node) == CUDA_SUCCESS ? graph
                                                                                    : nullptr;
}

}  // namespace

int main(int, char** argv) {
  const bool clone = std::string(argv[1]) == "clone";
  const auto cu = attack::Driver(attack::ByName());
  const CUresult entered = attack::Enter(cu);
  if (entered != CUDA_SUCCESS) return attack::Report({.last = entered, .note = "no context"});
  return attack::Report(attack::TakeAll([&](size_t bytes) -> CUresult {
    CUgraph graph = Make(cu, bytes), copy = nullptr;
    if (graph == nullptr) return CUDA_ERROR_UNKNOWN;
    if (clone && cu.cuGraphClone(&copy, graph) == CUDA_SUCCESS) graph = copy;
    CUgraphExec exec = nullptr;
    CUresult r = cu.cuGraphInstantiateWithFlags(&exec, graph, 0);
    if (r == CUDA_SUCCESS) r = cu.cuGraphLaunch(exec, nullptr);
    const CUresult done = cu.cuStreamSynchronize(nullptr);
    return r != CUDA_SUCCESS ? r : done;
  }));
}
