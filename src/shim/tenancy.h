// Is this process a tenant's, and where is its socket? Asked before anything else is done: a
// process that is no tenant is passed through. The answer is found once and kept, also by children.
// Any thread; at most five system calls, once.
#pragma once

#include <cstddef>

namespace divvy::shim {

constexpr size_t kSocketPathBytes = 4096;

// True if the process has been given a share: the marker of a private mount namespace or container,
// or DIVVY_SOCKET in the environment that the process has or was started with (so that a program
// that clears its environment does not leave its share).
bool IsTenant() noexcept;

// The tenant's socket, zero-terminated; only after IsTenant() was true.
const char* TenantSocket() noexcept;

// True if that came from the marker of a mount namespace or container.
bool TenantByMarker() noexcept;

// For tests: forget what was found.
void ForgetTenancy() noexcept;

}  // namespace divvy::shim
