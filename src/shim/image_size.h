// How much device memory the variables of a module image take, as far as the image can be read:
// PTX text, cubins, and the uncompressed parts of fat binaries. Code and what is compressed count
// nothing here; they show as measured overhead. Pure, any thread, no allocation.
#pragma once

#include <cstdint>

namespace divvy::shim {

// An image as cuModuleLoadData takes it: it says itself how long it is.
uint64_t ImageBytes(const void* image) noexcept;
// The same of a file's content.
uint64_t ImageBytes(const void* image, uint64_t size) noexcept;

}  // namespace divvy::shim
