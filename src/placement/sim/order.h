// The order in which pods arrive and how ties between nodes break: read from a file that
// tools/openb_order wrote (the published benchmark's order), or drawn from a seed.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/result.h"
#include "src/placement/input/inventory.h"

namespace divvy::placement {

// splitmix64: the one generator of the simulator. Same numbers on every machine.
class Rng {
 public:
  explicit Rng(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ull + 0x243F6A8885A308D3ull) {}
  uint64_t Next();
  uint64_t Below(uint64_t n) { return Next() % n; }
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }  // [0, 1)
  double Exponential();                                                       // mean 1

 private:
  uint64_t state_;
};

inline constexpr double kInflateRatio = 1.3;  // demand / capacity at which the arrivals end

struct Order {
  std::vector<uint32_t> node_rank;  // of node i in order of name; the smallest rank wins ties
  std::vector<uint32_t> arrivals;   // pods by position in order of name; may repeat
  bool published = false;           // read from a file, not drawn
};

// Positions of the inventory's nodes (pods) in order of name.
std::vector<uint32_t> NodesByName(const Inventory& inventory);
std::vector<uint32_t> PodsByName(const Inventory& inventory);

// What arrives together: a pod, or a gang. Pods that already run are in none.
class Units {
 public:
  Units(const Inventory& inventory, const std::vector<uint32_t>& by_name);
  Units(const Units&) = delete;
  Units& operator=(const Units&) = delete;
  // One pod of each unit (the gang's first), by position in order of name. Not those that ask for
  // more compute than all nodes have: see Unplaceable::in_cluster.
  const std::vector<uint32_t>& leaders() const { return leaders_; }
  // The pod at this position, or its gang, is left out for that reason.
  bool LeftOut(uint32_t at) const { return left_out_[at]; }
  // All of the unit that the pod at this position belongs to.
  std::span<const uint32_t> Of(uint32_t at) const {
    const std::vector<uint32_t>* gang = gang_of_.empty() ? nullptr : gang_of_[at];
    return gang == nullptr ? std::span(&self_[at], 1) : std::span(*gang);
  }

 private:
  std::vector<uint32_t> leaders_;
  std::vector<bool> left_out_;
  std::vector<uint32_t> self_;
  std::vector<std::vector<uint32_t>> gangs_;
  std::vector<const std::vector<uint32_t>*> gang_of_;  // per position; empty if there is no gang
};

// One line "node_rank ..." and one "arrivals ...", in a text that ends with a line end; comments.
// kInvalid, with file and line: damaged (no such order exists, or it ends before demand is
// kInflateRatio of the capacity). kNotFound: sound, but for other nodes or pods.
Result<Order> ParseOrder(std::string_view text, const std::string& file,
                         const Inventory& inventory);
// A list of tiny requests is cut off at so many arrivals per device
// (in churn: that bring demand, per mean lifetime).
inline constexpr int64_t kMostPerDevice = 16;
// The published protocol with our generator: shuffle, then clones until `ratio` x capacity. A unit
// with which demand would exceed that is skipped, until demand is so to half a percent of capacity.
Order DrawOrder(const Inventory& inventory, uint64_t seed, double ratio);

}  // namespace divvy::placement
