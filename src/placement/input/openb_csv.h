// Readers for the openb trace's node and pod lists (Alibaba cluster-trace-gpu-v2023).
// Nodes: sn,cpu_milli,memory_mib,gpu,model[,gpu_memory_mib].
// Pods: name,cpu_milli,memory_mib,num_gpu,gpu_milli[,gpu_spec][,gpu_memory_mib]; others ignored.
#pragma once

#include <string>
#include <string_view>

#include "src/base/result.h"
#include "src/placement/input/inventory.h"

namespace divvy::placement {

// Both append to the inventory. `file` is only for messages. kInvalid with file and line.
Status ReadOpenbNodes(std::string_view text, const std::string& file, Inventory* out);
Status ReadOpenbPods(std::string_view text, const std::string& file, Inventory* out);

}  // namespace divvy::placement
