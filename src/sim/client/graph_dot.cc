// cuGraphDebugDotPrint: a graph as Graphviz text. With CU_GRAPH_DEBUG_DOT_FLAGS_VERBOSE, or one of
// the parameter flags, nodes say what they do.
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include <string>

#include "src/sim/client/graph.h"
#include "src/sim/client/graph_memory.h"
#include "src/sim/client/graph_params.h"
#include "src/sim/client/module.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

std::string Text(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string Text(const char* format, ...) {
  char buffer[256];
  va_list args;
  va_start(args, format);
  vsnprintf(buffer, sizeof buffer, format, args);
  va_end(args);
  return buffer;
}

const char* NameOf(CUgraphNodeType type) {
  static constexpr const char* kName[] = {
      "KERNEL",    "MEMCPY",     "MEMSET",       "HOST",           "GRAPH",
      "EMPTY",     "EVENT_WAIT", "EVENT_RECORD", "EXT_SEM_SIGNAL", "EXT_SEM_WAIT",
      "MEM_ALLOC", "MEM_FREE",   "BATCH_MEM_OP", "CONDITIONAL"};
  return size_t(type) < std::size(kName) ? kName[type] : "UNKNOWN";
}

std::string DetailOf(const NodeParams& params) {
  if (auto* n = std::get_if<KernelNode>(&params)) {
    return Text("%s\\ngrid {%u,%u,%u} block {%u,%u,%u} shared %u", n->function->info->name.c_str(),
                n->grid[0], n->grid[1], n->grid[2], n->block[0], n->block[1], n->block[2],
                n->shared_bytes);
  }
  if (auto* n = std::get_if<MemsetNode>(&params)) {
    return Text("dst 0x%llx value 0x%x element %u width %zu height %zu", n->dst, n->value,
                n->element_bytes, n->width, n->height);
  }
  if (auto* n = std::get_if<CopyNode>(&params)) {
    return Text("%zu x %zu x %zu bytes", n->copy.WidthInBytes, n->copy.Height, n->copy.Depth);
  }
  if (auto* n = std::get_if<AllocNode>(&params)) {
    return Text("ptr 0x%" PRIx64 " bytes %zu", n->memory->address, n->params.bytesize);
  }
  if (auto* n = std::get_if<FreeNode>(&params)) return Text("ptr 0x%llx", n->ptr);
  return "";
}

void Print(FILE* f, const Graph& g, bool detail, bool handles) {
  fprintf(f, "subgraph cluster_%" PRIu64 " {\nlabel=\"graph_%" PRIu64 "\";\n", g.id, g.id);
  for (const auto& n : g.nodes) {
    std::string label = Text("%" PRIu64 "\\n%s", n->id, NameOf(TypeOf(n->params)));
    if (detail) label += "\\n" + DetailOf(n->params);
    if (handles) label += Text("\\n%p", static_cast<void*>(n.get()));
    fprintf(f, "\"node_%" PRIu64 "\" [shape=\"record\" label=\"%s\"];\n", n->id, label.c_str());
    for (const Edge& e : n->to) {
      fprintf(f, "\"node_%" PRIu64 "\" -> \"node_%" PRIu64 "\";\n", n->id, e.node->id);
    }
    if (auto* child = std::get_if<ChildNode>(&n->params)) {
      Print(f, *child->graph, detail, handles);
    }
  }
  fprintf(f, "}\n");
}

}  // namespace

CUresult sim_cuGraphDebugDotPrint(CUgraph handle, const char* path, unsigned int flags) {
  GraphLock lock(GraphMutex());
  Graph* g = Graph::From(handle);
  if (g == nullptr || path == nullptr) return CUDA_ERROR_INVALID_VALUE;
  FILE* f = fopen(path, "w");
  if (f == nullptr) return CUDA_ERROR_OPERATING_SYSTEM;
  fprintf(f, "digraph dot {\n");
  Print(f, *g, (flags & ~unsigned(CU_GRAPH_DEBUG_DOT_FLAGS_HANDLES)) != 0,
        (flags & (CU_GRAPH_DEBUG_DOT_FLAGS_HANDLES | CU_GRAPH_DEBUG_DOT_FLAGS_VERBOSE)) != 0);
  fprintf(f, "}\n");
  return fclose(f) == 0 ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}

}  // namespace divvy::sim
