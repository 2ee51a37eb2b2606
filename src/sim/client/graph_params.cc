// Parameters of graph nodes, in and out. See graph_params.h.
#include "src/sim/client/graph_params.h"

#include <algorithm>
#include <cstring>

#include "src/sim/client/address_map.h"
#include "src/sim/client/copy.h"
#include "src/sim/client/library.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

CUresult ContextNamed(CUcontext handle, Context** out) {
  if (handle == nullptr) return Enter(out);
  *out = Context::From(handle);
  return *out == nullptr || (*out)->destroyed ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}

CUcontext Handle(Context* c) { return c != nullptr ? c->handle() : nullptr; }

// CUDA_MEMCPY3D and CUDA_MEMCPY3D_PEER differ in the contexts, which are reserved in the former.
CUDA_MEMCPY3D_PEER WithContexts(const CUDA_MEMCPY3D& p) {
  CUDA_MEMCPY3D_PEER out;
  static_assert(sizeof out == sizeof p);
  memcpy(&out, &p, sizeof out);
  out.srcContext = out.dstContext = nullptr;
  return out;
}

bool OneDimensional(const CUDA_MEMCPY3D_PEER& c) {
  return c.Height == 1 && c.Depth == 1 && c.srcArray == nullptr && c.dstArray == nullptr;
}

// The device whose memory a pointer names; null for the host's.
Device* Where(uint64_t address) {
  auto range = AddressMap::Get().Find(address);
  return range ? range->device : nullptr;
}

Device* Where(CUmemorytype type, const void* host, CUdeviceptr device) {
  return Where(type == CU_MEMORYTYPE_HOST ? reinterpret_cast<uint64_t>(host) : device);
}

}  // namespace

CUgraphNodeType TypeOf(const NodeParams& params) {
  struct Type {
    CUgraphNodeType operator()(const EmptyNode&) const { return CU_GRAPH_NODE_TYPE_EMPTY; }
    CUgraphNodeType operator()(const KernelNode&) const { return CU_GRAPH_NODE_TYPE_KERNEL; }
    CUgraphNodeType operator()(const MemsetNode&) const { return CU_GRAPH_NODE_TYPE_MEMSET; }
    CUgraphNodeType operator()(const CopyNode&) const { return CU_GRAPH_NODE_TYPE_MEMCPY; }
    CUgraphNodeType operator()(const HostNode&) const { return CU_GRAPH_NODE_TYPE_HOST; }
    // Never in a graph: capture refuses it.
    CUgraphNodeType operator()(const CallbackNode&) const { return CU_GRAPH_NODE_TYPE_HOST; }
    CUgraphNodeType operator()(const MemOpNode&) const { return CU_GRAPH_NODE_TYPE_BATCH_MEM_OP; }
    CUgraphNodeType operator()(const EventRecordNode&) const {
      return CU_GRAPH_NODE_TYPE_EVENT_RECORD;
    }
    CUgraphNodeType operator()(const EventWaitNode&) const { return CU_GRAPH_NODE_TYPE_WAIT_EVENT; }
    CUgraphNodeType operator()(const AllocNode&) const { return CU_GRAPH_NODE_TYPE_MEM_ALLOC; }
    CUgraphNodeType operator()(const FreeNode&) const { return CU_GRAPH_NODE_TYPE_MEM_FREE; }
    CUgraphNodeType operator()(const ChildNode&) const { return CU_GRAPH_NODE_TYPE_GRAPH; }
  };
  return std::visit(Type{}, params);
}

Context* ContextOf(const NodeParams& params) {
  if (auto* n = std::get_if<KernelNode>(&params)) return n->function->module->context;
  if (auto* n = std::get_if<CopyNode>(&params)) return n->context;
  if (auto* n = std::get_if<MemsetNode>(&params)) return n->context;
  if (auto* n = std::get_if<MemOpNode>(&params)) return n->context;
  if (auto* n = std::get_if<EventRecordNode>(&params)) return n->event->context;
  return nullptr;
}

CUresult FromApi(const KernelParams& p, NodeParams* out) {
  // "func" and "kern" are two ways to say what runs.
  if (p.func == nullptr && p.kern == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUfunction f = p.func != nullptr ? p.func : reinterpret_cast<CUfunction>(p.kern);
  Context* context;
  if (CUresult r = ContextNamed(p.ctx, &context)) return r;
  const unsigned grid[3] = {p.gridDimX, p.gridDimY, p.gridDimZ};
  const unsigned block[3] = {p.blockDimX, p.blockDimY, p.blockDimZ};
  KernelNode n;
  // A kernel of a library is loaded into the context it runs in, the current one.
  if (CUresult r = sim_cuCtxPushCurrent_v2(context->handle())) return r;
  CUresult r = MakeKernelNode(f, grid, block, p.sharedMemBytes, p.kernelParams, p.extra, &n);
  (void)sim_cuCtxPopCurrent_v2(nullptr);
  if (r == CUDA_SUCCESS) *out = std::move(n);
  return r;
}

CUresult FromApi(const CUDA_MEMCPY3D& p, CUcontext context, NodeParams* out) {
  // "Zero-length operations are not supported."
  if (p.WidthInBytes == 0 || p.Height == 0 || p.Depth == 0) return CUDA_ERROR_INVALID_VALUE;
  CopyNode n;
  if (CUresult r = ContextNamed(context, &n.context)) return r;
  n.copy = WithContexts(p);
  if (CUresult r = CheckCopy(n.copy)) return r;
  *out = n;
  return CUDA_SUCCESS;
}

CUresult FromApi(const MemsetParams& p, NodeParams* out) {
  bool size_ok = p.elementSize == 1 || p.elementSize == 2 || p.elementSize == 4;
  if (p.dst == 0 || !size_ok || p.width == 0 || p.height == 0 || p.dst % p.elementSize != 0 ||
      (p.height > 1 && p.pitch < p.width * p.elementSize)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  MemsetNode n;
  if (CUresult r = ContextNamed(p.ctx, &n.context)) return r;
  n.dst = p.dst;
  n.pitch = p.pitch;
  n.width = p.width;
  n.height = p.height;
  n.element_bytes = p.elementSize;
  n.value = p.value;
  if (CUresult r = CheckMemset(n)) return r;
  *out = n;
  return CUDA_SUCCESS;
}

CUresult FromApi(const CUDA_HOST_NODE_PARAMS& p, NodeParams* out) {
  if (p.fn == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = HostNode{p.fn, p.userData};
  return CUDA_SUCCESS;
}

CUresult FromApi(const CUDA_BATCH_MEM_OP_NODE_PARAMS& p, NodeParams* out) {
  // "count - Number of operations in the batch"; flags must be 0.
  if (p.count == 0 || p.count > 256 || p.paramArray == nullptr || p.flags != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  MemOpNode n;
  if (CUresult r = ContextNamed(p.ctx, &n.context)) return r;
  n.ops.assign(p.paramArray, p.paramArray + p.count);
  *out = std::move(n);
  return CUDA_SUCCESS;
}

CUresult RecordFromApi(CUevent event, NodeParams* out) {
  Event* e;
  if (CUresult r = EnterEvent(event, &e)) return r;
  *out = EventRecordNode{e};
  return CUDA_SUCCESS;
}

CUresult WaitFromApi(CUevent event, NodeParams* out) {
  Event* e;
  if (CUresult r = EnterEvent(event, &e)) return r;
  *out = EventWaitNode{e};
  return CUDA_SUCCESS;
}

CUresult FromApi(const CUgraphNodeParams& p, NodeParams* out) {
  switch (p.type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
      return FromApi(p.kernel, out);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      return FromApi(p.memcpy.copyParams, p.memcpy.copyCtx, out);
    case CU_GRAPH_NODE_TYPE_MEMSET:
      return FromApi(p.memset, out);
    case CU_GRAPH_NODE_TYPE_HOST:
      return FromApi(CUDA_HOST_NODE_PARAMS{p.host.fn, p.host.userData}, out);
    case CU_GRAPH_NODE_TYPE_EMPTY:
      *out = EmptyNode{};
      return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
      return WaitFromApi(p.eventWait.event, out);
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      return RecordFromApi(p.eventRecord.event, out);
    case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
      return FromApi(CUDA_BATCH_MEM_OP_NODE_PARAMS{p.memOp.ctx, p.memOp.count, p.memOp.paramArray,
                                                   p.memOp.flags},
                     out);
    case CU_GRAPH_NODE_TYPE_EXT_SEMAS_SIGNAL:
    case CU_GRAPH_NODE_TYPE_EXT_SEMAS_WAIT:
    case CU_GRAPH_NODE_TYPE_CONDITIONAL:
      return CUDA_ERROR_NOT_SUPPORTED;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

KernelParams ToApi(Node* node, const KernelNode& n) {
  KernelParams p{};
  p.func = reinterpret_cast<CUfunction>(n.function);
  p.gridDimX = n.grid[0];
  p.gridDimY = n.grid[1];
  p.gridDimZ = n.grid[2];
  p.blockDimX = n.block[0];
  p.blockDimY = n.block[1];
  p.blockDimZ = n.block[2];
  p.sharedMemBytes = n.shared_bytes;
  p.ctx = Handle(n.function->module->context);
  node->shown_args.clear();
  for (const Param& param : n.function->info->params) {
    node->shown_args.push_back(const_cast<unsigned char*>(n.args.data()) + param.offset);
  }
  p.kernelParams = node->shown_args.empty() ? nullptr : node->shown_args.data();
  return p;
}

CUDA_MEMCPY3D ToApi(const CopyNode& n) {
  CUDA_MEMCPY3D p;
  memcpy(&p, &n.copy, sizeof p);
  p.reserved0 = p.reserved1 = nullptr;
  return p;
}

MemsetParams ToApi(const MemsetNode& n) {
  return {n.dst, n.pitch, n.value, n.element_bytes, n.width, n.height, Handle(n.context)};
}

CUDA_BATCH_MEM_OP_NODE_PARAMS ToApi(MemOpNode& n) {
  return {Handle(n.context), unsigned(n.ops.size()), n.ops.data(), 0};
}

CUcontext ContextHandleOf(CUgraphNode handle) {
  GraphLock lock(GraphMutex());
  Node* n = Node::From(handle);
  return n != nullptr ? Handle(ContextOf(n->params)) : nullptr;
}

CUDA_KERNEL_NODE_PARAMS_v2 Narrow(const KernelParams& p) {
  return {p.func,      p.gridDimX,       p.gridDimY,     p.gridDimZ, p.blockDimX, p.blockDimY,
          p.blockDimZ, p.sharedMemBytes, p.kernelParams, p.extra,    p.kern,      p.ctx};
}
KernelParams Widen(const CUDA_KERNEL_NODE_PARAMS_v1& p) {
  return {p.func,      p.gridDimX,       p.gridDimY,     p.gridDimZ, p.blockDimX, p.blockDimY,
          p.blockDimZ, p.sharedMemBytes, p.kernelParams, p.extra,    nullptr,     nullptr};
}
KernelParams Widen(const CUDA_KERNEL_NODE_PARAMS_v2& p) {
  return {p.func,      p.gridDimX,       p.gridDimY,     p.gridDimZ, p.blockDimX, p.blockDimY,
          p.blockDimZ, p.sharedMemBytes, p.kernelParams, p.extra,    p.kern,      p.ctx};
}
MemsetParams Widen(const CUDA_MEMSET_NODE_PARAMS_v1& p, CUcontext context) {
  return {p.dst, p.pitch, p.value, p.elementSize, p.width, p.height, context};
}

CUgraphExecUpdateResult MayBecome(const NodeParams& before, const NodeParams& now) {
  if (TypeOf(before) != TypeOf(now)) return CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
  if (auto* a = std::get_if<KernelNode>(&before)) {
    auto& b = std::get<KernelNode>(now);
    // "The owning context of the function cannot change"; cooperative stays cooperative.
    if (ContextOf(before) != ContextOf(now)) {
      return CU_GRAPH_EXEC_UPDATE_ERROR_UNSUPPORTED_FUNCTION_CHANGE;
    }
    if (a->cooperative != b.cooperative) return CU_GRAPH_EXEC_UPDATE_ERROR_ATTRIBUTES_CHANGED;
  }
  if (auto* a = std::get_if<MemsetNode>(&before)) {
    auto& b = std::get<MemsetNode>(now);
    bool same_size = a->width == b.width && a->height == b.height && a->pitch == b.pitch &&
                     a->element_bytes == b.element_bytes;
    // "For 2d memsets, only address and assigned value may be updated. For 1d memsets, updating
    // dimensions is also allowed", height is not.
    bool one_dimensional = a->height == 1 && b.height == 1;
    if (a->context != b.context || Where(a->dst) != Where(b.dst) ||
        !(same_size || one_dimensional)) {
      return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
    }
  }
  if (auto* a = std::get_if<CopyNode>(&before)) {
    auto& b = std::get<CopyNode>(now);
    const auto &x = a->copy, &y = b.copy;
    // Devices, contexts and memory types stay; only one-dimensional copies may change.
    if (a->context != b.context || x.srcMemoryType != y.srcMemoryType ||
        x.dstMemoryType != y.dstMemoryType ||
        Where(x.srcMemoryType, x.srcHost, x.srcDevice) !=
            Where(y.srcMemoryType, y.srcHost, y.srcDevice) ||
        Where(x.dstMemoryType, x.dstHost, x.dstDevice) !=
            Where(y.dstMemoryType, y.dstHost, y.dstDevice)) {
      return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
    }
    bool same = memcmp(&x, &y, sizeof x) == 0;
    if (!same && !(OneDimensional(x) && OneDimensional(y))) {
      return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
    }
  }
  if (auto* a = std::get_if<AllocNode>(&before)) {
    if (a->params.bytesize != std::get<AllocNode>(now).params.bytesize) {
      return CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
    }
  }
  return CU_GRAPH_EXEC_UPDATE_SUCCESS;
}

}  // namespace divvy::sim
