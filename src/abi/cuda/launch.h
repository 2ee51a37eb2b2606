// Kernel launches: configuration, attributes and host callbacks of the driver API.
// Divvy's own declarations: names, values and layouts are facts of CUDA's ABI (13.0), checked
// against NVIDIA's headers by tests/parity where those can be had. No code, no dependency; any side
// may include it. Enumerations have a fixed underlying type, so that a value from a newer driver is
// a valid value.
#pragma once

#include <cstddef>
#include <cstdint>

#include "src/abi/cuda/handles.h"

enum CUoccupancy_flags : int {
  CU_OCCUPANCY_DEFAULT = 0x0,
  CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE = 0x1,
};

enum CUfunc_cache : int {
  CU_FUNC_CACHE_PREFER_NONE = 0x0,
  CU_FUNC_CACHE_PREFER_SHARED = 0x1,
  CU_FUNC_CACHE_PREFER_L1 = 0x2,
  CU_FUNC_CACHE_PREFER_EQUAL = 0x3,
};

enum CUsharedconfig : int {
  CU_SHARED_MEM_CONFIG_DEFAULT_BANK_SIZE = 0x0,
  CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE = 0x1,
  CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE = 0x2,
};

enum CUshared_carveout : int {
  CU_SHAREDMEM_CARVEOUT_DEFAULT = -1,
  CU_SHAREDMEM_CARVEOUT_MAX_SHARED = 100,
  CU_SHAREDMEM_CARVEOUT_MAX_L1 = 0,
};

using CUhostFn = void (*)(void* userData);

enum CUaccessProperty : int {
  CU_ACCESS_PROPERTY_NORMAL = 0,
  CU_ACCESS_PROPERTY_STREAMING = 1,
  CU_ACCESS_PROPERTY_PERSISTING = 2,
};

struct CUaccessPolicyWindow_v1 {
  void* base_ptr;
  size_t num_bytes;
  float hitRatio;
  CUaccessProperty hitProp;
  CUaccessProperty missProp;
};

using CUaccessPolicyWindow = CUaccessPolicyWindow_v1;

enum CUsynchronizationPolicy : int {
  CU_SYNC_POLICY_AUTO = 1,
  CU_SYNC_POLICY_SPIN = 2,
  CU_SYNC_POLICY_YIELD = 3,
  CU_SYNC_POLICY_BLOCKING_SYNC = 4,
};

enum CUclusterSchedulingPolicy : int {
  CU_CLUSTER_SCHEDULING_POLICY_DEFAULT = 0,
  CU_CLUSTER_SCHEDULING_POLICY_SPREAD = 1,
  CU_CLUSTER_SCHEDULING_POLICY_LOAD_BALANCING = 2,
};

enum CUlaunchMemSyncDomain : int {
  CU_LAUNCH_MEM_SYNC_DOMAIN_DEFAULT = 0,
  CU_LAUNCH_MEM_SYNC_DOMAIN_REMOTE = 1,
};

struct CUlaunchMemSyncDomainMap {
  unsigned char default_;
  unsigned char remote;
};

enum CUlaunchAttributeID : int {
  CU_LAUNCH_ATTRIBUTE_IGNORE = 0,
  CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW = 1,
  CU_LAUNCH_ATTRIBUTE_COOPERATIVE = 2,
  CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY = 3,
  CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION = 4,
  CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE = 5,
  CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION = 6,
  CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT = 7,
  CU_LAUNCH_ATTRIBUTE_PRIORITY = 8,
  CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP = 9,
  CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN = 10,
  CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION = 11,
  CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT = 12,
  CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE = 13,
  CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT = 14,
  CU_LAUNCH_ATTRIBUTE_NVLINK_UTIL_CENTRIC_SCHEDULING = 16,
  CU_LAUNCH_ATTRIBUTE_MAX = 17,
};

union CUlaunchAttributeValue {
  char pad[64];
  CUaccessPolicyWindow accessPolicyWindow;
  int cooperative;
  CUsynchronizationPolicy syncPolicy;
  struct {
    unsigned int x;
    unsigned int y;
    unsigned int z;
  } clusterDim;
  CUclusterSchedulingPolicy clusterSchedulingPolicyPreference;
  int programmaticStreamSerializationAllowed;
  struct {
    CUevent event;
    int flags;
    int triggerAtBlockStart;
  } programmaticEvent;
  struct {
    CUevent event;
    int flags;
  } launchCompletionEvent;
  int priority;
  CUlaunchMemSyncDomainMap memSyncDomainMap;
  CUlaunchMemSyncDomain memSyncDomain;
  struct {
    unsigned int x;
    unsigned int y;
    unsigned int z;
  } preferredClusterDim;
  struct {
    int deviceUpdatable;
    CUgraphDeviceNode devNode;
  } deviceUpdatableKernelNode;
  unsigned int sharedMemCarveout;
  unsigned int nvlinkUtilCentricScheduling;
};

struct CUlaunchAttribute {
  CUlaunchAttributeID id;
  char pad[8 - sizeof(CUlaunchAttributeID)];
  CUlaunchAttributeValue value;
};

struct CUlaunchConfig {
  unsigned int gridDimX;
  unsigned int gridDimY;
  unsigned int gridDimZ;
  unsigned int blockDimX;
  unsigned int blockDimY;
  unsigned int blockDimZ;
  unsigned int sharedMemBytes;
  CUstream hStream;
  CUlaunchAttribute* attrs;
  unsigned int numAttrs;
};

using CUkernelNodeAttrID = CUlaunchAttributeID;
using CUkernelNodeAttrValue_v1 = CUlaunchAttributeValue;
using CUkernelNodeAttrValue = CUkernelNodeAttrValue_v1;
using CUstreamAttrID = CUlaunchAttributeID;
using CUstreamAttrValue_v1 = CUlaunchAttributeValue;
using CUstreamAttrValue = CUstreamAttrValue_v1;
using CUoccupancyB2DSize = size_t (*)(int blockSize);

struct CUDA_LAUNCH_PARAMS_v1 {
  CUfunction function;
  unsigned int gridDimX;
  unsigned int gridDimY;
  unsigned int gridDimZ;
  unsigned int blockDimX;
  unsigned int blockDimY;
  unsigned int blockDimZ;
  unsigned int sharedMemBytes;
  CUstream hStream;
  void** kernelParams;
};

using CUDA_LAUNCH_PARAMS = CUDA_LAUNCH_PARAMS_v1;

inline constexpr unsigned int CUDA_COOPERATIVE_LAUNCH_MULTI_DEVICE_NO_PRE_LAUNCH_SYNC = 0x01;
inline constexpr unsigned int CUDA_COOPERATIVE_LAUNCH_MULTI_DEVICE_NO_POST_LAUNCH_SYNC = 0x02;
inline constexpr unsigned int CU_LAUNCH_KERNEL_REQUIRED_BLOCK_DIM = 1;

// Tags of the `extra` array of cuLaunchKernel.
#define CU_LAUNCH_PARAM_END ((void*)0x00)
#define CU_LAUNCH_PARAM_BUFFER_POINTER ((void*)0x01)
#define CU_LAUNCH_PARAM_BUFFER_SIZE ((void*)0x02)
inline constexpr CUlaunchAttributeID CU_KERNEL_NODE_ATTRIBUTE_ACCESS_POLICY_WINDOW =
    CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW;
inline constexpr CUlaunchAttributeID CU_KERNEL_NODE_ATTRIBUTE_CLUSTER_DIMENSION =
    CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
inline constexpr CUlaunchAttributeID CU_KERNEL_NODE_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE =
    CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE;
inline constexpr CUlaunchAttributeID CU_KERNEL_NODE_ATTRIBUTE_COOPERATIVE =
    CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
inline constexpr CUlaunchAttributeID CU_KERNEL_NODE_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE =
    CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE;
inline constexpr CUlaunchAttributeID CU_KERNEL_NODE_ATTRIBUTE_MEM_SYNC_DOMAIN =
    CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN;
inline constexpr CUlaunchAttributeID CU_KERNEL_NODE_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP =
    CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP;
inline constexpr CUlaunchAttributeID CU_KERNEL_NODE_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION =
    CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION;
inline constexpr CUlaunchAttributeID CU_KERNEL_NODE_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT =
    CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
inline constexpr CUlaunchAttributeID CU_KERNEL_NODE_ATTRIBUTE_PRIORITY =
    CU_LAUNCH_ATTRIBUTE_PRIORITY;
inline constexpr CUlaunchAttributeID CU_STREAM_ATTRIBUTE_ACCESS_POLICY_WINDOW =
    CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW;
inline constexpr CUlaunchAttributeID CU_STREAM_ATTRIBUTE_MEM_SYNC_DOMAIN =
    CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN;
inline constexpr CUlaunchAttributeID CU_STREAM_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP =
    CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP;
inline constexpr CUlaunchAttributeID CU_STREAM_ATTRIBUTE_PRIORITY = CU_LAUNCH_ATTRIBUTE_PRIORITY;
inline constexpr CUlaunchAttributeID CU_STREAM_ATTRIBUTE_SYNCHRONIZATION_POLICY =
    CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY;
