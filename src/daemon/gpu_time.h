// The GPU time that people are told a tenant used on one device, from two figures that each say
// half of it. Its shim's, by the GPU's own clock, is exact to the kernel, but comes when operations
// have ended, and it is the tenant's word. The arbiter's bill is the daemon's own and grows while
// work runs, but is as coarse as the daemon looks: a kernel of 0.2 ms may cost a look of 1 ms.
//
// Told is what the shim counts. While that stands still although the bill grows (one long
// operation, or a tenant that does not count), the bill is told, until the shim has caught up. What
// is told never falls, never exceeds the time that has passed, and the bill by a tenth at most:
// operations of a slice and longer count others' slices, too, while they have company.
//
// The arbiter decides by the bill alone: nobody gains by what stands here. Pure; one thread.
#pragma once

#include <cstdint>

#include "src/arbiter/types.h"

namespace divvy::daemon {

class GpuTime {
 public:
  // `still`: how long operations may take before the bill is told. `began`: nothing was used yet.
  GpuTime(arbiter::Nanos began, arbiter::Nanos still)
      : began_(began), still_(still), counted_at_(began) {}

  // Both ever, as they are now; neither falls.
  void Add(arbiter::Nanos now, uint64_t counted_ns, int64_t billed_ns);
  int64_t ns() const { return told_; }

 private:
  const arbiter::Nanos began_, still_;
  arbiter::Nanos counted_at_;  // when the count grew last, or nothing ran
  uint64_t counted_ = 0;       // by the shim
  int64_t billed_ = 0;         // at the last look
  int64_t billed_then_ = 0;    // at counted_at_, or what of it has been told
  int64_t ahead_ = 0;          // told from the bill, not yet counted
  int64_t told_ = 0;
};

}  // namespace divvy::daemon
