// Any bytes as a Kubernetes snapshot: an error or a consistent inventory, never an exception.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "src/placement/input/kube_json.h"

using namespace divvy::placement;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Inventory inventory;
  if (ReadKubeNodes(text, "n", &inventory)) {
    for (const NodeSpec& n : inventory.nodes) {
      if (n.devices < 0 || n.devices > kMaxDevices || n.cpu_milli < 0 || n.memory_mib < 0 ||
          n.slots < 1) {
        std::abort();
      }
    }
  }
  if (ReadKubePods(text, "p", &inventory)) {
    for (const Pod& p : inventory.pods) {
      const Shape& s = p.request.shape;
      if (s.devices < 0 || s.compute_milli < 0 || s.compute_milli > kWholeMilli ||
          s.cpu_milli < 0 || s.device_memory_mib < 0 ||
          p.request.space >= inventory.spaces.size()) {
        std::abort();
      }
    }
  }
  if (const auto milli = ParseQuantityMilli(text); milli && *milli < 0) std::abort();
  return 0;
}
