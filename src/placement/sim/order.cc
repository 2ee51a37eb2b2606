// Order: see order.h.
#include "src/placement/sim/order.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <utility>

#include "src/base/visible.h"

namespace divvy::placement {

uint64_t Rng::Next() {
  uint64_t x = state_ += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

double Rng::Exponential() { return -std::log(1.0 - Uniform()); }

namespace {

template <typename T>
std::vector<uint32_t> ByName(const std::vector<T>& things) {
  std::vector<uint32_t> order(things.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return things[a].name < things[b].name; });
  return order;
}

template <typename T>
void Shuffle(std::vector<T>* v, Rng* rng) {
  for (size_t i = v->size(); i > 1; --i) std::swap((*v)[i - 1], (*v)[rng->Below(i)]);
}

Result<std::vector<uint32_t>> Numbers(std::string_view line, const std::string& where) {
  constexpr uint32_t kLimit = 1u << 28;
  std::vector<uint32_t> out;
  const char* p = line.data();
  const char* end = p + line.size();
  while (p < end) {
    if (*p == ' ') {
      ++p;
      continue;
    }
    uint32_t value = 0;
    const auto [next, ec] = std::from_chars(p, end, value);
    if (ec != std::errc() || value >= kLimit || (next != end && *next != ' ')) {
      return Invalid(where + ": entry " + std::to_string(out.size() + 1) +
                     " is not a number below " + std::to_string(kLimit));
    }
    out.push_back(value);
    p = next;
  }
  return out;
}

// How many numbers stand at the beginning before one is repeated.
size_t Distinct(const std::vector<uint32_t>& numbers) {
  if (numbers.empty()) return 0;
  std::vector<bool> seen(*std::max_element(numbers.begin(), numbers.end()) + size_t{1});
  size_t n = 0;
  for (; n < numbers.size() && !seen[numbers[n]]; ++n) seen[numbers[n]] = true;
  return n;
}

std::string Entry(const std::vector<uint32_t>& numbers, size_t at) {
  return "entry " + std::to_string(at + 1) + " is " + std::to_string(numbers[at]);
}

// The first number from `limit` up; the count of all if there is none.
size_t FirstFrom(const std::vector<uint32_t>& numbers, size_t limit) {
  return static_cast<size_t>(
      std::find_if(numbers.begin(), numbers.end(), [&](uint32_t v) { return v >= limit; }) -
      numbers.begin());
}

// An order numbers all nodes of its list. Of how many pods its list was, the arrivals tell: either
// each pod arrives once before the first arrives again, or (a list of more demand than wanted) some
// of them arrive, each once.
Status CheckOrder(const Order& order, const std::string& nodes_at, const std::string& pods_at,
                  const Inventory& inventory) {
  const std::vector<uint32_t>& ranks = order.node_rank;
  if (const size_t bad = FirstFrom(ranks, ranks.size()); bad < ranks.size()) {
    return Invalid(nodes_at + ": " + Entry(ranks, bad) + ", not a rank among " +
                   std::to_string(ranks.size()) + " nodes");
  }
  if (const size_t n = Distinct(ranks); n < ranks.size()) {
    return Invalid(nodes_at + ": " + Entry(ranks, n) + ", as an entry before it");
  }
  const std::vector<uint32_t>& arrivals = order.arrivals;
  const size_t distinct = Distinct(arrivals), pods = inventory.pods.size();
  const bool repeats = distinct < arrivals.size();
  const bool other_nodes = ranks.size() != inventory.nodes.size();
  if (const size_t bad = FirstFrom(arrivals, std::max(distinct, pods));
      bad < arrivals.size() && (repeats || !other_nodes)) {
    return Invalid(pods_at + ": " + Entry(arrivals, bad) + ": there is no such pod");
  }
  if (repeats && FirstFrom(arrivals, distinct) < arrivals.size()) {
    return Invalid(pods_at + ": " + Entry(arrivals, distinct) +
                   " again, before each pod has arrived once");
  }
  if (other_nodes) {
    return NotFound("made for " + std::to_string(ranks.size()) + " nodes, not " +
                    std::to_string(inventory.nodes.size()));
  }
  if (FirstFrom(arrivals, distinct) == arrivals.size() && distinct != pods) {
    return NotFound("made for " + std::to_string(distinct) + " pods, not " + std::to_string(pods));
  }
  const std::vector<uint32_t> by_name = PodsByName(inventory);
  const int64_t capacity = inventory.TotalMilli();
  int64_t demand = 0, largest = 0;
  for (const uint32_t at : arrivals) {
    const int64_t milli = inventory.pods[by_name[at]].request.shape.TotalMilli();
    if (milli > capacity) continue;  // does not arrive
    demand += milli;
    largest = std::max(largest, milli);
  }
  if (demand == 0) return {};
  const double wanted = kInflateRatio * static_cast<double>(capacity);
  const double slack = std::max(static_cast<double>(largest), 0.01 * static_cast<double>(capacity));
  const std::string brings =
      "the arrivals bring demand to " + std::to_string(100 * demand / capacity) +
      " % of the nodes' capacity, not " + std::to_string(std::lround(100 * kInflateRatio)) + " %";
  if (static_cast<double>(demand) < wanted - slack) {
    return Invalid(pods_at + ": " + brings +
                   ": cut off, or made for other lists (without the file an order is drawn)");
  }
  if (static_cast<double>(demand) > wanted + slack) return NotFound(brings);
  return {};
}

}  // namespace

std::vector<uint32_t> NodesByName(const Inventory& inventory) { return ByName(inventory.nodes); }
std::vector<uint32_t> PodsByName(const Inventory& inventory) { return ByName(inventory.pods); }

Units::Units(const Inventory& inventory, const std::vector<uint32_t>& by_name) {
  self_.resize(by_name.size());
  std::iota(self_.begin(), self_.end(), 0);
  uint32_t last = 0;
  for (const Pod& p : inventory.pods) last = std::max(last, p.request.gang);
  gangs_.resize(size_t{last} + (last > 0));
  const std::vector<int64_t> arriving = inventory.ArrivingMilli();
  const int64_t capacity = inventory.TotalMilli();
  left_out_.resize(by_name.size());
  for (uint32_t at = 0; at < by_name.size(); ++at) {
    const Pod& pod = inventory.pods[by_name[at]];
    if (!pod.node.empty()) continue;  // it already runs
    const uint32_t gang = pod.request.gang;
    left_out_[at] = arriving[by_name[at]] > capacity;
    if ((gang == 0 || gangs_[gang].empty()) && !left_out_[at]) leaders_.push_back(at);
    if (gang != 0) gangs_[gang].push_back(at);
  }
  if (last == 0) return;
  gang_of_.resize(by_name.size(), nullptr);
  for (const std::vector<uint32_t>& gang : gangs_) {
    for (const uint32_t at : gang) gang_of_[at] = &gang;
  }
}

Result<Order> ParseOrder(std::string_view text, const std::string& file,
                         const Inventory& inventory) {
  Order order;
  order.published = true;
  const auto at = [&](size_t line) { return file + ":" + std::to_string(line); };
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (text.empty()) return Invalid(at(1) + ": the file is empty");
  size_t line_number = 0, nodes_line = 0, pods_line = 0;
  while (!text.empty()) {
    const std::string where = at(++line_number);
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) {
      return Invalid(where + ": no line end: the file is cut off");
    }
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.front() == '#') continue;
    const std::string_view word = line.substr(0, line.find(' '));
    const bool nodes = word == "node_rank";
    if (!nodes && word != "arrivals") {
      return Invalid(where + ": \"" + VisibleName(word) +
                     "\" where \"node_rank\" or \"arrivals\" is wanted");
    }
    if (std::exchange(nodes ? nodes_line : pods_line, line_number) != 0) {
      return Invalid(where + ": a second line \"" + std::string(word) + " ...\"");
    }
    Result<std::vector<uint32_t>> numbers = Numbers(line.substr(word.size()), where);
    if (!numbers) return numbers.error();
    (nodes ? order.node_rank : order.arrivals) = std::move(*numbers);
  }
  if (order.node_rank.empty()) return Invalid(at(line_number) + ": no line \"node_rank ...\"");
  if (order.arrivals.empty()) return Invalid(at(line_number) + ": no line \"arrivals ...\"");
  if (Status s = CheckOrder(order, at(nodes_line), at(pods_line), inventory); !s) {
    if (s.error().code == ErrorCode::kNotFound) return NotFound(file + ": " + s.error().message);
    return s.error();
  }
  return order;
}

Order DrawOrder(const Inventory& inventory, uint64_t seed, double ratio) {
  Rng rng(seed);
  Order order;
  const std::vector<uint32_t> by_name = PodsByName(inventory);
  const std::vector<int64_t> arriving = inventory.ArrivingMilli();
  const Units units(inventory, by_name);
  const auto capacity = static_cast<double>(inventory.TotalMilli());
  const double limit = ratio * capacity;
  const double enough = limit - 0.005 * capacity;  // rounds to the percent that is wanted
  int64_t demand = 0;
  const auto milli = [&](uint32_t leader) { return arriving[by_name[leader]]; };
  const auto fits = [&](uint32_t leader) {
    return static_cast<double>(demand + milli(leader)) <= limit;
  };
  const auto arrive = [&](uint32_t leader) {
    const std::span<const uint32_t> unit = units.Of(leader);
    order.arrivals.insert(order.arrivals.end(), unit.begin(), unit.end());
    demand += milli(leader);
  };
  std::vector<uint32_t> leaders = units.leaders();
  Shuffle(&leaders, &rng);
  for (const uint32_t leader : leaders) {
    if (fits(leader)) {
      arrive(leader);
    } else if (static_cast<double>(demand) >= enough) {
      break;
    }
  }
  // Clones of units that bring demand: a list without any is played once, and one that asks for
  // next to nothing is cut off. What does not fit below the limit now never will.
  leaders = units.leaders();
  auto wanting = std::count_if(leaders.begin(), leaders.end(),
                               [&](uint32_t leader) { return milli(leader) > 0; });
  const auto most = static_cast<size_t>(kMostPerDevice * inventory.TotalMilli() / kWholeMilli);
  while (wanting > 0 && order.arrivals.size() < std::max(most, by_name.size())) {
    const uint64_t drawn = rng.Below(leaders.size());
    if (fits(leaders[drawn])) {
      arrive(leaders[drawn]);
      continue;
    }
    if (static_cast<double>(demand) >= enough) break;
    leaders[drawn] = leaders.back();
    leaders.pop_back();
    --wanting;
  }
  order.node_rank.resize(inventory.nodes.size());
  std::iota(order.node_rank.begin(), order.node_rank.end(), 0);
  Shuffle(&order.node_rank, &rng);
  return order;
}

}  // namespace divvy::placement
