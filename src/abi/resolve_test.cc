// The rules of cuGetProcAddress against cases whose answers are known from CUDA's headers and from
// the driver (tests/parity asks a real one for all of them).
#include "src/abi/resolve.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

namespace divvy::abi {
namespace {

std::string ask(const char* name, int version, std::uint64_t flags = CU_GET_PROC_ADDRESS_DEFAULT) {
  const Resolution found = resolve_driver_function(name, version, flags);
  if (found.symbol) return driver_name(*found.symbol);
  return found.status == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND ? "unknown" : "too old";
}

constexpr std::uint64_t kPerThread = CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
constexpr std::uint64_t kLegacy = CU_GET_PROC_ADDRESS_LEGACY_STREAM;

TEST(Resolve, NewestVersionNotAboveTheOneAskedFor) {
  EXPECT_EQ(ask("cuMemAlloc", 2000), "cuMemAlloc");
  EXPECT_EQ(ask("cuMemAlloc", 3010), "cuMemAlloc");
  EXPECT_EQ(ask("cuMemAlloc", 3020), "cuMemAlloc_v2");
  EXPECT_EQ(ask("cuMemAlloc", 13000), "cuMemAlloc_v2");
  EXPECT_EQ(ask("cuCtxCreate", 12040), "cuCtxCreate_v3");
  EXPECT_EQ(ask("cuGetProcAddress", 11030), "cuGetProcAddress");
  EXPECT_EQ(ask("cuGetProcAddress", 12000), "cuGetProcAddress_v2");
}

TEST(Resolve, PerThreadFlagNeverFallsBackWhereAVariantExists) {
  EXPECT_EQ(ask("cuLaunchKernel", 7000, kPerThread), "cuLaunchKernel_ptsz");
  EXPECT_EQ(ask("cuLaunchKernel", 4000, kPerThread), "too old");
  EXPECT_EQ(ask("cuLaunchKernel", 7000, kLegacy), "cuLaunchKernel");
  EXPECT_EQ(ask("cuLaunchKernel", 7000, kLegacy | kPerThread), "cuLaunchKernel_ptsz");
  EXPECT_EQ(ask("cuMemcpy", 7000, kPerThread), "cuMemcpy_ptds");
  EXPECT_EQ(ask("cuMemAlloc", 13000, kPerThread), "cuMemAlloc_v2");
  EXPECT_EQ(ask("cuMemcpyBatchAsync", 12080, kPerThread), "cuMemcpyBatchAsync_ptsz");
  EXPECT_EQ(ask("cuMemcpyBatchAsync", 13000, kPerThread), "cuMemcpyBatchAsync_v2_ptsz");
}

// The header of CUDA 12 turns cuGraphInstantiate into another function; the driver does not.
TEST(Resolve, RenamesOfTheHeaderAreNotTheDriversOwn) {
  EXPECT_EQ(ask("cuGraphInstantiate", 10000), "cuGraphInstantiate");
  EXPECT_EQ(ask("cuGraphInstantiate", 11000), "cuGraphInstantiate_v2");
  EXPECT_EQ(ask("cuGraphInstantiate", 12000), "cuGraphInstantiate_v2");
  EXPECT_EQ(ask("cuGraphInstantiateWithFlags", 12000), "cuGraphInstantiateWithFlags");
}

TEST(Resolve, RefusalsSayWhy) {
  EXPECT_EQ(ask("cuMemAlloc_v2", 13000), "unknown");
  EXPECT_EQ(ask("", 0), "unknown");
  EXPECT_EQ(ask("cuMemAlloc", 0), "too old");
  EXPECT_EQ(ask("cuMemAlloc", -5), "cuMemAlloc_v2") << "the driver compares without sign";
  EXPECT_EQ(ask("cuMemAllocAsync", 11010), "too old");
}

TEST(Resolve, EverySymbolIsTheAnswerToItsOwnVersion) {
  struct Row {
    const char* symbol;
    const char* api;
    int version;
    bool per_thread;
  };
  constexpr bool LEGACY = false, PTDS = true, PTSZ = true;
  const Row rows[] = {
#define DIVVY_CU(index, symbol, api, version, variant, decision, klass) \
  {#symbol, api, version, variant},
#include "src/abi/generated/driver_symbols.inc"
#undef DIVVY_CU
  };
  ASSERT_EQ(std::size(rows), kDriverSymbolCount);
  for (const Row& row : rows) {
    EXPECT_EQ(ask(row.api, row.version, row.per_thread ? kPerThread : kLegacy), row.symbol);
  }
}

// What NVIDIA's runtime 13.0 asks its driver for at start, recorded from it: name, version, flags.
// Only the names of the graphics interoperability headers, which the table does not cover, are
// unknown.
TEST(Resolve, EveryQuestionOfTheRuntimeHasAnAnswer) {
  const char* folder = std::getenv("DIVVY_DATA_DIR");
  const std::string path =
      std::string(folder ? folder : DIVVY_DEFAULT_DATA_DIR) + "/cudart13_lookups.txt";
  std::ifstream file(path);
  if (!file) GTEST_SKIP() << path << " is not here";
  std::string line;
  std::getline(file, line);  // the first question is the empty name
  int asked = 0;
  for (std::string name, rest; file >> name;) {
    int version = 0;
    std::uint64_t flags = 0;
    file >> version >> flags;
    std::getline(file, rest);
    ++asked;
    const bool graphics = name.find("GL") != std::string::npos ||
                          name.find("Egl") != std::string::npos ||
                          name.find("VDPAU") != std::string::npos;
    EXPECT_EQ(ask(name.c_str(), version, flags) == "unknown", graphics) << name;
    EXPECT_NE(ask(name.c_str(), version, flags), "too old") << name;
  }
  EXPECT_EQ(asked, 439);
}

TEST(Names, EveryNameIsFoundAtItsPlaceAndNoOther) {
  for (unsigned i = 0; i < kDriverSymbolCount; ++i) {
    const auto symbol = static_cast<DriverSymbol>(i);
    EXPECT_EQ(find_driver_symbol(driver_name(symbol)), static_cast<int>(i));
  }
  EXPECT_EQ(find_driver_symbol("cuMemAlloc_v9"), -1);
  EXPECT_EQ(find_driver_symbol(""), -1);
  EXPECT_EQ(std::strcmp(driver_name(DriverSymbol::cuMemAlloc_v2), "cuMemAlloc_v2"), 0);
}

}  // namespace
}  // namespace divvy::abi
