#!/usr/bin/env python3
"""Holds src/ to the levels of ARCHITECTURE.md.

A file may include from its own folder and from the folders that LEVELS lists for it. src/sim and
src/shim must share no code beyond the facts in src/abi. Exit status 1 names each include that
breaks the rule. `--selftest` checks that the check can fail.
"""
import os
import re
import sys

# folder -> folders it may include
LEVELS = {
    "base": set(),
    "abi": set(),
    "region": {"base"},
    "device": {"base", "abi"},
    "arbiter": {"base"},
    "placement": {"base"},
    "shim": {"abi", "region"},
    "sim": {"base", "abi"},
    "daemon": {"base", "abi", "region", "device", "arbiter"},
    "hook": {"base", "region"},
    "kube": {"base", "placement", "daemon"},
    "cli": {"base", "abi", "region", "device", "arbiter", "placement"},
}
# Header-only parts that neither throw nor allocate, and what the words in a lane mean; the shim may
# use these alone.
SHIM_HEADERS = {"src/base/units.h", "src/arbiter/progress.h"}
INCLUDE = re.compile(r'^\s*#\s*include\s+"(src/[^"]+)"')


def violations(path, lines):
    parts = path.split("/")
    if len(parts) < 3 or parts[0] != "src":
        return []
    folder = parts[1]
    if folder not in LEVELS:
        return [f"{path}: folder src/{folder} has no level: add it to tools/check_layers.py"]
    found = []
    for number, line in enumerate(lines, 1):
        m = INCLUDE.match(line)
        if not m:
            continue
        target = m.group(1).split("/")[1]
        if target == folder or target in LEVELS[folder]:
            continue
        if folder == "shim" and m.group(1) in SHIM_HEADERS:
            continue
        found.append(f"{path}:{number}: src/{folder} must not include {m.group(1)}")
    return found


def selftest():
    bad = violations("src/arbiter/x.cc", ['#include "src/daemon/y.h"\n'])
    good = violations("src/daemon/x.cc", ['#include "src/arbiter/y.h"\n', "#include <vector>\n"])
    if len(bad) != 1 or good:
        print("check_layers: selftest failed")
        return 1
    return 0


def main():
    if selftest():
        return 1
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    found, files = [], 0
    for base, _, names in os.walk(os.path.join(root, "src")):
        for name in sorted(names):
            if name.endswith((".h", ".cc", ".inc", ".S")):
                full = os.path.join(base, name)
                rel = os.path.relpath(full, root)
                with open(full, encoding="utf-8") as f:
                    found += violations(rel, f)
                files += 1
    print("\n".join(found) if found else f"check_layers: {files} files, every include allowed")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
