#!/usr/bin/env python3
"""What the shim adds to a process's start: system calls from exec to the end of cuInit, and that
neither they nor the instructions grow with the number of processes that start together.

The same program natively, as a cooperative tenant and, as root, in a mount namespace; the driver by
the same path each time, so that the loader's search is the same."""
import os
import subprocess
import sys

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "daemon"))
from harness import BUILD, GIB, Machine  # noqa: E402

COUNT = f"{BUILD}/test/count_calls"
PROBE = [f"{BUILD}/test/start_probe", f"{BUILD}/lib/sim/libcuda.so.1"]
BUDGET, ROOT_BUDGET, TOGETHER = 25, 34, 16


def start(env, *options):
    return subprocess.Popen([COUNT, *options, *PROBE], env=env, stdout=subprocess.PIPE, text=True)


def counts(process):
    lines = process.communicate(timeout=60)[0].split("\n")
    found = {name: int(n) for name, n in (line.split() for line in lines if line)}
    return found.pop("total"), found


def more(calls, than):
    names = sorted(set(calls) | set(than))
    return ", ".join(f"{n} {calls.get(n, 0) - than.get(n, 0):+d}" for n in names
                     if calls.get(n, 0) != than.get(n, 0))


def main():
    for needed in (COUNT, PROBE[0], PROBE[1], f"{BUILD}/lib/libdivvy.so"):
        if not os.path.exists(needed):
            print(f"skipped: {needed} is not built")
            return 77
    machine = Machine()
    failed = False
    try:
        tenant = machine.tenant(2 * GIB, name="t")
        native = {k: v for k, v in os.environ.items() if not k.startswith(("DIVVY_", "LD_"))}
        native["DIVVY_SIM_DIR"] = machine.sim
        shim = dict(native, DIVVY_SOCKET=tenant["socket"], LD_PRELOAD=f"{BUILD}/lib/libdivvy.so")
        base, base_calls = counts(start(native))
        # The counter itself is preloaded, too, but only its child is counted.
        total, calls = counts(start(shim))
        print(f"cooperative: {total - base} system calls added to {base}, {BUDGET} allowed: "
              f"{more(calls, base_calls)}")
        failed |= total - base > BUDGET
        if total - base < 5:
            print("the shim did not attach")
            failed = True
        together = [start(shim) for _ in range(TOGETHER)]
        each = [counts(p)[0] for p in together]
        print(f"{TOGETHER} starting together: {sorted(set(each))} system calls each")
        failed |= max(each) > total
        steps = [counts(start(env, "--steps"))[0] for env in (native, shim)]
        alone = steps[1] - steps[0]
        groups = [[start(env, "--steps") for _ in range(TOGETHER)] for env in (native, shim)]
        steps = [max(counts(p)[0] for p in group) for group in groups]
        beside = steps[1] - steps[0]
        print(f"instructions added to cuInit: {alone} alone, {beside} the most of {TOGETHER}")
        failed |= beside > alone * 1.02 + 500
        run = subprocess.run([f"{BUILD}/bin/divvy", "run", "--sim", "h100", "--mem", "2GiB", "--",
                              COUNT, *PROBE], env=dict(native, DIVVY_RUNTIME_DIR=machine.runtime),
                             capture_output=True, text=True, timeout=60)
        isolated = os.geteuid() == 0 and not any(
            t["cooperative"] for t in machine.request("GET", "/v1/tenants")["tenants"]
            if t["name"] != "t")
        if isolated and run.returncode == 0:
            rows = {n: int(v) for n, v in (w.split() for w in run.stdout.split("\n") if w)}
            added = rows.pop("total") - base
            print(f"mount namespace: {added} added, {ROOT_BUDGET} allowed (the loader opens the "
                  f"preload list, the forwarder and the driver behind it): {more(rows, base_calls)}")
            failed |= added > ROOT_BUDGET
    finally:
        machine.close()
    return failed


if __name__ == "__main__":
    sys.exit(main())
