// Virtual memory management: physical handles, mapped once, twice, after release, after import.
#include <unistd.h>

#include "src/base/unique_fd.h"
#include "src/cli/load/paths/paths.h"

namespace divvy::cli {
namespace {

enum class Form { kMapped, kReleased, kAliased, kImported };

class Vmm : public MemoryPath {
 public:
  Vmm(Driver driver, Form form) : driver_(driver), form_(form) {
    prop_.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop_.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    prop_.location.id = driver.device();
    if (form == Form::kImported)
      prop_.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  }

  Bytes Multiple() const override { return 2_MiB; }

  Status Take(Bytes amount) override {
    CUmemGenericAllocationHandle handle = 0;
    DIVVY_CU_TAKE(driver_, amount, cuMemCreate, &handle, amount.n, &prop_, 0);
    handles_.push_back(handle);
    if (const Status s = Map(handle, amount); !s.ok()) return s;
    if (form_ == Form::kAliased) return Map(handle, amount);
    if (form_ == Form::kReleased) {
      handles_.pop_back();
      DIVVY_CU(driver_, cuMemRelease, handle);
    }
    return form_ == Form::kImported ? Import(handle, amount) : Status{};
  }

  Status ReleaseAll() override {
    for (; !mappings_.empty(); mappings_.pop_back()) {
      const Mapping m = mappings_.back();
      DIVVY_CU(driver_, cuMemUnmap, m.at, m.size);
      DIVVY_CU(driver_, cuMemAddressFree, m.at, m.size);
    }
    for (; !handles_.empty(); handles_.pop_back()) DIVVY_CU(driver_, cuMemRelease, handles_.back());
    return {};
  }

  CUdeviceptr Last() const override { return mappings_.empty() ? 0 : mappings_.back().at; }

 private:
  struct Mapping {
    CUdeviceptr at;
    size_t size;
  };

  Status Map(CUmemGenericAllocationHandle handle, Bytes amount) {
    CUdeviceptr at = 0;
    DIVVY_CU(driver_, cuMemAddressReserve, &at, amount.n, 0, 0, 0);
    if (const CUresult r = driver_->cuMemMap(at, amount.n, 0, handle, 0); r != CUDA_SUCCESS) {
      driver_->cuMemAddressFree(at, amount.n);
      return driver_.Check(r, "cuMemMap", amount);
    }
    mappings_.push_back({at, amount.n});
    CUmemAccessDesc access{};
    access.location = prop_.location;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    DIVVY_CU(driver_, cuMemSetAccess, at, amount.n, &access, 1);
    return {};
  }

  // The same physical memory by a second handle: not to be counted again, and not to be forgotten
  // when the first handle goes.
  Status Import(CUmemGenericAllocationHandle handle, Bytes amount) {
    int fd = -1;
    DIVVY_CU(driver_, cuMemExportToShareableHandle, &fd, handle,
             CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    const UniqueFd owned(fd);
    CUmemGenericAllocationHandle second = 0;
    DIVVY_CU(driver_, cuMemImportFromShareableHandle, &second,
             reinterpret_cast<void*>(static_cast<intptr_t>(fd)),
             CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    handles_.back() = second;
    DIVVY_CU(driver_, cuMemRelease, handle);
    return Map(second, amount);
  }

  Driver driver_;
  Form form_;
  CUmemAllocationProp prop_{};
  std::vector<CUmemGenericAllocationHandle> handles_;
  std::vector<Mapping> mappings_;
};

}  // namespace

std::unique_ptr<MemoryPath> VmmPath(Driver driver) {
  return std::make_unique<Vmm>(driver, Form::kMapped);
}
std::unique_ptr<MemoryPath> VmmReleasedPath(Driver driver) {
  return std::make_unique<Vmm>(driver, Form::kReleased);
}
std::unique_ptr<MemoryPath> VmmAliasPath(Driver driver) {
  return std::make_unique<Vmm>(driver, Form::kAliased);
}
std::unique_ptr<MemoryPath> VmmImportPath(Driver driver) {
  return std::make_unique<Vmm>(driver, Form::kImported);
}

}  // namespace divvy::cli
