// Resolution as the driver does it (CUDA Driver API, "Driver Entry Point Access"; export tables as
// observed in their clients): every exported function is implemented or says so, and look-ups give
// the exported address.
#include <dlfcn.h>

#include <fstream>
#include <sstream>

#include "src/sim/client/test_driver.h"

namespace divvy::sim {
namespace {

TEST(Resolve, AnswersWithTheExportedFunction) {
  void* p = nullptr;
  CUdriverProcAddressQueryResult status;
  EXPECT_EQ(cu().cuGetProcAddress_v2("cuMemAlloc", &p, 13000, 0, &status), CUDA_SUCCESS);
  EXPECT_EQ(p, reinterpret_cast<void*>(cu().cuMemAlloc_v2));
  EXPECT_EQ(status, CU_GET_PROC_ADDRESS_SUCCESS);
  EXPECT_EQ(cu().cuGetProcAddress_v2("cuMemAlloc", &p, 2000, 0, &status), CUDA_SUCCESS);
  EXPECT_EQ(p, reinterpret_cast<void*>(cu().cuMemAlloc));
  EXPECT_EQ(cu().cuGetProcAddress_v2("cuLaunchKernel", &p, 13000, 2, &status), CUDA_SUCCESS);
  EXPECT_EQ(p, reinterpret_cast<void*>(cu().cuLaunchKernel_ptsz));
}

// The real driver succeeds with a null pointer; version 1 fails and leaves the pointer alone.
TEST(Resolve, UnknownNames) {
  void* p = &p;
  CUdriverProcAddressQueryResult status;
  EXPECT_EQ(cu().cuGetProcAddress_v2("cuNoSuchThing", &p, 13000, 0, &status), CUDA_SUCCESS);
  EXPECT_EQ(p, nullptr);
  EXPECT_EQ(status, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
  p = &p;
  EXPECT_EQ(cu().cuGetProcAddress("cuNoSuchThing", &p, 13000, 0), CUDA_ERROR_NOT_FOUND);
  EXPECT_EQ(p, &p);
}

// What the CUDA 13 runtime asks at its start (shared test data: one "name version flags" a line,
// GL, EGL and VDPAU names among them, which may be missing).
TEST(Resolve, RuntimeLookups) {
  const char* data = getenv("DIVVY_DATA_DIR");
  std::string source = getenv("DIVVY_SOURCE_DIR") != nullptr ? getenv("DIVVY_SOURCE_DIR") : ".";
  std::ifstream in(std::string(data != nullptr ? data : source + "/../shared/data") +
                   "/cudart13_lookups.txt");
  if (!in) GTEST_SKIP() << "no cudart13_lookups.txt: set DIVVY_DATA_DIR";
  int found = 0, graphics = 0;
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string name;
    int version = 0;
    uint64_t flags = 0;
    if (!(words >> name >> version >> flags) || name[0] != 'c') continue;
    void* p = nullptr;
    ASSERT_EQ(cu().cuGetProcAddress_v2(name.c_str(), &p, version, flags, nullptr), CUDA_SUCCESS);
    bool gl = false;
    for (const char* part : {"GL", "Egl", "EGL", "VDPAU"}) gl |= name.find(part) != name.npos;
    (p != nullptr ? found : graphics) += 1;
    EXPECT_TRUE(p != nullptr || gl) << line;
  }
  EXPECT_GT(found, 400);
  EXPECT_LT(graphics, 40);
}

TEST(Resolve, ErrorsHaveNamesAndTexts) {
  const char* text;
  EXPECT_EQ(cu().cuGetErrorName(CUDA_ERROR_OUT_OF_MEMORY, &text), CUDA_SUCCESS);
  EXPECT_STREQ(text, "CUDA_ERROR_OUT_OF_MEMORY");
  EXPECT_EQ(cu().cuGetErrorString(CUDA_ERROR_OUT_OF_MEMORY, &text), CUDA_SUCCESS);
  EXPECT_STREQ(text, "out of memory");
  EXPECT_EQ(cu().cuGetErrorName(CUresult(12345), &text), CUDA_ERROR_INVALID_VALUE);
}

// Contexts can come from a table, past every exported function.
TEST(Resolve, ExportTablesMakeContexts) {
  const CUuuid bypass = {{0x0C, char(0xA5), 0x0B, char(0x8C), 0x10, 0x04, char(0x92), char(0x9A),
                          char(0x89), char(0xA7), char(0xD0), char(0xDF), 0x10, char(0xE7), 0x72,
                          char(0x86)}};
  const void* table = nullptr;
  ASSERT_EQ(cu().cuGetExportTable(&table, &bypass), CUDA_SUCCESS);
  auto words = static_cast<void* const*>(table);
  EXPECT_EQ(reinterpret_cast<size_t>(words[0]), 2 * sizeof(void*));
  auto create = reinterpret_cast<CUresult (*)(CUcontext*, unsigned, CUdevice)>(words[1]);
  CUcontext c;
  ASSERT_EQ(create(&c, 0, 0), CUDA_SUCCESS);
  EXPECT_EQ(cu().cuCtxDestroy_v2(c), CUDA_SUCCESS);
  const CUuuid unknown = {};
  EXPECT_EQ(cu().cuGetExportTable(&table, &unknown), CUDA_ERROR_NOT_FOUND);
}

}  // namespace
}  // namespace divvy::sim
