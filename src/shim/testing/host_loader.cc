// In unit tests the shim is not the process's dlsym: what it opens, it opens as anybody would.
#include <dlfcn.h>

#include "src/shim/loader.h"

namespace divvy::shim {

void* RealDlopen(const char* file, int mode) noexcept { return dlopen(file, mode); }
void* RealDlsym(void* handle, const char* name) noexcept { return dlsym(handle, name); }

}  // namespace divvy::shim
