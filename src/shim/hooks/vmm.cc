// Virtual memory management. Only cuMemCreate takes memory (and imports bring some in); it lives as
// long as any handle, mapping, multicast or array binding refers to it. Each of these is a
// reference on one record (physical.h), so create, map, release, unmap in any order credits exactly
// once.
#include "src/shim/hooks/hook.h"
#include "src/shim/physical.h"

namespace divvy::shim {
namespace {

constexpr unsigned kMostAtOnce = 128;
// Multicast bindings have no address: their key is made of the object and the offset.
constexpr uint64_t MulticastKey(CUmemGenericAllocationHandle object, size_t offset) {
  return (object * 0x9e3779b97f4a7c15u) ^ offset ^ (uint64_t{1} << 63);
}

// The handle's record, or kNoRecord.
uint32_t RecordOf(CUmemGenericAllocationHandle handle) noexcept {
  LiveEntry entry;
  return g_process.live.Find(Family::kVmmHandle, handle, &entry) ? entry.owner : kNoRecord;
}

// The record mapped at an address, anywhere inside the mapping.
uint32_t RecordAt(uint64_t address) noexcept {
  LiveEntry entry;
  if (g_process.live.Find(Family::kVmmMapping, address, &entry)) return entry.owner;
  uint32_t record = kNoRecord;
  g_process.live.Sweep([&](const LiveEntry& e) {
    if (e.family == Family::kVmmMapping && address - e.key < e.aux) record = e.owner;
    return false;
  });
  return record;
}

// One more reference to a handle that the driver has just given out.
void AddHandle(CUmemGenericAllocationHandle handle, uint32_t record) noexcept {
  if (g_process.live.Update(Family::kVmmHandle, handle, [](LiveEntry& e) { ++e.aux; })) return;
  if (!g_process.live.Insert({handle, Family::kVmmHandle, 0, 0, kRefersToRecord, record, 0, 1}))
    Degrade(2);
}

// Undoes AddHandle; true if there was such a handle.
bool DropHandle(CUmemGenericAllocationHandle handle, uint32_t* record) noexcept {
  bool last = false, known = false;
  g_process.live.Update(Family::kVmmHandle, handle, [&](LiveEntry& e) {
    known = e.aux > 0;
    if (known) last = --e.aux == 0;
    *record = e.owner;
  });
  if (last) g_process.live.Take(Family::kVmmHandle, handle, nullptr);
  return known;
}

template <typename Map>
CUresult MapRecord(uint32_t record, uint64_t key, uint64_t bytes, uint64_t reach,
                   DriverSymbol symbol, const Map& map) noexcept {
  if (record == kNoRecord) return map();
  const Moving moving;
  if (const Verdict v = GrowRecord(record, region::UnitsOf(reach), symbol); v != Verdict::kGranted)
    return CodeOf(v);
  // Before the call: another thread may release the handle meanwhile.
  RefRecord(record, RecordRef::kMapping);
  const CUresult r = map();
  if (r != CUDA_SUCCESS) {
    UnrefRecord(record, RecordRef::kMapping);
    return r;
  }
  LiveEntry replaced;
  if (!g_process.live.Insert({key, Family::kVmmMapping, 0, 0, kRefersToRecord, record, 0, bytes},
                             &replaced))
    Degrade(2);
  else if (replaced.family != Family::kNone)
    UnrefRecord(replaced.owner, RecordRef::kMapping);
  return r;
}

}  // namespace

CUresult hook_cuMemCreate(CUmemGenericAllocationHandle_v1* handle, size_t size,
                          const CUmemAllocationProp_v1* prop, unsigned long long flags) noexcept {
  DIVVY_ENTER(cuMemCreate, (handle, size, prop, flags));
  if (handle == nullptr || prop == nullptr || size == 0 ||
      prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
    return g_driver.cuMemCreate(handle, size, prop, flags);
  const int device = LocalOf(prop->location.id);
  if (device < 0) {
    if (!DeviceAllowed(prop->location.id, DriverSymbol::cuMemCreate))
      return CUDA_ERROR_INVALID_DEVICE;
    return g_driver.cuMemCreate(handle, size, prop, flags);
  }
  SweepExports();
  const uint64_t units = region::UnitsOf(size);
  const auto local = static_cast<unsigned>(device);
  if (const Verdict v = ChargeAndBegin(local, units, Kind::kVmm, DriverSymbol::cuMemCreate);
      v != Verdict::kGranted)
    return CodeOf(v);
  const CUresult r = g_driver.cuMemCreate(handle, size, prop, flags);
  if (r != CUDA_SUCCESS) {
    CreditAndEnd(local, units, Kind::kVmm);
    if (r == CUDA_ERROR_OUT_OF_MEMORY)
      Report(region::EventCause::kDriverRefused, local, size, DriverSymbol::cuMemCreate);
    return r;
  }
  End();
  const uint32_t record = AddRecord(local, Kind::kVmm, units);
  if (record == kNoRecord)
    Degrade(2);
  else
    AddHandle(*handle, record);
  return r;
}

CUresult hook_cuMemRelease(CUmemGenericAllocationHandle_v1 handle) noexcept {
  DIVVY_ENTER(cuMemRelease, (handle));
  uint32_t record = kNoRecord;
  const Moving moving;
  const bool ours = DropHandle(handle, &record);
  const CUresult r = g_driver.cuMemRelease(handle);
  if (!ours) return r;
  if (r == CUDA_SUCCESS)
    UnrefRecord(record, RecordRef::kHandle);
  else
    AddHandle(handle, record);
  return r;
}

CUresult hook_cuMemRetainAllocationHandle(CUmemGenericAllocationHandle_v1* handle,
                                          void* addr) noexcept {
  DIVVY_ENTER(cuMemRetainAllocationHandle, (handle, addr));
  const CUresult r = g_driver.cuMemRetainAllocationHandle(handle, addr);
  if (r != CUDA_SUCCESS) return r;
  uint32_t record = RecordOf(*handle);
  if (record == kNoRecord) record = RecordAt(reinterpret_cast<uint64_t>(addr));
  if (record == kNoRecord) return r;
  RefRecord(record, RecordRef::kHandle);
  AddHandle(*handle, record);
  return r;
}

CUresult hook_cuMemMap(CUdeviceptr_v2 ptr, size_t size, size_t offset,
                       CUmemGenericAllocationHandle_v1 handle, unsigned long long flags) noexcept {
  DIVVY_ENTER(cuMemMap, (ptr, size, offset, handle, flags));
  return MapRecord(RecordOf(handle), ptr, size, offset + size, DriverSymbol::cuMemMap,
                   [&] { return g_driver.cuMemMap(ptr, size, offset, handle, flags); });
}

CUresult hook_cuMemUnmap(CUdeviceptr_v2 ptr, size_t size) noexcept {
  DIVVY_ENTER(cuMemUnmap, (ptr, size));
  // One call may end several mappings that lie side by side. Taken out before the driver is asked,
  // put back if it refuses.
  const Moving moving;
  LiveEntry taken[kMostAtOnce];
  unsigned count = 0;
  uint64_t at = ptr;
  const uint64_t end = ptr + size;
  while (at < end && count < kMostAtOnce &&
         g_process.live.Take(Family::kVmmMapping, at, &taken[count]))
    at += taken[count++].aux;
  const CUresult r = g_driver.cuMemUnmap(ptr, size);
  if (r != CUDA_SUCCESS) {
    for (unsigned i = 0; i < count; ++i) g_process.live.Insert(taken[i]);
    return r;
  }
  for (unsigned i = 0; i < count; ++i) UnrefRecord(taken[i].owner, RecordRef::kMapping);
  for (LiveEntry more; at < end && g_process.live.Take(Family::kVmmMapping, at, &more);
       at += more.aux)
    UnrefRecord(more.owner, RecordRef::kMapping);
  return r;
}

CUresult hook_cuMemExportToShareableHandle(void* shareableHandle,
                                           CUmemGenericAllocationHandle_v1 handle,
                                           CUmemAllocationHandleType handleType,
                                           unsigned long long flags) noexcept {
  DIVVY_ENTER(cuMemExportToShareableHandle, (shareableHandle, handle, handleType, flags));
  const CUresult r =
      g_driver.cuMemExportToShareableHandle(shareableHandle, handle, handleType, flags);
  if (r == CUDA_SUCCESS && handleType == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
    if (const uint32_t record = RecordOf(handle); record != kNoRecord)
      RecordExported(record, *static_cast<const int*>(shareableHandle));
  return r;
}

CUresult hook_cuMemImportFromShareableHandle(CUmemGenericAllocationHandle_v1* handle,
                                             void* osHandle,
                                             CUmemAllocationHandleType shHandleType) noexcept {
  DIVVY_ENTER(cuMemImportFromShareableHandle, (handle, osHandle, shHandleType));
  const CUresult r = g_driver.cuMemImportFromShareableHandle(handle, osHandle, shHandleType);
  if (r != CUDA_SUCCESS) return r;
  SweepExports();
  // Our own export coming back is the same memory: counted once.
  uint32_t record = kNoRecord;
  if (shHandleType == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
    record = FindExported(static_cast<int>(reinterpret_cast<intptr_t>(osHandle)));
  if (record == kNoRecord) {
    // Of another process: it tells its size when it is mapped, and is charged then.
    CUmemAllocationProp prop;
    if (g_driver.cuMemGetAllocationPropertiesFromHandle(&prop, *handle) != CUDA_SUCCESS ||
        prop.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
      return r;
    const int device = LocalOf(prop.location.id);
    if (device < 0) return r;
    record = AddRecord(static_cast<unsigned>(device), Kind::kImport, 0);
    if (record == kNoRecord) {
      Degrade(2);
      return r;
    }
  }
  AddHandle(*handle, record);
  return r;
}

CUresult hook_cuMulticastBindMem(CUmemGenericAllocationHandle mcHandle, size_t mcOffset,
                                 CUmemGenericAllocationHandle memHandle, size_t memOffset,
                                 size_t size, unsigned long long flags) noexcept {
  DIVVY_ENTER(cuMulticastBindMem, (mcHandle, mcOffset, memHandle, memOffset, size, flags));
  return MapRecord(RecordOf(memHandle), MulticastKey(mcHandle, mcOffset), size, memOffset + size,
                   DriverSymbol::cuMulticastBindMem, [&] {
                     return g_driver.cuMulticastBindMem(mcHandle, mcOffset, memHandle, memOffset,
                                                        size, flags);
                   });
}

CUresult hook_cuMulticastBindAddr(CUmemGenericAllocationHandle mcHandle, size_t mcOffset,
                                  CUdeviceptr memptr, size_t size,
                                  unsigned long long flags) noexcept {
  DIVVY_ENTER(cuMulticastBindAddr, (mcHandle, mcOffset, memptr, size, flags));
  return MapRecord(RecordAt(memptr), MulticastKey(mcHandle, mcOffset), size, 0,
                   DriverSymbol::cuMulticastBindAddr, [&] {
                     return g_driver.cuMulticastBindAddr(mcHandle, mcOffset, memptr, size, flags);
                   });
}

CUresult hook_cuMulticastUnbind(CUmemGenericAllocationHandle mcHandle, CUdevice dev,
                                size_t mcOffset, size_t size) noexcept {
  DIVVY_ENTER(cuMulticastUnbind, (mcHandle, dev, mcOffset, size));
  if (!DeviceAllowed(dev, DriverSymbol::cuMulticastUnbind)) return CUDA_ERROR_INVALID_DEVICE;
  const Moving moving;
  const CUresult r = g_driver.cuMulticastUnbind(mcHandle, dev, mcOffset, size);
  LiveEntry entry;
  if (r == CUDA_SUCCESS &&
      g_process.live.Take(Family::kVmmMapping, MulticastKey(mcHandle, mcOffset), &entry))
    UnrefRecord(entry.owner, RecordRef::kMapping);
  return r;
}

namespace {
// Which tiles a later unmap covers is not followed: what was mapped into an array counts until the
// array is destroyed. Never too little.
void BindMapped(const CUarrayMapInfo* list, unsigned count) noexcept {
  for (unsigned i = 0; list != nullptr && i < count; ++i) {
    if (list[i].memOperationType != CU_MEM_OPERATION_TYPE_MAP) continue;
    const uint32_t record = RecordOf(list[i].memHandle.memHandle);
    if (record != kNoRecord)
      BindToArray(record, reinterpret_cast<uint64_t>(list[i].resource.array));
  }
}
}  // namespace

CUresult hook_cuMemMapArrayAsync(CUarrayMapInfo_v1* mapInfoList, unsigned int count,
                                 CUstream hStream) noexcept {
  DIVVY_ENTER(cuMemMapArrayAsync, (mapInfoList, count, hStream));
  const CUresult r = g_driver.cuMemMapArrayAsync(mapInfoList, count, hStream);
  if (r == CUDA_SUCCESS) BindMapped(mapInfoList, count);
  return r;
}

CUresult hook_cuMemMapArrayAsync_ptsz(CUarrayMapInfo_v1* mapInfoList, unsigned int count,
                                      CUstream hStream) noexcept {
  DIVVY_ENTER(cuMemMapArrayAsync_ptsz, (mapInfoList, count, hStream));
  const CUresult r = g_driver.cuMemMapArrayAsync_ptsz(mapInfoList, count, hStream);
  if (r == CUDA_SUCCESS) BindMapped(mapInfoList, count);
  return r;
}

}  // namespace divvy::shim
