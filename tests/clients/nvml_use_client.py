"""What NVIDIA's nvidia-ml-py says of utilisation inside of a share, once it has seen some; with
`idle`, once it has seen the device busy with others and none of its own."""
import json
import sys
import time

import pynvml

pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
until = time.monotonic() + 40  # a bound on waiting for what is sure to come
idle = "idle" in sys.argv


def values(kind):
    try:
        _, samples = pynvml.nvmlDeviceGetSamples(handle, kind, 0)
    except pynvml.NVMLError_NotFound:
        return []
    return [s.sampleValue.uiVal for s in samples]


def processes():
    try:
        return [[p.pid, p.smUtil] for p in pynvml.nvmlDeviceGetProcessUtilization(handle, 0)]
    except pynvml.NVMLError_NotFound:
        return []


while True:
    rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
    gpu = values(pynvml.NVML_GPU_UTILIZATION_SAMPLES)
    seen = {"gpu": rates.gpu, "memory": rates.memory, "samples": gpu[-4:],
            "memory_samples": values(pynvml.NVML_MEMORY_UTILIZATION_SAMPLES)[-4:], "processes": processes()}
    busy = 0 < rates.gpu < 60 and any(0 < v < 60 for v in gpu[-4:]) and seen["processes"]
    still = rates.gpu == 0 and gpu and max(gpu[-4:]) == 0
    if (still if idle else busy) or time.monotonic() > until:
        break
    time.sleep(0.2)
try:
    pstates = pynvml.nvmlDeviceGetDynamicPstatesInfo(handle)
    seen["pstates"] = pstates.utilization[0].percentage if pstates.utilization[0].bIsPresent else None
except (AttributeError, pynvml.NVMLError):
    seen["pstates"] = None
print(json.dumps(seen))
