// Between the API's parameter structures and NodeParams: checks, copies out of the caller's memory,
// and back for the Get calls. Functions that take a current context read it from the thread.
#pragma once

#include "src/sim/client/graph.h"
#include "src/sim/client/stream.h"

namespace divvy::sim {

CUgraphNodeType TypeOf(const NodeParams& params);
// Whose device does it; null: that of whoever runs it.
Context* ContextOf(const NodeParams& params);

using KernelParams = CUDA_KERNEL_NODE_PARAMS_v3;
using MemsetParams = CUDA_MEMSET_NODE_PARAMS_v2;

// Each: CUDA_ERROR_INVALID_VALUE for what CUDA's documents rule out, and the errors of naming a
// context (null: the current one), an event or a function.
CUresult FromApi(const KernelParams& p, NodeParams* out);
CUresult FromApi(const CUDA_MEMCPY3D& p, CUcontext context, NodeParams* out);
CUresult FromApi(const MemsetParams& p, NodeParams* out);
CUresult FromApi(const CUDA_HOST_NODE_PARAMS& p, NodeParams* out);
CUresult FromApi(const CUDA_BATCH_MEM_OP_NODE_PARAMS& p, NodeParams* out);
CUresult RecordFromApi(CUevent event, NodeParams* out);
CUresult WaitFromApi(CUevent event, NodeParams* out);
// Of every type but memory nodes, which are made in a graph (graph_memory.h), and children.
CUresult FromApi(const CUgraphNodeParams& p, NodeParams* out);

KernelParams ToApi(Node* node, const KernelNode& n);
CUDA_MEMCPY3D ToApi(const CopyNode& n);
MemsetParams ToApi(const MemsetNode& n);
CUDA_BATCH_MEM_OP_NODE_PARAMS ToApi(MemOpNode& n);
CUcontext ContextHandleOf(CUgraphNode node);  // null: it has none

CUDA_KERNEL_NODE_PARAMS_v2 Narrow(const KernelParams& p);
KernelParams Widen(const CUDA_KERNEL_NODE_PARAMS_v1& p);
KernelParams Widen(const CUDA_KERNEL_NODE_PARAMS_v2& p);
MemsetParams Widen(const CUDA_MEMSET_NODE_PARAMS_v1& p, CUcontext context);

// Whether an executable node may change from `before` to `now`: cuGraphExecUpdate's limitations.
CUgraphExecUpdateResult MayBecome(const NodeParams& before, const NodeParams& now);

}  // namespace divvy::sim
