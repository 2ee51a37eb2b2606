// Pools' books; see pools.h.
//
// Of each pool, in units: booked (in the share's books), claimed (being charged by some thread
// now), in_flight (asked of the driver, not yet seen in its figures), used (as the driver last
// said), live (allocations of this process out of it). Invariant, outside a poll: booked + claimed
// >= max(reserved as last seen, used + in_flight). All under pools_lock; the lock is never held
// while charging or calling the driver.
#include "src/shim/pools.h"

#include <unistd.h>

#include "src/shim/attach.h"
#include "src/shim/cancel.h"
#include "src/shim/capture.h"
#include "src/shim/pages.h"

namespace divvy::shim {

struct Pool {
  CUmemoryPool handle;  // nullptr: a device's graph memory, or destroyed
  uint64_t booked, claimed, in_flight, used, live;
  uint8_t device;       // kNoDevice: not in device memory, nothing is booked
  uint64_t last_graph;  // the executable graph that took graph memory last and still has it
  bool taken;           // this place is in use
  bool graph;
  bool destroyed;
  bool dirty;
};

namespace {

// How long a refused allocation waits for its own pending frees, once.
constexpr unsigned kPendingRounds = 50;
constexpr unsigned kPendingRoundUs = 1000;

Pool* At(uint32_t pool) noexcept {
  return g_process.pools != nullptr && pool < kPools ? &g_process.pools[pool] : nullptr;
}

uint64_t Max(uint64_t a, uint64_t b) noexcept { return a > b ? a : b; }

// What the driver says; false if it cannot be asked.
bool Ask(const Pool& p, uint64_t* reserved, uint64_t* used) noexcept {
  cuuint64_t r = 0, u = 0;
  if (p.graph) {
    const int ordinal = g_process.device[p.device].ordinal;
    if (g_driver.cuDeviceGetGraphMemAttribute(ordinal, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT,
                                              &r) != CUDA_SUCCESS ||
        g_driver.cuDeviceGetGraphMemAttribute(ordinal, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &u) !=
            CUDA_SUCCESS)
      return false;
  } else if (p.destroyed ||
             g_driver.cuMemPoolGetAttribute(p.handle, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &r) !=
                 CUDA_SUCCESS ||
             g_driver.cuMemPoolGetAttribute(p.handle, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &u) !=
                 CUDA_SUCCESS) {
    return false;
  }
  *reserved = region::UnitsOf(r);
  *used = region::UnitsOf(u);
  return true;
}

// Under pools_lock: lowers `booked` to what the figures need; returns what is to be credited.
uint64_t Lower(Pool& p, uint64_t reserved) noexcept {
  const uint64_t need = Max(reserved, p.used + p.in_flight);
  const uint64_t keep = need > p.claimed ? need - p.claimed : 0;
  if (p.booked <= keep) return 0;
  const uint64_t back = p.booked - keep;
  p.booked = keep;
  return back;
}

uint32_t TakePlace(CUmemoryPool handle, unsigned device, bool graph) noexcept {
  if (!g_process.pools_lock.Lock()) return kNoPool;
  if (g_process.pools == nullptr)
    g_process.pools = static_cast<Pool*>(MapPages(sizeof(Pool) * kPools));
  uint32_t place = kNoPool;
  for (uint32_t i = 0; g_process.pools != nullptr && i < kPools && place == kNoPool; ++i)
    if (!g_process.pools[i].taken) place = i;
  if (place != kNoPool) {
    Pool& p = g_process.pools[place];
    p = {};
    p.handle = handle;
    p.device = static_cast<uint8_t>(device);
    p.taken = true;
    p.graph = graph;
  }
  g_process.pools_lock.Unlock();
  if (place == kNoPool) Degrade(4);
  return place;
}

bool Reclaim(unsigned device) noexcept;

void Mark(Pool& p) noexcept {
  p.dirty = true;
  g_process.pools_dirty.store(1, std::memory_order_relaxed);
}

}  // namespace

uint32_t AddPool(CUmemoryPool handle, unsigned device) noexcept {
  const uint32_t place = TakePlace(handle, device, false);
  if (place == kNoPool) return place;
  g_process.reclaim.store(&Reclaim, std::memory_order_release);
  g_process.live.Insert({reinterpret_cast<uint64_t>(handle), Family::kPool, 0, 0, 0, place, 0, 0});
  return place;
}

uint32_t PoolOf(CUmemoryPool handle, unsigned device) noexcept {
  LiveEntry entry;
  if (g_process.live.Find(Family::kPool, reinterpret_cast<uint64_t>(handle), &entry))
    return entry.owner;
  // A device's default pool, met for the first time: which device's?
  const RelaxedCapture relaxed;
  const uint32_t count = g_process.device_count.load(std::memory_order_acquire);
  for (uint32_t d = 0; d < count; ++d) {
    CUmemoryPool own = nullptr;
    if (g_process.device[d].present &&
        g_driver.cuDeviceGetDefaultMemPool(&own, g_process.device[d].ordinal) == CUDA_SUCCESS &&
        own == handle)
      device = d;
  }
  return AddPool(handle, device);
}

uint32_t CurrentPool(unsigned device) noexcept {
  DeviceState& state = g_process.device[device];
  uint64_t handle = state.current_pool.load(std::memory_order_acquire);
  if (handle == 0) {
    const RelaxedCapture relaxed;
    CUmemoryPool pool = nullptr;
    if (g_driver.cuDeviceGetMemPool(&pool, state.ordinal) != CUDA_SUCCESS) return kNoPool;
    handle = reinterpret_cast<uint64_t>(pool);
    state.current_pool.store(handle, std::memory_order_release);
  }
  return PoolOf(reinterpret_cast<CUmemoryPool>(handle), device);
}

uint32_t GraphPool(unsigned device) noexcept {
  DeviceState& state = g_process.device[device];
  if (const uint32_t known = state.graph_pool.load(std::memory_order_acquire)) return known - 1;
  const uint32_t place = TakePlace(nullptr, device, true);
  if (place == kNoPool) return place;
  g_process.reclaim.store(&Reclaim, std::memory_order_release);
  uint32_t none = 0;
  if (!state.graph_pool.compare_exchange_strong(none, place + 1)) {
    g_process.pools[place].taken = false;  // another thread was first
    return none - 1;
  }
  return place;
}

Verdict PoolAsk(uint32_t pool, uint64_t units, DriverSymbol symbol) noexcept {
  Pool* p = At(pool);
  if (p == nullptr || p->device == kNoDevice) return Verdict::kGranted;
  const auto claim = [&]() -> uint64_t {
    const uint64_t need = p->used + p->in_flight + units;
    const uint64_t have = p->booked + p->claimed;
    return need > have ? need - have : 0;
  };
  if (!g_process.pools_lock.Lock()) return Verdict::kNotReady;
  uint64_t more = claim();
  if (more != 0) {
    // The pool's own figures may be old: ask before more is booked.
    g_process.pools_lock.Unlock();
    PollPool(pool);
    if (!g_process.pools_lock.Lock()) return Verdict::kNotReady;
    more = claim();
  }
  p->in_flight += units;
  p->claimed += more;
  g_process.pools_lock.Unlock();
  if (more == 0) {
    Begin();
    return Verdict::kGranted;
  }
  const Verdict v = ChargeAndBegin(p->device, more, p->graph ? Kind::kGraph : Kind::kPool, symbol);
  if (!g_process.pools_lock.Lock()) {
    if (v == Verdict::kGranted) End();
    return Verdict::kNotReady;
  }
  p->claimed -= more;
  if (v == Verdict::kGranted)
    p->booked += more;
  else
    p->in_flight -= units;
  g_process.pools_lock.Unlock();
  return v;
}

Verdict PoolTaken(uint32_t pool, uint64_t units) noexcept {
  Pool* p = At(pool);
  if (p == nullptr || p->device == kNoDevice) return Verdict::kGranted;
  const Moving moving(true);  // since PoolAsk
  const Kind kind = p->graph ? Kind::kGraph : Kind::kPool;
  uint64_t reserved = 0, used = 0;
  bool known;
  {
    const RelaxedCapture relaxed;
    known = Ask(*p, &reserved, &used);
  }
  if (!g_process.pools_lock.Lock()) return Verdict::kNotReady;
  p->in_flight -= units;
  if (!p->graph) p->live += units;
  if (known)
    p->used = used;
  else
    p->used += units;
  const uint64_t need = Max(reserved, p->used + p->in_flight);
  const uint64_t have = p->booked + p->claimed;
  const uint64_t more = need > have ? need - have : 0;
  p->claimed += more;
  const uint64_t back = more == 0 ? Lower(*p, reserved) : 0;
  g_process.pools_lock.Unlock();
  Credit(p->device, back, kind);
  if (more == 0) return Verdict::kGranted;
  const Verdict v = TryCharge(p->device, more, kind);
  if (!g_process.pools_lock.Lock()) return Verdict::kNotReady;
  p->claimed -= more;
  if (v == Verdict::kGranted) p->booked += more;
  g_process.pools_lock.Unlock();
  return v;
}

unsigned PoolDevice(uint32_t pool) noexcept {
  const Pool* p = At(pool);
  return p != nullptr ? p->device : kNoDevice;
}

void PoolNotTaken(uint32_t pool, uint64_t units) noexcept {
  Pool* p = At(pool);
  if (p == nullptr || p->device == kNoDevice) return;
  const Moving moving(true);  // since PoolAsk
  if (!g_process.pools_lock.Lock()) return Degrade(5);
  p->in_flight -= units;
  g_process.pools_lock.Unlock();
  PollPool(pool);
}

void PoolFreed(uint32_t pool, uint64_t units) noexcept {
  Pool* p = At(pool);
  if (p == nullptr || p->device == kNoDevice) return;
  if (!g_process.pools_lock.Lock()) return Degrade(5);
  p->live -= units < p->live ? units : p->live;
  const bool destroyed = p->destroyed;
  Mark(*p);
  g_process.pools_lock.Unlock();
  if (destroyed) PollPool(pool);
}

void PollPool(uint32_t pool) noexcept {
  Pool* p = At(pool);
  if (p == nullptr || p->device == kNoDevice) return;
  uint64_t reserved = 0, used = 0;
  bool known;
  {
    const RelaxedCapture relaxed;
    known = Ask(*p, &reserved, &used);
  }
  if (!g_process.pools_lock.Lock()) return Degrade(5);
  if (!known) {
    // Destroyed (or its context is): what is left of it are the allocations not yet freed.
    reserved = 0;
    used = p->destroyed ? p->live : p->used;
  }
  p->used = used;
  p->dirty = !p->graph && used > p->live;  // frees that the device has not come to yet
  const uint64_t back = known || p->destroyed ? Lower(*p, reserved) : 0;
  // It may hold more than was booked for it, when what could not be refused any more took it.
  const uint64_t need = Max(reserved, p->used + p->in_flight);
  const uint64_t have = p->booked + p->claimed;
  const uint64_t more = known && need > have ? need - have : 0;
  p->claimed += more;
  const unsigned device = p->device;
  const Kind kind = p->graph ? Kind::kGraph : Kind::kPool;
  if (p->destroyed && p->live == 0 && p->in_flight == 0) p->taken = false;
  g_process.pools_lock.Unlock();
  Credit(device, back, kind);
  if (more == 0) return;
  const Verdict v = TryCharge(device, more, kind);
  if (!g_process.pools_lock.Lock()) return Degrade(5);
  p->claimed -= more;
  if (v == Verdict::kGranted)
    p->booked += more;
  else
    Mark(*p);
  g_process.pools_lock.Unlock();
}

bool GraphHolds(uint32_t pool, uint64_t graph) noexcept {
  const Pool* p = At(pool);
  return p != nullptr && p->last_graph == graph;
}

void GraphTook(uint32_t pool, uint64_t graph) noexcept {
  Pool* p = At(pool);
  if (p == nullptr || !g_process.pools_lock.Lock()) return;
  p->last_graph = graph;
  g_process.pools_lock.Unlock();
}

void PollDirtySlow() noexcept {
  g_process.pools_dirty.store(0, std::memory_order_relaxed);
  if (g_process.pools == nullptr) return;
  bool again = false;
  for (uint32_t i = 0; i < kPools; ++i) {
    Pool& p = g_process.pools[i];
    if (!p.taken || !p.dirty) continue;
    PollPool(i);
    again |= p.taken && p.dirty;
  }
  if (again) g_process.pools_dirty.store(1, std::memory_order_relaxed);
}

void PoolDestroyed(CUmemoryPool handle) noexcept {
  LiveEntry entry;
  if (!g_process.live.Take(Family::kPool, reinterpret_cast<uint64_t>(handle), &entry)) return;
  Pool* p = At(entry.owner);
  if (p == nullptr) return;
  for (DeviceState& d : g_process.device) {
    auto old = reinterpret_cast<uint64_t>(handle);
    d.current_pool.compare_exchange_strong(old, 0);
  }
  if (!g_process.pools_lock.Lock()) return Degrade(5);
  p->destroyed = true;
  if (p->device == kNoDevice) p->taken = false;
  g_process.pools_lock.Unlock();
  PollPool(entry.owner);
}

namespace {

// Before a refusal: everything that this process's pools hold without need goes back. True if
// something did. Waits for pending frees, once, bounded, without synchronising anything.
bool Reclaim(unsigned device) noexcept {
  if (g_process.pools == nullptr) return false;
  const Session* s = CurrentSession();
  const int d = s != nullptr ? s->policy_index[device] : -1;
  if (d < 0) return false;
  const Moving moving;
  const NoCancellation until_done;
  const auto charged = [&] {
    return s->Slot().device[d].charged_units.load(std::memory_order_relaxed);
  };
  const uint64_t before = charged();
  for (unsigned round = 0; round < kPendingRounds; ++round) {
    bool pending = false;
    for (uint32_t i = 0; i < kPools; ++i) {
      Pool& p = g_process.pools[i];
      if (!p.taken || p.device != device) continue;
      if (!p.destroyed) {
        const RelaxedCapture relaxed;
        if (p.graph) {
          GraphTook(i, 0);
          g_driver.cuDeviceGraphMemTrim(g_process.device[device].ordinal);
        } else {
          g_driver.cuMemPoolTrimTo(p.handle, 0);
        }
      }
      PollPool(i);
      pending |= p.taken && p.used > p.live;
    }
    // Once more after the last free was seen to be done: the trim came before it.
    if (pending)
      usleep(kPendingRoundUs);
    else if (round > 0)
      break;
  }
  return charged() < before;
}

}  // namespace

}  // namespace divvy::shim
