// See c_library.h.
#include "src/shim/c_library.h"

#include <string.h>

#include "src/shim/elf_lookup.h"

namespace divvy::shim {
namespace {

// Since 2.34 glibc has all in libc.so.6, before that some in libdl.so.2; musl has one file.
bool IsCLibrary(const char* soname) noexcept {
  return strncmp(soname, "libc.so", 7) == 0 || strncmp(soname, "libdl.so", 8) == 0 ||
         strncmp(soname, "ld-musl", 7) == 0 || strncmp(soname, "libc.musl", 9) == 0;
}

}  // namespace

void* CLibraryFunction(const char* name) noexcept {
  void* found = nullptr;
  FindModule([&](const Module& m) {
    const char* soname = SonameOf(m);
    if (soname == nullptr || !IsCLibrary(soname)) return false;
    found = Defined(m, name);
    return found != nullptr;
  });
  return found;
}

}  // namespace divvy::shim
