// Modules and libraries: the variables that their image declares are charged before it is loaded
// and credited when it is unloaded. What cannot be read of an image (compressed parts, code) is
// measured by the daemon; a tenant that has nothing left is refused before it takes more of that.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/shim/cancel.h"
#include "src/shim/hooks/hook.h"
#include "src/shim/hooks/measured.h"
#include "src/shim/image_size.h"

namespace divvy::shim {
namespace {

uint64_t FileBytes(const char* name) noexcept {
  if (name == nullptr) return 0;
  const NoCancellation until_closed;
  const int fd = open(name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;  // the driver will say so
  uint64_t bytes = 0;
  struct stat st;
  const auto size = fstat(fd, &st) == 0 ? static_cast<uint64_t>(st.st_size) : 0;
  if (size != 0) {
    void* const data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data != MAP_FAILED) {
      bytes = ImageBytes(data, size);
      munmap(data, size);
    }
  }
  close(fd);
  return bytes;
}

// What the driver took besides the variables: code, rounded up to its blocks. The difference of the
// device's free memory says it; whatever else it says (others allocate at the same moment) is cut
// off here and corrected by the daemon's measure.
constexpr uint64_t kMostCodeBytes = 16 << 20;

size_t FreeBytes() noexcept {
  const RelaxedCapture relaxed;
  size_t free = 0, total = 0;
  return g_driver.cuMemGetInfo_v2(&free, &total) == CUDA_SUCCESS ? free : 0;
}

// Refused after the fact too, because what a module takes is known only when it is there.
// `variables` were charged under the handle already.
template <typename Handle, typename Unload>
CUresult ChargeCode(DriverSymbol symbol, const Here& here, Handle loaded, uint64_t code_bytes,
                    const Unload& unload) noexcept {
  const auto device = static_cast<unsigned>(here.device);
  const uint64_t units = region::UnitsOf(code_bytes);
  const auto key = reinterpret_cast<uint64_t>(loaded);
  if (units == 0) return CUDA_SUCCESS;
  if (const Verdict v = Charge(device, units, Kind::kContext, symbol); v != Verdict::kGranted) {
    GiveBack(Family::kModule, key, [&] { return unload(loaded); });
    return CodeOf(v);
  }
  const bool known =
      g_process.live.Update(Family::kModule, key, [&](LiveEntry& entry) { entry.units += units; });
  if (!known &&
      !g_process.live.Insert({key, Family::kModule, static_cast<uint8_t>(device),
                              static_cast<uint8_t>(Kind::kContext), 0, here.context, units, 0}))
    Degrade(2);  // stays booked until the process ends
  return CUDA_SUCCESS;
}

// `load` writes `*out`; on a refusal `*out` is what it was.
template <typename Handle, typename Load, typename Unload>
CUresult LoadCharged(DriverSymbol symbol, uint64_t bytes, Handle* out, const Load& load,
                     const Unload& unload) noexcept {
  if (ShareUsedUp(symbol)) return CUDA_ERROR_OUT_OF_MEMORY;
  const Here here = CurrentPlace();
  if (here.device < 0 || out == nullptr) return load();
  const Handle old = *out;
  const size_t before = FreeBytes();
  const auto key = [out] { return reinterpret_cast<uint64_t>(*out); };
  CUresult r = bytes == 0 ? load()
                          : TakeCharged(here, Family::kModule, Kind::kContext,
                                        region::UnitsOf(bytes), symbol, load, key);
  if (r != CUDA_SUCCESS) return r;
  const size_t after = FreeBytes();
  const uint64_t taken = before > after && after != 0 ? before - after : 0;
  // Less than the variables: the driver makes those when they are first used.
  const uint64_t code = taken >= bytes ? taken - bytes : taken;
  r = ChargeCode(symbol, here, *out, code < kMostCodeBytes ? code : kMostCodeBytes, unload);
  if (r != CUDA_SUCCESS) *out = old;
  return r;
}

const auto kUnloadModule = [](CUmodule module) noexcept { return g_driver.cuModuleUnload(module); };
const auto kUnloadLibrary = [](CUlibrary library) noexcept {
  return g_driver.cuLibraryUnload(library);
};

}  // namespace

CUresult hook_cuModuleLoad(CUmodule* module, const char* fname) noexcept {
  DIVVY_ENTER(cuModuleLoad, (module, fname));
  return LoadCharged(
      DriverSymbol::cuModuleLoad, FileBytes(fname), module,
      [&] { return g_driver.cuModuleLoad(module, fname); }, kUnloadModule);
}

CUresult hook_cuModuleLoadData(CUmodule* module, const void* image) noexcept {
  DIVVY_ENTER(cuModuleLoadData, (module, image));
  return LoadCharged(
      DriverSymbol::cuModuleLoadData, ImageBytes(image), module,
      [&] { return g_driver.cuModuleLoadData(module, image); }, kUnloadModule);
}

CUresult hook_cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned int numOptions,
                                 CUjit_option* options, void** optionValues) noexcept {
  DIVVY_ENTER(cuModuleLoadDataEx, (module, image, numOptions, options, optionValues));
  return LoadCharged(
      DriverSymbol::cuModuleLoadDataEx, ImageBytes(image), module,
      [&] { return g_driver.cuModuleLoadDataEx(module, image, numOptions, options, optionValues); },
      kUnloadModule);
}

CUresult hook_cuModuleLoadFatBinary(CUmodule* module, const void* fatCubin) noexcept {
  DIVVY_ENTER(cuModuleLoadFatBinary, (module, fatCubin));
  return LoadCharged(
      DriverSymbol::cuModuleLoadFatBinary, ImageBytes(fatCubin), module,
      [&] { return g_driver.cuModuleLoadFatBinary(module, fatCubin); }, kUnloadModule);
}

CUresult hook_cuModuleUnload(CUmodule hmod) noexcept {
  DIVVY_ENTER(cuModuleUnload, (hmod));
  return GiveBack(Family::kModule, reinterpret_cast<uint64_t>(hmod),
                  [&] { return g_driver.cuModuleUnload(hmod); });
}

CUresult hook_cuLibraryLoadData(CUlibrary* library, const void* code, CUjit_option* jitOptions,
                                void** jitOptionsValues, unsigned int numJitOptions,
                                CUlibraryOption* libraryOptions, void** libraryOptionValues,
                                unsigned int numLibraryOptions) noexcept {
  DIVVY_ENTER(cuLibraryLoadData, (library, code, jitOptions, jitOptionsValues, numJitOptions,
                                  libraryOptions, libraryOptionValues, numLibraryOptions));
  return LoadCharged(
      DriverSymbol::cuLibraryLoadData, ImageBytes(code), library,
      [&] {
        return g_driver.cuLibraryLoadData(library, code, jitOptions, jitOptionsValues,
                                          numJitOptions, libraryOptions, libraryOptionValues,
                                          numLibraryOptions);
      },
      kUnloadLibrary);
}

CUresult hook_cuLibraryLoadFromFile(CUlibrary* library, const char* fileName,
                                    CUjit_option* jitOptions, void** jitOptionsValues,
                                    unsigned int numJitOptions, CUlibraryOption* libraryOptions,
                                    void** libraryOptionValues,
                                    unsigned int numLibraryOptions) noexcept {
  DIVVY_ENTER(cuLibraryLoadFromFile,
              (library, fileName, jitOptions, jitOptionsValues, numJitOptions, libraryOptions,
               libraryOptionValues, numLibraryOptions));
  return LoadCharged(
      DriverSymbol::cuLibraryLoadFromFile, FileBytes(fileName), library,
      [&] {
        return g_driver.cuLibraryLoadFromFile(library, fileName, jitOptions, jitOptionsValues,
                                              numJitOptions, libraryOptions, libraryOptionValues,
                                              numLibraryOptions);
      },
      kUnloadLibrary);
}

CUresult hook_cuLibraryUnload(CUlibrary library) noexcept {
  DIVVY_ENTER(cuLibraryUnload, (library));
  return GiveBack(Family::kModule, reinterpret_cast<uint64_t>(library),
                  [&] { return g_driver.cuLibraryUnload(library); });
}

}  // namespace divvy::shim
