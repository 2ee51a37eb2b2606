// Arrays. (This step: none can be made yet.)
#include "src/sim/client/array.h"

namespace divvy::sim {
Array* ArrayOf(CUarray) { return nullptr; }
}  // namespace divvy::sim
