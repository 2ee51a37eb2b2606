// The request mix: how often each shape is asked for. What every learning policy learns from.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "src/placement/model.h"

namespace divvy::placement {

struct MixEntry {
  Shape shape;
  double count = 0;
};

class Mix {
 public:
  void Add(const Shape& shape, double count = 1);
  // Multiplies all counts; with one call per period the mix forgets exponentially.
  void Decay(double factor);
  // Distinct shapes in a fixed order: most frequent first, equal ones by size.
  std::vector<MixEntry> Sorted() const;
  double total() const { return total_; }
  bool empty() const { return counts_.empty(); }
  // Half the L1 distance between the two distributions, 0 to 1: when to learn anew.
  static double Drift(const Mix& a, const Mix& b);

 private:
  std::unordered_map<Shape, double, ShapeHash> counts_;
  double total_ = 0;
};

}  // namespace divvy::placement
