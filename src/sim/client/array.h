// Arrays: opaque memory with a shape. Here rows of elements without padding between them, levels of
// a mipmap one after the other.
#pragma once

#include "src/sim/client/memory.h"

namespace divvy::sim {

struct Array {
  CUDA_ARRAY3D_DESCRIPTOR desc{};
  Range memory;
  bool part = false;  // a level or plane of another one, which owns the memory
  size_t element_bytes = 0;
  size_t row_bytes() const { return std::max<size_t>(desc.Width, 1) * element_bytes; }
  size_t rows() const { return std::max<size_t>(desc.Height, 1); }
};

// Null when the handle is not of a live array.
Array* ArrayOf(CUarray handle);

}  // namespace divvy::sim
