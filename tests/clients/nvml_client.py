"""NVIDIA's nvidia-ml-py beside a context of its own process: what a monitoring tool would show."""
import json
import os

import pynvml
from cuda.bindings import driver as cu

assert cu.cuInit(0)[0] == 0
device = cu.cuDeviceGet(0)[1]
assert cu.cuCtxSetCurrent(cu.cuDevicePrimaryCtxRetain(device)[1])[0] == 0
assert cu.cuMemAlloc(1 << 30)[0] == 0

pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
memory2 = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
print(json.dumps({
    "devices": pynvml.nvmlDeviceGetCount(),
    "name": pynvml.nvmlDeviceGetName(handle),
    "uuid": pynvml.nvmlDeviceGetUUID(handle),
    "total": memory.total, "used": memory.used, "free": memory.free, "total_v2": memory2.total,
    "pids": [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)],
    "own_pid": os.getpid(),
    "utilisation": pynvml.nvmlDeviceGetUtilizationRates(handle).gpu}))
pynvml.nvmlShutdown()
