#include "src/cli/load/completions.h"

#include <algorithm>

namespace divvy::cli {
namespace {
constexpr size_t kMostPending = 4096;
}

Status Completions::Record(CUstream stream, bool ptsz, uint64_t submitted) {
  CUevent event = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (pending_.size() >= kMostPending) return {};  // the next event tells for these, too
    if (!free_.empty()) {
      event = free_.back();
      free_.pop_back();
    }
  }
  // Outside of the lock: a full queue makes the driver wait.
  if (event == nullptr) DIVVY_CU(driver_, cuEventCreate, &event, CU_EVENT_DISABLE_TIMING);
  if (ptsz)
    DIVVY_CU(driver_, cuEventRecord_ptsz, event, nullptr);
  else
    DIVVY_CU(driver_, cuEventRecord, event, stream);
  const std::lock_guard lock(mutex_);
  pending_.push_back({event, submitted});
  return {};
}

void Completions::AllDone(uint64_t submitted) {
  const std::lock_guard lock(mutex_);
  done_ = std::max(done_, submitted);
}

uint64_t Completions::Done() {
  const std::lock_guard lock(mutex_);
  while (!pending_.empty()) {
    const Pending& oldest = pending_.front();
    if (oldest.submitted > done_ && driver_->cuEventQuery(oldest.event) != CUDA_SUCCESS) break;
    done_ = std::max(done_, oldest.submitted);
    free_.push_back(oldest.event);
    pending_.pop_front();
  }
  return done_;
}

}  // namespace divvy::cli
