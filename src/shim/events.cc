// Recycled events; see events.h.
#include "src/shim/events.h"

#include "src/shim/capture.h"
#include "src/shim/contexts.h"
#include "src/shim/driver.h"
#include "src/shim/process.h"

namespace divvy::shim {
namespace {

EventCell& Cell(int i) noexcept { return g_process.event_cell[i]; }

bool Take(std::atomic<uint32_t>& state) noexcept {
  uint32_t free = 0;
  return state.load(std::memory_order_relaxed) == 0 &&
         state.compare_exchange_strong(free, 1, std::memory_order_acquire);
}

}  // namespace

int TakeEvent(uint32_t context, bool timed) noexcept {
  if (context == 0) return -1;
  for (unsigned i = 0; i < kEventCells; ++i) {
    EventCell& cell = Cell(static_cast<int>(i));
    const uint32_t made_in = cell.context.load(std::memory_order_relaxed);
    if ((made_in != context && made_in != 0) || (made_in == context && cell.timed != timed) ||
        !Take(cell.state))
      continue;
    // Taken: nobody else changes it now. It may have been made meanwhile.
    const uint32_t now_in = cell.context.load(std::memory_order_relaxed);
    if (now_in == context && cell.timed == timed) return static_cast<int>(i);
    if (now_in == 0) {
      const RelaxedCapture relaxed;
      const unsigned flags = timed ? CU_EVENT_DEFAULT : CU_EVENT_DISABLE_TIMING;
      if (g_driver.cuEventCreate(&cell.event, flags) == CUDA_SUCCESS) {
        cell.timed = timed;
        cell.context.store(context, std::memory_order_relaxed);
        return static_cast<int>(i);
      }
      GiveEvent(static_cast<int>(i));
      return -1;
    }
    GiveEvent(static_cast<int>(i));
  }
  return -1;
}

void GiveEvent(int cell) noexcept {
  // Release: partner of the next taker's acquire.
  if (cell >= 0) Cell(cell).state.store(0, std::memory_order_release);
}

CUevent EventOf(int cell) noexcept { return Cell(cell).event; }

uint32_t ContextOfEvent(int cell) noexcept {
  return Cell(cell).context.load(std::memory_order_relaxed);
}

void ForgetEvents(uint32_t context) noexcept {
  for (unsigned i = 0; i < kEventCells; ++i) {
    uint32_t expected = context;
    Cell(static_cast<int>(i)).context.compare_exchange_strong(expected, 0);
  }
}

int TakeProbe(uint32_t context) noexcept {
  for (unsigned i = 0; i < kProbes; ++i) {
    Probe& probe = g_process.probe[i];
    if (!Take(probe.state)) continue;
    const int start = TakeEvent(context, true), end = TakeEvent(context, true);
    probe.start = static_cast<int16_t>(start);
    probe.end = static_cast<int16_t>(end);
    probe.record = false;
    if (start >= 0 && end >= 0) return static_cast<int>(i);
    GiveProbe(static_cast<int>(i));
    return -1;
  }
  return -1;
}

Probe& ProbeAt(int probe) noexcept { return g_process.probe[probe]; }

void GiveProbe(int probe) noexcept {
  if (probe < 0) return;
  Probe& p = ProbeAt(probe);
  GiveEvent(p.start);
  GiveEvent(p.end);
  p.state.store(0, std::memory_order_release);
}

bool ReadProbe(int probe, uint64_t* ns) noexcept {
  const Probe& p = ProbeAt(probe);
  const uint32_t context = Cell(p.start).context.load(std::memory_order_relaxed);
  const ContextUse use(context);
  // Looked at again inside: the context's end forgets its events.
  if (!use || Cell(p.start).context.load(std::memory_order_relaxed) != context ||
      Cell(p.end).context.load(std::memory_order_relaxed) != context)
    return false;
  const RelaxedCapture relaxed;
  float ms = 0;
  if (g_driver.cuEventElapsedTime(&ms, EventOf(p.start), EventOf(p.end)) != CUDA_SUCCESS || ms < 0)
    return false;
  *ns = static_cast<uint64_t>(static_cast<double>(ms) * 1e6);
  return true;
}

}  // namespace divvy::shim
