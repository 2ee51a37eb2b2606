// Memory kinds, locations and extents that memory and copy types of the driver API share.
// Divvy's own declarations: names, values and layouts are facts of CUDA's ABI (13.0), checked
// against NVIDIA's headers by tests/parity where those can be had. No code, no dependency; any side
// may include it. Enumerations have a fixed underlying type, so that a value from a newer driver is
// a valid value.
#pragma once

#include <cstddef>
#include <cstdint>

enum CUmemorytype : int {
  CU_MEMORYTYPE_HOST = 0x1,
  CU_MEMORYTYPE_DEVICE = 0x2,
  CU_MEMORYTYPE_ARRAY = 0x3,
  CU_MEMORYTYPE_UNIFIED = 0x4,
};

enum CUmemLocationType : int {
  CU_MEM_LOCATION_TYPE_INVALID = 0x0,
  CU_MEM_LOCATION_TYPE_NONE = 0x0,
  CU_MEM_LOCATION_TYPE_DEVICE = 0x1,
  CU_MEM_LOCATION_TYPE_HOST = 0x2,
  CU_MEM_LOCATION_TYPE_HOST_NUMA = 0x3,
  CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT = 0x4,
  CU_MEM_LOCATION_TYPE_MAX = 0x7fffffff,
};

struct CUmemLocation_v1 {
  CUmemLocationType type;
  int id;
};

using CUmemLocation = CUmemLocation_v1;

struct CUoffset3D_v1 {
  size_t x;
  size_t y;
  size_t z;
};

using CUoffset3D = CUoffset3D_v1;

struct CUextent3D_v1 {
  size_t width;
  size_t height;
  size_t depth;
};

using CUextent3D = CUextent3D_v1;
