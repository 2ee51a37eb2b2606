// The gate: every submission of GPU work passes here before it goes to the driver. While the tenant
// is alone on its device that is two loads and two branches, and one addition that counts the
// submission; every so often, and always when others contend, it is metered (meter.h) and may wait:
// for a shut gate to open, or for less of its own work to be in flight. Every wait ends by progress
// or by time. Any thread; no lock is held while it waits.
#pragma once

#include "src/abi/cuda.h"
#include "src/shim/meter.h"
#include "src/shim/process.h"

namespace divvy::shim {

// What is not CUDA_SUCCESS is returned to the program in the call's place, and nothing is ended.
CUresult BeginSubmission(const Operation& op, Submission* out) noexcept;
inline CUresult EndSubmission(Submission* submission, CUresult answer) noexcept {
  if (submission->meter != nullptr) EndOperation(submission, answer);
  return answer;
}

// The common case: open, and this launch is not one to be metered. Counts it then. For people and
// the audit: an addition that loses one when two threads meet costs a fifth of one that does not.
inline bool PassedGate() noexcept {
  const region::U32* word = g_process.gate_word.load(std::memory_order_relaxed);
  if (__builtin_expect(word == nullptr || word->load(std::memory_order_relaxed) != 0, 0))
    return false;
  region::U64& launches = *g_process.launches.load(std::memory_order_relaxed);
  const uint64_t n = launches.load(std::memory_order_relaxed) + 1;
  if (n >= g_process.meter_at.load(std::memory_order_relaxed)) return false;
  launches.store(n, std::memory_order_relaxed);
  return true;
}

// A submission in C++: `submit` calls the driver.
template <typename Submit>
CUresult Submitted(const Operation& op, const Submit& submit) noexcept {
  if (__builtin_expect(PassedGate(), 1)) return submit();
  Submission submission;
  if (const CUresult r = BeginSubmission(op, &submission); r != CUDA_SUCCESS) return r;
  return EndSubmission(&submission, submit());
}

// Points the fast path at the words of a session; at a word that is always open for a process that
// is no tenant. Only once the driver is bound, so that what follows the gate can be called.
void OpenGates(const Session& session) noexcept;
void PassGates() noexcept;

}  // namespace divvy::shim
