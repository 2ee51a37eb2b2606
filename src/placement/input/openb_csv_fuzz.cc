// Any bytes as node list, pod list and order file: an error or a consistent inventory.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "src/placement/input/openb_csv.h"
#include "src/placement/sim/order.h"

using namespace divvy::placement;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Inventory nodes, pods;
  if (ReadOpenbNodes(text, "n", &nodes)) {
    if (nodes.nodes.size() != nodes.closed.size()) std::abort();
    for (const NodeSpec& n : nodes.nodes) {
      if (n.devices < 0 || n.devices > kMaxDevices || n.cpu_milli < 0 || n.name.empty() ||
          n.model >= nodes.models.names().size()) {
        std::abort();
      }
    }
  }
  if (ReadOpenbPods(text, "p", &pods)) {
    for (const Pod& p : pods.pods) {
      const Shape& s = p.request.shape;
      if (s.devices < 0 || s.compute_milli < 0 || s.compute_milli > kWholeMilli ||
          s.cpu_milli < 0) {
        std::abort();
      }
    }
  }
  Inventory two;
  two.nodes.resize(2);
  two.pods.resize(3);
  if (size % 2 == 0) {  // with demand, an order has to bring 130 % of the capacity
    for (NodeSpec& n : two.nodes) n.devices = 1;
    for (Pod& p : two.pods) p.request.shape = {.devices = 1, .compute_milli = 500};
  }
  if (const auto order = ParseOrder(text, "o", two)) {
    if (order->node_rank.size() != 2 || order->arrivals.empty()) std::abort();
    for (const uint32_t a : order->arrivals) {
      if (a >= 3) std::abort();
    }
  }
  return 0;
}
