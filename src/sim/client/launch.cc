// Kernel launches and host functions (CUDA Driver API, "Execution Control"). What a kernel does is
// told by its name, see KernelKind; the part of the device that it fills by its grid.
#include <stdlib.h>
#include <string.h>

#include <algorithm>

#include "src/sim/client/capture.h"
#include "src/sim/client/library.h"
#include "src/sim/client/memory.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

uint64_t DefaultKernelNs() {
  static const uint64_t ns = [] {
    const char* env = getenv("DIVVY_SIM_KERNEL_NS");
    return env != nullptr ? strtoull(env, nullptr, 10) : 5000ull;
  }();
  return ns;
}

template <typename T>
T Arg(const KernelNode& n, size_t index) {
  T value{};
  const auto& params = n.function->info->params;
  if (index < params.size() && params[index].offset + sizeof value <= n.args.size()) {
    memcpy(&value, n.args.data() + params[index].offset, sizeof value);
  }
  return value;
}

// Calls the program's own function for a kernel: before (it may set the time) or at the end.
uint64_t CallHost(const KernelNode& n, int phase, uint64_t duration_ns) {
  const KernelInfo& info = *n.function->info;
  std::vector<void*> pointers;
  auto* base = const_cast<unsigned char*>(n.args.data());
  for (const Param& p : info.params) {
    if (p.offset + p.bytes <= n.args.size()) pointers.push_back(base + p.offset);
  }
  SimLaunch l{info.name.c_str(),
              {n.grid[0], n.grid[1], n.grid[2]},
              {n.block[0], n.block[1], n.block[2]},
              n.shared_bytes,
              pointers.empty() ? nullptr : pointers.data(),
              n.args.data(),
              n.args.size(),
              duration_ns,
              phase};
  info.host(&l);
  return l.duration_ns;
}

// Packs the caller's arguments, given as pointers or as a buffer.
CUresult Pack(Function* f, void** params, void** extra, std::vector<unsigned char>* out) {
  if (params != nullptr && extra != nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (extra != nullptr) {
    const void* buffer = nullptr;
    size_t bytes = 0;
    for (int i = 0; extra[i] != CU_LAUNCH_PARAM_END; i += 2) {
      if (extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER) buffer = extra[i + 1];
      if (extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE) bytes = *static_cast<size_t*>(extra[i + 1]);
    }
    if (buffer != nullptr) {
      auto* b = static_cast<const unsigned char*>(buffer);
      out->assign(b, b + bytes);
    }
    return CUDA_SUCCESS;
  }
  const auto& layout = f->info->params;
  if (layout.empty()) return CUDA_SUCCESS;
  if (params == nullptr) return CUDA_ERROR_INVALID_VALUE;
  out->resize(layout.back().offset + layout.back().bytes);
  for (size_t i = 0; i < layout.size(); ++i) {
    if (params[i] == nullptr) return CUDA_ERROR_INVALID_VALUE;
    memcpy(out->data() + layout[i].offset, params[i], layout[i].bytes);
  }
  return CUDA_SUCCESS;
}

CUresult CheckShape(const KernelNode& n) {
  const unsigned block_max[3] = {1024, 1024, 64};
  const unsigned grid_max[3] = {2147483647, 65535, 65535};
  uint64_t threads = 1;
  for (int i = 0; i < 3; ++i) {
    if (n.block[i] == 0 || n.grid[i] == 0) return CUDA_ERROR_INVALID_VALUE;
    if (n.block[i] > block_max[i] || n.grid[i] > grid_max[i]) return CUDA_ERROR_INVALID_VALUE;
    threads *= n.block[i];
  }
  if (threads > 1024) return CUDA_ERROR_INVALID_VALUE;
  const Profile& p = Process::Get().profile();
  if (n.shared_bytes > p.shared_per_block_optin_bytes) return CUDA_ERROR_INVALID_VALUE;
  if (n.cooperative) {  // all blocks must be resident at once
    uint64_t blocks = uint64_t(n.grid[0]) * n.grid[1] * n.grid[2];
    uint64_t fit = uint64_t(p.sm_count) * std::min<uint64_t>(32, p.threads_per_sm / threads);
    if (blocks > fit) return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
  }
  return CUDA_SUCCESS;
}

CUresult Launch(CUfunction handle, KernelNode n, CUstream stream, void** params, void** extra) {
  Stream* s;
  if (CUresult r = EnterStream(stream, &s)) return r;
  n.function = FunctionOf(handle);
  if (n.function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (n.function->module->context != s->context) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult r = CheckShape(n)) return r;
  if (CUresult r = Pack(n.function, params, extra, &n.args)) return r;
  return SubmitOrCapture(s, std::move(n));
}

}  // namespace

CUresult MakeKernelNode(CUfunction handle, const unsigned grid[3], const unsigned block[3],
                        unsigned shared_bytes, void** params, void** extra, KernelNode* out) {
  out->function = FunctionOf(handle);
  if (out->function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  std::copy(grid, grid + 3, out->grid);
  std::copy(block, block + 3, out->block);
  out->shared_bytes = shared_bytes;
  if (CUresult r = CheckShape(*out)) return r;
  out->args.clear();
  return Pack(out->function, params, extra, &out->args);
}

Work WorkOf(const KernelNode& n, Context* context) {
  const Profile& p = Process::Get().profile();
  Work w;
  w.kind = OpKind::kCompute;
  w.duration_ns = DefaultKernelNs();
  uint64_t threads = uint64_t(n.block[0]) * n.block[1] * n.block[2];
  uint64_t blocks = uint64_t(n.grid[0]) * n.grid[1] * n.grid[2];
  uint64_t per_sm = std::clamp<uint64_t>(p.threads_per_sm / threads, 1, 32);
  uint64_t room = per_sm * uint64_t(p.sm_count);
  w.sm_permille = uint16_t(std::clamp<uint64_t>(blocks * 1000 / room, 1, 1000));
  switch (n.function->info->kind) {
    case KernelKind::kTimed:
      break;
    case KernelKind::kSpin:
      w.duration_ns = Arg<uint64_t>(n, 0);
      break;
    case KernelKind::kStore: {
      uint64_t at = Arg<uint64_t>(n, 0);
      uint32_t value = Arg<uint32_t>(n, 1);
      w.effect = [at, value, context](uint64_t) {
        if (!Accessible(at, 4, true)) return FaultContext(context);
        __atomic_store_n(reinterpret_cast<uint32_t*>(at), value, __ATOMIC_RELEASE);
      };
      break;
    }
    case KernelKind::kWaitValue: {
      uint64_t at = Arg<uint64_t>(n, 0);
      uint32_t value = Arg<uint32_t>(n, 1);
      if (!Accessible(at, 4, false)) {
        w.effect = [context](uint64_t) { FaultContext(context); };
        break;
      }
      w.kind = OpKind::kExternalCompute;
      w.satisfied = [at, value] {
        return __atomic_load_n(reinterpret_cast<uint32_t*>(at), __ATOMIC_ACQUIRE) == value;
      };
      break;
    }
    case KernelKind::kFault:
      w.effect = [context](uint64_t) { FaultContext(context); };
      break;
    case KernelKind::kHost: {
      w.duration_ns = CallHost(n, 0, w.duration_ns);
      KernelNode copy = n;
      w.effect = [copy](uint64_t) { CallHost(copy, 1, 0); };
      break;
    }
  }
  return w;
}

Work WorkOf(const HostNode& n, Context*) {
  Work w;
  w.kind = OpKind::kExternal;
  w.host = [fn = n.fn, data = n.data] { fn(data); };
  return w;
}

Work WorkOf(const CallbackNode& n, Context* context) {
  Work w;
  w.kind = OpKind::kExternal;
  w.host = [n, context] { n.fn(n.stream, CUresult(context->sticky.load()), n.data); };
  return w;
}

CUresult sim_cuLaunchKernel(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz,
                            unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared,
                            CUstream stream, void** params, void** extra) {
  KernelNode n;
  n.grid[0] = gx, n.grid[1] = gy, n.grid[2] = gz;
  n.block[0] = bx, n.block[1] = by, n.block[2] = bz;
  n.shared_bytes = shared;
  return Launch(f, std::move(n), stream, params, extra);
}

CUresult sim_cuLaunchCooperativeKernel(CUfunction f, unsigned int gx, unsigned int gy,
                                       unsigned int gz, unsigned int bx, unsigned int by,
                                       unsigned int bz, unsigned int shared, CUstream stream,
                                       void** params) {
  KernelNode n;
  n.grid[0] = gx, n.grid[1] = gy, n.grid[2] = gz;
  n.block[0] = bx, n.block[1] = by, n.block[2] = bz;
  n.shared_bytes = shared;
  n.cooperative = true;
  return Launch(f, std::move(n), stream, params, nullptr);
}

CUresult sim_cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction f, void** params,
                              void** extra) {
  if (config == nullptr) return CUDA_ERROR_INVALID_VALUE;
  KernelNode n;
  n.grid[0] = config->gridDimX, n.grid[1] = config->gridDimY, n.grid[2] = config->gridDimZ;
  n.block[0] = config->blockDimX, n.block[1] = config->blockDimY, n.block[2] = config->blockDimZ;
  n.shared_bytes = config->sharedMemBytes;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const CUlaunchAttribute& a = config->attrs[i];
    if (a.id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE) n.cooperative = a.value.cooperative != 0;
    if (a.id == CU_LAUNCH_ATTRIBUTE_PRIORITY) {
      n.has_priority = true;
      n.priority = a.value.priority;
    }
  }
  return Launch(f, std::move(n), config->hStream, params, extra);
}

CUresult sim_cuLaunchHostFunc(CUstream stream, CUhostFn fn, void* data) {
  Stream* s;
  if (CUresult r = EnterStream(stream, &s)) return r;
  if (fn == nullptr) return CUDA_ERROR_INVALID_VALUE;
  return SubmitOrCapture(s, HostNode{fn, data});
}

CUresult sim_cuStreamAddCallback(CUstream stream, CUstreamCallback fn, void* data,
                                 unsigned int flags) {
  Stream* s;
  if (CUresult r = EnterStream(stream, &s)) return r;
  if (fn == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  return SubmitOrCapture(s, CallbackNode{fn, data, stream});
}

}  // namespace divvy::sim
