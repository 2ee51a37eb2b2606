#!/usr/bin/env python3
"""Checks every decision of a `divvy simulate cluster --decisions` run against the input lists.

  replay_check.py NODES.csv PODS.csv DECISIONS.csv

Independent of the engine: reads the lists itself, keeps its own books, and reports a violation for
every placement that did not fit (CPU, memory, slots, device model, compute and memory of each
device, number of devices, device named twice) and for every refusal although some node had room.
Prints "N decisions, 0 violations"; exit status 1 if there are any, 2 if a file is unusable.
"""
import csv
import sys

WHOLE = 1000
SLOTS = 1001


class Node:
    def __init__(self, row):
        self.cpu = int(row["cpu_milli"])
        self.memory = int(row["memory_mib"])
        self.slots = SLOTS
        self.model = row["model"]
        self.device_memory = int(row.get("gpu_memory_mib") or 0)
        self.devices = [[WHOLE, self.device_memory] for _ in range(int(row["gpu"]))]
        self.freed = -1  # number of the last event that gave something back


class Pod:
    def __init__(self, row):
        self.cpu = int(row["cpu_milli"])
        self.memory = int(row["memory_mib"])
        self.count = int(row["num_gpu"])
        self.milli = int(row["gpu_milli"])
        self.device_memory = int(row.get("gpu_memory_mib") or 0)
        if self.count == 0 or (self.milli == 0 and self.device_memory == 0):
            self.count = self.milli = self.device_memory = 0
        spec = row.get("gpu_spec") or ""
        self.models = {m for m in spec.split("|") if m} if self.count else set()
        self.shape = (self.cpu, self.memory, self.count, self.milli, self.device_memory, spec)


def problem(node, pod, chosen):
    """What is wrong with the pod on these devices of the node; None if it fits."""
    if node.cpu < pod.cpu:
        return f"CPU: {node.cpu} left, {pod.cpu} asked"
    if node.memory < pod.memory:
        return f"memory: {node.memory} left, {pod.memory} asked"
    if node.slots < 1:
        return "no slot left"
    if pod.models and node.model not in pod.models:
        return f"model {node.model} is not among {sorted(pod.models)}"
    if len(chosen) != pod.count or len(set(chosen)) != len(chosen):
        return f"devices {chosen} for a request of {pod.count}"
    for d in chosen:
        if not 0 <= d < len(node.devices):
            return f"there is no device {d}"
        compute, memory = node.devices[d]
        if compute < pod.milli or memory < pod.device_memory:
            return f"device {d}: {compute} milli, {memory} MiB left"
    return None


def has_room(node, pod):
    fit = [d for d, (c, m) in enumerate(node.devices) if c >= pod.milli and m >= pod.device_memory]
    return problem(node, pod, fit[: pod.count]) is None


def take(node, pod, chosen, sign):
    node.cpu -= sign * pod.cpu
    node.memory -= sign * pod.memory
    node.slots -= sign
    for d in chosen:
        node.devices[d][0] -= sign * pod.milli
        node.devices[d][1] -= sign * pod.device_memory


def main():
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with open(sys.argv[1], newline="", encoding="utf-8-sig") as f:
            specs = {row["sn"]: row for row in csv.DictReader(f)}
        with open(sys.argv[2], newline="", encoding="utf-8-sig") as f:
            pods = {row["name"]: Pod(row) for row in csv.DictReader(f)}
        with open(sys.argv[3], newline="", encoding="utf-8-sig") as f:
            decisions = list(csv.DictReader(f))
    except (OSError, KeyError, ValueError) as error:
        print(f"replay_check: {error}", file=sys.stderr)
        return 2
    if not decisions:
        print("replay_check: no decisions", file=sys.stderr)
        return 2
    copies = 1 + max(int(d["node"].partition("#")[2] or 0) for d in decisions)
    nodes = {}
    for name, row in specs.items():
        for copy in range(copies):
            nodes[name if copy == 0 else f"{name}#{copy}"] = Node(row)
    placed = {}
    no_room_since = {}  # shape -> event after which no node had room for it
    violations = 0

    def violation(number, text):
        nonlocal violations
        violations += 1
        if violations <= 20:
            print(f"{sys.argv[3]}:{number + 2}: {text}")

    for number, d in enumerate(decisions):
        what, instance = d["what"], d["instance"]
        if what == "leave":
            if instance not in placed:
                violation(number, f"instance {instance} leaves but is not there")
                continue
            node, pod, chosen = placed.pop(instance)
            take(node, pod, chosen, -1)
            node.freed = number
            continue
        if d["pod"] not in pods:
            violation(number, f"no pod {d['pod']}")
            continue
        pod = pods[d["pod"]]
        if what == "place":
            node = nodes.get(d["node"])
            chosen = [int(x) for x in d["devices"].split("|") if x]
            wrong = f"no node {d['node']}" if node is None else problem(node, pod, chosen)
            if instance in placed:
                wrong = f"instance {instance} is placed twice"
            if wrong:
                violation(number, f"{d['pod']} on {d['node']}: {wrong}")
                continue
            take(node, pod, chosen, 1)
            placed[instance] = (node, pod, chosen)
        elif what == "refuse":
            since = no_room_since.get(pod.shape, -2)
            for name, node in nodes.items():
                if node.freed > since and has_room(node, pod):
                    violation(number, f"{d['pod']} refused, but {name} has room")
                    break
            else:
                no_room_since[pod.shape] = number
        else:
            violation(number, f"unknown decision {what!r}")
    print(f"{len(decisions)} decisions, {violations} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
