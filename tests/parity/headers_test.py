#!/usr/bin/env python3
"""Holds api/ and src/abi to NVIDIA's own headers, where PyPI serves them: every function's name, version,
variant and signature, the size and alignment of every structure, the offset of every member, the value of
every constant. Compiles one program twice, against our declarations and against theirs, and compares what
the two print.
"""

import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "codegen"), str(pathlib.Path(__file__).resolve().parent)]
import fetch  # noqa: E402
import table  # noqa: E402
import typedefs  # noqa: E402

CUDA_VERSION = "13.0.96"  # The release that the table describes.
OLDER_CUDA = ("nvidia-cuda-runtime-cu12", "12.9.79")  # Must hold nothing that the table lacks.
NVML_VERSION = "13.5.37"
ELSEWHERE = re.compile(r"CU_OUT_|NVML_VALUE_NOT_AVAILABLE_ULL")  # Of cudaProfiler.h, not in that wheel; our own name.


def check_functions(folder, complete):
    functions = table.load_cuda(ROOT)
    ours = {(f.api, f.version, f.variant): f for f in functions}
    theirs = typedefs.read([folder / "cudaTypedefs.h", folder / "cudaProfilerTypedefs.h"])
    if len(theirs) < 500:
        return [f"only {len(theirs)} typedefs were read from {folder}"]
    bad = [f"the table lacks {key}" for key in sorted(set(theirs) - set(ours))]
    if complete:
        bad += [f"the headers lack {key}" for key in sorted(set(ours) - set(theirs))]
    for key in sorted(set(theirs) & set(ours)):
        f, entry = ours[key], theirs[key]
        if (f.returns, tuple(p.type for p in f.params)) != (entry.returns, entry.types):
            bad.append(f"{f.symbol}: the headers say ({entry.signature})")
    return bad


def declarations(folder):
    """{structure: member names}, constant names, as our headers declare them."""
    structs, constants = {}, []
    for path in sorted((ROOT / "src/abi" / folder).glob("*.h")):
        text = re.sub(r"//.*", "", path.read_text())
        constants += re.findall(r"^inline constexpr [\w ]+? (\w+) =", text, re.M)
        for body in re.findall(r"^enum \w+ : [\w ]+\{(.*?)^\};", text, re.S | re.M):
            constants += re.findall(r"^\s*(\w+) =", body, re.M)
        for name, body in re.findall(r"^(?:struct|union) (\w+) \{(.*?)^\};", text, re.S | re.M):
            while "{" in body:  # a nameless union's members are the outer structure's own
                body = re.sub(r"(?:struct|union) (?:\w+ )?\{([^{}]*)\}(\s*;)?",
                              lambda m: m.group(1) if m.group(2) else "", body)
            structs[name] = re.findall(r"(\w+)\s*(?:\[[^;]*\])*;", body)
    return structs, [c for c in constants if not ELSEWHERE.match(c)]


def program(include, structs, constants, prelude=""):
    lines = [prelude, "#include <cstddef>", "#include <cstdio>", f'#include "{include}"', "int main() {"]
    for name, members in structs.items():
        lines.append(f'  printf("size of {name} %zu, alignment %zu\\n", sizeof({name}), alignof({name}));')
        lines += [f'  printf("offset of {name}.{m} %zu\\n", offsetof({name}, {m}));' for m in members]
    lines += [f'  printf("value of {c} %lld\\n", (long long)({c}));' for c in constants]
    return "\n".join(lines + ["}", ""])


def figures(work, tag, source, include_folder):
    path = work / f"{tag}.cc"
    path.write_text(source)
    compiler = shutil.which("c++") or fetch.skip("no C++ compiler")
    command = [compiler, "-std=c++20", "-w", "-O0", f"-I{include_folder}", str(path), "-o", str(work / tag)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"{tag}: does not compile\n{result.stderr[:4000]}")
    return subprocess.run([str(work / tag)], capture_output=True, text=True, check=True).stdout.splitlines()


def check_layout(folder, include, their_include, their_folder, prelude=""):
    structs, constants = declarations(folder)
    if len(structs) < 20 or len(constants) < 50:
        return [f"src/abi/{folder}: only {len(structs)} structures and {len(constants)} constants were read"]
    work = fetch.folder("layout")
    ours = figures(work, f"{folder}_ours", program(include, structs, constants), ROOT)
    theirs = figures(work, f"{folder}_theirs", program(their_include, structs, constants, prelude), their_folder)
    print(f"{folder}: {len(structs)} structures, {len(constants)} constants, {len(ours)} figures compared")
    return [f"ours: {a}; theirs: {b}" for a, b in zip(ours, theirs, strict=True) if a != b]


def main():
    cuda = fetch.header_folder("nvidia-cuda-runtime", CUDA_VERSION, "cudaTypedefs.h")
    bad = check_functions(cuda, complete=True)
    bad += check_layout("cuda", "src/abi/cuda.h", "cuda.h", cuda,
                        "#define __CUDA_API_VERSION_INTERNAL")
    bad += check_functions(fetch.header_folder(*OLDER_CUDA, "cudaTypedefs.h"), complete=False)
    nvml = fetch.header_folder("nvidia-nvml-dev", NVML_VERSION, "nvml.h")
    bad += check_layout("nvml", "src/abi/nvml.h", "nvml.h", nvml)
    for line in bad:
        print(line)
    print(f"{len(bad)} differences")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
