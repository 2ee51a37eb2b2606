// The C library's own dlopen, dlsym and friends, found by reading its symbol table: the names
// belong to our hooks (loader.S, resolve.cc). Null on a system where nothing has loaded libdl yet;
// then nobody can have asked for the driver by name either.
#pragma once

#include <cstddef>

namespace divvy::shim {

// glibc's values on Linux.
constexpr int kLazy = 0x1, kNoLoad = 0x4, kDeepBind = 0x8, kNoDelete = 0x1000;

void* RealDlopen(const char* file, int mode) noexcept;
void* RealDlsym(void* handle, const char* name) noexcept;

}  // namespace divvy::shim
