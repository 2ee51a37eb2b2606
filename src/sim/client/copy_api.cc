// The memcpy and memset families of the driver API (CUDA Driver API, "Memory Management"): each
// becomes one three-dimensional copy or one memset.
#include "src/sim/client/capture.h"
#include "src/sim/client/copy.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

using Copy = CUDA_MEMCPY3D_PEER;

Copy Linear(size_t bytes) {
  Copy c{};
  c.WidthInBytes = bytes;
  c.Height = c.Depth = 1;
  return c;
}
Copy& FromHost(Copy& c, const void* p) {
  c.srcMemoryType = CU_MEMORYTYPE_HOST;
  c.srcHost = p;
  return c;
}
Copy& FromDevice(Copy& c, CUdeviceptr p, CUmemorytype type = CU_MEMORYTYPE_DEVICE) {
  c.srcMemoryType = type;
  c.srcDevice = p;
  return c;
}
Copy& FromArray(Copy& c, CUarray a, size_t x) {
  c.srcMemoryType = CU_MEMORYTYPE_ARRAY;
  c.srcArray = a;
  c.srcXInBytes = x;
  return c;
}
Copy& ToHost(Copy& c, void* p) {
  c.dstMemoryType = CU_MEMORYTYPE_HOST;
  c.dstHost = p;
  return c;
}
Copy& ToDevice(Copy& c, CUdeviceptr p, CUmemorytype type = CU_MEMORYTYPE_DEVICE) {
  c.dstMemoryType = type;
  c.dstDevice = p;
  return c;
}
Copy& ToArray(Copy& c, CUarray a, size_t x) {
  c.dstMemoryType = CU_MEMORYTYPE_ARRAY;
  c.dstArray = a;
  c.dstXInBytes = x;
  return c;
}

Copy HtoD(CUdeviceptr dst, const void* src, size_t n) {
  Copy c = Linear(n);
  return ToDevice(FromHost(c, src), dst);
}
Copy DtoH(void* dst, CUdeviceptr src, size_t n) {
  Copy c = Linear(n);
  return ToHost(FromDevice(c, src), dst);
}
Copy DtoD(CUdeviceptr dst, CUdeviceptr src, size_t n) {
  Copy c = Linear(n);
  return ToDevice(FromDevice(c, src), dst);
}
Copy Unified(CUdeviceptr dst, CUdeviceptr src, size_t n) {
  Copy c = Linear(n);
  return ToDevice(FromDevice(c, src, CU_MEMORYTYPE_UNIFIED), dst, CU_MEMORYTYPE_UNIFIED);
}

Copy Widen(const CUDA_MEMCPY2D& d) {
  Copy c{};
  c.srcXInBytes = d.srcXInBytes, c.srcY = d.srcY;
  c.srcMemoryType = d.srcMemoryType, c.srcHost = d.srcHost, c.srcDevice = d.srcDevice;
  c.srcArray = d.srcArray, c.srcPitch = d.srcPitch;
  c.dstXInBytes = d.dstXInBytes, c.dstY = d.dstY;
  c.dstMemoryType = d.dstMemoryType, c.dstHost = d.dstHost, c.dstDevice = d.dstDevice;
  c.dstArray = d.dstArray, c.dstPitch = d.dstPitch;
  c.WidthInBytes = d.WidthInBytes, c.Height = d.Height, c.Depth = 1;
  return c;
}
Copy Widen(const CUDA_MEMCPY3D& d) {
  Copy c{};
  c.srcXInBytes = d.srcXInBytes, c.srcY = d.srcY, c.srcZ = d.srcZ;
  c.srcMemoryType = d.srcMemoryType, c.srcHost = d.srcHost, c.srcDevice = d.srcDevice;
  c.srcArray = d.srcArray, c.srcPitch = d.srcPitch, c.srcHeight = d.srcHeight;
  c.dstXInBytes = d.dstXInBytes, c.dstY = d.dstY, c.dstZ = d.dstZ;
  c.dstMemoryType = d.dstMemoryType, c.dstHost = d.dstHost, c.dstDevice = d.dstDevice;
  c.dstArray = d.dstArray, c.dstPitch = d.dstPitch, c.dstHeight = d.dstHeight;
  c.WidthInBytes = d.WidthInBytes, c.Height = d.Height, c.Depth = d.Depth;
  return c;
}

// A memset in a stream. The variants without "Async" do not wait either, but for pinned host
// memory.
CUresult Set(const MemsetNode& n, CUstream stream, bool async) {
  Stream* s;
  if (CUresult r = EnterStream(stream, &s)) return r;
  if (!async) {
    if (CUresult r = RefuseSyncOfStream(s)) return r;
  }
  if (CUresult r = CheckMemset(n)) return r;
  if (n.width == 0 || n.height == 0) return CUDA_SUCCESS;
  if (async) return SubmitOrCapture(s, n);
  SubmitNode(s, n);
  return CUDA_SUCCESS;
}

MemsetNode Flat(CUdeviceptr dst, unsigned value, unsigned element, size_t n) {
  return {dst, n * element, n, 1, element, value};
}
MemsetNode Rows(CUdeviceptr dst, size_t pitch, unsigned value, unsigned element, size_t width,
                size_t height) {
  return {dst, pitch, width, height, element, value};
}

}  // namespace

CUresult sim_cuMemcpyHtoD_v2(CUdeviceptr d, const void* s, size_t n) {
  return CopyNow(HtoD(d, s, n));
}
CUresult sim_cuMemcpyDtoH_v2(void* d, CUdeviceptr s, size_t n) { return CopyNow(DtoH(d, s, n)); }
CUresult sim_cuMemcpyDtoD_v2(CUdeviceptr d, CUdeviceptr s, size_t n) {
  return CopyNow(DtoD(d, s, n));
}
CUresult sim_cuMemcpy(CUdeviceptr d, CUdeviceptr s, size_t n) { return CopyNow(Unified(d, s, n)); }
CUresult sim_cuMemcpyHtoDAsync_v2(CUdeviceptr d, const void* s, size_t n, CUstream stream) {
  return CopyAsync(HtoD(d, s, n), stream);
}
CUresult sim_cuMemcpyDtoHAsync_v2(void* d, CUdeviceptr s, size_t n, CUstream stream) {
  return CopyAsync(DtoH(d, s, n), stream);
}
CUresult sim_cuMemcpyDtoDAsync_v2(CUdeviceptr d, CUdeviceptr s, size_t n, CUstream stream) {
  return CopyAsync(DtoD(d, s, n), stream);
}
CUresult sim_cuMemcpyAsync(CUdeviceptr d, CUdeviceptr s, size_t n, CUstream stream) {
  return CopyAsync(Unified(d, s, n), stream);
}
CUresult sim_cuMemcpyPeer(CUdeviceptr d, CUcontext, CUdeviceptr s, CUcontext, size_t n) {
  return CopyNow(DtoD(d, s, n));
}
CUresult sim_cuMemcpyPeerAsync(CUdeviceptr d, CUcontext, CUdeviceptr s, CUcontext, size_t n,
                               CUstream stream) {
  return CopyAsync(DtoD(d, s, n), stream);
}

CUresult sim_cuMemcpy2D_v2(const CUDA_MEMCPY2D* c) {
  return c == nullptr ? CUDA_ERROR_INVALID_VALUE : CopyNow(Widen(*c));
}
CUresult sim_cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D* c) { return sim_cuMemcpy2D_v2(c); }
CUresult sim_cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* c, CUstream stream) {
  return c == nullptr ? CUDA_ERROR_INVALID_VALUE : CopyAsync(Widen(*c), stream);
}
CUresult sim_cuMemcpy3D_v2(const CUDA_MEMCPY3D* c) {
  return c == nullptr ? CUDA_ERROR_INVALID_VALUE : CopyNow(Widen(*c));
}
CUresult sim_cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D* c, CUstream stream) {
  return c == nullptr ? CUDA_ERROR_INVALID_VALUE : CopyAsync(Widen(*c), stream);
}
CUresult sim_cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER* c) {
  return c == nullptr ? CUDA_ERROR_INVALID_VALUE : CopyNow(*c);
}
CUresult sim_cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER* c, CUstream stream) {
  return c == nullptr ? CUDA_ERROR_INVALID_VALUE : CopyAsync(*c, stream);
}

CUresult sim_cuMemcpyHtoA_v2(CUarray a, size_t x, const void* s, size_t n) {
  Copy c = Linear(n);
  return CopyNow(ToArray(FromHost(c, s), a, x));
}
CUresult sim_cuMemcpyAtoH_v2(void* d, CUarray a, size_t x, size_t n) {
  Copy c = Linear(n);
  return CopyNow(ToHost(FromArray(c, a, x), d));
}
CUresult sim_cuMemcpyDtoA_v2(CUarray a, size_t x, CUdeviceptr s, size_t n) {
  Copy c = Linear(n);
  return CopyNow(ToArray(FromDevice(c, s), a, x));
}
CUresult sim_cuMemcpyAtoD_v2(CUdeviceptr d, CUarray a, size_t x, size_t n) {
  Copy c = Linear(n);
  return CopyNow(ToDevice(FromArray(c, a, x), d));
}
CUresult sim_cuMemcpyAtoA_v2(CUarray d, size_t dx, CUarray s, size_t sx, size_t n) {
  Copy c = Linear(n);
  return CopyNow(ToArray(FromArray(c, s, sx), d, dx));
}
CUresult sim_cuMemcpyHtoAAsync_v2(CUarray a, size_t x, const void* s, size_t n, CUstream stream) {
  Copy c = Linear(n);
  return CopyAsync(ToArray(FromHost(c, s), a, x), stream);
}
CUresult sim_cuMemcpyAtoHAsync_v2(void* d, CUarray a, size_t x, size_t n, CUstream stream) {
  Copy c = Linear(n);
  return CopyAsync(ToHost(FromArray(c, a, x), d), stream);
}

CUresult sim_cuMemcpyBatchAsync_v2(CUdeviceptr* dsts, CUdeviceptr* srcs, size_t* sizes,
                                   size_t count, CUmemcpyAttributes*, size_t*, size_t,
                                   CUstream stream) {
  // "The stream must not be the legacy NULL stream."
  if (dsts == nullptr || srcs == nullptr || sizes == nullptr || count == 0 || stream == nullptr ||
      stream == CU_STREAM_LEGACY) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (size_t i = 0; i < count; ++i) {
    if (CUresult r = CopyAsync(Unified(dsts[i], srcs[i], sizes[i]), stream)) return r;
  }
  return CUDA_SUCCESS;
}
CUresult sim_cuMemcpyBatchAsync(CUdeviceptr* dsts, CUdeviceptr* srcs, size_t* sizes, size_t count,
                                CUmemcpyAttributes* attrs, size_t* at, size_t n, size_t* fail,
                                CUstream stream) {
  if (fail != nullptr) *fail = SIZE_MAX;
  return sim_cuMemcpyBatchAsync_v2(dsts, srcs, sizes, count, attrs, at, n, stream);
}

CUresult sim_cuMemsetD8_v2(CUdeviceptr d, unsigned char v, size_t n) {
  return Set(Flat(d, v, 1, n), nullptr, false);
}
CUresult sim_cuMemsetD16_v2(CUdeviceptr d, unsigned short v, size_t n) {
  return Set(Flat(d, v, 2, n), nullptr, false);
}
CUresult sim_cuMemsetD32_v2(CUdeviceptr d, unsigned int v, size_t n) {
  return Set(Flat(d, v, 4, n), nullptr, false);
}
CUresult sim_cuMemsetD8Async(CUdeviceptr d, unsigned char v, size_t n, CUstream s) {
  return Set(Flat(d, v, 1, n), s, true);
}
CUresult sim_cuMemsetD16Async(CUdeviceptr d, unsigned short v, size_t n, CUstream s) {
  return Set(Flat(d, v, 2, n), s, true);
}
CUresult sim_cuMemsetD32Async(CUdeviceptr d, unsigned int v, size_t n, CUstream s) {
  return Set(Flat(d, v, 4, n), s, true);
}
CUresult sim_cuMemsetD2D8_v2(CUdeviceptr d, size_t pitch, unsigned char v, size_t w, size_t h) {
  return Set(Rows(d, pitch, v, 1, w, h), nullptr, false);
}
CUresult sim_cuMemsetD2D16_v2(CUdeviceptr d, size_t pitch, unsigned short v, size_t w, size_t h) {
  return Set(Rows(d, pitch, v, 2, w, h), nullptr, false);
}
CUresult sim_cuMemsetD2D32_v2(CUdeviceptr d, size_t pitch, unsigned int v, size_t w, size_t h) {
  return Set(Rows(d, pitch, v, 4, w, h), nullptr, false);
}
CUresult sim_cuMemsetD2D8Async(CUdeviceptr d, size_t pitch, unsigned char v, size_t w, size_t h,
                               CUstream s) {
  return Set(Rows(d, pitch, v, 1, w, h), s, true);
}
CUresult sim_cuMemsetD2D16Async(CUdeviceptr d, size_t pitch, unsigned short v, size_t w, size_t h,
                                CUstream s) {
  return Set(Rows(d, pitch, v, 2, w, h), s, true);
}
CUresult sim_cuMemsetD2D32Async(CUdeviceptr d, size_t pitch, unsigned int v, size_t w, size_t h,
                                CUstream s) {
  return Set(Rows(d, pitch, v, 4, w, h), s, true);
}

}  // namespace divvy::sim
