// Readers for a Kubernetes cluster's snapshot: `kubectl get nodes -o json` and
// `kubectl get pods -A -o json`. The text is untrusted. Understood:
// nodes  status.allocatable cpu, memory, pods, nvidia.com/gpu; labels nvidia.com/gpu.product,
//        nvidia.com/gpu.count (goes before allocatable, which device plugins that share inflate),
//        nvidia.com/gpu.memory (MiB), divvy/gpu-numa and divvy/gpu-links (one number per GPU,
//        "0.0.1.1": labels or annotations); spec.unschedulable; condition Ready
// pods   requests of cpu and memory (limits where there are none), limits of nvidia.com/gpu, gpumem
//        (MiB), gpumem-percentage, gpucores (percent); spec.nodeName, priority, nodeSelector
//        nvidia.com/gpu.product; annotations divvy/link (prefer, require) and divvy/min-gpucores;
//        gangs by the labels scheduling.x-k8s.io/pod-group, pod-group.scheduling.sigs.k8s.io, or
//        the annotation scheduling.k8s.io/group-name; ended pods are left out
#pragma once

#include <string>
#include <string_view>

#include "src/base/result.h"
#include "src/placement/input/inventory.h"

namespace divvy::placement {

// True if the text is a JSON document rather than a CSV.
bool LooksLikeJson(std::string_view text);

// Both append to the inventory; read nodes first. kInvalid names file and line, and the object.
Status ReadKubeNodes(std::string_view text, const std::string& file, Inventory* out);
Status ReadKubePods(std::string_view text, const std::string& file, Inventory* out);

// A Kubernetes quantity ("250m", "16Gi", "1e3") times 1000; kInvalid if it is none or not in
// 0 to 10^15.
Result<int64_t> ParseQuantityMilli(std::string_view text);

}  // namespace divvy::placement
