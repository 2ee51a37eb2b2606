// What a cluster is and what is asked of it, as read from files. Filled by the readers
// (openb_csv.h, kube_json.h); used by the simulator and the CLI. Texts come from outside and are
// checked; every refusal names file and line (or object).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/result.h"
#include "src/placement/model.h"

namespace divvy::placement {

// Device model names; the position is the model's bit in Shape::models.
class Models {
 public:
  // kMaxModels distinct names at most: kInvalid beyond.
  Result<uint8_t> Intern(std::string_view name);
  const std::vector<std::string>& names() const { return names_; }

 private:
  std::vector<std::string> names_;
};

struct Pod {
  std::string name;
  Request request;
  std::string node;       // where it already runs; empty = it still has to be placed
  uint32_t spelling = 0;  // of its models, see Mix; position in Inventory::spellings
  uint32_t line = 0;      // of the file that it was read from
};

struct Inventory {
  std::vector<NodeSpec> nodes;
  std::vector<bool> closed;  // per node: cordoned or not ready
  std::vector<Pod> pods;
  std::vector<std::string> spaces;  // namespace names by Request::space
  Models models;
  std::vector<std::string> spellings;  // of model constraints
  std::vector<std::string> gangs;      // by namespace and name; Request::gang is the position + 1
  std::vector<std::string> warnings;   // what looks odd but is no error, with file and line
  bool device_memory_known = false;    // the node list says how much memory a device has

  int64_t TotalMilli() const;
  int64_t ClosedMilli() const;  // of it, on closed nodes
  // Compute that arrives with each pod: its own or, of a gang, that of all members. Pods that run
  // already do not arrive: 0.
  std::vector<int64_t> ArrivingMilli() const;
};

// Checks over both lists: a GPU somewhere, memory asked for only where the nodes state it. The
// names are for messages.
Status CheckInventory(const Inventory& inventory, const std::string& nodes_file,
                      const std::string& pods_file);
// Some pods of the list, by position: how many, and which come first.
struct SomePods {
  size_t count = 0;
  std::vector<uint32_t> first;  // five at most
  void Add(uint32_t pod);
};
// Pods without a place, whatever a policy decides.
struct Unplaceable {
  // Larger than any open node or its link groups, or wanting models that none has: refused each
  // time that they come.
  SomePods on_any_node;
  // They, or their gangs, ask for more compute than all nodes have: they do not arrive, because
  // one of them would bring demand from nothing to beyond the capacity.
  SomePods in_cluster;
  SomePods on_unknown_node;  // they run, says the list, on nodes that the node list lacks
};
Unplaceable FindUnplaceable(const Inventory& inventory);
// Those that ask for GPUs, but only for their memory: they bring no demand.
SomePods PodsWithoutDemand(const Inventory& inventory);

}  // namespace divvy::placement
