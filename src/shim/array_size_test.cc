#include "src/shim/array_size.h"

#include <gtest/gtest.h>

namespace divvy::shim {
namespace {

TEST(ArraySize, TwoDimensional) {
  const CUDA_ARRAY_DESCRIPTOR_v2 d{1024, 512, CU_AD_FORMAT_FLOAT, 4};
  EXPECT_EQ(ArrayBytes(&d), 1024u * 512 * 16);
}

TEST(ArraySize, ZeroHeightAndDepthMeanOne) {
  const CUDA_ARRAY3D_DESCRIPTOR_v2 d{1000, 0, 0, CU_AD_FORMAT_HALF, 2, 0};
  EXPECT_EQ(ArrayBytes(&d, 1), 4000u);
}

TEST(ArraySize, MipmapsAddUp) {
  const CUDA_ARRAY3D_DESCRIPTOR_v2 d{8, 8, 8, CU_AD_FORMAT_UNSIGNED_INT8, 1, 0};
  EXPECT_EQ(ArrayBytes(&d, 4), 512u + 64 + 8 + 1);
}

TEST(ArraySize, LayersAreNotHalved) {
  const CUDA_ARRAY3D_DESCRIPTOR_v2 d{8, 8, 6, CU_AD_FORMAT_UNSIGNED_INT8, 1, CUDA_ARRAY3D_LAYERED};
  EXPECT_EQ(ArrayBytes(&d, 2), 6u * 64 + 6 * 16);
}

TEST(ArraySize, BlockCompressedTakesHalfAByte) {
  const CUDA_ARRAY3D_DESCRIPTOR_v2 d{64, 64, 0, CU_AD_FORMAT_BC1_UNORM, 4, 0};
  EXPECT_EQ(ArrayBytes(&d, 1), 64u * 64 / 2);
}

TEST(ArraySize, SparseTakesNothingOfItsOwn) {
  const CUDA_ARRAY3D_DESCRIPTOR_v2 d{
      1 << 20, 1 << 20, 0, CU_AD_FORMAT_FLOAT, 4, CUDA_ARRAY3D_SPARSE};
  EXPECT_EQ(ArrayBytes(&d, 1), 0u);
}

TEST(ArraySize, SaturatesInsteadOfWrapping) {
  const CUDA_ARRAY_DESCRIPTOR_v2 d{SIZE_MAX, SIZE_MAX, CU_AD_FORMAT_FLOAT, 4};
  EXPECT_EQ(ArrayBytes(&d), UINT64_MAX);
}

}  // namespace
}  // namespace divvy::shim
