#!/usr/bin/env python3
"""Asks Debian's libcuda1 for every function, version and stream flag, and compares with our own rules.

The package is unpacked, never installed; its library loads without a GPU. The asking is done by oracle.cc.
"""

import os
import pathlib
import platform
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import fetch  # noqa: E402


def main():
    if platform.machine() != "x86_64":
        fetch.skip(f"Debian has no libcuda1 for {platform.machine()}")
    oracle = pathlib.Path(os.environ.get("DIVVY_BUILD_DIR", "build")) / "test/parity_oracle"
    if not oracle.exists():
        fetch.skip(f"{oracle} is not built")
    found = sorted(p for p in fetch.debian_package("libcuda1", "non-free").rglob("libcuda.so.*")
                   if not p.is_symlink())
    if not found:
        fetch.skip("the package has no libcuda.so")
    return subprocess.run([str(oracle), str(found[-1])]).returncode


if __name__ == "__main__":
    sys.exit(main())
