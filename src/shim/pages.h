// Memory of the shim's own, never the host's allocator: whole pages from the kernel, wiped in a
// forked child (MADV_WIPEONFORK), so that a child starts with empty books whatever way it forked.
#pragma once

#include <sys/mman.h>

#include <cstddef>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

namespace divvy::shim {

inline size_t WholePages(size_t bytes) noexcept { return (bytes + 4095) & ~size_t{4095}; }

// Zeroed, or nullptr. A system call; costs memory only where it is touched.
inline void* MapPages(size_t bytes) noexcept {
  void* p = mmap(nullptr, WholePages(bytes), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  madvise(p, WholePages(bytes), MADV_WIPEONFORK);
  return p;
}
inline void UnmapPages(void* p, size_t bytes) noexcept { munmap(p, WholePages(bytes)); }

}  // namespace divvy::shim
