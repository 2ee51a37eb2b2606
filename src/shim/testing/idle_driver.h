// A driver whose calls do next to nothing, so that what is measured beside it is the shim.
#pragma once

namespace divvy::shim::testing {

void InstallIdleDriver();

}  // namespace divvy::shim::testing
