// The forwarding thunks must pass every argument, in registers, on the stack and in vector
// registers, on the first call (which looks the function up) as on later ones (which only jump).
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "src/abi/generated/driver_fns.h"

using divvy::abi::DriverSymbol;

extern "C" {
// The exported thunks under test, with signatures of the table.
CUresult cuDriverGetVersion(int* version);
CUresult cuTexRefSetMipmapLevelClamp(CUtexref texture, float low, float high);
CUresult cuLinkAddData_v2(CUlinkState state, CUjitInputType type, void* data, size_t size,
                          const char* name, unsigned int count, CUjit_option* options,
                          void** values);

void* divvy_forward_resolve(unsigned index);
extern void* divvy_forward_slots[];
}

namespace {

std::vector<unsigned> looked_up;

struct Clamp {
  CUtexref texture;
  float low, high;
} clamp_seen;

CUresult real_version(int* version) {
  *version = 13000;
  return CUDA_SUCCESS;
}

CUresult real_clamp(CUtexref texture, float low, float high) {
  clamp_seen = {texture, low, high};
  return CUDA_ERROR_NOT_FOUND;
}

CUresult real_add_data(CUlinkState state, CUjitInputType type, void* data, size_t size,
                       const char* name, unsigned int count, CUjit_option* options, void** values) {
  const bool as_sent = state == reinterpret_cast<CUlinkState>(1) && type == CU_JIT_INPUT_PTX &&
                       data == reinterpret_cast<void*>(3) && size == 4 &&
                       name == reinterpret_cast<const char*>(5) && count == 6 &&
                       options == reinterpret_cast<CUjit_option*>(7) &&
                       values == reinterpret_cast<void**>(8);
  return as_sent ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// Spoils every vector argument register, as a real look-up may.
void spoil() {
#if defined(__x86_64__)
  asm volatile(
      "pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm1, %%xmm1; pcmpeqd %%xmm2, %%xmm2; pcmpeqd %%xmm3, "
      "%%xmm3" ::
          : "xmm0", "xmm1", "xmm2", "xmm3");
#endif
}

unsigned position(DriverSymbol symbol) { return static_cast<unsigned>(symbol); }

CUresult add_data() {
  return cuLinkAddData_v2(reinterpret_cast<CUlinkState>(1), CU_JIT_INPUT_PTX,
                          reinterpret_cast<void*>(3), 4, reinterpret_cast<const char*>(5), 6,
                          reinterpret_cast<CUjit_option*>(7), reinterpret_cast<void**>(8));
}

}  // namespace

extern "C" __attribute__((visibility("hidden"))) void* divvy_forward_resolve(unsigned index) {
  looked_up.push_back(index);
  spoil();
  switch (static_cast<DriverSymbol>(index)) {
    case DriverSymbol::cuDriverGetVersion:
      return reinterpret_cast<void*>(&real_version);
    case DriverSymbol::cuTexRefSetMipmapLevelClamp:
      return reinterpret_cast<void*>(&real_clamp);
    default:
      return reinterpret_cast<void*>(&real_add_data);
  }
}

TEST(ForwardThunks, LookUpOnceThenJump) {
  looked_up.clear();
  int version = 0;
  EXPECT_EQ(cuDriverGetVersion(&version), CUDA_SUCCESS);
  EXPECT_EQ(version, 13000);
  EXPECT_EQ(cuDriverGetVersion(&version), CUDA_SUCCESS);
  EXPECT_EQ(looked_up, std::vector<unsigned>{position(DriverSymbol::cuDriverGetVersion)});
  EXPECT_EQ(divvy_forward_slots[position(DriverSymbol::cuDriverGetVersion)],
            reinterpret_cast<void*>(&real_version));
}

TEST(ForwardThunks, FloatsSurviveTheLookUp) {
  looked_up.clear();
  for (int call = 0; call < 2; ++call) {
    clamp_seen = {};
    EXPECT_EQ(cuTexRefSetMipmapLevelClamp(reinterpret_cast<CUtexref>(9), 1.5f, 2.5f),
              CUDA_ERROR_NOT_FOUND);
    EXPECT_EQ(clamp_seen.texture, reinterpret_cast<CUtexref>(9));
    EXPECT_EQ(clamp_seen.low, 1.5f);
    EXPECT_EQ(clamp_seen.high, 2.5f);
  }
  EXPECT_EQ(looked_up.size(), 1u);
}

TEST(ForwardThunks, ArgumentsOnTheStackSurvive) {
  looked_up.clear();
  EXPECT_EQ(add_data(), CUDA_SUCCESS);
  EXPECT_EQ(add_data(), CUDA_SUCCESS);
  EXPECT_EQ(looked_up, std::vector<unsigned>{position(DriverSymbol::cuLinkAddData_v2)});
}
