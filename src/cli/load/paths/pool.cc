// Stream-ordered memory: the device's pool, a pool of one's own, and graphs' allocation nodes.
#include "src/cli/load/paths/paths.h"

namespace divvy::cli {
namespace {

// Frees on the NULL stream and waits, so that what is given back really is.
class Pool : public MemoryPath {
 public:
  Pool(Driver driver, bool own) : driver_(driver), own_(own) {}

  Status Take(Bytes amount) override {
    if (const Status s = Open(); !s.ok()) return s;
    CUdeviceptr at = 0;
    if (own_) {
      DIVVY_CU_TAKE(driver_, amount, cuMemAllocFromPoolAsync, &at, amount.n, pool_, nullptr);
    } else {
      DIVVY_CU_TAKE(driver_, amount, cuMemAllocAsync, &at, amount.n, nullptr);
    }
    held_.push_back(at);
    DIVVY_CU(driver_, cuStreamSynchronize, nullptr);
    return {};
  }

  Status ReleaseAll() override {
    for (; !held_.empty(); held_.pop_back())
      DIVVY_CU(driver_, cuMemFreeAsync, held_.back(), nullptr);
    DIVVY_CU(driver_, cuStreamSynchronize, nullptr);
    if (pool_ == nullptr) return {};
    if (!own_) {
      DIVVY_CU(driver_, cuMemPoolTrimTo, pool_, 0);
      return {};
    }
    DIVVY_CU(driver_, cuMemPoolDestroy, pool_);
    pool_ = nullptr;
    return {};
  }

  CUdeviceptr Last() const override { return held_.empty() ? 0 : held_.back(); }

 private:
  Status Open() {
    if (pool_ != nullptr) return {};
    if (!own_) {
      DIVVY_CU(driver_, cuDeviceGetDefaultMemPool, &pool_, driver_.device());
      return {};
    }
    CUmemPoolProps props{};
    props.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    props.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    props.location.id = driver_.device();
    DIVVY_CU(driver_, cuMemPoolCreate, &pool_, &props);
    return {};
  }

  Driver driver_;
  bool own_;
  CUmemoryPool pool_ = nullptr;
  std::vector<CUdeviceptr> held_;
};

class Graph : public MemoryPath {
 public:
  explicit Graph(Driver driver) : driver_(driver) {}

  // One graph with one allocation node and no free node: its memory stays after the launch.
  Status Take(Bytes amount) override {
    One one;
    const Status taken = TakeInto(one, amount);
    if (taken.ok()) {
      held_.push_back(one);
      return {};
    }
    if (one.exec != nullptr) driver_->cuGraphExecDestroy(one.exec);
    if (one.graph != nullptr) driver_->cuGraphDestroy(one.graph);
    return taken;
  }

  Status ReleaseAll() override {
    for (const One& one : held_) DIVVY_CU(driver_, cuMemFreeAsync, one.at, nullptr);
    DIVVY_CU(driver_, cuStreamSynchronize, nullptr);
    for (; !held_.empty(); held_.pop_back()) {
      DIVVY_CU(driver_, cuGraphExecDestroy, held_.back().exec);
      DIVVY_CU(driver_, cuGraphDestroy, held_.back().graph);
    }
    DIVVY_CU(driver_, cuDeviceGraphMemTrim, driver_.device());
    return {};
  }

  CUdeviceptr Last() const override { return held_.empty() ? 0 : held_.back().at; }

 private:
  struct One {
    CUgraph graph = nullptr;
    CUgraphExec exec = nullptr;
    CUdeviceptr at = 0;
  };

  Status TakeInto(One& one, Bytes amount) {
    CUDA_MEM_ALLOC_NODE_PARAMS params{};
    params.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    params.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    params.poolProps.location.id = driver_.device();
    params.bytesize = amount.n;
    CUgraphNode node = nullptr;
    DIVVY_CU(driver_, cuGraphCreate, &one.graph, 0);
    DIVVY_CU_TAKE(driver_, amount, cuGraphAddMemAllocNode, &node, one.graph, nullptr, 0, &params);
    one.at = params.dptr;
    DIVVY_CU_TAKE(driver_, amount, cuGraphInstantiateWithFlags, &one.exec, one.graph, 0);
    DIVVY_CU_TAKE(driver_, amount, cuGraphLaunch, one.exec, nullptr);
    DIVVY_CU_TAKE(driver_, amount, cuStreamSynchronize, nullptr);
    return {};
  }

  Driver driver_;
  std::vector<One> held_;
};

}  // namespace

std::unique_ptr<MemoryPath> PoolPath(Driver driver) {
  return std::make_unique<Pool>(driver, false);
}
std::unique_ptr<MemoryPath> UserPoolPath(Driver driver) {
  return std::make_unique<Pool>(driver, true);
}
std::unique_ptr<MemoryPath> GraphPath(Driver driver) { return std::make_unique<Graph>(driver); }

}  // namespace divvy::cli
