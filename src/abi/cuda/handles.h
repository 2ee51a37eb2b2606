// Handles and plain scalar types of the CUDA driver API: what every other header here builds on.
// Divvy's own declarations: names, values and layouts are facts of CUDA's ABI (13.0), checked
// against NVIDIA's headers by tests/parity where those can be had. No code, no dependency; any side
// may include it. Enumerations have a fixed underlying type, so that a value from a newer driver is
// a valid value.
#pragma once

#include <cstddef>
#include <cstdint>

using cuuint32_t = uint32_t;
using cuuint64_t = uint64_t;
using CUdeviceptr_v2 = unsigned long long;
using CUdeviceptr = CUdeviceptr_v2;
using CUdevice_v1 = int;
using CUdevice = CUdevice_v1;
using CUcontext = struct CUctx_st*;
using CUmodule = struct CUmod_st*;
using CUfunction = struct CUfunc_st*;
using CUlibrary = struct CUlib_st*;
using CUkernel = struct CUkern_st*;
using CUarray = struct CUarray_st*;
using CUmipmappedArray = struct CUmipmappedArray_st*;
using CUtexref = struct CUtexref_st*;
using CUsurfref = struct CUsurfref_st*;
using CUevent = struct CUevent_st*;
using CUstream = struct CUstream_st*;
using CUgraphicsResource = struct CUgraphicsResource_st*;
using CUtexObject_v1 = unsigned long long;
using CUtexObject = CUtexObject_v1;
using CUsurfObject_v1 = unsigned long long;
using CUsurfObject = CUsurfObject_v1;
using CUexternalMemory = struct CUextMemory_st*;
using CUexternalSemaphore = struct CUextSemaphore_st*;
using CUgraph = struct CUgraph_st*;
using CUgraphNode = struct CUgraphNode_st*;
using CUgraphExec = struct CUgraphExec_st*;
using CUmemoryPool = struct CUmemPoolHandle_st*;
using CUuserObject = struct CUuserObject_st*;
using CUgraphConditionalHandle = cuuint64_t;
using CUgraphDeviceNode = struct CUgraphDeviceUpdatableNode_st*;
using CUasyncCallbackHandle = struct CUasyncCallbackEntry_st*;
using CUgreenCtx = struct CUgreenCtx_st*;

struct CUuuid {
  char bytes[16];
};

struct CUmemFabricHandle_v1 {
  unsigned char data[64];
};

using CUmemFabricHandle = CUmemFabricHandle_v1;

struct CUipcEventHandle_v1 {
  char reserved[64];
};

using CUipcEventHandle = CUipcEventHandle_v1;

struct CUipcMemHandle_v1 {
  char reserved[64];
};

using CUipcMemHandle = CUipcMemHandle_v1;
using CUlinkState = struct CUlinkState_st*;
using CUmemGenericAllocationHandle_v1 = unsigned long long;
using CUmemGenericAllocationHandle = CUmemGenericAllocationHandle_v1;
using CUdevResourceDesc = struct CUdevResourceDesc_st*;
using CUlogsCallbackHandle = struct CUlogsCallbackEntry_st*;
using CUlogIterator = unsigned int;
using CUdeviceptr_v1 = unsigned int;

inline constexpr CUdevice CU_DEVICE_CPU = -1;
inline constexpr CUdevice CU_DEVICE_INVALID = -2;

// The two stream handles that the driver defines itself: the NULL stream with its implicit
// synchronisation, and each thread's own default stream. A null handle means one of the two,
// depending on the entry point's variant.
#define CU_STREAM_LEGACY ((CUstream)0x1)
#define CU_STREAM_PER_THREAD ((CUstream)0x2)
