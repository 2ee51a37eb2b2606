// What people see of the compute part of a share: the arbiter's and the meters' figures, with
// enough of the past to say how much was used lately. Plain values, copied out of the arbiter's
// thread; times are CLOCK_MONOTONIC.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "src/arbiter/device_arbiter.h"
#include "src/daemon/compute_sample.h"

namespace divvy::daemon {

// A counter that grows, as it was at some times of the past.
class History {
 public:
  void Add(arbiter::Nanos now, double value);
  // It grew by `value` more between `from` and `to` than was known: what was added since is put
  // right. Call before what stands for `to` is added.
  void Spread(arbiter::Nanos from, arbiter::Nanos to, double value);
  // Its growth per second over the last `span`, up to `now`; 0 before there is anything.
  double Rate(arbiter::Nanos now, arbiter::Nanos span) const;

 private:
  struct Point {
    arbiter::Nanos time{-1};
    double value = 0;
  };
  template <size_t N>
  struct Ring {
    std::array<Point, N> at;
    size_t next = 0;
    const Point& newest() const { return at[(next + N - 1) % N]; }
    void Push(Point p) {
      at[next] = p;
      next = (next + 1) % N;
    }
  };
  template <size_t N>
  static const Point* AtOrBefore(const Ring<N>& ring, arbiter::Nanos time);

  Ring<16> tenths_;   // every 0.1 s
  Ring<64> seconds_;  // every second
  Point newest_;
};

// A figure of the driver's (ShareView::seen_at) stands for now for so long.
constexpr std::chrono::milliseconds kSeenLately{1500};

struct ShareView {
  double part_percent = 0;  // of the device when all its tenants want it
  bool metered = false;     // false: nobody else has a share, there are no markers
  bool known = false;       // what it used is: by its markers, or the driver tells
  bool rearming = false;    // was alone: some of its work may be older than its markers
  bool paused = false;      // by an operator
  bool shut = false;        // not its turn
  arbiter::SeatStats stats;
  arbiter::Nanos used{0};    // GPU time: gpu_time.h while tenants contend, else as the driver tells
  arbiter::Nanos billed{0};  // while they contend, by its markers
  arbiter::Nanos lone{0};    // time in which few of its submissions had markers: it was alone
  arbiter::Nanos seen_at = kLongAgo;  // `used` is the driver's, up to then
  MeterTotals totals;
  arbiter::Nanos senseless_at = kLongAgo;  // when its counters last grew faster than they can
  History used_ns, gate_wait_ns, wanted_ns;
};
using TenantView = std::vector<ShareView>;  // by share

// GPU time that it used over the last `span`, percent of the device.
double UsedPercent(const ShareView& view, arbiter::Nanos now, arbiter::Nanos span);

}  // namespace divvy::daemon
