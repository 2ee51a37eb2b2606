// How long operations that are alike take: a moving average by key, in a fixed table of the
// process. Any thread, lock-free, no allocation; a full row forgets one of its own. An estimate
// only spaces markers and bounds what is in flight; what a tenant is billed is measured.
#pragma once

#include <atomic>
#include <cstdint>

namespace divvy::shim {

struct Estimate {
  uint64_t ns;  // 0: not known yet
  bool learn;   // this one is to be measured: unknown, or its turn has come again
};

class EstimateTable {
 public:
  static constexpr unsigned kRows = 512;    // of four: one cache line each
  static constexpr unsigned kRelearn = 64;  // uses of a short operation between two samples

  // Counts one use.
  Estimate Use(uint64_t key) noexcept;
  void Learn(uint64_t key, uint64_t ns) noexcept;
  uint64_t Get(uint64_t key) noexcept;  // counts nothing

 private:
  struct Entry {
    std::atomic<uint64_t> key;
    std::atomic<uint64_t> value;  // ns << 16 | uses
  };
  struct alignas(64) Row {
    Entry entry[4];
  };
  // Zero is a valid empty table. `add`: makes room if it is not there.
  Entry* Find(uint64_t key, bool add) noexcept;
  Row row_[kRows];
};

}  // namespace divvy::shim
