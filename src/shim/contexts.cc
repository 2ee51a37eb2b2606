// Contexts of this process; see contexts.h.
#include "src/shim/contexts.h"

#include <sched.h>

#include "src/shim/attach.h"
#include "src/shim/capture.h"
#include "src/shim/devices.h"
#include "src/shim/driver.h"
#include "src/shim/meter.h"
#include "src/shim/shared.h"

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

uint64_t Figure(unsigned device) noexcept {
  const Session* s = CurrentSession();
  const int d = s != nullptr ? s->policy_index[device] : -1;
  return d < 0
             ? 0
             : region::UnitsOf(s->policy->device[d].context_bytes.load(std::memory_order_relaxed));
}

// A green context stands on its device's primary context and takes next to nothing more.
bool IsPrimary(unsigned device, CUcontext context) noexcept {
  const uint32_t slot = g_process.device[device].primary_slot;
  return slot != 0 && g_process.context[slot].handle.load(std::memory_order_relaxed) ==
                          reinterpret_cast<uint64_t>(context);
}

// A context made where no hook saw it (an export table, a green context) is taken in now. Its
// device is asked of the driver, so it has to be the current one.
__attribute__((noinline, cold)) Here TakeIn(CUcontext context) noexcept {
  CUcontext current = nullptr;
  CUdevice ordinal = -1;
  if (g_driver.cuCtxGetCurrent(&current) != CUDA_SUCCESS || current != context ||
      g_driver.cuCtxGetDevice(&ordinal) != CUDA_SUCCESS)
    return {-1, 0};
  const int device = LocalOf(ordinal);
  // It is there already, so a share that is full cannot refuse it; it shows as overhead then.
  uint64_t units = 0;
  if (device >= 0 && !IsPrimary(static_cast<unsigned>(device), context)) {
    units = Figure(static_cast<unsigned>(device));
    if (TryCharge(static_cast<unsigned>(device), units, Kind::kContext) != Verdict::kGranted)
      units = 0;
  }
  return {device, AddContext(context, device, units)};
}

}  // namespace

Here PlaceOf(CUcontext context) noexcept {
  if (context == nullptr) return {-1, 0};
  if (const uint32_t slot = SlotOf(context)) return {g_process.context[slot].device, slot};
  return TakeIn(context);
}

Here CurrentPlace() noexcept {
  CUcontext context = nullptr;
  if (g_driver.cuCtxGetCurrent(&context) != CUDA_SUCCESS) return {-1, 0};
  return PlaceOf(context);
}

Verdict ChargeContext(unsigned device, DriverSymbol symbol, uint64_t* units) noexcept {
  *units = Figure(device);
  const Verdict v = ChargeAndBegin(device, *units, Kind::kContext, symbol);
  if (v != Verdict::kGranted) *units = 0;
  return v;
}

uint32_t AddContext(CUcontext context, int device, uint64_t units) noexcept {
  uint32_t slot = 0;
  bool known = true;
  if (context != nullptr && g_process.contexts_lock.Lock()) {
    slot = SlotOf(context);
    known = slot != 0;
    for (uint32_t i = 1; i < kContexts && slot == 0; ++i)
      if (g_process.context[i].handle.load(std::memory_order_relaxed) == 0) slot = i;
    if (!known && slot != 0) {
      ContextSlot& c = g_process.context[slot];
      const auto handle = reinterpret_cast<uint64_t>(context);
      c.device = static_cast<int8_t>(device);
      c.units = units;
      c.attached = 0;
      c.handle.store(handle, std::memory_order_relaxed);
      IndexAdd(handle, slot);
    }
    g_process.contexts_lock.Unlock();
  }
  // Known: met earlier as the current context. No room: its end will not be seen, so its charge
  // stands until the process ends.
  if (known && device >= 0) Credit(static_cast<unsigned>(device), units, Kind::kContext);
  if (slot == 0) Degrade(7);
  return slot;
}

bool PrimaryKnown(unsigned device) noexcept {
  return g_process.device[device].primary_active.load(std::memory_order_acquire);
}

void PrimaryRetained(unsigned device, CUcontext context, uint64_t units) noexcept {
  const uint32_t slot = AddContext(context, static_cast<int>(device), units);
  DeviceState& state = g_process.device[device];
  if (!g_process.contexts_lock.Lock()) return;
  state.primary_slot = slot;
  state.primary_active.store(true, std::memory_order_release);
  g_process.contexts_lock.Unlock();
}

uint32_t PrimarySlot(unsigned device) noexcept {
  if (!g_process.contexts_lock.Lock()) return 0;
  const uint32_t slot = g_process.device[device].primary_slot;
  g_process.contexts_lock.Unlock();
  return slot;
}

void PrimaryMaybeGone(unsigned device, int ordinal) noexcept {
  DeviceState& state = g_process.device[device];
  if (!PrimaryKnown(device)) return;
  unsigned flags = 0;
  int active = 1;
  if (g_driver.cuDevicePrimaryCtxGetState(ordinal, &flags, &active) != CUDA_SUCCESS || active != 0)
    return;
  if (!g_process.contexts_lock.Lock()) return;
  const bool was = state.primary_active.exchange(false);
  const uint32_t slot = state.primary_slot;
  state.primary_slot = 0;
  if (was && slot != 0) IndexRemove(g_process.context[slot].handle.load(std::memory_order_relaxed));
  g_process.contexts_lock.Unlock();
  if (was) ContextGone(slot);
}

namespace {
constexpr uint32_t kEnding = 1u << 20;  // one of those above; below: threads inside
constexpr uint64_t kLongestUseNs = 1000000000;
}  // namespace

std::atomic<uint32_t>* ContextUse::Enter(uint32_t slot) noexcept {
  std::atomic<uint32_t>& users = g_process.context[slot].users;
  // Acquire: partner of ~ContextEnding.
  if (users.fetch_add(1, std::memory_order_acquire) < kEnding) return &users;
  users.fetch_sub(1, std::memory_order_relaxed);
  return nullptr;
}

ContextEnding::ContextEnding(uint32_t slot) noexcept
    : users_(slot != 0 ? &g_process.context[slot].users : nullptr) {
  if (users_ == nullptr) return;
  users_->fetch_add(kEnding, std::memory_order_acquire);
  // Acquire: partner of the last user's release.
  for (const uint64_t start = MonotonicNs();
       users_->load(std::memory_order_acquire) % kEnding != 0 &&
       MonotonicNs() - start < kLongestUseNs;)
    sched_yield();
}

ContextEnding::~ContextEnding() {
  if (users_ != nullptr) users_->fetch_sub(kEnding, std::memory_order_release);
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
  MeterContextGone(slot);
  Gone gone{};
  g_process.live.Sweep([&](const LiveEntry& entry) {
    if (entry.owner != slot || !DiesWithContext(entry.family)) return false;
    if ((entry.flags & kSharedMemory) != 0) ForgetShared(entry);
    gone.units[entry.device % kLocalDevices][entry.kind % region::kKinds] += entry.units;
    return true;
  });
  for (unsigned d = 0; d < kLocalDevices; ++d)
    for (unsigned k = 0; k < region::kKinds; ++k) Credit(d, gone.units[d][k], static_cast<Kind>(k));
  const int device = context.device;
  const uint64_t units = context.units;
  context.units = 0;
  context.handle.store(0, std::memory_order_release);
  if (device >= 0) Credit(static_cast<unsigned>(device), units, Kind::kContext);
}

}  // namespace divvy::shim
