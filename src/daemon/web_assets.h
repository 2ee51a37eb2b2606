// The dashboard's files (web/), as the build put them into the program.
#pragma once

#include <span>
#include <string_view>

namespace divvy::daemon {

struct WebAsset {
  const char* path;  // as it is asked for: "/", "/web/app.js"
  const char* type;
  std::string_view body;
};

std::span<const WebAsset> WebAssets();

}  // namespace divvy::daemon
