// How long operations that are alike take: a moving average by key, in a fixed table of the
// process. Any thread, lock-free, no allocation; a full row forgets one of its own. An estimate
// spaces markers, bounds what is in flight, and stands for the length of those that are not timed
// themselves; what the arbiter bills is seen by the daemon.
#pragma once

#include <atomic>
#include <cstdint>

namespace divvy::shim {

struct Estimate {
  uint64_t ns;  // 0: not known yet
  bool learn;   // this one is to be measured: unknown, or its turn has come again
};

// What the clock said of one. Where it came with nothing of its process before it, the switch from
// another process's work may be in it.
struct Timed {
  enum Start : uint8_t {  // the later, the better it is known how long it is by itself
    kIdle,                // nobody was seen at work since its process's last
    kFromOthers,          // somebody was
    kQueued,              // behind its process's own work
  };
  uint64_t ns;
  Start start = kQueued;
  uint64_t switch_ns = 0;  // what a switch takes; 0: not known
  bool company = false;    // another tenant was seen at work meanwhile: others' slices may be in it
};

// A timed one was added.
struct Learnt {
  uint64_t ns;       // the length that it, and those that it stands for, are taken to have had
  uint64_t times;    // so many: itself, and those like it since the one that was timed before
  uint64_t over_ns;  // what those before it were taken to have had too much
};

class EstimateTable {
 public:
  static constexpr unsigned kRows = 512;    // of four: two cache lines each
  static constexpr unsigned kRelearn = 64;  // uses of a short operation between two samples

  // Counts one use.
  Estimate Use(uint64_t key) noexcept;
  Learnt Learn(uint64_t key, Timed timed) noexcept;
  uint64_t Get(uint64_t key) noexcept;  // counts nothing

 private:
  struct Entry {
    std::atomic<uint64_t> key;
    std::atomic<uint64_t> value;  // ns << 16 | uses
    std::atomic<uint64_t> least;  // Least
    std::atomic<uint64_t> first;  // First
  };
  struct alignas(64) Row {
    Entry entry[4];
  };
  static Learnt OwnLength(Entry& e, const Timed& timed, uint64_t old, uint64_t times) noexcept;
  // Zero is a valid empty table. `add`: makes room if it is not there.
  Entry* Find(uint64_t key, bool add) noexcept;
  Row row_[kRows];
};

}  // namespace divvy::shim
