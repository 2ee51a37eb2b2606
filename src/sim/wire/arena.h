// How a client's device memory is laid out: one sparse memfd per client and device ("arena"),
// handed out in blocks of kBlockBytes. It is several times larger than the device so that address
// space does not fragment before memory runs out; the books, not the arena, say when memory is out.
#pragma once

#include "src/sim/wire/machine_page.h"

namespace divvy::sim {

inline uint64_t ArenaBytes(const MachinePage& page) {
  return (4 * page.usable_bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
}

}  // namespace divvy::sim
