#!/usr/bin/env python3
"""Runs the attack programs as tenants on simulated machines and judges them from outside.

    run.py [--only NAME[,NAME]] [--workers N] [--verbose]

Each attack runs (a) without Divvy, where it must get more than the share, or it proves nothing;
(b) delivered as root; (c) cooperatively. What counts is what the simulated NVML lists for all
processes of the machine, what the daemon reports, and whether the process was ended for it:
  caught    never more than the share + 2 MiB in use, nothing breached, no finding
  detected  the daemon's audit told it and killed the process
  passed    neither: only what docs/security.md lists as out of reach, with the reason, may do that
The verdicts must be those of docs/security.md, entry by entry."""
import argparse
import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import catalog  # noqa: E402
import verdicts  # noqa: E402
from machine import BUILD, MIB, Machine, until  # noqa: E402

PROGRAMS = os.path.join(BUILD, "test", "attacks")
FINDINGS = ("no_hello", "beyond_charges", "beyond_share", "foreign_device", "scribbled")


def read_report(process, seconds):
    """The one line of JSON, or {} when the process ended without one, or None when time is up."""
    end, text = time.monotonic() + seconds, ""
    while time.monotonic() < end:
        ready, _, _ = select.select([process.stdout], [], [], 0.1)
        if not ready:
            continue
        line = process.stdout.readline()
        if line == "":
            return {}
        text = line.strip()
        if text.startswith("{"):
            return json.loads(text)
    return None


def end(process, seconds=15):
    """Ends the program's input, then, if need be, the program. Returns its status, stderr."""
    try:
        process.stdin.close()
    except OSError:
        pass
    process.stdin = None
    try:
        _, err = process.communicate(timeout=seconds)
        return process.returncode, err or ""
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, err = process.communicate()
        return None, err or ""


def go_on(process):
    process.stdin.write("\n")
    process.stdin.flush()


def has_cgroups():
    """Whether `divvy run` can give a tenant a cgroup of its own here."""
    with open("/proc/self/mounts", encoding="utf-8") as f:
        mounts = [line.split()[1] for line in f if line.split()[2] == "cgroup2"]
    with open("/proc/self/cgroup", encoding="utf-8") as f:
        own = [line.strip()[3:] for line in f if line.startswith("0::")]
    return bool(mounts and own) and os.access(mounts[0] + own[0], os.W_OK)


def command_of(attack, machine, neighbours):
    words = []
    for word in attack.command:
        if word.startswith("@uuid"):
            word = machine.devices()[int(word[5:])]["uuid"]
        elif word == "@neighbour":
            word = str(neighbours[0])
        words.append(word)
    return [os.path.join(PROGRAMS, words[0]), *words[1:]]


def pids_of(machine, name):
    return [p["pid"] for p in (machine.tenant(name) or {"processes": []})["processes"]]


def run_bare(attack, machine):
    """What the attack gets without Divvy. Returns a complaint, or ""."""
    process = subprocess.Popen(command_of(attack, machine, [0]), env=machine.bare_environment(),
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, start_new_session=True)
    if attack.outlives:
        go_on(process)
    report = read_report(process, 30)
    held = sum(machine.nvml.held())
    status, err = end(process)
    if held <= attack.mem * MIB + 2 * MIB:
        return (f"proves nothing: without Divvy it holds {held // MIB} MiB "
                f"(report {report}, status {status}, {err.strip()[-200:]})")
    return ""


def settled(machine, name, before, limit, seconds):
    """Waits until the audit has seen what NVML shows beyond `before`, or has acted on a finding.
    Returns the most that was held."""
    most = [0]

    def seen():
        held = machine.nvml.held()
        most[0] = max(most[0], over_all(held, limit))
        tenant = machine.tenant(name)
        if tenant is None or acted_on(tenant):
            return True
        if most[0] - before > limit + 2 * MIB:
            return False  # give the audit all the time there is
        return sum(s["nvml_bytes"] for s in tenant["shares"]) == sum(held) - before
    until(seconds, seen)
    return most[0]


def over_all(held, limit):
    """The figure that is held against the share: a device without a share counts from the first byte
    (only device 0 has one)."""
    return held[0] + (limit if sum(held[1:]) else 0) + sum(held[1:])


def acted_on(tenant):
    return [f for f in tenant.get("findings", []) if f["action"] == "kill"]


def judge(attack, machine, delivery):
    """(verdict, explanation) of one attack under one delivery."""
    name, limit = f"{attack.name}-{delivery}", attack.mem * MIB
    neighbour, victims = None, []
    if attack.neighbour:
        neighbour = machine.start("victim-" + name, [os.path.join(PROGRAMS, "grab"), "64"],
                                  mem="4GiB", cooperative=delivery == "cooperative")
        read_report(neighbour, 20)
        victims = pids_of(machine, "victim-" + name)
    before = sum(machine.nvml.held())
    process = machine.start(name, command_of(attack, machine, victims), mem=f"{attack.mem}MiB",
                            cooperative=delivery == "cooperative", more=attack.more)
    if attack.outlives:
        process.wait(30)
        # The daemon has seen it, too, when the program goes on.
        until(20, lambda: (machine.tenant(name) or {"state": "ended"})["state"] != "running")
        go_on(process)
    report = read_report(process, 40)
    most = settled(machine, name, before, limit, 6)
    if neighbour is not None:
        most = max(0, most - before)
    findings = [e for e in machine.events(name) if e["cause"] in FINDINGS]
    tenant = machine.tenant(name)
    joined_by = pids_of(machine, "victim-" + name) if neighbour is not None else []
    status, err = end(process)
    what = (f"most {most // MIB} MiB, report {report}, status {status}, "
            f"findings {[e['message'] for e in findings]}, {err.strip()[-300:]}")
    if neighbour is not None:
        alive, joined = neighbour.poll() is None, joined_by != victims
        end(neighbour)
        if not alive:
            return "failed", "the neighbour did not live through it; " + what
        if joined:
            return "passed", "it counts as the neighbour's; " + what
    if report is None or status is None:
        return "failed", "did not end; " + what
    if machine.daemon.poll() is not None:
        return "failed", "divvyd died: " + machine.log()
    if findings:
        if status == 0:
            return "failed", "a finding, but the process was not ended; " + what
        return "detected", what
    if attack.outlives and report.get("held", 0) == 0 and has_cgroups():
        return "failed", "its share ended before its last process did; " + what
    if most > limit + 2 * MIB or report.get("breached"):
        return "passed", what
    if report == {}:
        return "failed", f"died by itself; {what}; {tenant}"
    return "caught", what


def work(profile_and_jobs):
    """One worker: a machine, and its jobs one after another."""
    profile, jobs, queue = profile_and_jobs
    machine = Machine(profile)
    try:
        for attack, delivery in jobs:
            began = time.monotonic()
            try:
                if delivery == "bare":
                    complaint = run_bare(attack, machine)
                    word, what = ("failed", complaint) if complaint else ("works", "")
                else:
                    word, what = judge(attack, machine, delivery)
                left = machine.wait_empty()
                if left:
                    word, what = "failed", f"{left}; before that {word}: {what}"
            except Exception as e:  # a worker's fault is one failed attack, not a lost suite
                word, what = "failed", f"{type(e).__name__}: {e}; {machine.log()}"
            queue.put((attack.name, delivery, word, what, time.monotonic() - began))
            if word == "failed":
                machine.close()
                machine = Machine(profile)
    finally:
        machine.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--delivery", default="bare,root,cooperative")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("not root: the private mount namespace cannot be made")
        return 77
    only = set(filter(None, options.only.split(",")))
    jobs = {}
    for attack in catalog.ATTACKS:
        if only and attack.name not in only:
            continue
        ways = (("bare",) if attack.bare else ()) + attack.deliveries
        jobs.setdefault(attack.profile, []).extend(
            (attack, w) for w in ways if w in options.delivery.split(","))
    queue = multiprocessing.Queue()
    parts = []
    for profile, list_ in jobs.items():
        count = 1 if profile != "h100" else max(1, options.workers - 1)
        parts += [(profile, list_[i::count], queue) for i in range(count) if list_[i::count]]
    workers = [multiprocessing.Process(target=work, args=(part,)) for part in parts]
    for w in workers:
        w.start()
    total = sum(len(p[1]) for p in parts)
    results, failed = {}, []
    for _ in range(total):
        while True:
            try:
                name, delivery, word, what, seconds = queue.get(timeout=5)
                break
            except Exception:
                if not any(w.is_alive() for w in workers):
                    print("a worker died; see above")
                    return 1
        if options.verbose or word in ("failed", "passed"):
            print(f"{name:22} {delivery:12} {word:9} {seconds:5.1f} s  {what}", flush=True)
        else:
            print(f"{name:22} {delivery:12} {word:9} {seconds:5.1f} s", flush=True)
        if word == "failed":
            failed.append(f"{name} ({delivery}): {what}")
        if delivery != "bare":
            results[name, delivery] = word
    for w in workers:
        w.join()
    wrong, unknown = verdicts.differences(results, verdicts.documented())
    if not only:
        known = {a.name for a in catalog.ATTACKS}
        wrong += [f"docs/security.md: '{name}' is no attack of the suite"
                  for name in unknown if name not in known]
    for line in wrong:
        print("WRONG", line)
    print(f"{total} runs, {len(failed)} failed, {len(wrong)} not as docs/security.md says")
    return 1 if failed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
