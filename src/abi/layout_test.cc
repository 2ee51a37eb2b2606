// Holds src/abi to the binary layout of CUDA 13.0 and NVML: a size or an offset that drifts is a
// compile error here, on every machine, with or without NVIDIA's headers. The figures were measured
// against those headers; tests/parity measures every member again where they can be had.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdio>
#include <string>

#include "src/abi/cuda.h"
#include "src/abi/export_tables.h"
#include "src/abi/nvml.h"

namespace {

static_assert(sizeof(CUDA_ARRAY_DESCRIPTOR_v2) == 24);
static_assert(sizeof(CUDA_ARRAY3D_DESCRIPTOR_v2) == 40);
static_assert(sizeof(CUDA_ARRAY_SPARSE_PROPERTIES_v1) == 48);
static_assert(sizeof(CUDA_ARRAY_MEMORY_REQUIREMENTS_v1) == 32);
static_assert(sizeof(CUDA_RESOURCE_DESC_v1) == 144);
static_assert(sizeof(CUDA_TEXTURE_DESC_v1) == 104);
static_assert(sizeof(CUDA_RESOURCE_VIEW_DESC_v1) == 112);
static_assert(sizeof(CUtensorMap) == 128);
static_assert(sizeof(CUarrayMapInfo_v1) == 96);
static_assert(sizeof(CUDA_ARRAY_DESCRIPTOR_v1) == 16);
static_assert(sizeof(CUDA_ARRAY3D_DESCRIPTOR_v1) == 24);
static_assert(sizeof(CUDA_MEMCPY2D_v2) == 128);
static_assert(sizeof(CUDA_MEMCPY3D_v2) == 200);
static_assert(sizeof(CUDA_MEMCPY3D_PEER_v1) == 200);
static_assert(sizeof(CUmemcpyAttributes_v1) == 24);
static_assert(sizeof(CUmemcpy3DOperand_v1) == 40);
static_assert(sizeof(CUDA_MEMCPY3D_BATCH_OP_v1) == 112);
static_assert(sizeof(CUmemDecompressParams) == 64);
static_assert(sizeof(CUDA_MEMCPY2D_v1) == 96);
static_assert(sizeof(CUDA_MEMCPY3D_v1) == 144);
static_assert(sizeof(CUasyncNotificationInfo) == 16);
static_assert(sizeof(CUdevprop_v1) == 56);
static_assert(sizeof(CUexecAffinitySmCount_v1) == 4);
static_assert(sizeof(CUexecAffinityParam_v1) == 8);
static_assert(sizeof(CUctxCigParam) == 16);
static_assert(sizeof(CUctxCreateParams) == 24);
static_assert(sizeof(CUdevSmResource) == 12);
static_assert(sizeof(CUdevResource_v1) == 144);
static_assert(sizeof(CUDA_BATCH_MEM_OP_NODE_PARAMS_v1) == 32);
static_assert(sizeof(CUDA_BATCH_MEM_OP_NODE_PARAMS_v2) == 32);
static_assert(sizeof(CUDA_KERNEL_NODE_PARAMS_v1) == 56);
static_assert(sizeof(CUDA_KERNEL_NODE_PARAMS_v2) == 72);
static_assert(sizeof(CUDA_KERNEL_NODE_PARAMS_v3) == 72);
static_assert(sizeof(CUDA_MEMSET_NODE_PARAMS_v1) == 40);
static_assert(sizeof(CUDA_MEMSET_NODE_PARAMS_v2) == 48);
static_assert(sizeof(CUDA_HOST_NODE_PARAMS_v1) == 16);
static_assert(sizeof(CUDA_HOST_NODE_PARAMS_v2) == 16);
static_assert(sizeof(CUDA_CONDITIONAL_NODE_PARAMS) == 32);
static_assert(sizeof(CUgraphEdgeData) == 8);
static_assert(sizeof(CUDA_GRAPH_INSTANTIATE_PARAMS) == 32);
static_assert(sizeof(CUDA_MEMCPY_NODE_PARAMS) == 216);
static_assert(sizeof(CUDA_EXT_SEM_SIGNAL_NODE_PARAMS_v1) == 24);
static_assert(sizeof(CUDA_EXT_SEM_SIGNAL_NODE_PARAMS_v2) == 24);
static_assert(sizeof(CUDA_EXT_SEM_WAIT_NODE_PARAMS_v1) == 24);
static_assert(sizeof(CUDA_EXT_SEM_WAIT_NODE_PARAMS_v2) == 24);
static_assert(sizeof(CUgraphExecUpdateResultInfo_v1) == 24);
static_assert(sizeof(CUDA_MEM_ALLOC_NODE_PARAMS_v1) == 120);
static_assert(sizeof(CUDA_MEM_ALLOC_NODE_PARAMS_v2) == 120);
static_assert(sizeof(CUDA_MEM_FREE_NODE_PARAMS) == 8);
static_assert(sizeof(CUDA_CHILD_GRAPH_NODE_PARAMS) == 16);
static_assert(sizeof(CUDA_EVENT_RECORD_NODE_PARAMS) == 8);
static_assert(sizeof(CUDA_EVENT_WAIT_NODE_PARAMS) == 8);
static_assert(sizeof(CUgraphNodeParams) == 256);
static_assert(sizeof(CUuuid) == 16);
static_assert(sizeof(CUmemFabricHandle_v1) == 64);
static_assert(sizeof(CUipcEventHandle_v1) == 64);
static_assert(sizeof(CUipcMemHandle_v1) == 64);
static_assert(sizeof(CUDA_EXTERNAL_MEMORY_HANDLE_DESC_v1) == 104);
static_assert(sizeof(CUDA_EXTERNAL_MEMORY_BUFFER_DESC_v1) == 88);
static_assert(sizeof(CUDA_EXTERNAL_MEMORY_MIPMAPPED_ARRAY_DESC_v1) == 120);
static_assert(sizeof(CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC_v1) == 96);
static_assert(sizeof(CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS_v1) == 144);
static_assert(sizeof(CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS_v1) == 144);
static_assert(sizeof(CUaccessPolicyWindow_v1) == 32);
static_assert(sizeof(CUlaunchMemSyncDomainMap) == 2);
static_assert(sizeof(CUlaunchAttributeValue) == 64);
static_assert(sizeof(CUlaunchAttribute) == 72);
static_assert(sizeof(CUlaunchConfig) == 56);
static_assert(sizeof(CUDA_LAUNCH_PARAMS_v1) == 56);
static_assert(sizeof(CUmemLocation_v1) == 8);
static_assert(sizeof(CUoffset3D_v1) == 24);
static_assert(sizeof(CUextent3D_v1) == 24);
static_assert(sizeof(CUDA_POINTER_ATTRIBUTE_P2P_TOKENS_v1) == 16);
static_assert(sizeof(CUmemAllocationProp_v1) == 32);
static_assert(sizeof(CUmulticastObjectProp_v1) == 32);
static_assert(sizeof(CUmemAccessDesc_v1) == 12);
static_assert(sizeof(CUmemPoolProps_v1) == 88);
static_assert(sizeof(CUmemPoolPtrExportData_v1) == 64);
static_assert(sizeof(CUlibraryHostUniversalFunctionAndDataTable) == 32);
static_assert(sizeof(CUcheckpointLockArgs) == 64);
static_assert(sizeof(CUcheckpointCheckpointArgs) == 64);
static_assert(sizeof(CUcheckpointGpuPair) == 32);
static_assert(sizeof(CUcheckpointRestoreArgs) == 64);
static_assert(sizeof(CUcheckpointUnlockArgs) == 64);
static_assert(sizeof(CUstreamBatchMemOpParams_v1) == 48);

static_assert(offsetof(CUgraphNodeParams, memset) == 16);
static_assert(offsetof(CUgraphNodeParams, alloc) == 16);
static_assert(offsetof(CUDA_MEMCPY2D_v2, dstDevice) == 88);
static_assert(offsetof(CUDA_MEMCPY3D_v2, Depth) == 192);
static_assert(offsetof(CUDA_MEMCPY3D_PEER_v1, dstContext) == 152);
static_assert(offsetof(CUmemAllocationProp_v1, location) == 8);
static_assert(offsetof(CUmemAllocationProp_v1, allocFlags) == 24);
static_assert(offsetof(CUmemPoolProps_v1, location) == 8);
static_assert(offsetof(CUmemPoolProps_v1, maxSize) == 24);
static_assert(offsetof(CUDA_MEM_ALLOC_NODE_PARAMS_v1, bytesize) == 104);
static_assert(offsetof(CUDA_MEM_ALLOC_NODE_PARAMS_v1, dptr) == 112);
static_assert(offsetof(CUDA_MEM_ALLOC_NODE_PARAMS_v2, bytesize) == 104);
static_assert(offsetof(CUlaunchConfig, hStream) == 32);
static_assert(offsetof(CUlaunchConfig, attrs) == 40);
static_assert(offsetof(CUlaunchAttribute, value) == 8);
static_assert(offsetof(CUDA_KERNEL_NODE_PARAMS_v3, ctx) == 64);
static_assert(offsetof(CUDA_LAUNCH_PARAMS_v1, hStream) == 40);
static_assert(offsetof(CUDA_ARRAY3D_DESCRIPTOR_v2, Flags) == 32);
static_assert(offsetof(CUctxCreateParams, cigParams) == 16);
static_assert(offsetof(CUDA_EXTERNAL_MEMORY_HANDLE_DESC_v1, size) == 24);

static_assert(sizeof(nvmlPciInfoExt_v1_t) == 64);
static_assert(sizeof(nvmlPciInfo_t) == 68);
static_assert(sizeof(nvmlUUIDValue_t) == 41);
static_assert(sizeof(nvmlUUID_v1_t) == 52);
static_assert(sizeof(nvmlSystemDriverBranchInfo_v1_t) == 84);
static_assert(sizeof(nvmlGpuInstancePlacement_t) == 8);
static_assert(sizeof(nvmlComputeInstancePlacement_t) == 8);
static_assert(sizeof(nvmlEventData_t) == 32);
static_assert(sizeof(nvmlViolationTime_t) == 16);
static_assert(sizeof(nvmlClockOffset_v1_t) == 24);
static_assert(sizeof(nvmlPowerValue_v2_t) == 12);
static_assert(sizeof(nvmlTemperature_v1_t) == 12);
static_assert(sizeof(nvmlProcessInfo_v1_t) == 16);
static_assert(sizeof(nvmlProcessInfo_v2_t) == 24);
static_assert(sizeof(nvmlProcessDetail_v1_t) == 32);
static_assert(sizeof(nvmlProcessDetailList_v1_t) == 24);
static_assert(sizeof(nvmlProcessUtilizationSample_t) == 32);
static_assert(sizeof(nvmlProcessUtilizationInfo_v1_t) == 40);
static_assert(sizeof(nvmlProcessesUtilizationInfo_v1_t) == 24);
static_assert(sizeof(nvmlAccountingStats_t) == 56);
static_assert(sizeof(nvmlAccountingStats_v2_t) == 64);
static_assert(sizeof(nvmlEncoderSessionInfo_t) == 32);
static_assert(sizeof(nvmlFBCStats_t) == 12);
static_assert(sizeof(nvmlFBCSessionInfo_t) == 48);
static_assert(sizeof(nvmlUtilization_t) == 8);
static_assert(sizeof(nvmlMemory_t) == 24);
static_assert(sizeof(nvmlMemory_v2_t) == 40);
static_assert(sizeof(nvmlSetMemoryLimits_v1_t) == 24);
static_assert(sizeof(nvmlGetMemoryLimits_v1_t) == 32);
static_assert(sizeof(nvmlBAR1Memory_t) == 24);
static_assert(sizeof(nvmlDeviceAttributes_t) == 40);
static_assert(sizeof(nvmlValue_t) == 8);
static_assert(sizeof(nvmlSample_t) == 16);
static_assert(sizeof(nvmlGpuDynamicPstatesInfo_t) == 132);
static_assert(sizeof(nvmlFieldValue_t) == 40);

static_assert(offsetof(nvmlMemory_v2_t, free) == 24);
static_assert(offsetof(nvmlProcessInfo_v2_t, gpuInstanceId) == 16);
static_assert(offsetof(nvmlPciInfo_t, busId) == 36);
static_assert(offsetof(nvmlProcessDetailList_v1_t, procArray) == 16);
static_assert(offsetof(nvmlFieldValue_t, value) == 32);

TEST(Abi, VersionWordsAreSizeAndVersion) {
  EXPECT_EQ(nvmlMemory_v2, 0x02000028u);
  EXPECT_EQ(nvmlProcessDetailList_v1, 0x01000018u);
}

TEST(Abi, ReservedStreamHandlesAreTheDriversOwn) {
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(CU_STREAM_LEGACY), 1u);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(CU_STREAM_PER_THREAD), 2u);
}

std::string text(const CUuuid& id) {
  std::string out;
  for (int i = 0; i < 16; ++i) {
    char hex[3];
    std::snprintf(hex, sizeof hex, "%02x", static_cast<unsigned char>(id.bytes[i]));
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += hex;
  }
  return out;
}

TEST(ExportTables, AreNamedByTheUuidsThatTheRuntimeAsksFor) {
  EXPECT_EQ(text(divvy::abi::kCudartInterface.id), "6bd5fb6c-5bf4-e74a-8987-d93912fd9df9");
  EXPECT_EQ(text(divvy::abi::kToolsRuntimeCallbackHooks.id),
            "a094798c-2e74-2e74-93f2-0800200c0a66");
  EXPECT_EQ(text(divvy::abi::kToolsTls.id), "42d85a81-23f6-cb47-8298-f6e78a3aecdc");
  EXPECT_EQ(text(divvy::abi::kContextLocalStorage.id), "c693336e-1121-df11-a8c3-68f355d89593");
  EXPECT_EQ(text(divvy::abi::kContextChecks.id), "263e8860-7cd2-6143-92f6-bbd5006dfa7e");
}

}  // namespace
