// What a context costs, learned: one figure per device model, driver and CUDA_MODULE_LOADING mode.
//
// Until something is learned it is kUnlearned. A sample comes from a tenant and is not to be
// believed far: it must lie in [kLeast, kMost], moves a known figure by at most a quarter, and
// lowers what everybody's contexts are charged only when a second tenant says the like.
// Not thread-safe: the node's lock guards it.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "src/base/bytes.h"
#include "src/base/result.h"

namespace divvy::daemon {

class Learned {
 public:
  static constexpr Bytes kUnlearned = 512_MiB;
  static constexpr Bytes kLeast = 16_MiB;
  static constexpr Bytes kMost = 640_MiB;  // kUnlearned + 25 %

  static std::string Key(const std::string& device_name, const std::string& driver,
                         const std::string& module_loading);

  Bytes Context(const std::string& key) const;  // what to charge before a context is made
  Bytes Ceiling(const std::string& key) const;  // most that one context may come to explain
  bool Known(const std::string& key) const { return figures_.contains(key); }
  // True when the figure changed by enough to tell tenants.
  bool Add(const std::string& key, uint64_t tenant, Bytes measured);

  nlohmann::json ToJson() const;
  void Load(const nlohmann::json& j);  // what makes no sense is left out

 private:
  struct Figure {
    Bytes context;  // the smallest bare context, as far as believed; what is charged
    Bytes largest;
    uint64_t proposer = 0;  // the tenant that would lower it; 0 = none
    Bytes proposed;
  };
  std::map<std::string, Figure> figures_;
};

}  // namespace divvy::daemon
