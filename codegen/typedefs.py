#!/usr/bin/env python3
"""Reads NVIDIA's cudaTypedefs.h: name, version, variant and signature of each driver function.

As a program: prints a row for each function of the given headers that api/cuda/driver.tsv does not have, with
the decision left empty, which the generator refuses until someone decides. As a module: the parity tests.
"""

import argparse
import dataclasses
import pathlib
import re
import sys

import table

TYPEDEF = re.compile(r"typedef\s+(\w+)\s*\(\s*(?:CUDAAPI\s*)?\*\s*PFN_(cu\w+?)_v(\d+)(_ptds|_ptsz)?\s*\)\s*\(([^;]*)\)\s*;")


@dataclasses.dataclass(frozen=True)
class Typedef:
    api: str
    version: int
    variant: str
    returns: str
    types: tuple
    signature: str

    def key(self):
        return (self.api, self.version, self.variant)


def normal_signature(text):
    return ", ".join(re.sub(r"\s*(\*+)\s*", r" \1", " ".join(part.split())) for part in text.split(","))


def read(paths):
    found = {}
    for path in paths:
        text = re.sub(r"/\*.*?\*/", " ", pathlib.Path(path).read_text(errors="replace"), flags=re.S)
        for returns, api, version, variant, signature in TYPEDEF.findall(text):
            signature = normal_signature(signature)
            params = table.parse_params(signature)
            entry = Typedef(api, int(version), variant.lstrip("_") or "legacy", returns,
                            tuple(p.type for p in params), signature)
            found[entry.key()] = entry
    return found


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("headers", nargs="+")
    args = parser.parse_args()
    functions = table.load_cuda(root)
    known = {(f.api, f.version, f.variant) for f in functions}
    used = {f.symbol for f in functions}
    for key, entry in sorted(read(args.headers).items()):
        if key in known:
            continue
        suffix = table.VARIANTS[entry.variant]
        symbol, nth = entry.api + suffix, 2
        while symbol in used:
            symbol, nth = f"{entry.api}_v{nth}{suffix}", nth + 1
        used.add(symbol)
        print("\t".join([symbol, entry.api, str(entry.version), entry.variant, "", "-", "", "none", "-",
                         entry.signature]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
