// Graph memory: allocation and free nodes, and the memory that a device keeps for graphs (CUDA C++
// Programming Guide, "Graph Memory Nodes"). An allocation has its address from the moment its node
// is made; memory is taken when a graph is uploaded or launched, shared between graphs that are
// launched into the same stream, and kept until cuDeviceGraphMemTrim.
#pragma once

#include <memory>
#include <vector>

#include "src/sim/client/graph.h"
#include "src/sim/client/stream.h"

namespace divvy::sim {

// One allocation node's memory. Its address is reserved as long as a graph, an executable graph or
// the program (when it is live) can name it.
struct GraphAllocation {
  GraphAllocation() = default;
  GraphAllocation(const GraphAllocation&) = delete;
  GraphAllocation& operator=(const GraphAllocation&) = delete;
  ~GraphAllocation();

  Device* device = nullptr;
  uint64_t address = 0, bytes = 0;
  uint64_t offset = 0, block_bytes = 0;  // in the device's arena
  const Graph* owner = nullptr;          // that its node was added to, for comparing only
  bool freed_in_owner = false;           // a free node in the owner names it
  bool freed_elsewhere = false;          // one in another graph does
};

// Nodes from the API's parameters; p->dptr is set. The graph lock is held. `graph`: that the free
// node will be added to.
CUresult MakeAllocNode(CUDA_MEM_ALLOC_NODE_PARAMS* p, Context* context, NodeParams* out);
CUresult MakeFreeNode(CUdeviceptr ptr, Graph* graph, NodeParams* out);
// A memory node has its place in a graph now.
void OwnMemoryNode(Graph* graph, const NodeParams& params);

using MemoryNodes = std::vector<const NodeParams*>;  // AllocNode and FreeNode, in launch order

// Takes memory for an upload of executable graph number `exec` into `stream`.
// CUDA_ERROR_OUT_OF_MEMORY, and nothing has changed, when the device is full.
CUresult TakeForUpload(uint64_t exec, Stream* stream, const MemoryNodes& nodes);
// The same for a launch, and its allocations and frees take effect for later calls.
// CUDA_ERROR_INVALID_VALUE when it allocates what was not freed since its last launch (and
// `auto_free` is not said), or frees what is not allocated.
CUresult TakeForLaunch(uint64_t exec, Stream* stream, const MemoryNodes& nodes, bool auto_free);
// The launch is in its stream: until `last` has ended it uses its memory.
void GraphMemoryInUse(uint64_t exec, Ticket last);
// The device's last context of this process is gone, and with it all of its memory.
void ReleaseGraphMemory(Device* device);
// The executable graph is gone: others may use its memory when its last launch has ended.
void ForgetGraphMemory(uint64_t exec);

}  // namespace divvy::sim
