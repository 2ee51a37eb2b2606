// What copies and memsets do: their time on the device and their effect on memory. Copies between
// host and device run on a copy engine, everything else takes SMs for as long as device memory's
// bandwidth says. Device pointers are host addresses; they are looked up again when the effect
// happens, so that memory that went away meanwhile is a fault, as on the device.
#include "src/sim/client/copy.h"

#include <string.h>

#include <algorithm>

#include "src/sim/client/array.h"
#include "src/sim/client/capture.h"
#include "src/sim/client/managed.h"

namespace divvy::sim {
namespace {

constexpr uint64_t kKernelCopyNs = 2'000;

// One side of a copy: where its first byte is and how it steps.
struct Side {
  bool host = false;
  bool pinned = false;
  bool array = false;  // its memory is in no range: the driver's own
  uint64_t at = 0;
  size_t row_bytes = 0, slice_bytes = 0;
  uint64_t last = 0;  // one past the last byte touched
};

CUresult MakeSide(CUmemorytype type, const void* host, CUdeviceptr device, CUarray array, size_t x,
                  size_t y, size_t z, size_t pitch, size_t height, const CUDA_MEMCPY3D_PEER& c,
                  Side* out) {
  size_t rows = std::max<size_t>(c.Height, 1), slices = std::max<size_t>(c.Depth, 1);
  uint64_t base = 0;
  switch (type) {
    case CU_MEMORYTYPE_HOST:
      out->host = true;
      base = reinterpret_cast<uint64_t>(host);
      break;
    case CU_MEMORYTYPE_UNIFIED:
    case CU_MEMORYTYPE_DEVICE:
      base = device;
      break;
    case CU_MEMORYTYPE_ARRAY: {
      Array* a = ArrayOf(array);
      if (a == nullptr) return CUDA_ERROR_INVALID_HANDLE;
      out->array = true;
      base = a->memory.base;
      pitch = a->row_bytes();
      height = a->rows();
      if (x + c.WidthInBytes > pitch || y + rows > height ||
          z + slices > std::max<size_t>(a->desc.Depth, 1)) {
        return CUDA_ERROR_INVALID_VALUE;
      }
      break;
    }
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  if (pitch == 0) pitch = c.WidthInBytes + x;
  if (height == 0) height = rows + y;
  if (pitch < c.WidthInBytes + x) return CUDA_ERROR_INVALID_VALUE;
  out->row_bytes = pitch;
  out->slice_bytes = pitch * height;
  out->at = base + z * out->slice_bytes + y * pitch + x;
  out->last = out->at + (slices - 1) * out->slice_bytes + (rows - 1) * pitch + c.WidthInBytes;
  if (base == 0) return CUDA_ERROR_INVALID_VALUE;
  auto r = AddressMap::Get().Find(out->at);
  bool known_host = r && (r->kind == RangeKind::kHost || r->kind == RangeKind::kRegistered);
  if (type == CU_MEMORYTYPE_UNIFIED && !r) out->host = true;  // pageable memory
  if (known_host) out->host = out->pinned = true;
  if (!out->host && !out->array && !Accessible(out->at, out->last - out->at, false)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

struct Plan {
  Side src, dst;
  CUDA_MEMCPY3D_PEER c;
  uint64_t bytes() const {
    return uint64_t(c.WidthInBytes) * std::max<size_t>(c.Height, 1) * std::max<size_t>(c.Depth, 1);
  }
  bool linear() const {
    return std::max<size_t>(c.Height, 1) == 1 && std::max<size_t>(c.Depth, 1) == 1;
  }
};

CUresult MakePlan(const CUDA_MEMCPY3D_PEER& c, Plan* p) {
  p->c = c;
  if (CUresult r = MakeSide(c.srcMemoryType, c.srcHost, c.srcDevice, c.srcArray, c.srcXInBytes,
                            c.srcY, c.srcZ, c.srcPitch, c.srcHeight, c, &p->src)) {
    return r;
  }
  return MakeSide(c.dstMemoryType, c.dstHost, c.dstDevice, c.dstArray, c.dstXInBytes, c.dstY,
                  c.dstZ, c.dstPitch, c.dstHeight, c, &p->dst);
}

void Carry(const Plan& p, const unsigned char* from, Context* context) {
  if ((!p.src.host && !p.src.array && !Accessible(p.src.at, p.src.last - p.src.at, false)) ||
      (!p.dst.host && !p.dst.array && !Accessible(p.dst.at, p.dst.last - p.dst.at, true))) {
    FaultContext(context);
    return;
  }
  if (!p.src.host) TouchOnDevice(p.src.at, context->device);
  if (!p.dst.host) TouchOnDevice(p.dst.at, context->device);
  auto* to = reinterpret_cast<unsigned char*>(p.dst.at);
  for (size_t z = 0; z < std::max<size_t>(p.c.Depth, 1); ++z) {
    for (size_t y = 0; y < std::max<size_t>(p.c.Height, 1); ++y) {
      memmove(to + z * p.dst.slice_bytes + y * p.dst.row_bytes,
              from + z * p.src.slice_bytes + y * p.src.row_bytes, p.c.WidthInBytes);
    }
  }
}

Work WorkOfPlan(const Plan& p, Context* context) {
  const Profile& profile = Process::Get().profile();
  Work w;
  double bytes = double(p.bytes());
  if (p.src.host && p.dst.host) {
    w.kind = OpKind::kInstant;
  } else if (p.src.host || p.dst.host) {
    w.kind = p.src.host ? OpKind::kCopyH2D : OpKind::kCopyD2H;
    double gbps = p.src.host ? profile.h2d_gbps : profile.d2h_gbps;
    w.duration_ns = profile.copy_latency_ns + uint64_t(bytes / gbps);
  } else {
    w.kind = OpKind::kCompute;  // read and written
    w.duration_ns = kKernelCopyNs + uint64_t(2 * bytes / profile.dram_gbps);
  }
  w.effect = [p, context](uint64_t) {
    Carry(p, reinterpret_cast<const unsigned char*>(p.src.at), context);
  };
  return w;
}

}  // namespace

Work WorkOf(const CopyNode& n, Context* context) {
  Plan p;
  if (MakePlan(n.copy, &p) != CUDA_SUCCESS) {  // a graph's copy whose memory is gone
    Work w;
    w.effect = [context](uint64_t) { FaultContext(context); };
    return w;
  }
  return WorkOfPlan(p, context);
}

Work WorkOf(const MemsetNode& n, Context* context) {
  Work w;
  w.kind = OpKind::kCompute;
  uint64_t row = n.width * n.element_bytes;
  w.duration_ns =
      kKernelCopyNs + uint64_t(double(row * n.height) / Process::Get().profile().dram_gbps);
  w.effect = [n, row, context](uint64_t) {
    uint64_t pitch = n.height > 1 ? n.pitch : row;
    if (!Accessible(n.dst, pitch * (n.height - 1) + row, true)) {
      FaultContext(context);
      return;
    }
    TouchOnDevice(n.dst, context->device);
    for (size_t y = 0; y < n.height; ++y) {
      auto* at = reinterpret_cast<unsigned char*>(n.dst + y * pitch);
      if (n.element_bytes == 1) {
        memset(at, int(n.value), row);
      } else if (n.element_bytes == 2) {
        std::fill_n(reinterpret_cast<uint16_t*>(at), n.width, uint16_t(n.value));
      } else {
        std::fill_n(reinterpret_cast<uint32_t*>(at), n.width, n.value);
      }
    }
  };
  return w;
}

CUresult CheckCopy(const CUDA_MEMCPY3D_PEER& c) {
  Plan p;
  return MakePlan(c, &p);
}

CUresult CopyAsync(const CUDA_MEMCPY3D_PEER& c, CUstream stream) {
  Stream* s;
  if (CUresult r = EnterStream(stream, &s)) return r;
  if (c.WidthInBytes == 0) return CUDA_SUCCESS;
  Plan p;
  if (CUresult r = MakePlan(c, &p)) return r;
  bool captured;
  if (CUresult r = IsCaptured(s, &captured)) return r;
  if (captured) return SubmitOrCapture(s, CopyNode{c});
  bool pageable_src = p.src.host && !p.src.pinned, pageable_dst = p.dst.host && !p.dst.pinned;
  Work w = WorkOfPlan(p, s->context);
  if (pageable_src && !p.dst.host) {
    // "the copy may be synchronous with respect to the host": pageable memory is staged, so that
    // the caller may change it once the call returns (CUDA Driver API, "API synchronization
    // behavior").
    auto staged = std::make_shared<std::vector<unsigned char>>(
        reinterpret_cast<const unsigned char*>(p.src.at),
        reinterpret_cast<const unsigned char*>(p.src.last));
    w.effect = [p, staged, context = s->context](uint64_t) { Carry(p, staged->data(), context); };
  }
  Ticket t = Submit(s, std::move(w));
  // "For transfers from device memory to pageable host memory, the function will return only once
  // the copy has completed."
  return pageable_dst && !p.src.host ? Finish(t) : CUDA_SUCCESS;
}

CUresult CopyNow(const CUDA_MEMCPY3D_PEER& c) {
  Stream* s;
  if (CUresult r = EnterStream(nullptr, &s)) return r;
  if (CUresult r = RefuseSyncOfStream(s)) return r;
  if (c.WidthInBytes == 0) return CUDA_SUCCESS;
  Plan p;
  if (CUresult r = MakePlan(c, &p)) return r;
  Ticket t = Submit(s, WorkOfPlan(p, s->context));
  // "For transfers from device memory to device memory, no host-side synchronization is performed."
  return p.src.host || p.dst.host ? Finish(t) : CUDA_SUCCESS;
}

CUresult CheckMemset(const MemsetNode& n) {
  if (n.width == 0 || n.height == 0) return CUDA_SUCCESS;
  uint64_t row = n.width * n.element_bytes;
  if (n.dst % n.element_bytes != 0) return CUDA_ERROR_INVALID_VALUE;
  if (n.height > 1 && n.pitch < row) return CUDA_ERROR_INVALID_VALUE;
  uint64_t all = (n.height > 1 ? n.pitch * (n.height - 1) : 0) + row;
  return Accessible(n.dst, all, true) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

}  // namespace divvy::sim
