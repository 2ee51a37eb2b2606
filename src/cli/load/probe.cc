#include "src/cli/load/probe.h"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

namespace divvy::cli {
namespace {

using nlohmann::json;

constexpr int kMostTakes = 4096;

struct Edge {
  Bytes granted, refused_at;
  int takes = 0;
  std::string refusal;
};

Bytes Whole(Bytes amount, Bytes unit) { return {amount.n / unit.n * unit.n}; }

// Takes in steps that shrink with each refusal, down to the path's unit.
Result<Edge> FindEdge(MemoryPath& path, Bytes first_step, Bytes cap) {
  Edge edge;
  const Bytes unit = path.Unit();
  const bool sized = unit.n != 0;
  Bytes step = sized ? std::max(unit, Whole(first_step, unit)) : Bytes{};
  while (edge.takes < kMostTakes) {
    if (sized && cap.n != 0) {
      step = std::min(step, Whole(cap.Less(edge.granted), unit));
      if (step.n == 0) break;
    }
    const Status taken = path.Take(step);
    if (taken.ok()) {
      edge.granted += step;
      ++edge.takes;
      continue;
    }
    if (taken.error().code != ErrorCode::kNoRoom) return taken.error();
    edge.refused_at = edge.granted + step;
    edge.refusal = taken.error().message;
    if (!sized || step == unit) break;
    step = std::max(unit, Whole({step.n / 2}, unit));
  }
  return edge;
}

void Say(const json& line) {
  std::cout << line.dump() << std::endl;
  std::string go;
  std::getline(std::cin, go);
}

json Line(const char* at, const Edge& edge) {
  return {{"at", at},
          {"granted_bytes", edge.granted.n},
          {"refused_at_bytes", edge.refused_at.n},
          {"takes", edge.takes},
          {"refusal", edge.refusal}};
}

}  // namespace

Status Probe(Driver driver, MemoryPath& path, const ProbeOptions& options) {
  const auto memory = driver.MemoryInfo();
  if (!memory.ok()) return memory.error();
  const Bytes step{memory->total.n / 8};
  Say({{"at", "idle"}});
  for (const char* at : {"full", "again"}) {
    const Result<Edge> edge = FindEdge(path, step, options.cap);
    if (!edge.ok()) return edge.error();
    Say(Line(at, *edge));
    if (const Status s = path.ReleaseAll(); !s.ok()) return s;
    if (std::string(at) == "full") Say({{"at", "released"}});
  }
  return {};
}

}  // namespace divvy::cli
