// Reaches for devices of the machine that the tenant has no share of.
//   devices index   every ordinal to 8, by number      devices bus   by PCI id
//   devices raw     contexts on numbers that cuDeviceGet never gave
#include <cstdio>

#include "tests/attacks/attack.h"

int main(int, char** argv) {
  const std::string way = argv[1];
  const auto cu = attack::Driver(attack::ByName());
  const CUresult init = cu.cuInit(0);
  int count = 0;
  cu.cuDeviceGetCount(&count);
  attack::Holding holding{.last = init};
  for (int i = 0; init == CUDA_SUCCESS && i < 8; ++i) {
    CUdevice device = i;
    CUresult r = CUDA_SUCCESS;
    if (way == "index") r = cu.cuDeviceGet(&device, i);
    if (way == "bus") {
      // The simulated machine counts its buses up; a real one lists them in /proc or /sys.
      r = CUDA_ERROR_INVALID_DEVICE;
      for (int bus = 0; bus < 256 && r != CUDA_SUCCESS; ++bus) {
        char id[32];
        std::snprintf(id, sizeof(id), "%08x:%02x:00.0", 0, (bus + i * 16) & 0xff);
        r = cu.cuDeviceGetByPCIBusId(&device, id);
      }
    }
    CUcontext context = nullptr;
    if (r == CUDA_SUCCESS) r = cu.cuCtxCreate_v2(&context, 0, device);
    if (r == CUDA_SUCCESS) {
      const attack::Holding here = attack::TakeLinear(cu);
      holding.held += here.held;
    }
    holding.last = r;
  }
  holding.note = std::to_string(count) + " devices seen";
  return attack::Report(holding);
}
