// See resolve.h. The versions stand in generated/driver_versions.h.
#include "src/abi/resolve.h"

#include <algorithm>

#include "src/abi/generated/driver_versions.h"

namespace divvy::abi {

Resolution resolve_driver_function(const char* name, int version, std::uint64_t flags) {
  const int api =
      find_name(name, kDriverApiSlots, kDriverApiSlotCount, kDriverApiText, kDriverApiAt);
  if (api < 0) return {std::nullopt, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND};
  const bool per_thread = flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
  const DriverVersion* const first = kDriverVersions + kDriverApiStart[api];
  const DriverVersion* const last = kDriverVersions + kDriverApiStart[api + 1];
  const bool has_variant =
      std::any_of(first, last, [](const DriverVersion& row) { return row.per_thread; });
  std::optional<DriverSymbol> found;
  for (const DriverVersion* row = first;
       row != last && row->version <= static_cast<unsigned>(version); ++row)
    if (row->per_thread == (per_thread && has_variant)) found = row->symbol;
  if (found) return {found, CU_GET_PROC_ADDRESS_SUCCESS};
  return {std::nullopt, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT};
}

}  // namespace divvy::abi
