// Memory whose size no argument states: arrays and mipmaps. `arrays array|layered|mipmap`.
#include "tests/attacks/attack.h"

int main(int, char** argv) {
  const std::string way = argv[1];
  const auto cu = attack::Driver(attack::ByName());
  const CUresult entered = attack::Enter(cu);
  if (entered != CUDA_SUCCESS) return attack::Report({.last = entered, .note = "no context"});
  return attack::Report(attack::TakeAll([&](size_t bytes) -> CUresult {
    const size_t width = 4096, height = bytes / (width * 16);  // four floats an element
    CUarray array = nullptr;
    CUmipmappedArray mipmap = nullptr;
    if (way == "array") {
      const CUDA_ARRAY_DESCRIPTOR plain{width, height, CU_AD_FORMAT_FLOAT, 4};
      return cu.cuArrayCreate_v2(&array, &plain);
    }
    const size_t layers = 4;
    const CUDA_ARRAY3D_DESCRIPTOR deep{width, height / layers, layers, CU_AD_FORMAT_FLOAT, 4, 1};
    if (way == "layered") return cu.cuArray3DCreate_v2(&array, &deep);
    return cu.cuMipmappedArrayCreate(&mipmap, &deep, 4);
  }));
}
