// Order: see order.h.
#include "src/placement/sim/order.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

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

Result<std::vector<uint32_t>> Numbers(std::string_view line, const std::string& where,
                                      size_t limit) {
  std::vector<uint32_t> out;
  const char* p = line.data();
  const char* end = p + line.size();
  while (p < end) {
    if (*p == ' ' || *p == '\r') {
      ++p;
      continue;
    }
    uint32_t value = 0;
    const auto [next, ec] = std::from_chars(p, end, value);
    if (ec != std::errc() || value >= limit) {
      return Invalid(where + ": entry " + std::to_string(out.size() + 1) +
                     " is not a number below " + std::to_string(limit));
    }
    out.push_back(value);
    p = next;
  }
  return out;
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
  for (uint32_t at = 0; at < by_name.size(); ++at) {
    const Pod& pod = inventory.pods[by_name[at]];
    if (!pod.node.empty()) continue;  // it already runs
    const uint32_t gang = pod.request.gang;
    if (gang == 0 || gangs_[gang].empty()) leaders_.push_back(at);
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
  size_t line_number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::string where = file + ":" + std::to_string(++line_number);
    const bool nodes = line.starts_with("node_rank");
    if (!nodes && !line.starts_with("arrivals")) continue;
    line.remove_prefix(std::min<size_t>(line.find(' '), line.size()));
    Result<std::vector<uint32_t>> numbers =
        Numbers(line, where, nodes ? inventory.nodes.size() : inventory.pods.size());
    if (!numbers) return numbers.error();
    (nodes ? order.node_rank : order.arrivals) = std::move(*numbers);
  }
  if (order.arrivals.empty()) return Invalid(file + ": no line \"arrivals ...\"");
  std::vector<bool> seen(inventory.nodes.size());
  for (const uint32_t rank : order.node_rank) seen[rank] = true;
  if (order.node_rank.size() != seen.size() ||
      std::find(seen.begin(), seen.end(), false) != seen.end()) {
    return Invalid(file + ": node_rank does not number the " + std::to_string(seen.size()) +
                   " nodes of the node list");
  }
  return order;
}

Order DrawOrder(const Inventory& inventory, uint64_t seed, double ratio) {
  Rng rng(seed);
  Order order;
  const std::vector<uint32_t> by_name = PodsByName(inventory);
  const auto milli = [&](uint32_t at) {
    return inventory.pods[by_name[at]].request.shape.TotalMilli();
  };
  const Units units(inventory, by_name);
  int64_t demand = 0;
  std::vector<uint32_t> leaders = units.leaders();
  Shuffle(&leaders, &rng);
  for (const uint32_t leader : leaders) {
    for (const uint32_t at : units.Of(leader)) {
      order.arrivals.push_back(at);
      demand += milli(at);
    }
  }
  const double limit = ratio * static_cast<double>(inventory.TotalMilli());
  // The order is random already: dropping from its end drops at random.
  while (static_cast<double>(demand) > limit && !order.arrivals.empty()) {
    demand -= milli(order.arrivals.back());
    order.arrivals.pop_back();
  }
  // A list that asks for no compute never reaches the limit: it is played once. One that asks for
  // next to none is cut off.
  const auto most = static_cast<size_t>(kMostPerDevice * inventory.TotalMilli() / kWholeMilli);
  const bool any = std::any_of(inventory.pods.begin(), inventory.pods.end(),
                               [](const Pod& p) { return p.request.shape.TotalMilli() > 0; });
  while (any && !leaders.empty() && order.arrivals.size() < std::max(most, by_name.size())) {
    const std::span<const uint32_t> unit =
        units.Of(units.leaders()[rng.Below(units.leaders().size())]);
    int64_t more = 0;
    for (const uint32_t at : unit) more += milli(at);
    if (static_cast<double>(demand + more) > limit) break;
    demand += more;
    order.arrivals.insert(order.arrivals.end(), unit.begin(), unit.end());
  }
  order.node_rank.resize(inventory.nodes.size());
  std::iota(order.node_rank.begin(), order.node_rank.end(), 0);
  Shuffle(&order.node_rank, &rng);
  return order;
}

}  // namespace divvy::placement
