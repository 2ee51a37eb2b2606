"""NVIDIA's cuda-bindings (the driver API from Python) runs a small program on the simulator: device
queries, memory, a module from PTX, kernels with arguments, events, graphs by capture, pools, virtual
memory. Expectations are the driver API's documented ones."""

import ctypes
import unittest

from cuda.bindings import driver as cu

PTX = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry spin(.param .u64 ns) { ret; }
.visible .entry store(.param .u64 ptr, .param .u32 value) { ret; }
.global .align 4 .u32 counter;
\0"""


def ok(result):
    """The values of a call that must succeed."""
    error, *values = result
    if error != cu.CUresult.CUDA_SUCCESS:
        raise AssertionError(f"{error!r}: {cu.cuGetErrorString(error)[1]}")
    return values[0] if len(values) == 1 else values


class CudaBindings(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        ok(cu.cuInit(0))
        cls.device = ok(cu.cuDeviceGet(0))
        cls.context = ok(cu.cuDevicePrimaryCtxRetain(cls.device))
        ok(cu.cuCtxSetCurrent(cls.context))
        cls.module = ok(cu.cuModuleLoadData(PTX))

    @classmethod
    def tearDownClass(cls):
        ok(cu.cuModuleUnload(cls.module))
        ok(cu.cuDevicePrimaryCtxRelease(cls.device))

    def kernel(self, name):
        return ok(cu.cuModuleGetFunction(self.module, name.encode()))

    def launch(self, name, stream, values, types):
        ok(cu.cuLaunchKernel(self.kernel(name), 1, 1, 1, 32, 1, 1, 0, stream, (values, types), 0))

    def test_devices(self):
        self.assertEqual(ok(cu.cuDeviceGetCount()), 2)
        self.assertIn(b"H100", ok(cu.cuDeviceGetName(100, self.device)))
        self.assertEqual(ok(cu.cuDriverGetVersion()), 13000)
        major = cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        self.assertEqual(ok(cu.cuDeviceGetAttribute(major, self.device)), 9)
        uuids = {bytes(ok(cu.cuDeviceGetUuid(ok(cu.cuDeviceGet(i)))).bytes) for i in range(2)}
        self.assertEqual(len(uuids), 2)

    def test_memory_goes_there_and_back(self):
        free_before, total = ok(cu.cuMemGetInfo())
        ptr = ok(cu.cuMemAlloc(64 << 20))
        free_after, _ = ok(cu.cuMemGetInfo())
        self.assertEqual(free_before - free_after, 64 << 20)
        data = bytes(range(256))
        ok(cu.cuMemcpyHtoD(ptr, data, len(data)))
        back = bytearray(256)
        ok(cu.cuMemcpyDtoH(back, ptr, 256))
        self.assertEqual(bytes(back), data)
        ok(cu.cuMemFree(ptr))
        self.assertEqual(ok(cu.cuMemGetInfo())[0], free_before)
        error, _ = cu.cuMemAlloc(total)
        self.assertEqual(error, cu.CUresult.CUDA_ERROR_OUT_OF_MEMORY)

    def test_kernels_and_events(self):
        stream = ok(cu.cuStreamCreate(0))
        ptr = ok(cu.cuMemAlloc(4))
        begin, end = ok(cu.cuEventCreate(0)), ok(cu.cuEventCreate(0))
        ok(cu.cuEventRecord(begin, stream))
        self.launch("spin", stream, (3_000_000,), (ctypes.c_uint64,))
        self.launch("store", stream, (int(ptr), 42), (ctypes.c_uint64, ctypes.c_uint32))
        ok(cu.cuEventRecord(end, stream))
        ok(cu.cuStreamSynchronize(stream))
        # Device time, not this host's: the spin, and a default kernel of a few microseconds.
        self.assertGreaterEqual(ok(cu.cuEventElapsedTime(begin, end)), 3.0)
        word = ctypes.c_uint32()
        ok(cu.cuMemcpyDtoH(ctypes.addressof(word), ptr, 4))
        self.assertEqual(word.value, 42)
        for event in (begin, end):
            ok(cu.cuEventDestroy(event))
        ok(cu.cuMemFree(ptr))
        ok(cu.cuStreamDestroy(stream))

    def test_module_globals(self):
        ptr, size = ok(cu.cuModuleGetGlobal(self.module, b"counter"))
        self.assertEqual(size, 4)
        ok(cu.cuMemsetD32(ptr, 7, 1))
        word = ctypes.c_uint32()
        ok(cu.cuMemcpyDtoH(ctypes.addressof(word), ptr, 4))
        self.assertEqual(word.value, 7)

    def test_graph_by_capture(self):
        stream = ok(cu.cuStreamCreate(cu.CUstream_flags.CU_STREAM_NON_BLOCKING))
        ptr = ok(cu.cuMemAlloc(4))
        ok(cu.cuMemsetD32(ptr, 0, 1))
        mode = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL
        ok(cu.cuStreamBeginCapture(stream, mode))
        self.launch("store", stream, (int(ptr), 9), (ctypes.c_uint64, ctypes.c_uint32))
        graph = ok(cu.cuStreamEndCapture(stream))
        execution = ok(cu.cuGraphInstantiate(graph, 0))
        ok(cu.cuCtxSynchronize())
        word = ctypes.c_uint32(1)
        ok(cu.cuMemcpyDtoH(ctypes.addressof(word), ptr, 4))
        self.assertEqual(word.value, 0)  # captured, not run
        ok(cu.cuGraphLaunch(execution, stream))
        ok(cu.cuStreamSynchronize(stream))
        ok(cu.cuMemcpyDtoH(ctypes.addressof(word), ptr, 4))
        self.assertEqual(word.value, 9)
        ok(cu.cuGraphExecDestroy(execution))
        ok(cu.cuGraphDestroy(graph))
        ok(cu.cuMemFree(ptr))
        ok(cu.cuStreamDestroy(stream))

    def test_pool_and_virtual_memory(self):
        stream = ok(cu.cuStreamCreate(0))
        ptr = ok(cu.cuMemAllocAsync(1 << 20, stream))
        ok(cu.cuMemFreeAsync(ptr, stream))
        ok(cu.cuStreamSynchronize(stream))

        prop = cu.CUmemAllocationProp()
        prop.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        prop.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        prop.location.id = 0
        flag = cu.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
        size = ok(cu.cuMemGetAllocationGranularity(prop, flag))
        handle = ok(cu.cuMemCreate(size, prop, 0))
        at = ok(cu.cuMemAddressReserve(size, 0, 0, 0))
        ok(cu.cuMemMap(at, size, 0, handle, 0))
        access = cu.CUmemAccessDesc()
        access.location = prop.location
        access.flags = cu.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        ok(cu.cuMemSetAccess(at, size, [access], 1))
        ok(cu.cuMemsetD8(at, 1, size))
        ok(cu.cuCtxSynchronize())
        ok(cu.cuMemUnmap(at, size))
        ok(cu.cuMemRelease(handle))
        ok(cu.cuMemAddressFree(at, size))
        ok(cu.cuStreamDestroy(stream))


if __name__ == "__main__":
    unittest.main()
