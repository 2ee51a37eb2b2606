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
};

struct Inventory {
  std::vector<NodeSpec> nodes;
  std::vector<bool> closed;  // per node: cordoned or not ready
  std::vector<Pod> pods;
  std::vector<std::string> spaces;  // namespace names by Request::space
  Models models;
  std::vector<std::string> spellings;  // of model constraints
  std::vector<std::string> gangs;      // names; Request::gang is the position + 1
  std::vector<std::string> warnings;   // what looks odd but is no error, with file and line
  bool device_memory_known = false;    // the node list says how much memory a device has

  int64_t TotalMilli() const;
};

// Checks that belong to no single line: a GPU somewhere, memory asked for only where the nodes
// state it.
Status CheckInventory(const Inventory& inventory);
// Pods that ask for more than any node has, or for models that none has: no decision can place
// them.
struct Unplaceable {
  size_t pods = 0;
  std::string first;  // the name of one
};
Unplaceable FindUnplaceable(const Inventory& inventory);

}  // namespace divvy::placement
