// See resolve.h. The versions stand in generated/driver_versions.h.
#include "src/abi/resolve.h"

#include "src/abi/generated/driver_versions.h"

namespace divvy::abi {

Resolution resolve_driver_function(const char* name, int version, std::uint64_t flags) {
  const int api =
      find_name(name, kDriverApiSlots, kDriverApiSlotCount, kDriverApiText, kDriverApiAt);
  if (api < 0) return {std::nullopt, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND};
  const bool per_thread = flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
  std::optional<DriverSymbol> legacy, stream;
  for (unsigned row = kDriverApiStart[api]; row < kDriverApiStart[api + 1]; ++row) {
    if (kDriverVersions[row].version > version) break;
    (kDriverVersions[row].per_thread ? stream : legacy) = kDriverVersions[row].symbol;
  }
  if (per_thread && stream) return {stream, CU_GET_PROC_ADDRESS_SUCCESS};
  if (legacy) return {legacy, CU_GET_PROC_ADDRESS_SUCCESS};
  return {std::nullopt, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT};
}

}  // namespace divvy::abi
