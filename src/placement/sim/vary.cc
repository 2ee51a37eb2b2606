// Variants: see vary.h.
#include "src/placement/sim/vary.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>

#include "src/placement/sim/order.h"

namespace divvy::placement {
namespace {

constexpr double kCpuJitter = 0.2, kComputeJitter = 0.1;

int32_t Times(int32_t amount, double factor, int32_t most) {
  return std::clamp(static_cast<int32_t>(std::lround(amount * factor)), 1, most);
}
double Factor(double jitter, Rng* rng) { return 1 - jitter + 2 * jitter * rng->Uniform(); }

// Each pod's CPU, or each distinct size of it, times a factor of its own.
void JitterCpu(uint64_t seed, bool by_size, Inventory* inventory) {
  Rng rng(seed);
  std::map<int32_t, double> known;
  for (Pod& p : inventory->pods) {
    Shape& s = p.request.shape;
    if (s.cpu_milli <= 0) continue;
    double factor = 0;
    if (by_size) {
      const auto [it, added] = known.try_emplace(s.cpu_milli);
      if (added) it->second = Factor(kCpuJitter, &rng);
      factor = it->second;
    } else {
      factor = Factor(kCpuJitter, &rng);
    }
    s.cpu_milli = Times(s.cpu_milli, factor, 1 << 30);
  }
}

// The same for the compute of requests for a part of a device.
void JitterCompute(uint64_t seed, bool by_size, Inventory* inventory) {
  Rng rng(seed);
  std::map<int32_t, double> known;
  for (Pod& p : inventory->pods) {
    Shape& s = p.request.shape;
    if (!s.Shared()) continue;
    double factor = 0;
    if (by_size) {
      const auto [it, added] = known.try_emplace(s.compute_milli);
      if (added) it->second = Factor(kComputeJitter, &rng);
      factor = it->second;
    } else {
      factor = Factor(kComputeJitter, &rng);
    }
    s.compute_milli = Times(s.compute_milli, factor, kWholeMilli - 1);
  }
}

void Keep(const std::vector<size_t>& which, Inventory* inventory) {
  Inventory kept;
  for (const size_t i : which) {
    kept.nodes.push_back(inventory->nodes[i]);
    kept.closed.push_back(inventory->closed[i]);
  }
  inventory->nodes = std::move(kept.nodes);
  inventory->closed = std::move(kept.closed);
}

// A random half of the nodes.
void Half(uint64_t seed, Inventory* inventory) {
  Rng rng(seed);
  std::vector<size_t> at(inventory->nodes.size());
  std::iota(at.begin(), at.end(), 0);
  for (size_t i = at.size(); i > 1; --i) std::swap(at[i - 1], at[rng.Below(i)]);
  at.resize((at.size() + 1) / 2);
  std::sort(at.begin(), at.end());
  Keep(at, inventory);
}

// As many nodes, drawn so that the kinds of hardware come in other proportions.
void OtherProportions(uint64_t seed, Inventory* inventory) {
  Rng rng(seed);
  std::map<std::tuple<int32_t, int32_t, int32_t, uint8_t>, std::vector<size_t>> kinds;
  for (size_t i = 0; i < inventory->nodes.size(); ++i) {
    const NodeSpec& n = inventory->nodes[i];
    kinds[{n.devices, n.cpu_milli, n.memory_mib, n.model}].push_back(i);
  }
  // Every kind gets a weight of its own; its nodes are then kept, or copied, in that proportion.
  Inventory made;
  for (const auto& [kind, nodes] : kinds) {
    const double copies = 2 * rng.Uniform();
    const auto count = static_cast<size_t>(copies * static_cast<double>(nodes.size()) + 0.5);
    for (size_t i = 0; i < count; ++i) {
      NodeSpec n = inventory->nodes[nodes[i % nodes.size()]];
      if (i >= nodes.size()) n.name += "-" + std::to_string(i / nodes.size());
      made.nodes.push_back(std::move(n));
      made.closed.push_back(false);
    }
  }
  inventory->nodes = std::move(made.nodes);
  inventory->closed = std::move(made.closed);
}

// Nodes that are all alike, with as much CPU and memory per device as the cluster has; as many
// devices in all. No request is left that names a model.
void Alike(int32_t devices, Inventory* inventory) {
  int64_t cpu = 0, memory = 0, all = 0;
  for (const NodeSpec& n : inventory->nodes) {
    cpu += n.cpu_milli;
    memory += n.memory_mib;
    all += n.devices;
  }
  const auto count = static_cast<size_t>(std::max<int64_t>(1, all / devices));
  all = std::max<int64_t>(all, 1);
  NodeSpec n;
  n.devices = devices;
  n.cpu_milli = static_cast<int32_t>(cpu * devices / all);
  n.memory_mib = static_cast<int32_t>(memory * devices / all);
  n.device_memory_mib = inventory->nodes.empty() ? 0 : inventory->nodes[0].device_memory_mib;
  inventory->nodes.clear();
  for (size_t i = 0; i < count; ++i) {
    n.name = "alike-" + std::to_string(i);
    inventory->nodes.push_back(n);
  }
  inventory->closed.assign(count, false);
  for (Pod& p : inventory->pods) {
    p.request.shape.models = kAnyModel;
    p.spelling = 0;
  }
}

// Devices get 16, 32 or 64 GiB by model. A request for a part of a device asks for memory that has
// little to do with its compute: between a quarter and three times that part of 16 GiB. Requests of
// one size ask for the same, or each for its own.
void Memory(uint64_t seed, bool by_size, Inventory* inventory) {
  constexpr int32_t kLeast = 16384;
  Rng rng(seed);
  for (NodeSpec& n : inventory->nodes) n.device_memory_mib = kLeast << n.model % 3;
  std::map<std::pair<int32_t, int32_t>, int32_t> memory;
  for (Pod& p : inventory->pods) {
    Shape& s = p.request.shape;
    if (!s.Shared()) continue;
    const auto [it, added] = memory.try_emplace({s.cpu_milli, s.compute_milli});
    if (added || !by_size) {
      it->second =
          Times(kLeast, s.compute_milli * (0.25 + 2.75 * rng.Uniform()) / kWholeMilli, kLeast);
    }
    s.device_memory_mib = it->second;
  }
  inventory->device_memory_known = true;
}

}  // namespace

const std::vector<Variant>& Variants() {
  static const std::vector<Variant> all = {
      {"cpu-pods", "each pod's CPU times 0.8 to 1.2",
       [](uint64_t seed, Inventory* i) { JitterCpu(seed, false, i); }},
      {"cpu-sizes", "each distinct size of CPU times 0.8 to 1.2",
       [](uint64_t seed, Inventory* i) { JitterCpu(seed, true, i); }},
      {"gpu-pods", "each part of a device times 0.9 to 1.1",
       [](uint64_t seed, Inventory* i) { JitterCompute(seed, false, i); }},
      {"gpu-sizes", "each distinct part of a device times 0.9 to 1.1",
       [](uint64_t seed, Inventory* i) { JitterCompute(seed, true, i); }},
      {"half", "a random half of the nodes", Half},
      {"proportions", "each kind of node 0 to 2 times as often", OtherProportions},
      {"eights", "nodes of 8 devices, all alike", [](uint64_t, Inventory* i) { Alike(8, i); }},
      {"fours", "nodes of 4 devices, all alike", [](uint64_t, Inventory* i) { Alike(4, i); }},
      {"memory-pods", "device memory; what each pod asks of it is unlike its compute",
       [](uint64_t seed, Inventory* i) { Memory(seed, false, i); }},
      {"memory-sizes", "the same, but pods of one size ask for as much",
       [](uint64_t seed, Inventory* i) { Memory(seed, true, i); }},
  };
  return all;
}

bool Vary(std::string_view names, uint64_t seed, Inventory* inventory) {
  std::vector<const Variant*> chosen;
  while (!names.empty()) {
    const std::string_view name = names.substr(0, names.find('+'));
    names.remove_prefix(std::min(names.size(), name.size() + 1));
    if (name == "given") continue;
    const auto it = std::find_if(Variants().begin(), Variants().end(),
                                 [&](const Variant& v) { return v.name == name; });
    if (it == Variants().end()) return false;
    chosen.push_back(&*it);
  }
  for (const Variant* v : chosen) v->apply(seed, inventory);
  return true;
}

}  // namespace divvy::placement
