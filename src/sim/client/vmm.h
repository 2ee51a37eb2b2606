// Physical memory handles of the virtual memory management API, as pools and external memory use
// them too when memory comes from another process.
#pragma once

#include "src/sim/client/memory.h"

namespace divvy::sim {

struct MemHandle {
  uint64_t id = 0;
  Device* device = nullptr;  // null: host memory
  uint64_t offset = 0, bytes = 0;
  CUmemAllocationProp prop{};
  unsigned refs = 1;  // handles; with `maps` zero too, the memory goes
  unsigned maps = 0;
  uint64_t import_id = 0;  // another process's memory
  UniqueFd contents;       // of imported and host memory
  int fd() const { return contents.valid() ? contents.get() : device->arena_fd(); }
};

// What a shareable descriptor of the simulator holds: a small memfd with this in it.
struct ShareToken {
  static constexpr uint64_t kMagic = 0x4E454B4F54535644;
  uint64_t magic = kMagic;
  uint64_t export_id = 0;
  uint64_t offset = 0;  // of what is meant, in the exported range
  uint64_t bytes = 0;
  uint64_t pid = 0;
  uint64_t device = 0;  // of a pool, number on the machine
};
int MakeTokenFd(const ShareToken& token);  // -1: errno
bool ReadTokenFd(int fd, ShareToken* token);

// Takes part in another process's exported memory.
struct Imported {
  uint64_t id = 0;
  Device* device = nullptr;
  uint64_t offset = 0, bytes = 0;
  UniqueFd contents;
};
CUresult ImportBlocks(uint64_t export_id, Imported* out);
void UnimportBlocks(uint64_t import_id);
// Maps [from, from + bytes) of what was imported at a new address; 0: failed.
uint64_t MapImported(const Imported& in, uint64_t from, uint64_t bytes);

}  // namespace divvy::sim
