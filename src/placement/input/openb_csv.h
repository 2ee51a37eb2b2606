// Readers for the openb trace's node and pod lists (Alibaba cluster-trace-gpu-v2023), with columns
// of our own for what the trace does not know. Columns in brackets may be missing, others are
// ignored.
// Nodes: sn,cpu_milli,memory_mib,gpu,model
//        [gpu_memory_mib] of each device
//        [numa],[link_group]  of each device, as "0|0|1|1"; empty = all alike
//        [cordoned]           1: takes nothing new
// Pods:  name,cpu_milli,memory_mib,num_gpu,gpu_milli
//        [gpu_spec]           allowed models, "A|B"; [gpu_memory_mib] on each device
//        [link]               prefer or require: devices of one link group
//        [namespace],[priority],[gang] (a name in the namespace: all or none)
//        [min_gpu_milli]      elastic down to this
//        [node]               where it already runs
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
