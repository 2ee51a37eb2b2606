// CUDA arrays in two and three dimensions, and mipmaps.
#include "src/cli/load/paths/paths.h"

namespace divvy::cli {
namespace {

constexpr unsigned kChannels = 4;  // of 4 bytes: 16 bytes a texel
constexpr size_t kTexelBytes = 16;

class Arrays : public MemoryPath {
 public:
  Arrays(Driver driver, bool deep) : driver_(driver), deep_(deep) {}

  Bytes Multiple() const override { return 1_MiB; }

  Status Take(Bytes amount) override {
    CUarray array = nullptr;
    if (deep_) {
      CUDA_ARRAY3D_DESCRIPTOR form{};  // slices of 1 MiB
      form.Width = 1024;
      form.Height = 64;
      form.Depth = amount.n / (form.Width * form.Height * kTexelBytes);
      form.Format = CU_AD_FORMAT_UNSIGNED_INT32;
      form.NumChannels = kChannels;
      DIVVY_CU_TAKE(driver_, amount, cuArray3DCreate_v2, &array, &form);
    } else {
      CUDA_ARRAY_DESCRIPTOR form{};  // rows of 128 KiB
      form.Width = 8192;
      form.Height = amount.n / (form.Width * kTexelBytes);
      form.Format = CU_AD_FORMAT_UNSIGNED_INT32;
      form.NumChannels = kChannels;
      DIVVY_CU_TAKE(driver_, amount, cuArrayCreate_v2, &array, &form);
    }
    held_.push_back(array);
    return {};
  }

  Status ReleaseAll() override {
    for (; !held_.empty(); held_.pop_back()) DIVVY_CU(driver_, cuArrayDestroy, held_.back());
    return {};
  }

 private:
  Driver driver_;
  bool deep_;
  std::vector<CUarray> held_;
};

class Mipmaps : public MemoryPath {
 public:
  explicit Mipmaps(Driver driver) : driver_(driver) {}

  // Two levels, the second a quarter of the first: 8 + 2 MiB are whole blocks.
  Bytes Unit() const override { return 10_MiB; }
  Bytes Multiple() const override { return 10_MiB; }

  Status Take(Bytes amount) override {
    CUDA_ARRAY3D_DESCRIPTOR form{};
    form.Width = 8192;
    form.Height = amount.n / 5 * 4 / (form.Width * kTexelBytes);
    form.Format = CU_AD_FORMAT_UNSIGNED_INT32;
    form.NumChannels = kChannels;
    CUmipmappedArray array = nullptr;
    DIVVY_CU_TAKE(driver_, amount, cuMipmappedArrayCreate, &array, &form, 2);
    held_.push_back(array);
    return {};
  }

  Status ReleaseAll() override {
    for (; !held_.empty(); held_.pop_back())
      DIVVY_CU(driver_, cuMipmappedArrayDestroy, held_.back());
    return {};
  }

 private:
  Driver driver_;
  std::vector<CUmipmappedArray> held_;
};

}  // namespace

std::unique_ptr<MemoryPath> ArrayPath(Driver driver) {
  return std::make_unique<Arrays>(driver, false);
}
std::unique_ptr<MemoryPath> Array3dPath(Driver driver) {
  return std::make_unique<Arrays>(driver, true);
}
std::unique_ptr<MemoryPath> MipmapPath(Driver driver) { return std::make_unique<Mipmaps>(driver); }

}  // namespace divvy::cli
