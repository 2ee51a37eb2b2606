// What a program did on a GPU while it was watched, and what share that speaks for. Pure: the verb
// (advise.cc) fills an Observation from the daemon's API, tests fill their own. No threads.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/base/bytes.h"

namespace divvy::cli::advise {

// Adds records of operations and looks at memory, in the order in which they come.
class Observation {
 public:
  enum Kind { kKernel, kGraph, kOnDevice, kCopy, kKinds };  // of a record, as docs/api.md has them

  // One operation that ended. `synced`: the host waited for the device before it.
  void Add(Kind kind, double length_us, bool synced);
  void Lost(uint64_t operations) { lost_ += operations; }
  // GPU work that was added up to `at_s` has happened by then.
  void Mark(double at_s);
  // /v1/tenants/NAME's share at one moment.
  void Look(const nlohmann::json& share);

  bool Worked() const { return !marks_.empty(); }
  double Length(double part) const;  // of kernels and graphs, us; part 1 = the longest
  double Burst(double part) const;   // GPU work between two waits of the host, us
  double Duty() const;               // percent of the time from the first work to the last
  double BusiestDuty() const;        // of the busiest second
  double ActiveSeconds() const;
  uint64_t operations(Kind kind) const { return counts_[kind]; }
  uint64_t lost() const { return lost_; }
  uint64_t copied_bytes() const { return copied_bytes_; }
  double copy_seconds() const { return copy_us_ / 1e6; }
  bool waits() const { return bursts_.size() > 1; }
  // The most that was charged, exact; what of it was the context's and above the charges, as seen.
  Bytes peak() const { return Bytes{peak_bytes_}; }
  Bytes overhead() const { return Bytes{overhead_bytes_}; }
  const std::map<std::string, uint64_t>& kinds() const { return kinds_; }  // each one's own peak

 private:
  struct MarkOf {
    double at_s, busy_us;  // busy since the start
  };
  std::array<uint64_t, kKinds> counts_{};
  mutable std::vector<float> lengths_, bursts_;
  mutable bool sorted_ = true;
  std::vector<MarkOf> marks_;
  double busy_us_ = 0, copy_us_ = 0, burst_us_ = 0;
  uint64_t lost_ = 0, copied_bytes_ = 0, peak_bytes_ = 0, overhead_bytes_ = 0;
  std::map<std::string, uint64_t> kinds_;
};

struct Advice {
  Bytes mem;
  int compute = 0;  // percent; 0 = no promise needed
  std::string share_class;
  std::string why_mem, why_compute, why_class;
  std::vector<std::string> notes;
};
Advice AdviceFor(const Observation& seen);

}  // namespace divvy::cli::advise
