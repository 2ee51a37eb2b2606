// The gate: every submission of GPU work passes here before it goes to the driver. While the tenant
// is alone on its device and not paused, that is one load and one branch, and one addition that
// counts the submission. Any thread; GateSlow may wait, bounded.
#pragma once

#include "src/abi/cuda.h"
#include "src/shim/process.h"

namespace divvy::shim {

// Not attached yet, or the word says something: finds out, waits while it is shut. What is not
// CUDA_SUCCESS is returned to the program in the call's place.
CUresult GateSlow() noexcept;

inline bool GateOpen() noexcept {
  const region::U32* word = g_process.gate_word.load(std::memory_order_relaxed);
  return __builtin_expect(word != nullptr && word->load(std::memory_order_relaxed) == 0, 1);
}
// For people and the audit: an addition that loses one when two threads meet costs a fifth of one
// that does not.
inline void CountLaunch() noexcept {
  region::U64& n = *g_process.launches.load(std::memory_order_relaxed);
  n.store(n.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}
inline CUresult PassGate() noexcept {
  if (!GateOpen())
    if (const CUresult r = GateSlow(); r != CUDA_SUCCESS) return r;
  CountLaunch();
  return CUDA_SUCCESS;
}

// Points the fast path at the words of a session; at a word that is always open for a process that
// is no tenant. Only once the driver is bound, so that what follows the gate can be called.
void OpenGates(const Session& session) noexcept;
void PassGates() noexcept;

}  // namespace divvy::shim
