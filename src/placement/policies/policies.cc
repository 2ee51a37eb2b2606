// The list of policies: see policies.h. A new policy is one file and one line here.
#include "src/placement/policies/policies.h"

#include "src/placement/policies/default.h"
#include "src/placement/policies/familiar.h"
#include "src/placement/policies/published.h"

namespace divvy::placement {
namespace {
struct Entry {
  PolicyInfo info;
  std::unique_ptr<Policy> (*make)(uint64_t seed);
};
const std::vector<Entry>& Entries() {
  static const std::vector<Entry> entries = {
      {{"default", "fragmentation, stranded CPU, patterns and scarce models, all learnt"},
       [](uint64_t) { return MakeDefault(); }},
      {{"binpack", "the fullest node, the fullest device"}, [](uint64_t) { return MakeBinpack(); }},
      {{"spread", "the emptiest node, the emptiest devices"},
       [](uint64_t) { return MakeSpread(); }},
      {{"topology", "devices that are linked; link groups kept whole; then binpack"},
       [](uint64_t) { return MakeTopology(); }},
      {{"fgd", "least growth of fragmentation (published)"}, [](uint64_t) { return MakeFgd(); }},
      {{"bestfit", "least CPU and compute left on the node (published)"},
       [](uint64_t) { return MakeBestFit(); }},
      {{"dotprod", "least alignment of request and rest (published)"},
       [](uint64_t) { return MakeDotProd(); }},
      {{"packing", "used devices, then used nodes, then free nodes (published)"},
       [](uint64_t) { return MakePacking(); }},
      {{"clustering", "nodes that hold the same kind of request (published)"},
       [](uint64_t) { return MakeClustering(); }},
      {{"random", "any place that fits (published)"}, MakeRandom},
  };
  return entries;
}
}  // namespace

const std::vector<PolicyInfo>& Policies() {
  static const std::vector<PolicyInfo> infos = [] {
    std::vector<PolicyInfo> out;
    for (const Entry& e : Entries()) out.push_back(e.info);
    return out;
  }();
  return infos;
}

std::unique_ptr<Policy> MakePolicy(std::string_view name, uint64_t seed) {
  for (const Entry& e : Entries()) {
    if (e.info.name == name) return e.make(seed);
  }
  return nullptr;
}

}  // namespace divvy::placement
