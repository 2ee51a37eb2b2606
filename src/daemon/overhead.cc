#include "src/daemon/overhead.h"

#include <algorithm>

namespace divvy::daemon {

int64_t Overhead::Add(const Sample& sample) {
  RaiseTo(sample.floor_bytes);
  if (!sample.quiet) {
    beyond_before_ = false;
    return 0;
  }
  const int64_t ceiling = std::max<int64_t>(sample.ceiling_bytes, 0);
  // Room given back for an import would stay when its exporter frees the memory, and it is then
  // the importer's charge alone that stands for it.
  const int64_t explained = sample.gap_bytes < 0
                                ? std::min<int64_t>(sample.gap_bytes + sample.import_bytes, 0)
                                : sample.gap_bytes;
  const int64_t gap = std::clamp(explained, std::min<int64_t>(sample.floor_bytes, 0), ceiling);
  if (gap >= bytes_ || (sample.comparable && bytes_ - gap <= kSnap)) {
    bytes_ = gap;
  } else if (sample.comparable) {
    bytes_ -= (bytes_ - gap) / 4;
  }
  const bool beyond = sample.gap_bytes > ceiling;
  const bool sure = beyond && beyond_before_;
  beyond_before_ = beyond;
  return sure ? sample.gap_bytes - ceiling : 0;
}

}  // namespace divvy::daemon
