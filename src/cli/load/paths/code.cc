// Memory that no allocation call takes: variables of loaded modules, contexts, threads' stacks.
#include <algorithm>
#include <optional>

#include "src/cli/load/paths/paths.h"

namespace divvy::cli {
namespace {

class Modules : public MemoryPath {
 public:
  explicit Modules(Driver driver) : driver_(driver) {}

  Status Take(Bytes amount) override {
    const std::string ptx =
        ".version 6.0\n.target sm_50\n.address_size 64\n"
        ".visible .global .align 16 .b8 big[" +
        std::to_string(amount.n) + "];\n.visible .entry nothing() { ret; }\n";
    CUmodule module = nullptr;
    DIVVY_CU_TAKE(driver_, amount, cuModuleLoadData, &module, ptx.c_str());
    held_.push_back(module);
    // Lazy loading must not hide the variable from the measurement.
    CUdeviceptr at = 0;
    size_t size = 0;
    DIVVY_CU_TAKE(driver_, amount, cuModuleGetGlobal_v2, &at, &size, module, "big");
    last_ = at;
    return {};
  }

  Status ReleaseAll() override {
    for (; !held_.empty(); held_.pop_back()) DIVVY_CU(driver_, cuModuleUnload, held_.back());
    last_ = 0;
    return {};
  }

  CUdeviceptr Last() const override { return last_; }

 private:
  Driver driver_;
  std::vector<CUmodule> held_;
  CUdeviceptr last_ = 0;
};

class Contexts : public MemoryPath {
 public:
  explicit Contexts(Driver driver) : driver_(driver) {}

  // A context takes what it takes, whatever the step.
  Status Take(Bytes) override {
    CUcontext context = nullptr;
    const CUresult r = driver_->cuCtxCreate_v2(&context, 0, driver_.device());
    if (r == CUDA_SUCCESS) held_.push_back(context);
    driver_->cuCtxSetCurrent(driver_.context());
    return driver_.Check(r, "cuCtxCreate_v2");
  }

  Status ReleaseAll() override {
    for (; !held_.empty(); held_.pop_back()) DIVVY_CU(driver_, cuCtxDestroy_v2, held_.back());
    DIVVY_CU(driver_, cuCtxSetCurrent, driver_.context());
    return {};
  }

  Bytes Unit() const override { return {}; }

 private:
  Driver driver_;
  std::vector<CUcontext> held_;
};

// The driver keeps a stack for each thread that the device can have at once.
class Stacks : public MemoryPath {
 public:
  explicit Stacks(Driver driver) : driver_(driver) {
    int processors = 0, threads = 0;
    driver_->cuDeviceGetAttribute(&processors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                                  driver_.device());
    driver_->cuDeviceGetAttribute(&threads, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR,
                                  driver_.device());
    threads_ = static_cast<uint64_t>(processors) * static_cast<uint64_t>(threads);
  }

  Status Take(Bytes amount) override {
    size_t now = 0;
    if (threads_ == 0) return Unavailable("the driver does not say how many threads there can be");
    DIVVY_CU(driver_, cuCtxGetLimit, &now, CU_LIMIT_STACK_SIZE);
    if (!first_) first_ = now;
    DIVVY_CU_TAKE(driver_, amount, cuCtxSetLimit, CU_LIMIT_STACK_SIZE, now + amount.n / threads_);
    return {};
  }

  Status ReleaseAll() override {
    if (first_) DIVVY_CU(driver_, cuCtxSetLimit, CU_LIMIT_STACK_SIZE, *first_);
    first_.reset();
    return {};
  }

  Bytes Unit() const override { return Multiple(); }
  Bytes Multiple() const override { return {std::max<uint64_t>(1, threads_) * kStep}; }

 private:
  static constexpr uint64_t kStep = 16;  // bytes of a thread's stack
  Driver driver_;
  uint64_t threads_ = 0;
  std::optional<size_t> first_;
};

}  // namespace

std::unique_ptr<MemoryPath> StackPath(Driver driver) { return std::make_unique<Stacks>(driver); }
std::unique_ptr<MemoryPath> ModulePath(Driver driver) { return std::make_unique<Modules>(driver); }
std::unique_ptr<MemoryPath> ContextPath(Driver driver) {
  return std::make_unique<Contexts>(driver);
}

}  // namespace divvy::cli
