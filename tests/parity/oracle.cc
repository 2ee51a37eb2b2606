// parity_oracle LIBCUDA: asks a real driver's cuGetProcAddress for every name of the table, at
// every version where an answer may change and with each stream flag, and compares the address with
// the one that our rules (src/abi/resolve.h) name. Also: every symbol of the table up to the
// driver's version is exported by it, and every exported cu* name that cuGetProcAddress knows is in
// the table. Prints differences; status 1 for any.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <iterator>
#include <map>
#include <set>
#include <string>

#include "src/abi/resolve.h"

namespace {

using namespace divvy::abi;

struct Row {
  const char* symbol;
  const char* api;
  int version;
};

constexpr Row kRows[] = {
#define DIVVY_CU(index, symbol, api, version, variant, decision, klass) {#symbol, api, version},
#include "src/abi/generated/driver_symbols.inc"
#undef DIVVY_CU
};

struct Driver {
  void* handle;
  CUresult (*resolve_v1)(const char*, void**, int, cuuint64_t);
  CUresult (*resolve)(const char*, void**, int, cuuint64_t, CUdriverProcAddressQueryResult*);
  int version;
};

struct Counts {
  int asked = 0;
  int found = 0;
  int wrong = 0;
};

const char* symbol_at(void* address) {
  Dl_info info{};
  return address && dladdr(address, &info) && info.dli_sname ? info.dli_sname : "nothing";
}

void ask(const Driver& driver, const char* api, int first_version, int version, cuuint64_t flags,
         Counts& counts) {
  void* theirs = nullptr;
  auto status = static_cast<CUdriverProcAddressQueryResult>(-1);
  const CUresult result = driver.resolve(api, &theirs, version, flags, &status);
  const Resolution ours = resolve_driver_function(api, version, flags);
  void* expected = ours.symbol ? dlsym(driver.handle, driver_name(*ours.symbol)) : nullptr;
  ++counts.asked;
  counts.found += theirs != nullptr;
  // A name that is newer than the driver is unknown to it, and only "not yet" to us.
  const bool known = first_version <= driver.version;
  if (result == CUDA_SUCCESS && theirs == expected && (status == ours.status || !known)) return;
  ++counts.wrong;
  std::printf("%s at %d, flags %llu: driver says %d, %s, status %d; we say %s, status %d\n", api,
              version, static_cast<unsigned long long>(flags), result, symbol_at(theirs), status,
              ours.symbol ? driver_name(*ours.symbol) : "nothing", ours.status);
}

// The older entry point answers by the same rules, and with an error instead of a null answer.
void ask_v1(const Driver& driver, const char* api, int version, cuuint64_t flags, Counts& counts) {
  void* const untouched = &counts;
  void* theirs = untouched;
  const CUresult result = driver.resolve_v1(api, &theirs, version, flags);
  const Resolution ours = resolve_driver_function(api, version, flags);
  void* expected = ours.symbol ? dlsym(driver.handle, driver_name(*ours.symbol)) : untouched;
  ++counts.asked;
  if (theirs == expected && result == (ours.symbol ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND)) return;
  ++counts.wrong;
  std::printf("%s at %d by cuGetProcAddress v1: driver says %d, %s; we say %s\n", api, version,
              result, symbol_at(theirs), ours.symbol ? driver_name(*ours.symbol) : "nothing");
}

Counts ask_everything(const Driver& driver) {
  std::map<std::string, std::set<int>> versions;
  for (const Row& row : kRows) versions[row.api].insert(row.version);
  Counts counts;
  for (const auto& [api, changes] : versions) {
    std::set<int> worth_asking{driver.version};
    for (int change : changes) worth_asking.insert({change - 10, change, change + 10});
    for (int version : worth_asking) {
      if (version > driver.version) continue;  // a newer function would be ours alone
      for (cuuint64_t flags : {0, 1, 2, 3}) {
        ask(driver, api.c_str(), *changes.begin(), version, flags, counts);
        ask_v1(driver, api.c_str(), version, flags, counts);
      }
    }
  }
  for (const char* unknown : {"", "cuMemAlloc_v2", "cuLaunchKernel_ptsz", "cuNoSuchFunction"})
    ask(driver, unknown, 0, driver.version, 0, counts);
  return counts;
}

int missing_exports(const Driver& driver) {
  int missing = 0;
  for (const Row& row : kRows) {
    if (row.version > driver.version || dlsym(driver.handle, row.symbol)) continue;
    ++missing;
    std::printf("%s (%d) is not exported by the driver\n", row.symbol, row.version);
  }
  return missing;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: parity_oracle LIBCUDA\n");
    return 2;
  }
  Driver driver{};
  driver.handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (!driver.handle) {
    std::fprintf(stderr, "parity_oracle: %s\n", dlerror());
    return 2;
  }
  auto get = [&](const char* name) { return dlsym(driver.handle, name); };
  driver.resolve_v1 = reinterpret_cast<decltype(driver.resolve_v1)>(get("cuGetProcAddress"));
  driver.resolve = reinterpret_cast<decltype(driver.resolve)>(get("cuGetProcAddress_v2"));
  const auto version = reinterpret_cast<CUresult (*)(int*)>(get("cuDriverGetVersion"));
  if (!driver.resolve || !driver.resolve_v1 || !version || version(&driver.version)) {
    std::fprintf(stderr, "parity_oracle: %s is no driver of CUDA 12 or newer\n", argv[1]);
    return 2;
  }
  const Counts counts = ask_everything(driver);
  const int missing = missing_exports(driver);
  std::printf(
      "driver %d: %d questions, %d answered with a function, %d differences, %d not exported\n",
      driver.version, counts.asked, counts.found, counts.wrong, missing);
  return counts.wrong || missing ? 1 : 0;
}
