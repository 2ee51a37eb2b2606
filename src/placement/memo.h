// Scores that were computed lately, by what they depend on: nodes often come into a state in which
// another node was a little before. Bounded; what is forgotten is computed again. Used by Scores
// only. One look-up costs one cache line.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace divvy::placement {

class Memo {
 public:
  // Keys are hashes of 64 bits: that two of them are equal by chance is not to be expected.
  void Prefetch(uint64_t key) const { __builtin_prefetch(&At(key)); }
  // Null if not known. Valid until the next Put.
  const int32_t* Find(uint64_t key) const {
    const Line& line = At(key);
    size_t at = kWays;  // no branches: which way it is cannot be predicted
    for (size_t i = 0; i < kWays; ++i) at = line.key[i] == key ? i : at;
    return at == kWays ? nullptr : &line.score[at];
  }
  void Put(uint64_t key, int32_t score) {
    Line& line = lines_[Index(key)];
    const size_t i = line.next;
    line.next = i + 1 < kWays ? line.next + 1 : 0;
    line.key[i] = key;
    line.score[i] = score;
  }
  // For a cluster of so many nodes; forgets everything if that changes its size.
  void Fit(size_t nodes) {
    const size_t want = std::bit_ceil(std::clamp(nodes * kLinesPerNode, kLeastLines, kMostLines));
    if (want == lines_.size()) return;
    lines_.assign(want, Line());
    shift_ = 64 - std::countr_zero(want);
  }
  size_t BytesUsed() const { return lines_.capacity() * sizeof(Line); }

 private:
  static constexpr size_t kWays = 5;
  static constexpr size_t kLinesPerNode = 2, kLeastLines = 256, kMostLines = size_t{1} << 16;
  struct alignas(64) Line {
    uint64_t key[kWays] = {};  // 0: none
    int32_t score[kWays] = {};
    uint32_t next = 0;  // to be forgotten
  };
  static_assert(sizeof(Line) == 64);
  size_t Index(uint64_t key) const { return key * 0x9E3779B97F4A7C15ull >> shift_; }
  const Line& At(uint64_t key) const { return lines_[Index(key)]; }

  std::vector<Line> lines_;
  int shift_ = 63;
};

}  // namespace divvy::placement
