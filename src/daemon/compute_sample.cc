#include "src/daemon/compute_sample.h"

#include <algorithm>

namespace divvy::daemon {
namespace {

uint64_t Get(const region::U64& word) { return word.load(std::memory_order_relaxed); }

MeterTotals Copy(const region::Usage& usage, uint32_t slot, unsigned device) {
  const region::Meter& m = usage.meter[slot].device[device];
  MeterTotals out{.waits = Get(m.waits),
                  .operations = Get(m.operations),
                  .launches = Get(usage.slot[slot].launches),
                  .gate_wait_ns = Get(m.gate_wait_ns),
                  .bound_wait_ns = Get(m.bound_wait_ns),
                  .forced = Get(m.forced),
                  .copied_bytes = Get(m.copied_bytes),
                  .copies = Get(m.copies),
                  .copy_ns = Get(m.copy_ns),
                  .ran_ns = Get(m.ran_ns)};
  for (unsigned i = 0; i < region::kWaitBuckets; ++i)
    out.wait_buckets[i] = m.wait_buckets[i].load(std::memory_order_relaxed);
  return out;
}

// A process's threads that can wait at once, and how often one of them can begin to in a second:
// more than any program's, far less than noise.
constexpr double kMostWaiters = 1024, kMostWaitsPerSecond = 200'000;
constexpr double kMostCopiedPerSecond = 1e13, kMostOperationsPerSecond = 1e9;
constexpr double kMostRanPerSecond = 1e12;  // an operation of 1000 s is counted when it has ended
constexpr double kSlackSeconds = 1;
constexpr arbiter::Nanos kTotalsEvery = std::chrono::milliseconds(1);

// What the counters grew by is added to `sum` if it can be; false if something cannot.
bool AddGrowth(const MeterTotals& before, const MeterTotals& now, double seconds,
               MeterTotals& sum) {
  bool sense = true;
  const auto add = [&](uint64_t MeterTotals::*field, double most_per_second) {
    // What is counted without an atomic addition may fall when two threads meet.
    if (now.*field < before.*field) return;
    const uint64_t grown = now.*field - before.*field;
    if (static_cast<double>(grown) <= most_per_second * (seconds + kSlackSeconds))
      sum.*field += grown;
    else
      sense = false;
  };
  add(&MeterTotals::waits, kMostWaiters * kMostWaitsPerSecond);
  add(&MeterTotals::gate_wait_ns, kMostWaiters * 1e9);
  add(&MeterTotals::bound_wait_ns, kMostWaiters * 1e9);
  add(&MeterTotals::forced, kMostWaiters * kMostWaitsPerSecond);
  add(&MeterTotals::copied_bytes, kMostCopiedPerSecond);
  add(&MeterTotals::copies, kMostOperationsPerSecond);
  add(&MeterTotals::operations, kMostOperationsPerSecond);
  add(&MeterTotals::launches, kMostOperationsPerSecond);
  add(&MeterTotals::copy_ns, kMostWaiters * 1e9);
  add(&MeterTotals::ran_ns, kMostRanPerSecond);
  for (unsigned i = 0; i < region::kWaitBuckets; ++i) {
    // 32 bits in the region, which may wrap between two looks.
    const auto grown = static_cast<uint32_t>(now.wait_buckets[i] - before.wait_buckets[i]);
    if (grown <= kMostWaiters * kMostWaitsPerSecond * (seconds + kSlackSeconds))
      sum.wait_buckets[i] += grown;
    else
      sense = false;
  }
  return sense;
}

}  // namespace

void ResetMeters(region::Usage& usage, uint32_t slot, unsigned devices) {
  for (unsigned d = 0; d < devices; ++d) {
    region::Meter& m = usage.meter[slot].device[d];
    for (region::Lane& lane : m.lane)
      for (region::U64* word : {&lane.marker, &lane.issued, &lane.start, &lane.marked}) *word = 0;
    for (region::U64* word :
         {&m.waits, &m.operations, &m.in_flight_ns, &m.gate_wait_ns, &m.bound_wait_ns, &m.forced,
          &m.ran_ns, &m.copied_bytes, &m.copies, &m.copy_ns})
      *word = 0;
    for (region::U32& bucket : m.wait_buckets) bucket = 0;
    m.waiters = 0;
    m.lanes = 0;
  }
}

void MeterReader::Add(uint32_t slot) { processes_[slot] = Process{}; }

void MeterReader::Remove(uint32_t slot) {
  const auto it = processes_.find(slot);
  if (it == processes_.end()) return;
  // What its last moment brought; nothing, if the slot is another process's by now.
  AddTotals(slot, it->second, it->second.read_at + kTotalsEvery);
  processes_.erase(it);
}

// Totals are for people: most of their words are not looked at in each poll.
void MeterReader::AddTotals(uint32_t slot, Process& p, arbiter::Nanos now) {
  const MeterTotals totals = Copy(usage_, slot, device_);
  moved_ = moved_ || totals.ran_ns != p.seen.ran_ns;
  const double seconds = std::chrono::duration<double>(now - p.read_at).count();
  if (!AddGrowth(p.seen, totals, seconds, totals_)) senseless_at_ = now;
  p.seen = totals;
  p.read_at = now;
}

void MeterReader::ReadProcess(uint32_t slot, Process& p, arbiter::Nanos now,
                              arbiter::Progress& out) {
  const region::Meter& m = usage_.meter[slot].device[device_];
  const uint64_t waits = Get(m.waits), operations = Get(m.operations),
                 launches = Get(usage_.slot[slot].launches);
  moved_ = moved_ || waits != p.waits || launches != p.launches || operations != p.operations;
  p.waits = waits;
  p.operations = operations;
  p.launches = launches;
  if (now - p.read_at >= kTotalsEvery) AddTotals(slot, p, now);
  out.waits += waits;
  const uint32_t waiters = m.waiters.load(std::memory_order_relaxed);
  out.waiters += std::min<uint32_t>(waiters, 1u << 20);
  const uint32_t lanes =
      std::min<uint32_t>(m.lanes.load(std::memory_order_relaxed), region::kLanes);
  if (p.lanes.size() < lanes) p.lanes.resize(lanes);
  for (uint32_t i = 0; i < lanes; ++i) {
    const region::Lane& lane = m.lane[i];
    // Counts only grow, and those below `issued` are read before it: an honest lane always makes
    // sense (acquire keeps the loads in this order).
    arbiter::StreamSample s;
    s.marker = lane.marker.load(std::memory_order_acquire);
    s.start = lane.start.load(std::memory_order_acquire);
    const uint64_t marked = lane.marked.load(std::memory_order_acquire);
    s.issued = lane.issued.load(std::memory_order_relaxed);
    if (marked > s.issued) {
      out.garbage = true;
      continue;
    }
    LaneMemory& memory = p.lanes[i];
    if (memory.issued != s.issued || memory.marker != s.marker) {
      memory.issued = s.issued;
      memory.marker = s.marker;
      memory.since = now;
      moved_ = true;
    }
    const uint64_t before = s.marker >> 2;
    if (before == marked && before < s.issued && now - memory.since >= tail_)
      memory.done = s.issued;
    if (memory.done > before && memory.done <= s.issued)
      s.marker = arbiter::MarkerWord(memory.done, arbiter::MarkerKind::kDone);
    Fold(s, out);
  }
}

arbiter::Progress MeterReader::Read(arbiter::Nanos now) {
  moved_ = false;
  arbiter::Progress out{.paused = true};
  for (auto& [slot, process] : processes_) ReadProcess(slot, process, now, out);
  return out;
}

void MeterReader::BeginRearm() {
  for (auto& [slot, process] : processes_)
    process.metered_then = Copy(usage_, slot, device_).operations;
}

bool MeterReader::Rearmed() const {
  return std::all_of(processes_.begin(), processes_.end(), [](const auto& p) {
    return p.second.launches == 0 || p.second.operations != p.second.metered_then;
  });
}

}  // namespace divvy::daemon
