// Device memory as the driver API documents it: what runs out, what shares blocks, what outlives
// what. Sections of the CUDA Driver API reference are named at each test.
#include <string.h>
#include <sys/mman.h>

#include <vector>

#include "src/sim/client/test_driver.h"

namespace divvy::sim {
namespace {

constexpr size_t kMiB = 1 << 20, kBlock = 2 * kMiB;

class MemoryTest : public DriverTest {
 protected:
  size_t Used() {
    size_t free = 0, total = 0;
    EXPECT_EQ(cu().cuMemGetInfo_v2(&free, &total), CUDA_SUCCESS);
    return total - free;
  }
  CUdeviceptr Alloc(size_t bytes) {
    CUdeviceptr p = 0;
    EXPECT_EQ(cu().cuMemAlloc_v2(&p, bytes), CUDA_SUCCESS);
    return p;
  }
  static CUmemAllocationProp Pinned(CUdevice device) {
    CUmemAllocationProp p{};
    p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    p.location = {CU_MEM_LOCATION_TYPE_DEVICE, device};
    p.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    return p;
  }
  uint64_t PoolValue(CUmemoryPool pool, CUmemPool_attribute a) {
    uint64_t v = 0;
    EXPECT_EQ(cu().cuMemPoolGetAttribute(pool, a, &v), CUDA_SUCCESS);
    return v;
  }
};

// "Context Management": a context is device memory; further ones of a process cost less.
TEST_F(MemoryTest, ContextsCostMemory) {
  size_t before = Used();
  CUcontext one, two;
  ASSERT_EQ(cu().cuCtxCreate_v2(&one, 0, 0), CUDA_SUCCESS);
  size_t cost = Used() - before;
  EXPECT_GT(cost, 100 * kMiB);
  ASSERT_EQ(cu().cuCtxCreate_v2(&two, 0, 0), CUDA_SUCCESS);
  EXPECT_EQ(Used() - before, 2 * cost);
  ASSERT_EQ(cu().cuCtxDestroy_v2(two), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuCtxDestroy_v2(one), CUDA_SUCCESS);
  EXPECT_EQ(Used(), before);
}

// "Memory Management": CUDA_ERROR_OUT_OF_MEMORY; nothing is written then.
TEST_F(MemoryTest, MemoryRunsOutAndComesBack) {
  size_t before = Used();
  CUdeviceptr p = Alloc(40ull << 30), q = 12345;
  EXPECT_EQ(cu().cuMemAlloc_v2(&q, 40ull << 30), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(q, 12345u);
  EXPECT_EQ(cu().cuMemAlloc_v2(&q, ~size_t(0)), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(cu().cuMemAlloc_v2(&q, 0), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(cu().cuMemFree_v2(p), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemFree_v2(p), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(cu().cuMemFree_v2(0), CUDA_SUCCESS);
  EXPECT_EQ(Used(), before);
}

// Observed on drivers: requests under 2 MiB share 2 MiB blocks, larger ones take whole blocks.
TEST_F(MemoryTest, SmallAllocationsShareBlocks) {
  size_t before = Used();
  std::vector<CUdeviceptr> small;
  for (int i = 0; i < 4096; ++i) small.push_back(Alloc(512));
  EXPECT_LE(Used() - before, kBlock);  // the fixture's block has room for some
  CUdeviceptr odd = Alloc(kBlock + 1);
  EXPECT_LE(Used() - before, 3 * kBlock);
  EXPECT_GE(Used() - before, 2 * kBlock);
  ASSERT_EQ(cu().cuMemFree_v2(odd), CUDA_SUCCESS);
  for (CUdeviceptr p : small) ASSERT_EQ(cu().cuMemFree_v2(p), CUDA_SUCCESS);
  EXPECT_EQ(Used(), before);
}

TEST_F(MemoryTest, AllocationsAreAlignedAndApart) {
  CUdeviceptr a = Alloc(1), b = Alloc(1);
  EXPECT_EQ(a % 256, 0u);
  EXPECT_EQ(b % 256, 0u);
  EXPECT_NE(a, b);
  CUdeviceptr base;
  size_t bytes;
  EXPECT_EQ(cu().cuMemGetAddressRange_v2(&base, &bytes, a), CUDA_SUCCESS);
  EXPECT_EQ(base, a);
  EXPECT_EQ(bytes, 1u);
}

// cuMemAllocPitch: rows at a pitch that the device likes.
TEST_F(MemoryTest, PitchIsAMultipleOf512) {
  CUdeviceptr p;
  size_t pitch;
  ASSERT_EQ(cu().cuMemAllocPitch_v2(&p, &pitch, 1000, 4096, 4), CUDA_SUCCESS);
  EXPECT_EQ(pitch, 1024u);
  EXPECT_EQ(cu().cuMemAllocPitch_v2(&p, &pitch, 1000, 4096, 5), CUDA_ERROR_INVALID_VALUE);
}

// "Context Management": cuCtxDestroy frees the context's allocations.
TEST_F(MemoryTest, AContextsEndFreesItsMemory) {
  size_t before = Used();
  CUcontext c;
  ASSERT_EQ(cu().cuCtxCreate_v2(&c, 0, 0), CUDA_SUCCESS);
  Alloc(100);
  Alloc(100 * kMiB);
  CUarray array;
  CUDA_ARRAY_DESCRIPTOR shape{1024, 1024, CU_AD_FORMAT_FLOAT, 4};
  ASSERT_EQ(cu().cuArrayCreate_v2(&array, &shape), CUDA_SUCCESS);
  CUmodule module;
  ASSERT_EQ(cu().cuModuleLoadData(&module, ".version 8.0\n.global .u32 x;\n"), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuCtxDestroy_v2(c), CUDA_SUCCESS);
  EXPECT_EQ(Used(), before);
}

// "Virtual Memory Management": "the memory ... will be freed when all outstanding mappings to the
// memory are unmapped and when all outstanding references to the handle ... are also released".
TEST_F(MemoryTest, PhysicalMemoryLivesByHandleAndMapping) {
  size_t before = Used();
  auto prop = Pinned(0);
  CUmemGenericAllocationHandle h, again;
  ASSERT_EQ(cu().cuMemCreate(&h, 4 * kMiB, &prop, 0), CUDA_SUCCESS);
  EXPECT_EQ(Used() - before, 4 * kMiB);
  CUdeviceptr at;
  ASSERT_EQ(cu().cuMemAddressReserve(&at, 8 * kMiB, 0, 0, 0), CUDA_SUCCESS);
  EXPECT_EQ(Used() - before, 4 * kMiB);  // addresses cost nothing
  ASSERT_EQ(cu().cuMemMap(at, 4 * kMiB, 0, h, 0), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemMap(at, 4 * kMiB, 0, h, 0), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(cu().cuMemRetainAllocationHandle(&again, reinterpret_cast<void*>(at)), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemRelease(h), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemRelease(again), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemRelease(h), CUDA_ERROR_INVALID_VALUE);
  EXPECT_EQ(Used() - before, 4 * kMiB);  // still mapped
  EXPECT_EQ(cu().cuMemAddressFree(at, 8 * kMiB), CUDA_ERROR_INVALID_VALUE);
  ASSERT_EQ(cu().cuMemUnmap(at, 4 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(Used(), before);
  ASSERT_EQ(cu().cuMemAddressFree(at, 8 * kMiB), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemCreate(&h, 4 * kMiB + 1, &prop, 0), CUDA_ERROR_INVALID_VALUE);
}

TEST_F(MemoryTest, TwoMappingsOfOneHandleAreOneMemory) {
  auto prop = Pinned(0);
  CUmemGenericAllocationHandle h;
  ASSERT_EQ(cu().cuMemCreate(&h, kBlock, &prop, 0), CUDA_SUCCESS);
  CUdeviceptr at;
  ASSERT_EQ(cu().cuMemAddressReserve(&at, 2 * kBlock, 0, 0, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemMap(at, kBlock, 0, h, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemMap(at + kBlock, kBlock, 0, h, 0), CUDA_SUCCESS);
  // Before access is granted, the device cannot reach it.
  EXPECT_EQ(cu().cuMemsetD8_v2(at, 7, 16), CUDA_ERROR_INVALID_VALUE);
  CUmemAccessDesc access{{CU_MEM_LOCATION_TYPE_DEVICE, 0}, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  ASSERT_EQ(cu().cuMemSetAccess(at, 2 * kBlock, &access, 1), CUDA_SUCCESS);
  Fill(at + 64, 4711);
  EXPECT_EQ(Load(at + kBlock + 64), 4711u);
  ASSERT_EQ(cu().cuMemUnmap(at, 2 * kBlock), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemRelease(h), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemAddressFree(at, 2 * kBlock), CUDA_SUCCESS);
}

// "Stream Ordered Memory Allocator": pools grow in steps and keep memory up to the release
// threshold; above it they let go "on the next call to stream, event or context synchronize".
TEST_F(MemoryTest, PoolsKeepMemoryUpToTheirThreshold) {
  CUmemoryPool pool;
  ASSERT_EQ(cu().cuDeviceGetDefaultMemPool(&pool, 0), CUDA_SUCCESS);
  size_t before = Used();
  CUdeviceptr p;
  ASSERT_EQ(cu().cuMemAllocAsync(&p, kMiB, free_), CUDA_SUCCESS);
  EXPECT_EQ(Used() - before, 32 * kMiB);
  EXPECT_EQ(PoolValue(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), 32 * kMiB);
  EXPECT_EQ(PoolValue(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), kMiB);
  ASSERT_EQ(cu().cuMemFreeAsync(p, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamSynchronize(free_), CUDA_SUCCESS);
  EXPECT_EQ(Used(), before);  // the default threshold is 0

  uint64_t keep = ~0ull;
  ASSERT_EQ(cu().cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keep),
            CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemAllocAsync(&p, 40 * kMiB, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemFreeAsync(p, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamSynchronize(free_), CUDA_SUCCESS);
  EXPECT_EQ(Used() - before, 64 * kMiB);
  ASSERT_EQ(cu().cuMemPoolTrimTo(pool, 0), CUDA_SUCCESS);
  EXPECT_EQ(Used(), before);
}

// The same stream gets its memory back at once, in stream order; another one must not while the
// free has not been reached.
TEST_F(MemoryTest, PoolsReuseInStreamOrder) {
  CUdeviceptr a, same, other, word = words_;
  uint32_t one = 1;
  void* args[] = {&word, &one};
  ASSERT_EQ(cu().cuMemAllocAsync(&a, 20 * kMiB, free_), CUDA_SUCCESS);
  // Holds the stream until the word is written below.
  ASSERT_EQ(cu().cuLaunchKernel(Kernel("wait_value"), 1, 1, 1, 1, 1, 1, 0, free_, args, nullptr),
            CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemFreeAsync(a, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemAllocAsync(&other, 20 * kMiB, CU_STREAM_PER_THREAD), CUDA_SUCCESS);
  EXPECT_NE(other, a);
  ASSERT_EQ(cu().cuMemAllocAsync(&same, 20 * kMiB, free_), CUDA_SUCCESS);
  EXPECT_EQ(same, a);
  CUstream writer;
  ASSERT_EQ(cu().cuStreamCreate(&writer, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamWriteValue32_v2(writer, words_, 1, 0), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamSynchronize(free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamDestroy_v2(writer), CUDA_SUCCESS);
}

// cuMemPoolCreate: maxSize bounds the pool.
TEST_F(MemoryTest, APoolCanBeBounded) {
  CUmemPoolProps props{};
  props.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  props.location = {CU_MEM_LOCATION_TYPE_DEVICE, 0};
  props.maxSize = 10 * kMiB;
  CUmemoryPool pool;
  ASSERT_EQ(cu().cuMemPoolCreate(&pool, &props), CUDA_SUCCESS);
  CUdeviceptr p;
  EXPECT_EQ(cu().cuMemAllocFromPoolAsync(&p, 20 * kMiB, pool, free_), CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(cu().cuMemAllocFromPoolAsync(&p, 8 * kMiB, pool, free_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemFreeAsync(p, free_), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemPoolDestroy(pool), CUDA_SUCCESS);
}

// "Memory Management": arrays and mipmaps take what their shape needs; copies reach them.
TEST_F(MemoryTest, ArraysTakeTheirShape) {
  size_t before = Used();
  CUDA_ARRAY3D_DESCRIPTOR shape{1024, 1024, 4, CU_AD_FORMAT_FLOAT, 4, 0};
  CUarray array;
  ASSERT_EQ(cu().cuArray3DCreate_v2(&array, &shape), CUDA_SUCCESS);
  EXPECT_EQ(Used() - before, 64 * kMiB);
  ASSERT_EQ(cu().cuArrayDestroy(array), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuArrayDestroy(array), CUDA_ERROR_INVALID_HANDLE);
  CUDA_ARRAY3D_DESCRIPTOR flat{2048, 2048, 0, CU_AD_FORMAT_UNSIGNED_INT8, 4, 0};
  CUmipmappedArray mipmap;
  ASSERT_EQ(cu().cuMipmappedArrayCreate(&mipmap, &flat, 3), CUDA_SUCCESS);
  EXPECT_EQ(Used() - before, 22 * kMiB);  // 16 + 4 + 1 MiB, in blocks
  CUarray level;
  ASSERT_EQ(cu().cuMipmappedArrayGetLevel(&level, mipmap, 2), CUDA_SUCCESS);
  CUDA_ARRAY_DESCRIPTOR small;
  ASSERT_EQ(cu().cuArrayGetDescriptor_v2(&small, level), CUDA_SUCCESS);
  EXPECT_EQ(small.Width, 512u);
  std::vector<char> out(512, 'x'), in(512);
  ASSERT_EQ(cu().cuMemcpyHtoA_v2(level, 0, out.data(), out.size()), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemcpyAtoH_v2(in.data(), level, 0, in.size()), CUDA_SUCCESS);
  EXPECT_EQ(in, out);
  ASSERT_EQ(cu().cuMipmappedArrayDestroy(mipmap), CUDA_SUCCESS);
  EXPECT_EQ(Used(), before);
}

// "Unified Memory": populated by use; a prefetch moves it, and may exceed what there is.
TEST_F(MemoryTest, ManagedMemoryIsResidentWhereItWasPrefetched) {
  size_t before = Used();
  CUdeviceptr p;
  ASSERT_EQ(cu().cuMemAllocManaged(&p, 64 * kMiB, CU_MEM_ATTACH_GLOBAL), CUDA_SUCCESS);
  EXPECT_EQ(Used(), before);
  memset(reinterpret_cast<void*>(p), 3, 4096);
  ASSERT_EQ(cu().cuMemPrefetchAsync(p, 64 * kMiB, 0, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamSynchronize(free_), CUDA_SUCCESS);
  EXPECT_EQ(Used() - before, 64 * kMiB);
  ASSERT_EQ(cu().cuMemPrefetchAsync(p, 64 * kMiB, CU_DEVICE_CPU, free_), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuStreamSynchronize(free_), CUDA_SUCCESS);
  EXPECT_EQ(Used(), before);
  ASSERT_EQ(cu().cuMemFree_v2(p), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemAllocManaged(&p, 200ull << 30, CU_MEM_ATTACH_GLOBAL), CUDA_SUCCESS);
  ASSERT_EQ(cu().cuMemFree_v2(p), CUDA_SUCCESS);
}

// cuMemHostRegister: 712 and 713; pinned memory takes nothing of the device.
TEST_F(MemoryTest, HostMemoryIsPinnedOnce) {
  size_t before = Used();
  void* p;
  ASSERT_EQ(cu().cuMemHostAlloc(&p, 100 * kMiB, 0), CUDA_SUCCESS);
  EXPECT_EQ(Used(), before);
  CUdeviceptr at;
  ASSERT_EQ(cu().cuMemHostGetDevicePointer_v2(&at, p, 0), CUDA_SUCCESS);
  EXPECT_EQ(at, reinterpret_cast<CUdeviceptr>(p));
  ASSERT_EQ(cu().cuMemFreeHost(p), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemFreeHost(p), CUDA_ERROR_INVALID_VALUE);
  std::vector<char> mine(8192);
  ASSERT_EQ(cu().cuMemHostRegister_v2(mine.data(), 4096, 0), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemHostRegister_v2(mine.data() + 100, 4096, 0),
            CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
  ASSERT_EQ(cu().cuMemHostUnregister(mine.data()), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuMemHostUnregister(mine.data()), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}

// "Unified Addressing": cuPointerGetAttribute.
TEST_F(MemoryTest, PointersSayWhatTheyAre) {
  unsigned type = 0;
  int managed = 1, ordinal = -1;
  EXPECT_EQ(cu().cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, words_ + 8),
            CUDA_SUCCESS);
  EXPECT_EQ(type, unsigned(CU_MEMORYTYPE_DEVICE));
  EXPECT_EQ(cu().cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, words_),
            CUDA_SUCCESS);
  EXPECT_EQ(managed, 0);
  EXPECT_EQ(cu().cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, words_),
            CUDA_SUCCESS);
  EXPECT_EQ(ordinal, 0);
  EXPECT_EQ(cu().cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                       reinterpret_cast<CUdeviceptr>(&type)),
            CUDA_ERROR_INVALID_VALUE);
}

// "Module Management": code is device memory.
TEST_F(MemoryTest, ModulesCostMemory) {
  size_t before = Used();
  CUmodule module;
  ASSERT_EQ(cu().cuModuleLoadData(&module, ".version 8.0\n.visible .entry k() { ret; }\n"),
            CUDA_SUCCESS);
  EXPECT_GT(Used(), before);
  CUfunction f;
  EXPECT_EQ(cu().cuModuleGetFunction(&f, module, "k"), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuModuleGetFunction(&f, module, "nothere"), CUDA_ERROR_NOT_FOUND);
  ASSERT_EQ(cu().cuModuleUnload(module), CUDA_SUCCESS);
  EXPECT_EQ(Used(), before);
  EXPECT_EQ(cu().cuModuleLoadData(&module, "this is no image"), CUDA_ERROR_INVALID_IMAGE);
}

}  // namespace
}  // namespace divvy::sim
