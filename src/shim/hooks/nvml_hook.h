// First line of an NVML hook; see hook.h. A tenant without its region is told that it may not look.
#pragma once

#include "src/shim/driver.h"
#include "src/shim/generated/hooks.h"
#include "src/shim/nvml.h"
#include "src/shim/process.h"

#define DIVVY_NVML_ENTER(symbol, arguments)                               \
  EnsureNvml();                                                           \
  if (const Standing standing = Now(); standing != Standing::kActive) {   \
    if (standing == Standing::kNotReady) return NVML_ERROR_NO_PERMISSION; \
    return g_nvml.symbol arguments;                                       \
  }                                                                       \
  static_assert(true, "")
