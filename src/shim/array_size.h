// Bytes that an array descriptor asks for: pure arithmetic, saturating, any thread. 0 means: takes
// no memory of its own, or is not well-formed (the driver says so).
#pragma once

#include "src/abi/cuda.h"

namespace divvy::shim {

// Bits of one element (pixel); 0 for a format that is not known here.
constexpr uint64_t ElementBits(CUarray_format format, unsigned channels) {
  switch (static_cast<int>(format)) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8:
      return 8u * channels;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
      return 16u * channels;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT:
      return 32u * channels;
    case CU_AD_FORMAT_UNORM_INT8X1:
    case CU_AD_FORMAT_SNORM_INT8X1:
      return 8;
    case CU_AD_FORMAT_UNORM_INT8X2:
    case CU_AD_FORMAT_SNORM_INT8X2:
    case CU_AD_FORMAT_UNORM_INT16X1:
    case CU_AD_FORMAT_SNORM_INT16X1:
    case CU_AD_FORMAT_NV16:
    case CU_AD_FORMAT_YUY2:
      return 16;
    case CU_AD_FORMAT_UNORM_INT8X4:
    case CU_AD_FORMAT_SNORM_INT8X4:
    case CU_AD_FORMAT_UNORM_INT16X2:
    case CU_AD_FORMAT_SNORM_INT16X2:
    case CU_AD_FORMAT_UNORM_INT_101010_2:
    case CU_AD_FORMAT_P210:
    case CU_AD_FORMAT_P216:
    case CU_AD_FORMAT_Y210:
    case CU_AD_FORMAT_Y216:
    case CU_AD_FORMAT_AYUV:
    case CU_AD_FORMAT_Y410:
      return 32;
    case CU_AD_FORMAT_UNORM_INT16X4:
    case CU_AD_FORMAT_SNORM_INT16X4:
    case CU_AD_FORMAT_Y416:
      return 64;
    case CU_AD_FORMAT_BC1_UNORM:
    case CU_AD_FORMAT_BC1_UNORM_SRGB:
    case CU_AD_FORMAT_BC4_UNORM:
    case CU_AD_FORMAT_BC4_SNORM:
      return 4;
    case CU_AD_FORMAT_BC2_UNORM:
    case CU_AD_FORMAT_BC2_UNORM_SRGB:
    case CU_AD_FORMAT_BC3_UNORM:
    case CU_AD_FORMAT_BC3_UNORM_SRGB:
    case CU_AD_FORMAT_BC5_UNORM:
    case CU_AD_FORMAT_BC5_SNORM:
    case CU_AD_FORMAT_BC6H_UF16:
    case CU_AD_FORMAT_BC6H_SF16:
    case CU_AD_FORMAT_BC7_UNORM:
    case CU_AD_FORMAT_BC7_UNORM_SRGB:
      return 8;
    case CU_AD_FORMAT_NV12:
      return 12;
    case CU_AD_FORMAT_P010:
    case CU_AD_FORMAT_P016:
    case CU_AD_FORMAT_Y444_PLANAR8:
    case CU_AD_FORMAT_YUV444_8bit_SemiPlanar:
      return 24;
    case CU_AD_FORMAT_Y444_PLANAR10:
    case CU_AD_FORMAT_YUV444_16bit_SemiPlanar:
      return 48;
    default:
      // A format of a newer driver: as much as the widest known one takes.
      return 128;
  }
}

constexpr uint64_t SaturatingMultiply(uint64_t a, uint64_t b) {
  uint64_t r = 0;
  return __builtin_mul_overflow(a, b, &r) ? UINT64_MAX : r;
}

constexpr uint64_t ExtentBytes(uint64_t width, uint64_t height, uint64_t depth,
                               CUarray_format format, unsigned channels) {
  const uint64_t elements = SaturatingMultiply(SaturatingMultiply(width, height != 0 ? height : 1),
                                               depth != 0 ? depth : 1);
  const uint64_t bits = SaturatingMultiply(elements, ElementBits(format, channels));
  return bits == UINT64_MAX ? bits : bits / 8 + (bits % 8 != 0);
}

template <typename Descriptor>
constexpr uint64_t ArrayBytes(const Descriptor* d) {
  if constexpr (requires { d->Depth; })
    return d == nullptr ? 0 : ExtentBytes(d->Width, d->Height, d->Depth, d->Format, d->NumChannels);
  else
    return d == nullptr ? 0 : ExtentBytes(d->Width, d->Height, 1, d->Format, d->NumChannels);
}

// With all mipmap levels (1 for a plain array).
constexpr uint64_t ArrayBytes(const CUDA_ARRAY3D_DESCRIPTOR_v2* d, unsigned levels) {
  if (d == nullptr || (d->Flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)) != 0)
    return 0;
  const bool layers = (d->Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)) != 0;
  uint64_t width = d->Width, height = d->Height, depth = d->Depth, sum = 0;
  for (unsigned level = 0; level < levels && level < 64; ++level) {
    const uint64_t bytes = ExtentBytes(width, height, depth, d->Format, d->NumChannels);
    sum = sum + bytes < sum ? UINT64_MAX : sum + bytes;
    width = width > 1 ? width / 2 : width;
    height = height > 1 ? height / 2 : height;
    if (!layers) depth = depth > 1 ? depth / 2 : depth;
  }
  return sum;
}

}  // namespace divvy::shim
