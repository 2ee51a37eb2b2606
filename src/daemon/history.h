// What devices and tenants used lately: the last minute by the second and the last hour by quarter
// minutes, in memory that does not grow.
//
// Side: the daemon. The tick adds, the API reads; one lock of its own. Times are the epoch's.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/base/result.h"
#include "src/daemon/figures.h"

namespace divvy::daemon {

class UseHistory {
 public:
  static constexpr unsigned kFine = 60, kCoarse = 240;
  static constexpr double kFineSeconds = 1, kCoarseSeconds = 15;
  static constexpr size_t kMostSeries =
      512;  // a tenant's on one device; what is beyond is not kept

  bool Due(double now) const;  // a second has passed since the last
  void Add(const Figures& figures);
  // "60s" or "1h"; "" = 60s. kInvalid.
  Result<nlohmann::json> ToJson(const std::string& span) const;

 private:
  struct Point {
    float memory_mib = 0, percent = 0;  // NaN: not known
  };
  struct Series {
    std::string tenant, device;  // tenant "": the device's own
    std::array<Point, kFine> fine;
    std::array<Point, kCoarse> coarse;
    Point sum;  // of the seconds of the quarter minute that runs
    unsigned memory_points = 0, percent_points = 0;
    double last = 0;
    Series();
    void Put(unsigned at, const Point& point);
    void CloseCoarse(unsigned at);
  };
  using Key = std::pair<uint64_t, unsigned>;  // tenant's id (0: none), device

  Series* At(const Key& key, double now);

  mutable std::mutex mutex_;
  std::array<double, kFine> fine_times_{};
  std::array<double, kCoarse> coarse_times_{};
  unsigned fine_next_ = 0, coarse_next_ = 0;
  double last_ = 0, coarse_since_ = 0;
  uint64_t left_out_ = 0;  // series for which there was no room at the last Add
  std::map<Key, Series> series_;
};

}  // namespace divvy::daemon
