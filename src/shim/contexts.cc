// Contexts of this process; see contexts.h.
#include "src/shim/contexts.h"

#include "src/shim/attach.h"
#include "src/shim/capture.h"
#include "src/shim/devices.h"
#include "src/shim/driver.h"

namespace divvy::shim {
namespace {

// Index of handles: handle << 16 | slot. A removed entry leaves kRemoved, so that walks go on.
constexpr unsigned kIndex = kContexts * 4;
constexpr uint64_t kRemoved = 1;

unsigned PlaceIn(uint64_t handle) noexcept {
  return static_cast<unsigned>((handle * 0x9e3779b97f4a7c15u) >> 40) % kIndex;
}

uint32_t SlotOf(CUcontext context) noexcept {
  const auto handle = reinterpret_cast<uint64_t>(context);
  for (unsigned i = PlaceIn(handle), n = 0; n < kIndex; i = (i + 1) % kIndex, ++n) {
    const uint64_t entry = g_process.context_index[i].load(std::memory_order_acquire);
    if (entry == 0) return 0;
    if (entry >> 16 == handle) return static_cast<uint32_t>(entry & 0xffff);
  }
  return 0;
}

// Under contexts_lock.
void IndexAdd(uint64_t handle, uint32_t slot) noexcept {
  for (unsigned i = PlaceIn(handle), n = 0; n < kIndex; i = (i + 1) % kIndex, ++n) {
    const uint64_t entry = g_process.context_index[i].load(std::memory_order_relaxed);
    if (entry != 0 && entry != kRemoved) continue;
    // Release: whoever finds the slot here sees it filled.
    g_process.context_index[i].store(handle << 16 | slot, std::memory_order_release);
    return;
  }
}
void IndexRemove(uint64_t handle) noexcept {
  for (unsigned i = PlaceIn(handle), n = 0; n < kIndex; i = (i + 1) % kIndex, ++n) {
    const uint64_t entry = g_process.context_index[i].load(std::memory_order_relaxed);
    if (entry == 0) return;
    if (entry >> 16 != handle) continue;
    g_process.context_index[i].store(kRemoved, std::memory_order_release);
    return;
  }
}

struct Gone {
  uint64_t units[kLocalDevices][region::kKinds];
};

bool DiesWithContext(Family family) noexcept {
  return family == Family::kPointer || family == Family::kArray || family == Family::kMipmap ||
         family == Family::kModule;
}

}  // namespace

Here PlaceOf(CUcontext context) noexcept {
  if (context == nullptr) return {-1, 0};
  if (const uint32_t slot = SlotOf(context)) return {g_process.context[slot].device, slot};
  // Made where no hook saw it (an export table, a green context): taken in now. Its device is asked
  // of the driver, so it has to be the current one.
  CUcontext current = nullptr;
  CUdevice ordinal = -1;
  if (g_driver.cuCtxGetCurrent(&current) != CUDA_SUCCESS || current != context ||
      g_driver.cuCtxGetDevice(&ordinal) != CUDA_SUCCESS)
    return {-1, 0};
  const int device = LocalOf(ordinal);
  if (device >= 0) BeginContext(static_cast<unsigned>(device), DriverSymbol::cuCtxGetCurrent);
  return {device, AddContext(context, device, false)};
}

Here CurrentPlace() noexcept {
  CUcontext context = nullptr;
  if (g_driver.cuCtxGetCurrent(&context) != CUDA_SUCCESS) return {-1, 0};
  return PlaceOf(context);
}

Verdict BeginContext(unsigned device, DriverSymbol symbol) noexcept {
  DeviceState& state = g_process.device[device];
  if (!g_process.contexts_lock.Lock()) return Verdict::kNotReady;
  const bool first = state.contexts++ == 0;
  g_process.contexts_lock.Unlock();
  if (!first) return Verdict::kGranted;
  const Session* s = FreshSession();
  const int d = s != nullptr ? s->policy_index[device] : -1;
  Verdict v = s == nullptr ? Verdict::kNotReady : Verdict::kNoShare;
  uint64_t units = 0;
  if (d >= 0) {
    units = region::UnitsOf(s->policy->device[d].context_bytes.load(std::memory_order_relaxed));
    v = Charge(device, units, Kind::kContext, symbol);
  }
  if (!g_process.contexts_lock.Lock()) return Verdict::kNotReady;
  if (v == Verdict::kGranted)
    state.context_units += units;
  else
    --state.contexts;
  g_process.contexts_lock.Unlock();
  return v;
}

void EndContext(unsigned device) noexcept {
  DeviceState& state = g_process.device[device];
  if (!g_process.contexts_lock.Lock()) return;
  uint64_t units = 0;
  if (state.contexts > 0 && --state.contexts == 0) {
    units = state.context_units;
    state.context_units = 0;
  }
  g_process.contexts_lock.Unlock();
  Credit(device, units, Kind::kContext);
}

uint32_t AddContext(CUcontext context, int device, bool primary) noexcept {
  if (context == nullptr || !g_process.contexts_lock.Lock()) return 0;
  uint32_t slot = SlotOf(context);
  if (slot == 0) {
    for (uint32_t i = 1; i < kContexts && slot == 0; ++i)
      if (g_process.context[i].handle.load(std::memory_order_relaxed) == 0) slot = i;
    if (slot != 0) {
      ContextSlot& c = g_process.context[slot];
      const auto handle = reinterpret_cast<uint64_t>(context);
      c.device = static_cast<int8_t>(device);
      c.primary = primary;
      c.attached = 0;
      c.handle.store(handle, std::memory_order_relaxed);
      IndexAdd(handle, slot);
    }
  }
  if (slot != 0 && primary) g_process.context[slot].primary = true;
  g_process.contexts_lock.Unlock();
  return slot;
}

void PrimaryRetained(unsigned device, CUcontext context) noexcept {
  const uint32_t known = SlotOf(context);
  const uint32_t slot = AddContext(context, static_cast<int>(device), true);
  DeviceState& state = g_process.device[device];
  if (!g_process.contexts_lock.Lock()) return;
  // Counted already: by an earlier retain, or when it was met as the current context.
  const bool counted = state.primary_active || known != 0;
  state.primary_active = true;
  state.primary_slot = slot;
  if (counted) --state.contexts;
  g_process.contexts_lock.Unlock();
}

void PrimaryMaybeGone(unsigned device, int ordinal) noexcept {
  DeviceState& state = g_process.device[device];
  if (!state.primary_active) return;
  unsigned flags = 0;
  int active = 1;
  if (g_driver.cuDevicePrimaryCtxGetState(ordinal, &flags, &active) != CUDA_SUCCESS || active != 0)
    return;
  if (!g_process.contexts_lock.Lock()) return;
  const bool was = state.primary_active;
  const uint32_t slot = state.primary_slot;
  state.primary_active = false;
  state.primary_slot = 0;
  if (was && slot != 0) IndexRemove(g_process.context[slot].handle.load(std::memory_order_relaxed));
  g_process.contexts_lock.Unlock();
  if (!was) return;
  if (slot != 0)
    ContextGone(slot);
  else
    EndContext(device);
}

uint32_t ForgetContext(CUcontext context) noexcept {
  if (context == nullptr || !g_process.contexts_lock.Lock()) return 0;
  const uint32_t slot = SlotOf(context);
  if (slot != 0) IndexRemove(reinterpret_cast<uint64_t>(context));
  g_process.contexts_lock.Unlock();
  return slot;
}

void RestoreContext(uint32_t slot, CUcontext context) noexcept {
  if (slot == 0 || !g_process.contexts_lock.Lock()) return;
  IndexAdd(reinterpret_cast<uint64_t>(context), slot);
  g_process.contexts_lock.Unlock();
}

void ContextGone(uint32_t slot) noexcept {
  if (slot == 0) return;
  ContextSlot& context = g_process.context[slot];
  Gone gone{};
  g_process.live.Sweep([&](const LiveEntry& entry) {
    if (entry.owner != slot || !DiesWithContext(entry.family)) return false;
    gone.units[entry.device % kLocalDevices][entry.kind % region::kKinds] += entry.units;
    return true;
  });
  for (unsigned d = 0; d < kLocalDevices; ++d)
    for (unsigned k = 0; k < region::kKinds; ++k) Credit(d, gone.units[d][k], static_cast<Kind>(k));
  const int device = context.device;
  context.handle.store(0, std::memory_order_release);
  if (device >= 0) EndContext(static_cast<unsigned>(device));
}

}  // namespace divvy::shim
