#!/usr/bin/env python3
"""Gate: does this shared library load into any process, and give it nothing but its exports?

    check_elf.py LIB.so [--exports FILE] [--needed NAME…] [--max-glibc 2.17] [--size-limit BYTES]
    check_elf.py --selftest

Each broken rule is one line on stdout, exit status 1. --exports names a version script (what
stands between `global:` and `local:`) or a list with one name a line; the exports must be exactly
these, a pattern such as cu* must match at least one. --needed names the NEEDED entries that must
be there beside glibc's own libraries, which may. --selftest builds libraries that break one rule
each and fails unless every one is caught.
"""
import argparse
import fnmatch
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import elf  # noqa: E402

GLIBC = ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"]


def export_patterns(text):
    """The names in a version script's global part, or in a plain list."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"#.*", " ", text)
    if "{" not in text:
        return text.split()
    names = []
    for part in re.findall(r"global:(.*?)(?:local:|\})", text, flags=re.S):
        names += [n for n in re.split(r"[\s;]+", part) if n]
    return names


def check_exports(lib, patterns):
    exported = {s.name for s in lib.symbols if s.defined and s.binding != "LOCAL"}
    matched, found = set(), []
    for pattern in patterns:
        hits = set(fnmatch.filter(exported, pattern))
        if not hits:
            found.append(f"export missing: {pattern}")
        matched |= hits
    return found + [f"export that nobody asked for: {n}" for n in sorted(exported - matched)]


def check_versions(lib, limit):
    found = []
    for file, version in lib.version_needs:
        number = elf.glibc_version(version)
        if number is None or number > limit:
            users = [s.name for s in lib.symbols if not s.defined and s.version == version]
            found.append(f"needs {version} of {file}: {', '.join(sorted(users)) or 'the file itself'}")
    # An import without a version was not bound to a stub: nobody knows how old a system has it.
    for s in lib.symbols:
        if not s.defined and s.binding == "GLOBAL" and s.version is None:
            found.append(f"import without a version: {s.name}")
    return found


def check_needed(lib, needed):
    found = [f"NEEDED missing: {n}" for n in needed if n not in lib.needed]
    return found + [f"NEEDED that nobody asked for: {n}" for n in lib.needed
                    if n not in needed and n not in GLIBC]


def check_shape(lib):
    found = []
    if lib.first(elf.DT_TEXTREL) is not None or (lib.first(elf.DT_FLAGS) or 0) & elf.DF_TEXTREL:
        found.append("text relocations")
    stacks = [flags for kind, flags, *_ in lib.segments if kind == elf.PT_GNU_STACK]
    if not stacks or stacks[0] & elf.PF_X:
        found.append("executable stack")
    for tag, name in ((elf.DT_HASH, "DT_HASH"), (elf.DT_GNU_HASH, "DT_GNU_HASH")):
        if lib.first(tag) is None:
            found.append(f"no {name}: some loaders find no symbols")
    if lib.first(elf.DT_RPATH) is not None or lib.first(elf.DT_RUNPATH) is not None:
        found.append("has an RPATH or RUNPATH")
    for s in lib.symbols:
        if s.binding == "UNIQUE":
            found.append(f"unique symbol (the library could never be unloaded): {s.name}")
    return found


def check(path, patterns, needed, limit, size_limit):
    lib = elf.Elf(path)
    found = check_versions(lib, limit) + check_needed(lib, needed) + check_shape(lib)
    if patterns is not None:
        found += check_exports(lib, patterns)
    size = os.path.getsize(path)
    if size_limit and size > size_limit:
        found.append(f"{size} bytes, {size_limit} allowed")
    return found


def selftest():
    """One good library and one for each rule; what is reported must contain the words given."""
    base = "int hello(void) { return 1; }"
    newer = "int getrandom(void*, long, int); int hello(void) { return getrandom(0, 0, 0); }"
    textrel = '.text\n.globl hello\n.type hello,@function\nhello: .quad hello\n' \
              '.section .note.GNU-stack,"",@progbits'
    cases = [  # (what, source, language, extra flags, size limit, expected or None)
        ("good", base, "c", [], 0, None),
        ("version", newer, "c", ["-lc"], 0, "needs GLIBC_2.25 of libc.so.6: getrandom"),
        ("no version", newer, "c", [], 0, "import without a version: getrandom"),
        ("exports", base + "int more;", "c", [], 0, "export that nobody asked for: more"),
        ("missing", "int other;", "c", [], 0, "export missing: hello"),
        ("needed", base, "c", ["-Wl,--no-as-needed", "-lstdc++"], 0,
         "NEEDED that nobody asked for: libstdc++.so.6"),
        ("size", base, "c", [], 100, "100 allowed"),
        ("textrel", textrel, "assembler", ["-Wl,-z,notext"], 0, "text relocations"),
        ("stack", base, "c", ["-Wl,-z,execstack"], 0, "executable stack"),
        ("hash", base, "c", ["-Wl,--hash-style=gnu"], 0, "no DT_HASH"),
        ("rpath", base, "c", ["-Wl,-rpath,/opt"], 0, "RPATH"),
        ("unique", '.globl hello\n.type hello,@gnu_unique_object\n.data\nhello: .quad 1\n'
         '.section .note.GNU-stack,"",@progbits', "assembler", [], 0, "unique symbol"),
    ]
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for what, source, language, flags, size_limit, expected in cases:
            path = os.path.join(folder, "t.so")
            subprocess.run(["cc", "-shared", "-fPIC", "-w", "-nostdlib", "-Wl,--hash-style=both",
                            "-x", language, "-", "-x", "none", "-o", path, *flags],
                           input=source, text=True, check=True)
            found = check(path, ["hello"], [], (2, 17), size_limit)
            if (expected is None and found) or \
               (expected is not None and not any(expected in f for f in found)):
                wrong.append(f"{what}: expected {expected!r}, found {found}")
        found = check(path, None, ["/abs/libcuda.so.1"], (2, 17), 0)
        if "NEEDED missing: /abs/libcuda.so.1" not in found:
            wrong.append(f"missing NEEDED: found {found}")
    script = "/* x: */ { global: # a list\n a; b*;\n c; local: *; };"
    if export_patterns(script) != ["a", "b*", "c"] or export_patterns("a # x\nb") != ["a", "b"]:
        wrong.append("export lists are misread")
    for line in wrong:
        print(line)
    print("selftest: " + ("failed" if wrong else f"ok, {len(cases) + 2} cases"))
    return 1 if wrong else 0


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("library", nargs="?")
    p.add_argument("--exports")
    p.add_argument("--needed", nargs="*", default=[])
    p.add_argument("--max-glibc", default="2.17")
    p.add_argument("--size-limit", type=int, default=0)
    p.add_argument("--selftest", action="store_true")
    a = p.parse_args()
    if a.selftest:
        return selftest()
    limit = elf.glibc_version("GLIBC_" + a.max_glibc)
    if not a.library or limit is None:
        p.error("needs a library and a version like 2.17")
    try:
        patterns = None
        if a.exports:
            with open(a.exports, encoding="utf-8") as f:
                patterns = export_patterns(f.read())
        found = check(a.library, patterns, a.needed, limit, a.size_limit)
    except (elf.ElfError, OSError) as e:
        found = [str(e)]
    for line in found:
        print(f"{a.library}: {line}")
    if not found:
        print(f"{a.library}: ok, {os.path.getsize(a.library)} bytes")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
