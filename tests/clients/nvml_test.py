"""nvidia-ml-py on the simulator: it shows what the driver API took, by process."""

import ctypes
import os
import unittest

import pynvml as nvml


class NvidiaMlPy(unittest.TestCase):
    def setUp(self):
        nvml.nvmlInit()
        self.handle = nvml.nvmlDeviceGetHandleByIndex(0)

    def tearDown(self):
        nvml.nvmlShutdown()

    def test_identity(self):
        self.assertEqual(nvml.nvmlDeviceGetCount(), 2)
        self.assertIn("H100", nvml.nvmlDeviceGetName(self.handle))
        uuid = nvml.nvmlDeviceGetUUID(self.handle)
        self.assertTrue(uuid.startswith("GPU-"))
        same = nvml.nvmlDeviceGetHandleByUUID(uuid)
        self.assertEqual(nvml.nvmlDeviceGetIndex(same), 0)
        bus = nvml.nvmlDeviceGetPciInfo(self.handle).busId
        self.assertEqual(nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetHandleByPciBusId(bus)), 0)

    def test_memory_of_this_process(self):
        cuda = ctypes.CDLL("libcuda.so.1")
        before = nvml.nvmlDeviceGetMemoryInfo(self.handle)
        context, ptr = ctypes.c_void_p(), ctypes.c_uint64()
        self.assertEqual(cuda.cuInit(0), 0)
        self.assertEqual(cuda.cuCtxCreate_v2(ctypes.byref(context), 0, 0), 0)
        with_context = nvml.nvmlDeviceGetMemoryInfo(self.handle).used - before.used
        self.assertGreater(with_context, 100 << 20)
        size = 1 << 30
        self.assertEqual(cuda.cuMemAlloc_v2(ctypes.byref(ptr), ctypes.c_size_t(size)), 0)
        after = nvml.nvmlDeviceGetMemoryInfo(self.handle)
        self.assertEqual(after.used - before.used, with_context + size)
        self.assertEqual(after.free, after.total - after.used)
        v2 = nvml.nvmlDeviceGetMemoryInfo(self.handle, version=nvml.nvmlMemory_v2)
        self.assertEqual(v2.used + v2.reserved, after.used)
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(self.handle)
        mine = [p.usedGpuMemory for p in processes if p.pid == os.getpid()]
        self.assertEqual(mine, [with_context + size])
        self.assertEqual(cuda.cuCtxDestroy_v2(context), 0)
        self.assertEqual(nvml.nvmlDeviceGetMemoryInfo(self.handle).used, before.used)

    def test_utilization_is_a_percentage(self):
        rates = nvml.nvmlDeviceGetUtilizationRates(self.handle)
        self.assertTrue(0 <= rates.gpu <= 100 and 0 <= rates.memory <= 100)


if __name__ == "__main__":
    unittest.main()
