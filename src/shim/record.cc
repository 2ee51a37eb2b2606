// Recording; see record.h.
#include "src/shim/record.h"

#include <pthread.h>

#include "src/shim/attach.h"
#include "src/shim/operation.h"
#include "src/shim/process.h"

namespace divvy::shim {
namespace {

ThreadGap& Mine() noexcept {
  return g_process.thread_gap[Mix(static_cast<uint64_t>(pthread_self())) % kThreadGaps];
}

uint32_t Saturated(uint64_t ns) noexcept {
  return ns / 100 < UINT32_MAX ? static_cast<uint32_t>(ns / 100) : UINT32_MAX;
}

}  // namespace

Gap TakeGap() noexcept {
  ThreadGap& t = Mine();
  if (t.thread.load(std::memory_order_relaxed) != static_cast<uint64_t>(pthread_self()))
    return {0, false};
  const uint64_t end = t.end_ns.load(std::memory_order_relaxed), now = MonotonicNs();
  return {end != 0 && now > end ? now - end : 0,
          t.synced.exchange(0, std::memory_order_relaxed) != 0};
}

void SubmissionEnded() noexcept {
  ThreadGap& t = Mine();
  t.thread.store(static_cast<uint64_t>(pthread_self()), std::memory_order_relaxed);
  t.end_ns.store(MonotonicNs(), std::memory_order_relaxed);
}

void ThreadSynced() noexcept {
  ThreadGap& t = Mine();
  if (t.thread.load(std::memory_order_relaxed) == static_cast<uint64_t>(pthread_self()))
    t.synced.store(1, std::memory_order_relaxed);
}

void WriteRecord(const Probe& probe, uint64_t ns) noexcept {
  const Session* session = CurrentSession();
  if (session == nullptr) return;
  region::Usage& usage = *session->usage;
  const uint64_t ticket = usage.record_head.fetch_add(1, std::memory_order_relaxed);
  region::OperationRecord& record = usage.record[ticket % region::kMaxRecords];
  record.sequence.store(0, std::memory_order_relaxed);
  // Release: a reader that finds the new length does not find the old number after it.
  record.length.store(Saturated(ns), std::memory_order_release);
  record.gap.store(Saturated(probe.gap_ns), std::memory_order_relaxed);
  record.key.store(static_cast<uint32_t>(probe.key >> 16), std::memory_order_relaxed);
  record.device = probe.device;
  record.kind = probe.kind;
  record.synced = probe.synced;
  // Release: partner of the daemon's acquire.
  record.sequence.store(ticket + 1, std::memory_order_release);
}

}  // namespace divvy::shim
