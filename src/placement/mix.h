// The request mix: how often each shape is asked for. What every learning policy learns from.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "src/placement/model.h"

namespace divvy::placement {

struct MixEntry {
  Shape shape;
  double count = 0;
  uint32_t spelling = 0;
};

class Mix {
 public:
  // `spelling` tells requests of one shape apart that write their models differently ("A|A|B",
  // "A|B"): its rank in order of text. Only the published measure looks at it.
  void Add(const Shape& shape, double count = 1, uint32_t spelling = 0);
  // Multiplies all counts; with one call per period the mix forgets exponentially.
  void Decay(double factor);
  // Distinct shapes (and spellings) in a fixed order: most frequent first, equal ones by size.
  std::vector<MixEntry> Sorted() const;
  double total() const { return total_; }
  bool empty() const { return counts_.empty(); }
  // Half the L1 distance between the two distributions, 0 to 1: when to learn anew.
  static double Drift(const Mix& a, const Mix& b);

 private:
  using Key = std::pair<Shape, uint32_t>;
  struct KeyHash {
    size_t operator()(const Key& k) const {
      return ShapeHash()(k.first) ^ k.second * 0x9E3779B97F4A7C15ull;
    }
  };
  std::unordered_map<Key, double, KeyHash> counts_;
  double total_ = 0;
};

}  // namespace divvy::placement
