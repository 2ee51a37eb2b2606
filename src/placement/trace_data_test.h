// Where tests and benchmarks find the openb trace: DIVVY_TRACE_DIR, or beside the source tree.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "src/placement/input/openb_csv.h"

namespace divvy::placement {

inline std::string TraceDir() {
  if (const char* dir = std::getenv("DIVVY_TRACE_DIR")) return dir;
  const char* source = std::getenv("DIVVY_SOURCE_DIR");
  return std::string(source ? source : ".") + "/../shared/data/openb";
}

inline bool HaveTraces() { return std::filesystem::is_directory(TraceDir() + "/fixtures"); }

inline std::string ReadWhole(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// The pods of the trace's variant ("default", "gpushare100") on the trace's nodes.
inline Status ReadTrace(const std::string& variant, Inventory* inventory) {
  const std::string nodes = TraceDir() + "/openb_node_list_gpu_node.csv";
  const std::string pods = TraceDir() + "/openb_pod_list_" + variant + ".csv";
  if (Status s = ReadOpenbNodes(ReadWhole(nodes), nodes, inventory); !s.ok()) return s;
  return ReadOpenbPods(ReadWhole(pods), pods, inventory);
}

}  // namespace divvy::placement
