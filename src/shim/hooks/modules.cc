// Modules and libraries: the variables that their image declares are charged before it is loaded
// and credited when it is unloaded. What cannot be read of an image (compressed parts, code) is
// measured by the daemon; a tenant that has nothing left is refused before it takes more of that.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/shim/hooks/hook.h"
#include "src/shim/hooks/measured.h"
#include "src/shim/image_size.h"

namespace divvy::shim {
namespace {

uint64_t FileBytes(const char* name) noexcept {
  if (name == nullptr) return 0;
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

template <typename Load, typename Key>
CUresult LoadCharged(DriverSymbol symbol, uint64_t bytes, const Load& load,
                     const Key& key) noexcept {
  if (ShareUsedUp(symbol)) return CUDA_ERROR_OUT_OF_MEMORY;
  const Here here = CurrentPlace();
  if (bytes == 0 || here.device < 0) return load();
  return TakeCharged(here, Family::kModule, Kind::kContext, region::UnitsOf(bytes), symbol, load,
                     key);
}

}  // namespace

CUresult hook_cuModuleLoad(CUmodule* module, const char* fname) noexcept {
  DIVVY_ENTER(cuModuleLoad, (module, fname));
  return LoadCharged(
      DriverSymbol::cuModuleLoad, FileBytes(fname),
      [&] { return g_driver.cuModuleLoad(module, fname); },
      [&] { return reinterpret_cast<uint64_t>(*module); });
}

CUresult hook_cuModuleLoadData(CUmodule* module, const void* image) noexcept {
  DIVVY_ENTER(cuModuleLoadData, (module, image));
  return LoadCharged(
      DriverSymbol::cuModuleLoadData, ImageBytes(image),
      [&] { return g_driver.cuModuleLoadData(module, image); },
      [&] { return reinterpret_cast<uint64_t>(*module); });
}

CUresult hook_cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned int numOptions,
                                 CUjit_option* options, void** optionValues) noexcept {
  DIVVY_ENTER(cuModuleLoadDataEx, (module, image, numOptions, options, optionValues));
  return LoadCharged(
      DriverSymbol::cuModuleLoadDataEx, ImageBytes(image),
      [&] { return g_driver.cuModuleLoadDataEx(module, image, numOptions, options, optionValues); },
      [&] { return reinterpret_cast<uint64_t>(*module); });
}

CUresult hook_cuModuleLoadFatBinary(CUmodule* module, const void* fatCubin) noexcept {
  DIVVY_ENTER(cuModuleLoadFatBinary, (module, fatCubin));
  return LoadCharged(
      DriverSymbol::cuModuleLoadFatBinary, ImageBytes(fatCubin),
      [&] { return g_driver.cuModuleLoadFatBinary(module, fatCubin); },
      [&] { return reinterpret_cast<uint64_t>(*module); });
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
      DriverSymbol::cuLibraryLoadData, ImageBytes(code),
      [&] {
        return g_driver.cuLibraryLoadData(library, code, jitOptions, jitOptionsValues,
                                          numJitOptions, libraryOptions, libraryOptionValues,
                                          numLibraryOptions);
      },
      [&] { return reinterpret_cast<uint64_t>(*library); });
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
      DriverSymbol::cuLibraryLoadFromFile, FileBytes(fileName),
      [&] {
        return g_driver.cuLibraryLoadFromFile(library, fileName, jitOptions, jitOptionsValues,
                                              numJitOptions, libraryOptions, libraryOptionValues,
                                              numLibraryOptions);
      },
      [&] { return reinterpret_cast<uint64_t>(*library); });
}

CUresult hook_cuLibraryUnload(CUlibrary library) noexcept {
  DIVVY_ENTER(cuLibraryUnload, (library));
  return GiveBack(Family::kModule, reinterpret_cast<uint64_t>(library),
                  [&] { return g_driver.cuLibraryUnload(library); });
}

}  // namespace divvy::shim
