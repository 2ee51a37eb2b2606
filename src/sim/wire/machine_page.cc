// The memory books on the machine page: who holds how much of which device. Runs in the broker and
// in every client process, on any thread. See machine_page.h for the rules.
#include "src/sim/wire/machine_page.h"

#include <errno.h>
#include <time.h>

#include <algorithm>

namespace divvy::sim {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

void Remember(MachinePage* page, uint32_t row, uint32_t device, uint64_t used) {
  if (page->nvml_lag_ns == 0) return;
  History& h = page->history[row][device];
  uint32_t n = h.next.load(kRelaxed);
  h.at[n % kHistory].used_bytes.store(used, kRelaxed);
  h.at[n % kHistory].at_ns.store(NowNs(), kRelaxed);
  h.next.store(n + 1, std::memory_order_release);  // pairs with the acquire in LaggedUsed
}

// Changes a row and its device's sum by `delta`. The lock is held.
void Change(MachinePage* page, uint32_t row, uint32_t device, int64_t delta) {
  DeviceRow& r = page->row[row].dev[device];
  uint64_t used = r.used_bytes.load(kRelaxed) + delta;
  r.used_bytes.store(used, kRelaxed);
  page->device[device].used_bytes.fetch_add(delta, kRelaxed);
  Remember(page, row, device, used);
}

bool Fits(const MachinePage* page, uint32_t device, uint64_t bytes) {
  uint64_t used = page->device[device].used_bytes.load(kRelaxed);
  return used <= page->usable_bytes && bytes <= page->usable_bytes - used;
}

}  // namespace

uint64_t NowNs() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return uint64_t(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

void InitDeviceLock(DeviceHead* head) {
  pthread_mutexattr_t attr;
  pthread_mutexattr_init(&attr);
  pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&head->lock, &attr);
  pthread_mutexattr_destroy(&attr);
}

DeviceLock::DeviceLock(MachinePage* page, uint32_t device) : head_(&page->device[device]) {
  if (pthread_mutex_lock(&head_->lock) == EOWNERDEAD) {
    // The row was written first: the rows are right, only the sum may be behind.
    uint64_t sum = 0;
    uint32_t high = page->rows_high.load(std::memory_order_acquire);
    for (uint32_t i = 0; i < high; ++i) sum += page->row[i].dev[device].used_bytes.load(kRelaxed);
    head_->used_bytes.store(sum, kRelaxed);
    pthread_mutex_consistent(&head_->lock);
  }
}

DeviceLock::~DeviceLock() { pthread_mutex_unlock(&head_->lock); }

const Profile* ProfileOf(const MachinePage* page) { return FindProfile(page->profile_key); }

bool Book(MachinePage* page, uint32_t row, uint32_t device, uint64_t bytes) {
  DeviceLock lock(page, device);
  if (!Fits(page, device, bytes)) return false;
  Change(page, row, device, int64_t(bytes));
  return true;
}

void Unbook(MachinePage* page, uint32_t row, uint32_t device, uint64_t bytes) {
  DeviceLock lock(page, device);
  Change(page, row, device, -int64_t(bytes));
}

bool BookContext(MachinePage* page, uint32_t row, uint32_t device, uint64_t bytes) {
  DeviceLock lock(page, device);
  if (!Fits(page, device, bytes)) return false;
  Change(page, row, device, int64_t(bytes));
  DeviceRow& r = page->row[row].dev[device];
  r.context_bytes.fetch_add(bytes, kRelaxed);
  r.contexts.fetch_add(1, kRelaxed);
  return true;
}

void UnbookContext(MachinePage* page, uint32_t row, uint32_t device, uint64_t bytes) {
  DeviceLock lock(page, device);
  Change(page, row, device, -int64_t(bytes));
  DeviceRow& r = page->row[row].dev[device];
  r.context_bytes.fetch_sub(bytes, kRelaxed);
  r.contexts.fetch_sub(1, kRelaxed);
}

void MoveBooking(MachinePage* page, uint32_t from, uint32_t to, uint32_t device, uint64_t bytes) {
  DeviceLock lock(page, device);
  Change(page, to, device, int64_t(bytes));
  Change(page, from, device, -int64_t(bytes));
}

void ClearBooks(MachinePage* page, uint32_t row) {
  for (uint32_t d = 0; d < page->device_count; ++d) {
    DeviceLock lock(page, d);
    DeviceRow& r = page->row[row].dev[d];
    uint64_t used = r.used_bytes.load(kRelaxed);
    if (used != 0) Change(page, row, d, -int64_t(used));
    r.context_bytes.store(0, kRelaxed);
    r.contexts.store(0, kRelaxed);
    r.busy_ns.store(0, kRelaxed);
    for (auto& w : r.window) w.busy_ns.store(0, kRelaxed);
    page->history[row][d].next.store(0, kRelaxed);
  }
}

uint64_t LaggedUsed(const MachinePage* page, uint32_t row, uint32_t device, uint64_t now_ns) {
  uint64_t live = page->row[row].dev[device].used_bytes.load(kRelaxed);
  if (page->nvml_lag_ns == 0) return live;
  const History& h = page->history[row][device];
  uint32_t n = h.next.load(std::memory_order_acquire);  // pairs with the release in Remember
  if (n == 0) return live;
  for (uint32_t back = 1; back <= std::min(n, kHistory); ++back) {
    const auto& e = h.at[(n - back) % kHistory];
    if (e.at_ns.load(kRelaxed) + page->nvml_lag_ns <= now_ns) return e.used_bytes.load(kRelaxed);
  }
  // Nothing is old enough: before the oldest change that is known, or before the first one at all.
  return n <= kHistory ? 0 : h.at[n % kHistory].used_bytes.load(kRelaxed);
}

}  // namespace divvy::sim
