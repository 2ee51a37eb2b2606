#!/usr/bin/env python3
"""Builds the link-time stand-ins of glibc that our interposer libraries are linked against.

Each symbol gets the newest version <= --max (2.17) that the host's glibc still has, and nothing
newer exists in the stubs: with `-z defs` a reference to a newer function is a link error instead
of a process that cannot start on an older system. A function stands in the library where systems
before glibc 2.34 have it (dlsym in libdl.so.2), because those need the NEEDED entry; from 2.34 on
these libraries are empty but still there. Run by cmake/portable.cmake; stubs are never shipped.

    mkstubs.py --out build/portable                        the five libraries
    mkstubs.py --empty libx.so --soname /abs/libx.so.1     one without symbols, for its NEEDED entry
"""
import argparse
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from elf import Elf, ElfError, glibc_version  # noqa: E402

LIBRARIES = ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"]
# Where a function lived before libc.so.6 took it over, by the start of its name.
FORMER_HOMES = [
    ("libdl.so.2", ("dl",)),
    ("libpthread.so.0", ("pthread_", "__pthread_", "_pthread_", "sem_")),
    ("librt.so.1", ("shm_", "mq_", "__mq_", "aio_", "lio_", "timer_")),
]
# Has a version of 2.34 beside its old one, but always lived in libc.so.6.
ALWAYS_LIBC = {"__libc_start_main"}
MERGED = (2, 34)


def host_library(cc, name):
    path = subprocess.run([cc, f"-print-file-name={name}"], capture_output=True, text=True,
                          check=True).stdout.strip()
    if not os.path.isabs(path):
        raise ElfError(f"{cc} does not find {name}")
    return path


def home(symbol, default):
    """The stub library of a symbol found in the host's libc.so.6; None: leave it out."""
    if symbol in ALWAYS_LIBC or default and default < (2, 18):
        return "libc.so.6"
    for library, prefixes in FORMER_HOMES:
        if symbol.startswith(prefixes):
            return library
    # Merged from a library that we do not stand in for (libutil, libanl, libresolv).
    return None if default == MERGED else "libc.so.6"


def choose(symbols, limit):
    """{name: (version, kind, size)} with the newest version <= limit, and {name: default}."""
    chosen, defaults = {}, {}
    for s in symbols:
        number = glibc_version(s.version)
        if not s.defined or number is None or s.kind not in ("FUNC", "IFUNC", "OBJECT"):
            continue
        if s.name.endswith("_version_placeholder"):  # keeps a version alive, is no function
            continue
        if s.is_default:
            defaults[s.name] = number
        if number <= limit and (s.name not in chosen or
                                glibc_version(chosen[s.name][0]) < number):
            chosen[s.name] = (s.version, s.kind, s.size)
    return chosen, defaults


def plan(read, limit):
    """{library: {symbol: (version, kind, size)}}; read(name) gives an Elf of the host."""
    stubs = {name: {} for name in LIBRARIES}
    for library in LIBRARIES:
        elf = read(library)
        chosen, defaults = choose(elf.symbols, limit)
        for symbol, entry in chosen.items():
            where = home(symbol, defaults.get(symbol)) if library == "libc.so.6" else library
            if where:
                stubs[where].setdefault(symbol, entry)
        if library == "libc.so.6":
            # The loader's own symbols (__tls_get_addr) count as libc's, so that the loader gets
            # no NEEDED entry: under its glibc name it does not exist on musl.
            for loader in (n for n in elf.needed if n.startswith("ld-")):
                for symbol, entry in choose(read(loader).symbols, limit)[0].items():
                    stubs["libc.so.6"].setdefault(symbol, entry)
    return stubs


def link(cc, out, soname, assembly="", script=None):
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "stub.s")
        with open(source, "w") as f:
            f.write(assembly + '\n.section .note.GNU-stack,"",%progbits\n')
        # Under another name first: a build that is cut off leaves no half a stub behind.
        command = [cc, "-shared", "-nostdlib", f"-Wl,-soname,{soname}", "-o", out + ".new", source]
        if script:
            path = os.path.join(folder, "stub.map")
            with open(path, "w") as f:
                f.write(script)
            command.append(f"-Wl,--version-script={path}")
        subprocess.run(command, check=True)
        os.replace(out + ".new", out)


def write_stub(cc, out, soname, symbols):
    text, data, nodes = [], [], {}
    for name, (version, kind, size) in sorted(symbols.items()):
        nodes.setdefault(version, []).append(name)
        if kind == "OBJECT":
            data.append(f".globl {name}\n.type {name},%object\n.size {name},{size}\n{name}:")
        else:
            text.append(f".globl {name}\n.type {name},%function\n{name}:")
    largest = max([size for _, kind, size in symbols.values() if kind == "OBJECT"], default=0)
    assembly = "\n".join([".text", *text, ".byte 0", ".data", *data, f".zero {largest + 1}"])
    script, hide = "", "local: *; "
    for version in sorted(nodes, key=glibc_version):
        script += f"{version} {{ global: {'; '.join(nodes[version])}; {hide}}};\n"
        hide = ""
    link(cc, out, soname, assembly, script or None)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--cc", default="cc")
    p.add_argument("--out", help="folder for the stubs")
    p.add_argument("--max", default="2.17", help="newest glibc version (2.17)")
    p.add_argument("--empty", help="write only this library, without symbols")
    p.add_argument("--soname")
    a = p.parse_args()
    if bool(a.out) == bool(a.empty) or bool(a.empty) != bool(a.soname):
        p.error("give either --out DIR or --empty FILE --soname NAME")
    try:
        if a.empty:
            link(a.cc, a.empty, a.soname)
            return 0
        stubs = plan(lambda name: Elf(host_library(a.cc, name)), glibc_version("GLIBC_" + a.max))
        for library, symbols in stubs.items():
            write_stub(a.cc, os.path.join(a.out, library), library, symbols)
    except (ElfError, OSError, subprocess.CalledProcessError) as e:
        print(f"mkstubs: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
