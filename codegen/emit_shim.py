"""Writes src/shim/generated: the hooks' declarations, their generic bodies, look-up, exports, forwarding."""

from text import banner, numbers, version_script

HOOKS_HELP = """Declarations of every hook, cu* and nvml*: the shim defines each once, by hand or by a macro of
bodies.inc. Hidden symbols; exports.cc gives them the driver's names. No exception leaves a hook."""

LIST_HELP = """Every hooked function of the driver, one row each:
DIVVY_HOOK(symbol, return type, (parameters), (arguments))"""

BODIES_HELP = """The hooks whose body follows from the table; define the macros you want before including this:
DIVVY_HOOK_SUBMIT(symbol, CLASS, (parameters), (arguments), stream, bytes)    GPU work, does not block
DIVVY_HOOK_BLOCKING(symbol, CLASS, (parameters), (arguments), stream, bytes)  GPU work, may block the caller
DIVVY_HOOK_SYNC(symbol, CLASS, (parameters), (arguments), stream)             waits for or asks the device
DIVVY_HOOK_ORDER(symbol, CLASS, (parameters), (arguments), stream)            may hold its stream back
DIVVY_HOOK_GUARD(symbol, CLASS, (parameters), (arguments), allowed)           names devices
DIVVY_HOOK_MEASURE(symbol, CLASS, (parameters), (arguments))                  takes memory of unknown size
DIVVY_HOOK_DENY(symbol, return type, (parameters), (arguments), code)         is refused to tenants
`stream` is an expression of the parameters, with the default stream of the variant spelled out, or nullptr
where the call names none; `bytes` uses copy_bytes(descriptor) and batch_bytes(list, count), `allowed` uses
device_allowed(CUdevice) and device_allowed(CUmemLocation), which the includer provides. Hooks with a hand
written body are not listed."""


def stream_expression(f):
    default = "CU_STREAM_LEGACY" if f.variant == "legacy" else "CU_STREAM_PER_THREAD"
    word, _, name = f.device.partition(":")
    if word == "stream":
        return f"({name} ? {name} : {default})"
    return default if word == "current" and f.body in ("submit", "blocking") else "nullptr"


def allowed_expression(f):
    word, _, names = f.device.partition(":")
    if word not in ("arg", "location"):
        raise ValueError(f"{f.symbol}: a guard needs a device rule arg: or location:")
    return " && ".join(f"device_allowed({name})" for name in names.split(","))


def body_row(f):
    head = f"{f.symbol}, {f.klass.upper()}, {f.param_list()}, {f.arg_list()}"
    if f.decision == "deny":
        return f"DIVVY_HOOK_DENY({f.symbol}, {f.returns}, {f.param_list()}, {f.arg_list()}, {f.deny_code})"
    if f.body in ("submit", "blocking"):
        return f"DIVVY_HOOK_{f.body.upper()}({head}, {stream_expression(f)}, ({f.bytes}))"
    if f.body in ("sync", "order"):
        return f"DIVVY_HOOK_{f.body.upper()}({head}, {stream_expression(f)})"
    if f.body == "guard":
        return f"DIVVY_HOOK_GUARD({head}, ({allowed_expression(f)}))"
    return f"DIVVY_HOOK_MEASURE({head})"


def bodies(functions):
    text = banner(BODIES_HELP, source="api/")
    macros = [f"DIVVY_HOOK_{m}" for m in ("SUBMIT", "BLOCKING", "SYNC", "ORDER", "GUARD", "MEASURE", "DENY")]
    for macro in macros:
        text += f"#ifndef {macro}\n#define {macro}(...)\n#endif\n"
    text += "".join(body_row(f) + "\n" for f in functions if f.decision == "deny" or f.body not in ("-", "hand"))
    return text + "".join(f"#undef {macro}\n" for macro in macros)


def declarations(cuda, nvml):
    text = banner(HOOKS_HELP, source="api/") + '''#pragma once

#include "src/abi/cuda.h"
#include "src/abi/nvml.h"

namespace divvy::shim {

'''
    for f in cuda + nvml:
        text += f"{f.returns} hook_{f.symbol}{f.param_list()} noexcept;\n"
    return text + "\n}  // namespace divvy::shim\n"


def rows(functions, macro, help_text, source):
    text = banner(help_text, source=source)
    for f in functions:
        text += f"{macro}({f.symbol}, {f.returns}, {f.param_list()}, {f.arg_list()})\n"
    return text


def exports(cuda, nvml):
    text = banner("The exported functions: each is one jump to its hook. Part of libdivvy.so only, so that\n"
                  "tests can link the hooks beside another driver.", source="api/")
    text += '''#include "src/shim/generated/hook_table.h"
#include "src/shim/generated/hooks.h"

#define DIVVY_EXPORT extern "C" __attribute__((visibility("default")))

'''
    for f in cuda + nvml:
        text += (f"DIVVY_EXPORT {f.returns} {f.symbol}{f.param_list()} {{\n"
                 f"  return divvy::shim::hook_{f.symbol}{f.arg_list()};\n}}\n")
    return text


def hook_table(cuda, nvml):
    header = banner("From a function of the driver or of NVML to its hook: by position in abi::DriverSymbol or\n"
                    "abi::NvmlSymbol, and by name. Null where the function is passed on untouched.", source="api/")
    header += f'''#pragma once

#include "src/abi/generated/driver_fns.h"
#include "src/abi/generated/nvml_fns.h"

namespace divvy::shim {{

using AnyFunction = void (*)();

struct HookEntry {{
  std::uint16_t symbol;  // position in abi::DriverSymbol or abi::NvmlSymbol
  AnyFunction hook;
}};

inline constexpr unsigned kDriverHookCount = {len(cuda)};
inline constexpr unsigned kNvmlHookCount = {len(nvml)};
extern const HookEntry kDriverHooks[kDriverHookCount];
extern const HookEntry kNvmlHooks[kNvmlHookCount];

// For each symbol its place in the table of hooks plus one, or 0.
extern const std::uint16_t kDriverHookOf[abi::kDriverSymbolCount];
extern const std::uint16_t kNvmlHookOf[abi::kNvmlSymbolCount];

inline AnyFunction driver_hook(abi::DriverSymbol symbol) {{
  const unsigned place = kDriverHookOf[static_cast<unsigned>(symbol)];
  return place ? kDriverHooks[place - 1].hook : nullptr;
}}
inline AnyFunction nvml_hook(abi::NvmlSymbol symbol) {{
  const unsigned place = kNvmlHookOf[static_cast<unsigned>(symbol)];
  return place ? kNvmlHooks[place - 1].hook : nullptr;
}}
inline AnyFunction driver_hook(const char* name) {{
  const int at = abi::find_driver_symbol(name);
  return at < 0 ? nullptr : driver_hook(static_cast<abi::DriverSymbol>(at));
}}
inline AnyFunction nvml_hook(const char* name) {{
  const int at = abi::find_nvml_symbol(name);
  return at < 0 ? nullptr : nvml_hook(static_cast<abi::NvmlSymbol>(at));
}}

}}  // namespace divvy::shim
'''
    source = banner("See hook_table.h.", source="api/") + '''#include "src/shim/generated/hook_table.h"

#include "src/shim/generated/hooks.h"

namespace divvy::shim {

'''
    return header, source


def hook_arrays(prefix, hooked, all_functions):
    text = f"const HookEntry k{prefix}Hooks[k{prefix}HookCount] = {{\n"
    for f in hooked:
        text += f"    {{{f.index}, reinterpret_cast<AnyFunction>(&hook_{f.symbol})}},\n"
    places = {f.index: place + 1 for place, f in enumerate(hooked)}
    text += f"}};\n\nconst std::uint16_t k{prefix}HookOf[abi::k{prefix}SymbolCount] = {{\n"
    return text + numbers([places.get(f.index, 0) for f in all_functions]) + "};\n\n"


def forward(functions):
    text = banner("Every function of the driver, one row each, for the forwarding libcuda.so.1: DIVVY_FORWARD(index,\n"
                  "symbol). Read by the C preprocessor in an assembler file.")
    text += f"#define DIVVY_FORWARD_SLOTS {len(functions)}\n"
    return text + "".join(f"DIVVY_FORWARD({f.index}, {f.symbol})\n" for f in functions)


def emit(tables):
    at = "src/shim/generated/"
    cuda = [f for f in tables.cuda if f.decision != "pass"]
    nvml = [f for f in tables.nvml if f.decision != "pass"]
    header, source = hook_table(cuda, nvml)
    source += hook_arrays("Driver", cuda, tables.cuda) + hook_arrays("Nvml", nvml, tables.nvml)
    source += "}  // namespace divvy::shim\n"
    names = [f.symbol for f in cuda + nvml] + [row["symbol"] for row in tables.libc]
    return {
        at + "hooks.h": declarations(cuda, nvml),
        at + "hooks.inc": rows([f for f in cuda if f.decision == "hook"], "DIVVY_HOOK", LIST_HELP,
                               "api/cuda/driver.tsv"),
        at + "nvml_hooks.inc": rows([f for f in nvml if f.decision == "hook"], "DIVVY_NVML_HOOK",
                                    LIST_HELP.replace("DIVVY_HOOK", "DIVVY_NVML_HOOK").replace(
                                        "of the driver", "of NVML"), "api/nvml/nvml.tsv"),
        at + "bodies.inc": bodies(cuda + nvml),
        at + "hook_table.h": header,
        at + "hook_table.cc": source,
        at + "exports.cc": exports(cuda, nvml),
        at + "exports.map": version_script(sorted(names), "All that libdivvy.so exports: hooks, nothing else."),
        at + "forward.inc": forward(tables.cuda),
        at + "forward_exports.map": version_script(
            sorted({f.symbol for f in tables.cuda} | {"divvy_forwarder"}),
            "What the forwarding libcuda.so.1 exports: the whole driver API and the mark by which it is known."),
    }
