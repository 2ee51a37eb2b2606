// Arrays and mipmapped arrays (CUDA Driver API, "Memory Management": cuArrayCreate and following).
// Sparse and deferred-mapping arrays take no memory of their own.
#include "src/sim/client/array.h"

#include <algorithm>
#include <unordered_set>

#include "src/sim/client/capture.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

struct Mipmap {
  std::vector<Array*> levels;
  Range memory;
};

struct Registry {
  std::mutex mu;
  std::unordered_set<Array*> arrays;
  std::unordered_set<Mipmap*> mipmaps;
};
Registry& All() {
  static Registry& r = *new Registry;
  return r;
}

// Bits of one element of all channels; 0 for a format that is not known.
unsigned ElementBits(CUarray_format f, unsigned channels) {
  switch (f) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8:
      return 8 * channels;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
      return 16 * channels;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT:
      return 32 * channels;
    case CU_AD_FORMAT_UNORM_INT8X1:
    case CU_AD_FORMAT_SNORM_INT8X1:
      return 8;
    case CU_AD_FORMAT_UNORM_INT8X2:
    case CU_AD_FORMAT_SNORM_INT8X2:
    case CU_AD_FORMAT_UNORM_INT16X1:
    case CU_AD_FORMAT_SNORM_INT16X1:
      return 16;
    case CU_AD_FORMAT_UNORM_INT8X4:
    case CU_AD_FORMAT_SNORM_INT8X4:
    case CU_AD_FORMAT_UNORM_INT16X2:
    case CU_AD_FORMAT_SNORM_INT16X2:
    case CU_AD_FORMAT_UNORM_INT_101010_2:
      return 32;
    case CU_AD_FORMAT_UNORM_INT16X4:
    case CU_AD_FORMAT_SNORM_INT16X4:
      return 64;
    case CU_AD_FORMAT_NV12:
      return 16;  // 12 of them are used
    case CU_AD_FORMAT_P010:
    case CU_AD_FORMAT_P016:
    case CU_AD_FORMAT_NV16:
    case CU_AD_FORMAT_P210:
    case CU_AD_FORMAT_P216:
      return 32;
    default:
      if (f >= CU_AD_FORMAT_BC1_UNORM && f <= CU_AD_FORMAT_BC7_UNORM_SRGB) return 8;
      return 0;
  }
}

CUresult Check(const CUDA_ARRAY3D_DESCRIPTOR& d) {
  if (d.Width == 0 ||
      (d.NumChannels != 1 && d.NumChannels != 2 && d.NumChannels != 3 && d.NumChannels != 4)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (d.NumChannels == 3 && d.Format != CU_AD_FORMAT_NV12) return CUDA_ERROR_INVALID_VALUE;
  if (ElementBits(d.Format, d.NumChannels) == 0) return CUDA_ERROR_INVALID_VALUE;
  size_t depth_limit = (d.Flags & CUDA_ARRAY3D_LAYERED) != 0 ? 2048 : 16384;
  if (d.Width > 131072 || d.Height > 65536 || d.Depth > depth_limit) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if ((d.Flags & CUDA_ARRAY3D_CUBEMAP) != 0 &&
      (d.Width != d.Height || d.Depth % 6 != 0 || d.Depth == 0)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

size_t BytesOf(const CUDA_ARRAY3D_DESCRIPTOR& d) {
  return d.Width * ElementBits(d.Format, d.NumChannels) / 8 * std::max<size_t>(d.Height, 1) *
         std::max<size_t>(d.Depth, 1);
}

bool Unbacked(unsigned flags) {
  return (flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)) != 0;
}

Array* Add(const CUDA_ARRAY3D_DESCRIPTOR& d, const Range& memory, bool part) {
  Array* a = new Array;
  a->desc = d;
  a->memory = memory;
  a->part = part;
  a->element_bytes = ElementBits(d.Format, d.NumChannels) / 8;
  std::lock_guard lock(All().mu);
  All().arrays.insert(a);
  return a;
}

CUDA_ARRAY3D_DESCRIPTOR Widen(const CUDA_ARRAY_DESCRIPTOR& d) {
  return {d.Width, d.Height, 0, d.Format, d.NumChannels, 0};
}

// Arrays can be reached by copies only, so they are not in the address map; the context frees what
// is left when it goes.
CUresult Take(Context* c, size_t bytes, Range* r) {
  if (CUresult e = TakeMemory(c, bytes, r)) return e;
  std::lock_guard lock(c->mu);
  c->array_memory[r->offset] = r->block_bytes;
  return CUDA_SUCCESS;
}
void Give(const Range& r) {
  {
    std::lock_guard lock(r.context->mu);
    if (r.context->array_memory.erase(r.offset) == 0) return;  // the context is gone
  }
  GiveMemory(r);
}

Mipmap* Live(CUmipmappedArray handle) {
  auto* m = reinterpret_cast<Mipmap*>(handle);
  std::lock_guard lock(All().mu);
  return All().mipmaps.count(m) != 0 ? m : nullptr;
}

}  // namespace

Array* ArrayOf(CUarray handle) {
  auto* a = reinterpret_cast<Array*>(handle);
  std::lock_guard lock(All().mu);
  return All().arrays.count(a) != 0 ? a : nullptr;
}

CUresult sim_cuArray3DCreate_v2(CUarray* out, const CUDA_ARRAY3D_DESCRIPTOR* desc) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (out == nullptr || desc == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult r = Check(*desc)) return r;
  if (CUresult r = RefuseUnsafeCall()) return r;
  Range memory;
  if (!Unbacked(desc->Flags)) {
    if (CUresult r = Take(c, BytesOf(*desc), &memory)) return r;
  }
  *out = reinterpret_cast<CUarray>(Add(*desc, memory, false));
  return CUDA_SUCCESS;
}
CUresult sim_cuArrayCreate_v2(CUarray* out, const CUDA_ARRAY_DESCRIPTOR* desc) {
  if (desc == nullptr) return CUDA_ERROR_INVALID_VALUE;
  CUDA_ARRAY3D_DESCRIPTOR d = Widen(*desc);
  return sim_cuArray3DCreate_v2(out, &d);
}

CUresult sim_cuArrayDestroy(CUarray handle) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  Array* a = ArrayOf(handle);
  if (a == nullptr || a->part) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult r = RefuseUnsafeCall()) return r;
  if (a->memory.context != nullptr && !a->memory.context->destroyed) {
    if (CUresult r = FinishWorkOn(a->memory.context)) return r;
  }
  {
    std::lock_guard lock(All().mu);
    All().arrays.erase(a);
  }
  if (a->memory.context != nullptr) Give(a->memory);
  delete a;
  return CUDA_SUCCESS;
}

CUresult sim_cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR* out, CUarray handle) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  Array* a = ArrayOf(handle);
  if (a == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = a->desc;
  return CUDA_SUCCESS;
}
CUresult sim_cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR* out, CUarray handle) {
  CUDA_ARRAY3D_DESCRIPTOR d;
  if (CUresult r = sim_cuArray3DGetDescriptor_v2(&d, handle)) return r;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *out = {d.Width, d.Height, d.Format, d.NumChannels};
  return CUDA_SUCCESS;
}
CUresult sim_cuArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS* out, CUarray handle,
                                          CUdevice) {
  Array* a = ArrayOf(handle);
  if (a == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr || !Unbacked(a->desc.Flags)) return CUDA_ERROR_INVALID_VALUE;
  *out = {};
  out->size = (BytesOf(a->desc) + 65535) / 65536 * 65536;
  out->alignment = 65536;
  return CUDA_SUCCESS;
}
CUresult sim_cuArrayGetPlane(CUarray* out, CUarray handle, unsigned int plane) {
  Array* a = ArrayOf(handle);
  if (a == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr || plane != 0) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUarray>(Add(a->desc, a->memory, true));
  return CUDA_SUCCESS;
}

CUresult sim_cuMipmappedArrayCreate(CUmipmappedArray* out, const CUDA_ARRAY3D_DESCRIPTOR* desc,
                                    unsigned int levels) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  if (out == nullptr || desc == nullptr || levels == 0) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult r = Check(*desc)) return r;
  if (CUresult r = RefuseUnsafeCall()) return r;
  bool layered = (desc->Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)) != 0;
  size_t widest = std::max({desc->Width, desc->Height, layered ? 1 : desc->Depth});
  // "clamped to the range [1, 1 + floor(log2(max(width, height, depth)))]"
  levels = std::min(levels, unsigned(64 - __builtin_clzll(widest)));
  std::vector<CUDA_ARRAY3D_DESCRIPTOR> shapes;
  size_t bytes = 0;
  for (unsigned i = 0; i < levels; ++i) {
    CUDA_ARRAY3D_DESCRIPTOR d = *desc;
    d.Width = std::max<size_t>(1, d.Width >> i);
    if (d.Height != 0) d.Height = std::max<size_t>(1, d.Height >> i);
    if (d.Depth != 0 && !layered) d.Depth = std::max<size_t>(1, d.Depth >> i);
    shapes.push_back(d);
    bytes += (BytesOf(d) + 511) & ~size_t(511);
  }
  auto* m = new Mipmap;
  if (!Unbacked(desc->Flags)) {
    if (CUresult r = Take(c, bytes, &m->memory)) {
      delete m;
      return r;
    }
  }
  uint64_t at = m->memory.base;
  for (const auto& d : shapes) {
    Range level = m->memory;
    level.base = at;
    m->levels.push_back(Add(d, level, true));
    at += (BytesOf(d) + 511) & ~size_t(511);
  }
  std::lock_guard lock(All().mu);
  All().mipmaps.insert(m);
  *out = reinterpret_cast<CUmipmappedArray>(m);
  return CUDA_SUCCESS;
}

CUresult sim_cuMipmappedArrayGetLevel(CUarray* out, CUmipmappedArray handle, unsigned int level) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  Mipmap* m = Live(handle);
  if (m == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (out == nullptr || level >= m->levels.size()) return CUDA_ERROR_INVALID_VALUE;
  *out = reinterpret_cast<CUarray>(m->levels[level]);
  return CUDA_SUCCESS;
}

CUresult sim_cuMipmappedArrayDestroy(CUmipmappedArray handle) {
  Context* c;
  if (CUresult r = Enter(&c)) return r;
  Mipmap* m = Live(handle);
  if (m == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult r = RefuseUnsafeCall()) return r;
  if (CUresult r = FinishWorkOn(c)) return r;
  {
    std::lock_guard lock(All().mu);
    All().mipmaps.erase(m);
    for (Array* a : m->levels) All().arrays.erase(a);
  }
  if (m->memory.context != nullptr) Give(m->memory);
  for (Array* a : m->levels) delete a;
  delete m;
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
