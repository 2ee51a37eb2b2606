#include "src/daemon/bell.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

namespace divvy::daemon {

Result<std::unique_ptr<BellPage>> BellPage::Create() {
  std::unique_ptr<BellPage> b(new BellPage);
  b->fd_ = UniqueFd(::memfd_create("divvy-bell", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!b->fd_.valid()) return IoError("cannot create shared memory", errno);
  if (::ftruncate(b->fd_.get(), region::kBellBytes) != 0)
    return IoError("cannot size shared memory", errno);
  void* at =
      ::mmap(nullptr, region::kBellBytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd_.get(), 0);
  if (at == MAP_FAILED) return IoError("cannot map shared memory", errno);
  b->page_ = static_cast<region::Bell*>(at);
  if (::fcntl(b->fd_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return IoError("cannot seal shared memory", errno);
  return b;
}

BellPage::~BellPage() {
  if (page_ != nullptr) ::munmap(page_, region::kBellBytes);
}

void BellPage::Ring() {
  // Release: what was told before the ring is seen by whoever it wakes (rung(), acquire).
  page_->rung.fetch_add(1, std::memory_order_release);
  ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&page_->rung), FUTEX_WAKE, INT_MAX, nullptr,
            nullptr, 0);
}

void BellPage::Wait(uint32_t rung, std::chrono::nanoseconds deadline) {
  timespec until{};
  const bool limited = deadline != std::chrono::nanoseconds::max();
  if (limited) {
    until.tv_sec = deadline.count() / 1'000'000'000;
    until.tv_nsec = deadline.count() % 1'000'000'000;
  }
  // FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time.
  ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&page_->rung), FUTEX_WAIT_BITSET, rung,
            limited ? &until : nullptr, nullptr, FUTEX_BITSET_MATCH_ANY);
}

}  // namespace divvy::daemon
