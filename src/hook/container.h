// The container that a runtime is about to start: what the OCI state on divvy-hook's stdin and the
// bundle's config.json say of it that matters to a share.
//
// Pure but for ReadBundle. Errors: kInvalid, kNotFound, with one line that says what is wrong.
#pragma once

#include <string>
#include <vector>

#include "src/base/result.h"

namespace divvy::hook {

struct Container {
  std::string id;
  std::string bundle;
  std::string root;                        // a folder of the host
  std::vector<std::string> library_path;   // its LD_LIBRARY_PATH
  std::vector<std::string> driver_mounts;  // folders into which a libcuda is mounted
  bool has_gpu_nodes = false;              // /dev/nvidia… or /dev/dxg are given to it
};

// The state: id and bundle.
Result<Container> ParseState(const std::string& text);
// config.json: the rest.
Status ParseConfig(const std::string& text, Container& container);
// ParseConfig of the bundle's file.
Status ReadBundle(Container& container);

}  // namespace divvy::hook
