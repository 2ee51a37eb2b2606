// The forwarding libcuda.so.1: it stands in the place of the driver's file, has its name, and needs
// the real driver by the absolute path /run/divvy/real/libcuda.so.1. What Divvy hooks goes to
// libdivvy.so, which is found already loaded (preloaded) or is loaded from where its delivery put
// it; the rest goes to the real driver. Symbols newer than our table are not defined here: the
// loader finds them in the real driver, because it is needed. Without libdivvy.so a hooked function
// answers CUDA_ERROR_SYSTEM_NOT_READY: a tenant that cannot be held to its share gets no GPU.
// Called once per function (forward_thunks.S), any thread.
#include <string.h>

#include "src/abi/generated/driver_fns.h"
#include "src/shim/c_library.h"
#include "src/shim/elf_lookup.h"
#include "src/shim/loader.h"

// The mark by which the shim tells this library from a driver.
extern "C" __attribute__((visibility("default"))) const int divvy_forwarder = 1;

namespace divvy::shim {
namespace {

constexpr char kShimName[] = "libdivvy.so";
constexpr char kShimInTenant[] = "/run/divvy/lib/libdivvy.so";
constexpr int kNow = 2;

enum class Decision : uint8_t { PASS, HOOK, DENY };
constexpr Decision kDecision[] = {
#define DIVVY_CU(index, symbol, api, version, variant, decision, klass) Decision::decision,
#include "src/abi/generated/driver_symbols.inc"
#undef DIVVY_CU
};
static_assert(sizeof(kDecision) == abi::kDriverSymbolCount);

int NotReady() { return CUDA_ERROR_SYSTEM_NOT_READY; }
int NotFound() { return CUDA_ERROR_NOT_FOUND; }

bool IsShim(const Module& module) noexcept {
  const char* soname = SonameOf(module);
  return soname != nullptr && strcmp(soname, kShimName) == 0;
}

Module LoadedShim() noexcept {
  return FindModule([](const Module& m) { return IsShim(m); });
}

// LIBDIR/libdivvy.so for this file at LIBDIR/libcuda-forward/libcuda.so.1.
bool BesideUs(char (&out)[4096]) noexcept {
  const char* path = OwnModule().path;
  const size_t length = path != nullptr ? strlen(path) : 0;
  if (length == 0 || length + sizeof(kShimName) >= sizeof(out)) return false;
  memcpy(out, path, length + 1);
  for (int up = 0; up < 2; ++up) {
    char* slash = strrchr(out, '/');
    if (slash == nullptr) return false;
    *slash = 0;
  }
  strcat(out, "/");
  strcat(out, kShimName);
  return true;
}

Module Shim() noexcept {
  if (Module m = LoadedShim()) return m;
  auto* open = reinterpret_cast<void* (*)(const char*, int)>(CLibraryFunction("dlopen"));
  if (open == nullptr) return {};
  char beside[4096];
  if (open(kShimInTenant, kNow | kNoDelete) == nullptr && BesideUs(beside))
    open(beside, kNow | kNoDelete);
  return LoadedShim();
}

// The real driver is a dependency, so it is loaded; it is the object that defines the driver's
// functions and is neither us nor the shim.
void* RealFunction(const char* name) noexcept {
  void* found = nullptr;
  FindModule([&](const Module& m) {
    if (m.start == OwnModule().start || IsShim(m) || Defined(m, "cuGetExportTable") == nullptr)
      return false;
    found = Defined(m, name);
    return found != nullptr;
  });
  return found;
}

}  // namespace
}  // namespace divvy::shim

extern "C" __attribute__((visibility("hidden"))) void* divvy_forward_resolve(unsigned index) {
  using namespace divvy;
  const char* name = abi::driver_name(static_cast<abi::DriverSymbol>(index));
  if (shim::kDecision[index] == shim::Decision::PASS) {
    void* real = shim::RealFunction(name);
    return real != nullptr ? real : reinterpret_cast<void*>(&shim::NotFound);
  }
  void* hook = shim::Defined(shim::Shim(), name);
  return hook != nullptr ? hook : reinterpret_cast<void*>(&shim::NotReady);
}
