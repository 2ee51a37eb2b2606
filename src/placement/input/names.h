// Small texts that both readers understand alike: model lists, groups of devices, link wishes; and
// names that get numbers. Used by the readers only.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/base/result.h"
#include "src/placement/input/inventory.h"

namespace divvy::placement {

// Gives each distinct name its position in a list of the inventory.
class Numbered {
 public:
  explicit Numbered(std::vector<std::string>* names);
  uint32_t Of(std::string_view name);

 private:
  std::vector<std::string>* names_;
  std::unordered_map<std::string, uint32_t> at_;
};

// What a gang is numbered by: gangs of one name in two namespaces are two.
std::string GangName(uint16_t space, std::string_view name);
// "A|B" to a mask of models; empty allows any.
Result<uint64_t> ParseModels(std::string_view spec, Models* models);
// "0|0|1|1": one number below 256 for each device. Empty: none.
Status ParseGroups(std::string_view text, char separator, int32_t devices,
                   std::vector<uint8_t>* out);
// "", "any", "prefer", "require".
Result<Link> ParseLink(std::string_view text);

}  // namespace divvy::placement
