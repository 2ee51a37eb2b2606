// Stream-ordered memory, which the driver keeps in pools after it was freed.
//   pools default   the device's default pool        pools user   pools of the program's own
//   pools switch    another pool made the device's current one for each allocation
//   pools keep      a threshold that keeps everything, then freed: the pool holds it
//   pools import    pools passed to children by descriptor, which allocate from them
#include <unistd.h>

#include <cstring>

#include "tests/attacks/attack.h"

namespace {

CUmemoryPool MakePool(const divvy::abi::DriverFns& cu, bool shared) {
  const CUmemPoolProps props{
      .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
      .handleTypes = shared ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR : CU_MEM_HANDLE_TYPE_NONE,
      .location = {CU_MEM_LOCATION_TYPE_DEVICE, 0}};
  CUmemoryPool pool = nullptr;
  return cu.cuMemPoolCreate(&pool, &props) == CUDA_SUCCESS ? pool : nullptr;
}

// The child has the exporter's descriptor by inheritance and takes from the imported pool, then
// from everywhere else; the parent exports and keeps its own share too.
attack::Holding Import() {
  int handles[2];
  if (::pipe(handles) != 0) return {.note = "no pipe"};
  attack::Holding children = attack::InChildren(2, [&](unsigned index) -> attack::Holding {
    const auto cu = attack::Driver(attack::ByName());
    const CUresult r = attack::Enter(cu);
    if (r != CUDA_SUCCESS) return {.last = r};
    CUmemoryPool pool = MakePool(cu, true);
    int fd = -1;
    if (pool == nullptr || cu.cuMemPoolExportToShareableHandle(
                               &fd, pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0) != 0)
      return {.last = -1};
    CUmemoryPool imported = nullptr;
    cu.cuMemPoolImportFromShareableHandle(&imported, reinterpret_cast<void*>(intptr_t{fd}),
                                          CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    CUmemoryPool from = index == 0 && imported != nullptr ? imported : pool;
    return attack::TakeAll([&](size_t bytes) {
      CUdeviceptr p = 0;
      CUresult taken = cu.cuMemAllocFromPoolAsync(&p, bytes, from, nullptr);
      if (taken == CUDA_ERROR_NOT_SUPPORTED || taken == CUDA_ERROR_INVALID_VALUE)
        taken = cu.cuMemAllocFromPoolAsync(&p, bytes, pool, nullptr);
      return taken;
    });
  });
  return children;
}

}  // namespace

int main(int, char** argv) {
  const std::string way = argv[1];
  if (way == "import") return attack::Report(Import());
  const auto cu = attack::Driver(attack::ByName());
  const CUresult entered = attack::Enter(cu);
  if (entered != CUDA_SUCCESS) return attack::Report({.last = entered, .note = "no context"});
  return attack::Report(attack::TakeAll([&](size_t bytes) {
    CUdeviceptr p = 0;
    if (way == "user") return cu.cuMemAllocFromPoolAsync(&p, bytes, MakePool(cu, false), nullptr);
    if (way == "switch") cu.cuDeviceSetMemPool(0, MakePool(cu, false));
    if (way == "keep") {
      CUmemoryPool pool = nullptr;
      cu.cuDeviceGetDefaultMemPool(&pool, 0);
      uint64_t all = UINT64_MAX;
      cu.cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &all);
    }
    return cu.cuMemAllocAsync(&p, bytes, nullptr);
  }));
}
