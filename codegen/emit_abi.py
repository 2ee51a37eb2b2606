"""Writes src/abi/generated: the symbols as an enumeration, typed function tables, names and versions."""

from text import banner, hash_slots, name_table, numbers

CUDA_ROWS = """Every function of the driver API, one row each:
DIVVY_CU(index, symbol, "name for cuGetProcAddress", version, VARIANT, DECISION, CLASS)
VARIANT is LEGACY, PTDS or PTSZ; DECISION is PASS, HOOK or DENY."""


def fns_header(functions, prefix, include, what, source):
    names = [f.symbol for f in functions]
    slots = hash_slots(names)
    text = banner(what, source=source)
    text += f'''#pragma once

#include <cstdint>
#include <cstddef>

#include "{include}"
#include "src/abi/name_hash.h"

namespace divvy::abi {{

inline constexpr unsigned k{prefix}SymbolCount = {len(functions)};

enum class {prefix}Symbol : std::uint16_t {{
'''
    text += "".join(f"  {name},\n" for name in names)
    text += f"}};\n\n// A pointer to each function, in the order of {prefix}Symbol.\nstruct {prefix}Fns {{\n"
    text += "".join(f"  {f.returns} (*{f.symbol}){f.param_list()};\n" for f in functions)
    text += f"}};\nstatic_assert(sizeof({prefix}Fns) == k{prefix}SymbolCount * sizeof(void*));\n\n"
    text += name_table(names, prefix)
    text += f'''
inline constexpr std::uint16_t k{prefix}NameSlots[{len(slots)}] = {{
{numbers(slots)}}};

constexpr const char* {prefix.lower()}_name({prefix}Symbol symbol) {{
  return k{prefix}NameText + k{prefix}NameAt[static_cast<unsigned>(symbol)];
}}

// The position of an exported name, or -1. Constant time, no allocation.
constexpr int find_{prefix.lower()}_symbol(const char* name) {{
  return find_name(name, k{prefix}NameSlots, {len(slots)}, k{prefix}NameText, k{prefix}NameAt);
}}

}}  // namespace divvy::abi
'''
    return text


def cuda_rows(functions):
    text = banner(CUDA_ROWS)
    for f in functions:
        text += (f'DIVVY_CU({f.index}, {f.symbol}, "{f.api}", {f.version}, {f.variant.upper()}, '
                 f"{f.decision.upper()}, {f.klass.upper()})\n")
    return text


def nvml_rows(functions):
    text = banner("The NVML functions that Divvy decides about or simulates, one row each:\n"
                  "DIVVY_NVML(index, symbol, DECISION, CLASS)", source="api/nvml/nvml.tsv")
    for f in functions:
        text += f"DIVVY_NVML({f.index}, {f.symbol}, {f.decision.upper()}, {f.klass.upper()})\n"
    return text


def versions(functions):
    """The (name, version, variant) map of cuGetProcAddress, grouped by name, versions rising."""
    by_api = {}
    for f in functions:
        by_api.setdefault(f.api, []).append((f.version, f.variant, f.symbol))
    names = sorted(by_api)
    offsets, text_at, rows, starts = [], 0, [], []
    for name in names:
        offsets.append(text_at)
        text_at += len(name) + 1
        starts.append(len(rows))
        rows += sorted(by_api[name], key=lambda row: row[0])
    starts.append(len(rows))
    slots = hash_slots(names)
    text = banner("What cuGetProcAddress knows: for each name its versions, rising, with the symbol of each.\n"
                  "Read by src/abi/resolve.cc only.")
    text += f'''#pragma once

#include <cstdint>

#include "src/abi/generated/driver_fns.h"

namespace divvy::abi {{

struct DriverVersion {{
  std::uint16_t version;
  bool per_thread;
  DriverSymbol symbol;
}};

inline constexpr DriverVersion kDriverVersions[{len(rows)}] = {{
'''
    for version, variant, symbol in rows:
        text += f"    {{{version}, {'false' if variant == 'legacy' else 'true'}, DriverSymbol::{symbol}}},\n"
    text += f"}};\n\n// Where a name's rows start; one more entry closes the last.\n"
    text += f"inline constexpr std::uint16_t kDriverApiStart[{len(starts)}] = {{\n{numbers(starts)}}};\n\n"
    text += "inline constexpr char kDriverApiText[] =\n"
    text += "".join(f'    "{name}\\0"\n' for name in names) + "    ;\n\n"
    text += f"inline constexpr std::uint16_t kDriverApiAt[{len(names)}] = {{\n{numbers(offsets)}}};\n\n"
    text += f"inline constexpr unsigned kDriverApiSlotCount = {len(slots)};\n"
    text += f"inline constexpr std::uint16_t kDriverApiSlots[kDriverApiSlotCount] = {{\n{numbers(slots)}}};\n\n"
    return text + "}  // namespace divvy::abi\n"


def emit(tables):
    at = "src/abi/generated/"
    return {
        at + "driver_symbols.inc": cuda_rows(tables.cuda),
        at + "driver_fns.h": fns_header(
            tables.cuda, "Driver", "src/abi/cuda.h",
            "The driver API's functions: an index for each, a table of typed pointers, their names.",
            "api/cuda/driver.tsv"),
        at + "driver_versions.h": versions(tables.cuda),
        at + "nvml_symbols.inc": nvml_rows(tables.nvml),
        at + "nvml_fns.h": fns_header(
            tables.nvml, "Nvml", "src/abi/nvml.h",
            "The NVML functions that Divvy calls, hooks or simulates: index, typed pointers, names.",
            "api/nvml/nvml.tsv"),
    }
