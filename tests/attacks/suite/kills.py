#!/usr/bin/env python3
"""Processes of a tenant killed at random moments of charging: the books are exact afterwards.

After each round, once the driver's teardown delay has passed, what `divvy ps` says and what NVML
lists agree to the byte; and at no moment is more promised than is free. Then the case of a killed
parent whose forked worker holds its connection to the daemon."""
import json
import os
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from machine import BUILD, MIB, Machine, until  # noqa: E402

ROUNDS, BROOD = 6, 7
PROGRAMS = os.path.join(BUILD, "test", "attacks")


def ps(machine):
    out = subprocess.run([f"{BUILD}/bin/divvy", "ps", "--sim", machine.profile, "-o", "json"],
                         env=machine.environment, capture_output=True, text=True, check=True,
                         timeout=20)
    body = json.loads(out.stdout)
    tenants = body["tenants"] if isinstance(body, dict) else body
    return {t["name"]: t for t in tenants}


def promise_holds(machine):
    """Never more to promise than what no process holds and nobody was promised."""
    device = machine.devices()[0]
    used = sum(machine.nvml.held())
    room = device["total_bytes"] - max(used, device["promised_bytes"])
    if device["free_to_promise_bytes"] > room:
        return (f"promises {device['free_to_promise_bytes'] // MIB} MiB, "
                f"but of {device['total_bytes'] // MIB} only {room // MIB} are free")
    return ""


def one_round(machine, tenant, holder, chance):
    """Starts a brood, kills each at a moment of its own. Returns a complaint, or ""."""
    pids = []
    for _ in range(BROOD):
        tenant.stdin.write("\n")
        tenant.stdin.flush()
        word, pid = tenant.stdout.readline().split()
        if word != "child" or int(pid) < 0:
            return f"a child was not let in: {word} {pid}"
        pids.append(int(pid))
    for pid in pids:
        time.sleep(chance.random() * 0.01)  # the moment is what varies, nothing waits for it
        os.kill(pid, signal.SIGKILL)
        broken = promise_holds(machine)
        if broken:
            return broken

    seen = {}

    def agree():
        broken = promise_holds(machine)
        if broken:
            seen["broken"] = broken
            return True
        figures = machine.nvml.processes(0)
        row = ps(machine)["brood"]
        share = row["shares"][0]
        seen["now"] = (f"NVML {figures}, used {share['used_bytes']}, charged "
                       f"{share['charged_bytes']}, overhead {share['overhead_bytes']}, leaving "
                       f"{share['leaving_bytes']}")
        return (list(figures) == [holder] and share["leaving_bytes"] == 0 and
                share["used_bytes"] == figures[holder] and
                share["charged_bytes"] + share["overhead_bytes"] == figures[holder])
    if not until(15, agree, step=0.05):
        return "books and NVML do not agree: " + seen["now"]
    return seen.get("broken", "")


def kill_rounds(machine):
    seed = random.randrange(1 << 32)
    print(f"kill rounds, seed {seed}")
    chance = random.Random(seed)
    tenant = machine.start("brood", [os.path.join(PROGRAMS, "brood")], mem="8GiB")
    word, holder, _ = tenant.stdout.readline().split()
    try:
        if word != "holder" or int(holder) < 0:
            return "the holder was not let in"
        for number in range(ROUNDS):
            complaint = one_round(machine, tenant, int(holder), chance)
            if complaint:
                return f"round {number}: {complaint}"
    finally:
        tenant.stdin.close()
        tenant.wait(20)
    left = machine.wait_empty()
    print(f"{ROUNDS * BROOD} processes killed, books and NVML equal to the byte after each round")
    return left


def orphaned_worker(machine):
    tenant = machine.start("worker", [os.path.join(PROGRAMS, "worker")])
    report = json.loads(tenant.stdout.readline())
    parent, worker = map(int, report["note"].split())
    if report["held"] < 1024 * MIB:
        return f"the parent got too little: {report}"
    os.kill(parent, signal.SIGKILL)
    try:
        def released():
            # The worker keeps the share, for it may use the GPU yet; not what the parent held.
            share = (machine.tenant("worker") or {"shares": [{"used_bytes": 0}]})["shares"][0]
            return sum(machine.nvml.held()) == 0 and share["used_bytes"] == 0
        if not until(15, released, step=0.05):
            return (f"the parent is dead, its worker {worker} lives, and the memory is not free: "
                    f"{machine.devices()[0]}")
        os.kill(worker, 0)  # it did live all the while
    finally:
        tenant.stdin.close()
        tenant.wait(20)
    left = machine.wait_empty()
    if not left:
        print("a dead parent's memory is free although its worker holds the connection")
    return left


def main():
    if os.geteuid() != 0:
        print("not root: the private mount namespace cannot be made")
        return 77
    failed = 0
    for test in (kill_rounds, orphaned_worker):
        machine = Machine("h100", audit="warn")
        try:
            complaint = test(machine)
        finally:
            machine.close()
        if complaint:
            print(f"FAILED {test.__name__}: {complaint}")
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
