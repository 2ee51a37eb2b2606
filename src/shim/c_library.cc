// See c_library.h.
#include "src/shim/c_library.h"

#include "src/shim/elf_lookup.h"

namespace divvy::shim {

void* CLibraryFunction(const char* name) noexcept {
  void* found = nullptr;
  FindModule([&](const Module& m) {
    if (!IsCLibrary(m)) return false;
    found = Defined(m, name);
    return found != nullptr;
  });
  return found;
}

}  // namespace divvy::shim
