#!/usr/bin/env python3
"""Counts the instructions that the shim adds to a call and holds them to the budgets.

Instructions do not depend on how busy the machine is. Runs build/test/shim_guard once under callgrind.
"""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

CALLS = 1000
# What is measured, the loop it is compared with, how many instructions it may add.
BUDGETS = [
    ("launch hooked", "launch native", 16, "a launch through a lone open gate"),
    ("launch contended", "launch native", 700, "a launch while others contend, markers included"),
    ("forwarded hooked", "forwarded native", 8, "a call that is only passed on"),
    ("alloc hooked", "alloc native", 850, "allocation and free"),
]
# However many allocations live: a fuller table's walks are a few entries longer, no more.
SAME = ("alloc hooked 100k", "alloc hooked", 150)


def main():
    guard = os.path.join(os.environ.get("DIVVY_BUILD_DIR", "build"), "test/shim_guard")
    if not shutil.which("valgrind") or not os.path.exists(guard):
        print("skipped: valgrind is not installed")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out")
        done = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", guard],
                              capture_output=True, text=True)
        if done.returncode != 0:
            print(done.stdout, done.stderr, sep="\n")
            return 1
        counts = {}
        for dump in glob.glob(out + "*"):
            with open(dump) as f:
                text = f.read()
            name = re.search(r"desc: Trigger: Client Request: (.*)", text)
            total = re.search(r"^totals: (\d+)", text, re.M)
            if name and total:
                counts[name.group(1).strip()] = int(total.group(1))
    failed = False
    for hooked, native, budget, what in BUDGETS:
        added = (counts[hooked] - counts[native]) / CALLS
        print(f"{what}: {added:.1f} instructions added, {budget} allowed")
        failed |= added > budget
    many, few, most = SAME
    more = (counts[many] - counts[few]) / CALLS
    print(f"at 100,000 live allocations: {more:+.1f} instructions, {most} allowed")
    failed |= more > most
    return failed


if __name__ == "__main__":
    sys.exit(main())
