#include "src/daemon/gpu_time.h"

#include <algorithm>

namespace divvy::daemon {
namespace {

constexpr int64_t kTolerated = 10;  // a bill may be coarse by one part in so many

}  // namespace

void GpuTime::Add(arbiter::Nanos now, uint64_t counted_ns, int64_t billed_ns) {
  const auto counted = static_cast<int64_t>(counted_ns - counted_);
  counted_ = counted_ns;
  int64_t more = 0;
  if (counted > 0) {
    const int64_t known = std::min(ahead_, counted);
    ahead_ -= known;
    more = counted - known;
  }
  if (counted > 0 || billed_ns == billed_) {
    counted_at_ = now;
    billed_then_ = billed_ns;
  } else if (now - counted_at_ >= still_) {
    more = billed_ns - billed_then_;
    billed_then_ = billed_ns;
    ahead_ += more;
  }
  billed_ = billed_ns;
  // The bills of all tenants together are no more than the time: a count far above one's own has
  // others' slices in it.
  const int64_t most = billed_ns + billed_ns / kTolerated + still_.count();
  told_ = std::max(told_, std::min({told_ + more, (now - began_).count(), most}));
}

}  // namespace divvy::daemon
