// NodeParams: one piece of work as the API describes it, for direct submission and as a graph node
// alike; WorkOf turns it into what the executor and the timeline understand.
#pragma once

#include <map>
#include <memory>
#include <variant>
#include <vector>

#include "src/sim/client/work.h"

namespace divvy::sim {

struct Function;         // module.h
struct Graph;            // graph.h
struct GraphAllocation;  // graph_memory.h
struct Event;
struct Context;
class Device;

struct KernelNode {
  Function* function = nullptr;
  unsigned grid[3] = {1, 1, 1}, block[3] = {1, 1, 1};
  unsigned shared_bytes = 0;
  bool cooperative = false;
  int priority = 0;
  bool has_priority = false;
  std::map<CUlaunchAttributeID, CUlaunchAttributeValue> attributes;  // of a graph node
  std::vector<unsigned char> args;  // packed as the kernel's parameter layout says
};
struct MemsetNode {
  CUdeviceptr dst = 0;
  size_t pitch = 0, width = 0, height = 1;  // width in elements
  unsigned element_bytes = 1, value = 0;
  Context* context = nullptr;  // of a graph node; null: the stream's
};
struct CopyNode {
  CUDA_MEMCPY3D_PEER copy{};   // contexts null: the stream's
  Context* context = nullptr;  // of a graph node; null: the stream's
};
struct HostNode {
  CUhostFn fn = nullptr;
  void* data = nullptr;
};
struct CallbackNode {  // cuStreamAddCallback: never a graph node
  CUstreamCallback fn = nullptr;
  void* data = nullptr;
  CUstream stream = nullptr;
};
struct MemOpNode {
  std::vector<CUstreamBatchMemOpParams> ops;
  Context* context = nullptr;  // of a graph node; null: the stream's
};
struct EventRecordNode {
  Event* event = nullptr;
};
struct EventWaitNode {
  Event* event = nullptr;
};
struct EmptyNode {};
struct AllocNode {
  CUDA_MEM_ALLOC_NODE_PARAMS params{};
  std::vector<CUmemAccessDesc> access;
  std::shared_ptr<GraphAllocation> memory;
};
struct FreeNode {
  CUdeviceptr ptr = 0;
  std::shared_ptr<GraphAllocation> memory;
};
struct ChildNode {
  std::shared_ptr<Graph> graph;
};

using NodeParams =
    std::variant<EmptyNode, KernelNode, MemsetNode, CopyNode, HostNode, CallbackNode, MemOpNode,
                 EventRecordNode, EventWaitNode, AllocNode, FreeNode, ChildNode>;

// Submits without capture's rules: what a stream that does not capture does, and a graph launch for
// each of its nodes (but memory nodes and child graphs, which are the graph's).
Ticket SubmitNode(Stream* stream, const NodeParams& params);

// launch.cc. The part of the device that the grid fills and its time; runs a registered function at
// its end.
Work WorkOf(const KernelNode& n, Context* context);
// Fills and checks a kernel node from what a caller passed (launch.cc).
CUresult MakeKernelNode(CUfunction handle, const unsigned grid[3], const unsigned block[3],
                        unsigned shared_bytes, void** params, void** extra, KernelNode* out);
Work WorkOf(const HostNode& n, Context* context);      // launch.cc
Work WorkOf(const CallbackNode& n, Context* context);  // launch.cc
Work WorkOf(const MemsetNode& n, Context* context);    // copy.cc
Work WorkOf(const CopyNode& n, Context* context);      // copy.cc
// memops.cc: one Work per operation, in order (a wait ends only when its value is there).
std::vector<Work> WorksOf(const MemOpNode& n, Context* context);

}  // namespace divvy::sim
