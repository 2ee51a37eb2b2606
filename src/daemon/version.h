// The daemon's version, as the build names it.
#pragma once

namespace divvy::daemon {
inline constexpr const char* kVersion = DIVVY_VERSION;
}
