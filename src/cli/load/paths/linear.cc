// Linear memory: plain, in odd sizes, pitched, managed.
#include "src/cli/load/paths/paths.h"

namespace divvy::cli {
namespace {

enum class Form { kPlain, kOdd, kPitched, kManaged };

// Of a little more than a block, two are taken.
constexpr uint64_t kOddSize = (2 << 20) + 1, kOddTakes = 4 << 20;

class Linear : public MemoryPath {
 public:
  Linear(Driver driver, Form form) : driver_(driver), form_(form) {}

  Status Take(Bytes amount) override {
    CUdeviceptr at = 0;
    switch (form_) {
      case Form::kPlain:
        DIVVY_CU_TAKE(driver_, amount, cuMemAlloc_v2, &at, amount.n);
        break;
      case Form::kOdd:
        // Pieces that fill no block of the driver: each keeps more from others than its size.
        for (uint64_t left = amount.n; left != 0; left -= kOddTakes) {
          DIVVY_CU_TAKE(driver_, amount, cuMemAlloc_v2, &at, kOddSize);
          held_.push_back(at);
        }
        return {};
      case Form::kPitched: {
        // Rows of 1 MiB need no padding, so that what is asked for is what is taken.
        constexpr size_t kRow = 1 << 20;
        const size_t row = amount.n % kRow == 0 ? kRow : amount.n;
        size_t pitch = 0;
        DIVVY_CU_TAKE(driver_, amount, cuMemAllocPitch_v2, &at, &pitch, row, amount.n / row, 4);
        break;
      }
      case Form::kManaged:
        DIVVY_CU_TAKE(driver_, amount, cuMemAllocManaged, &at, amount.n, CU_MEM_ATTACH_GLOBAL);
        // Managed memory takes room on the device only once the device has written it.
        held_.push_back(at);
        DIVVY_CU(driver_, cuMemsetD8_v2, at, 0, amount.n);
        DIVVY_CU(driver_, cuCtxSynchronize);
        return {};
    }
    held_.push_back(at);
    return {};
  }

  Status ReleaseAll() override {
    for (; !held_.empty(); held_.pop_back()) DIVVY_CU(driver_, cuMemFree_v2, held_.back());
    return {};
  }

  Bytes Unit() const override { return form_ == Form::kOdd ? Bytes{kOddTakes} : 2_MiB; }
  Bytes Multiple() const override { return form_ == Form::kOdd ? Bytes{kOddTakes} : 1_B; }
  CUdeviceptr Last() const override { return held_.empty() ? 0 : held_.back(); }

 private:
  Driver driver_;
  Form form_;
  std::vector<CUdeviceptr> held_;
};

}  // namespace

std::unique_ptr<MemoryPath> LinearPath(Driver driver) {
  return std::make_unique<Linear>(driver, Form::kPlain);
}
std::unique_ptr<MemoryPath> OddPath(Driver driver) {
  return std::make_unique<Linear>(driver, Form::kOdd);
}
std::unique_ptr<MemoryPath> PitchPath(Driver driver) {
  return std::make_unique<Linear>(driver, Form::kPitched);
}
std::unique_ptr<MemoryPath> ManagedPath(Driver driver) {
  return std::make_unique<Linear>(driver, Form::kManaged);
}

}  // namespace divvy::cli
