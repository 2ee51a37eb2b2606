#!/usr/bin/env python3
"""Writes every generated file from the tables under api/, or verifies that they are up to date.

Run as `make gen` and, with --verify, by CI. Standard library only; the same input gives the same bytes.
Exit status: 0 done or equal, 1 something differs or a table is wrong.
"""

import argparse
import pathlib
import sys

import emit_abi
import emit_docs
import emit_metrics
import emit_shim
import emit_sim
import table

EMITTERS = (emit_abi, emit_shim, emit_sim, emit_docs, emit_metrics)


def outputs(root):
    tables = table.load(root)
    files = {}
    for emitter in EMITTERS:
        files.update(emitter.emit(tables))
    return files


def stray(root, files):
    """Files in a generated folder that no emitter writes any more."""
    found = {str(p.relative_to(root)) for p in root.glob("src/*/generated/*") if p.is_file()}
    return sorted(found - set(files))


def verify(root, files):
    bad = []
    for name, text in files.items():
        path = root / name
        if not path.exists():
            bad.append(f"{name} is missing")
        elif path.read_bytes() != text.encode():
            bad.append(f"{name} differs from what the tables say")
    bad += [f"{name} is written by no emitter" for name in stray(root, files)]
    for line in bad:
        print(f"gen: {line}", file=sys.stderr)
    if bad:
        print("gen: run `make gen` and commit the result", file=sys.stderr)
    return 1 if bad else 0


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != text.encode():
            path.write_bytes(text.encode())
            print(f"gen: wrote {name}")
    for name in stray(root, files):
        (root / name).unlink()
        print(f"gen: removed {name}")
    return 0


def main():
    here = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verify", action="store_true", help="compare byte for byte, write nothing")
    parser.add_argument("--root", type=pathlib.Path, default=here, help="the source tree (for tests)")
    args = parser.parse_args()
    try:
        files = outputs(args.root)
    except (table.TableError, OSError, ValueError) as error:
        print(f"gen: {error}", file=sys.stderr)
        return 1
    return (verify if args.verify else write)(args.root, files)


if __name__ == "__main__":
    sys.exit(main())
