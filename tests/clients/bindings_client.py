"""NVIDIA's cuda-bindings as a user would write it: what the driver says of the device, memory taken
within what it says, and one request beyond. Prints what it saw as JSON."""
import json

from cuda.bindings import driver as cu


def checked(answer, *good):
    code, rest = answer[0], answer[1:]
    if code not in (good or (cu.CUresult.CUDA_SUCCESS,)):
        raise SystemExit(f"the driver answers {code}")
    return rest[0] if len(rest) == 1 else rest


checked(cu.cuInit(0))
seen = {"devices": checked(cu.cuDeviceGetCount())}
device = checked(cu.cuDeviceGet(0))
seen["name"] = checked(cu.cuDeviceGetName(128, device)).split(b"\0")[0].decode()
seen["uuid"] = checked(cu.cuDeviceGetUuid(device)).bytes.hex()
seen["device_total"] = checked(cu.cuDeviceTotalMem(device))
context = checked(cu.cuDevicePrimaryCtxRetain(device))
checked(cu.cuCtxSetCurrent(context))
free, seen["total"] = checked(cu.cuMemGetInfo())
seen["free_at_first"] = free
block = checked(cu.cuMemAlloc(1 << 30))
after, _ = checked(cu.cuMemGetInfo())
seen["taken"] = free - after
seen["beyond"] = cu.cuMemAlloc(after + (1 << 30))[0].name
host = bytearray(b"divvy" * 1000)
checked(cu.cuMemcpyHtoD(block, bytes(host), len(host)))
back = bytearray(len(host))
checked(cu.cuMemcpyDtoH(back, block, len(back)))
seen["copied"] = back == host
checked(cu.cuMemFree(block))
seen["given_back"] = checked(cu.cuMemGetInfo())[0] == free
stream = checked(cu.cuStreamCreate(0))
checked(cu.cuStreamSynchronize(stream))
checked(cu.cuStreamDestroy(stream))
checked(cu.cuDevicePrimaryCtxRelease(device))
print(json.dumps(seen))
