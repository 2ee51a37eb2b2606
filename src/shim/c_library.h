// Functions of the C library found by reading its symbol table, for code whose own exports have the
// same names. Null where the system has not loaded what defines them. Any thread, no allocation.
#pragma once

namespace divvy::shim {

void* CLibraryFunction(const char* name) noexcept;

}  // namespace divvy::shim
