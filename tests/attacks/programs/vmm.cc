// Virtual memory management, where a handle and its mappings keep memory alive independently.
//   vmm cycle   create, map, release the handle, again and again: the mappings hold the memory
//   vmm retain  the same, with handles won back from the mappings and released twice
//   vmm unmap   handles kept, ranges mapped and unmapped: the handles hold the memory
//   vmm export  handles turned into descriptors and released: the descriptors hold the memory
#include "tests/attacks/attack.h"

namespace {

CUresult Map(const divvy::abi::DriverFns& cu, CUmemGenericAllocationHandle handle, size_t bytes,
             CUdeviceptr* at) {
  CUresult r = cu.cuMemAddressReserve(at, bytes, 0, 0, 0);
  if (r == CUDA_SUCCESS) r = cu.cuMemMap(*at, bytes, 0, handle, 0);
  const CUmemAccessDesc access{{CU_MEM_LOCATION_TYPE_DEVICE, 0},
                               CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  return r == CUDA_SUCCESS ? cu.cuMemSetAccess(*at, bytes, &access, 1) : r;
}

}  // namespace

int main(int, char** argv) {
  const std::string way = argv[1];
  const auto cu = attack::Driver(attack::ByName());
  const CUresult entered = attack::Enter(cu);
  if (entered != CUDA_SUCCESS) return attack::Report({.last = entered, .note = "no context"});
  const CUmemAllocationProp prop{
      .type = CU_MEM_ALLOCATION_TYPE_PINNED,
      .requestedHandleTypes =
          way == "export" ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR : CU_MEM_HANDLE_TYPE_NONE,
      .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
  return attack::Report(attack::TakeAll([&](size_t bytes) {
    CUmemGenericAllocationHandle handle = 0;
    CUresult r = cu.cuMemCreate(&handle, bytes, &prop, 0);
    if (r != CUDA_SUCCESS) return r;
    CUdeviceptr at = 0;
    if (way == "export") {
      int fd = -1;
      r = cu.cuMemExportToShareableHandle(&fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
      if (r == CUDA_SUCCESS) cu.cuMemRelease(handle);
      return r;
    }
    r = Map(cu, handle, bytes, &at);
    if (r != CUDA_SUCCESS) return r;
    if (way == "unmap") return cu.cuMemUnmap(at, bytes);
    if (way == "retain") {
      CUmemGenericAllocationHandle again = 0;
      if (cu.cuMemRetainAllocationHandle(&again, reinterpret_cast<void*>(at)) == CUDA_SUCCESS)
        cu.cuMemRelease(again);
    }
    return cu.cuMemRelease(handle);
  }));
}
