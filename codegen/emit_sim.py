"""Writes src/sim/generated: what the simulated driver and NVML declare, default to, and export."""

from text import banner, version_script

HELP = """The simulator's implementations: divvy::sim::sim_X is what the exported X does. A function that nobody
defines falls to a weak default that counts the call and says CUDA_ERROR_NOT_SUPPORTED. A variant
for per-thread default streams runs its base function with the meaning of a null stream changed."""


def header(functions, prefix, include, returns, what, source):
    text = banner(what, source=source) + f'''#pragma once

#include "{include}"

namespace divvy::sim {{

// Provided by the simulator: called at the start of every exported function, and by the defaults.
void enter(abi::{prefix}Symbol symbol) noexcept;
{returns} not_supported(abi::{prefix}Symbol symbol) noexcept;

// The exported functions, in the order of abi::{prefix}Symbol: what look-up by name answers with.
using AnyFunction = void (*)();
extern const AnyFunction k{prefix}Exports[abi::k{prefix}SymbolCount];

'''
    for f in functions:
        text += f"{f.returns} sim_{f.symbol}{f.param_list()};\n"
    return text + "\n}  // namespace divvy::sim\n"


def defaults(functions, prefix, own_header, source):
    text = banner("Weak defaults: a function that the simulator does not implement says so and is counted.",
                  source=source)
    if prefix == "Driver":
        text += '#include "src/sim/client/per_thread.h"\n'
    text += f'#include "{own_header}"\n\n#define DIVVY_DEFAULT __attribute__((weak))\n\nnamespace divvy::sim {{\n\n'
    known = {f.symbol for f in functions}
    for f in functions:
        if f.symbol.endswith(("_ptsz", "_ptds")) and f.symbol[:-5] in known:
            text += (f"DIVVY_DEFAULT {f.returns} sim_{f.symbol}{f.param_list()} {{\n"
                     f"  PerThreadDefault scope;\n  return sim_{f.symbol[:-5]}{f.arg_list()};\n}}\n")
            continue
        types = "(" + ", ".join(p.type for p in f.params) + ")"
        answer = f"return not_supported(abi::{prefix}Symbol::{f.symbol});"
        if f.returns == "const char*":
            answer = 'return "";'
        text += f"DIVVY_DEFAULT {f.returns} sim_{f.symbol}{types} {{ {answer} }}\n"
    return text + "\n}  // namespace divvy::sim\n"


def exports(functions, prefix, own_header, source):
    text = banner("The exported functions: count, then call the implementation.", source=source)
    text += f'''#include "{own_header}"

#define DIVVY_EXPORT extern "C" __attribute__((visibility("default")))

'''
    for f in functions:
        text += (f"DIVVY_EXPORT {f.returns} {f.symbol}{f.param_list()} {{\n"
                 f"  divvy::sim::enter(divvy::abi::{prefix}Symbol::{f.symbol});\n"
                 f"  return divvy::sim::sim_{f.symbol}{f.arg_list()};\n}}\n")
    text += f"\nnamespace divvy::sim {{\n\nconst AnyFunction k{prefix}Exports[abi::k{prefix}SymbolCount] = {{\n"
    text += "".join(f"    reinterpret_cast<AnyFunction>(&::{f.symbol}),\n" for f in functions)
    return text + "};\n\n}  // namespace divvy::sim\n"


def emit(tables):
    at = "src/sim/generated/"
    out = {}
    for functions, prefix, low, returns, source, why in (
            (tables.cuda, "Driver", "driver", "CUresult", "api/cuda/driver.tsv",
             "All that the simulated libcuda.so.1 exports. No symbol versions, as in the real one."),
            (tables.nvml, "Nvml", "nvml", "nvmlReturn_t", "api/nvml/nvml.tsv",
             "All that the simulated libnvidia-ml.so.1 exports.")):
        own = f"{at}{low}_functions.h"
        what = HELP if prefix == "Driver" else HELP.replace("CUDA_ERROR", "NVML_ERROR")
        out[own] = header(functions, prefix, f"src/abi/generated/{low}_fns.h", returns, what, source)
        out[f"{at}{low}_defaults.cc"] = defaults(functions, prefix, own, source)
        out[f"{at}{low}_exports.cc"] = exports(functions, prefix, own, source)
        out[f"{at}{low}_exports.map"] = version_script([f.symbol for f in functions], why)
    return out
