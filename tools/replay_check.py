#!/usr/bin/env python3
"""Checks every decision of a `divvy simulate cluster --decisions` run against the input lists.

  replay_check.py NODES PODS DECISIONS.csv      (lists: openb CSV, or kubectl ... -o json)

Independent of the engine: reads the lists itself, keeps its own books, and reports a violation for
every placement that did not fit (CPU, memory, slots, device model, compute and memory of each
device, number of devices, device named twice, link group), for every refusal although some node
had room, and for a log that was cut off.
Prints "N decisions, 0 violations"; exit status 1 if there are any, 2 if a file is unusable.
"""
import csv
import json
import re
import sys

WHOLE = 1000
UNITS = {"": 1, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
         "P": 1e15, "E": 1e18, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
         "Ei": 2**60}


class Node:
    def __init__(self, name, cpu, memory, slots, model, count, device_memory, links, closed):
        self.name, self.cpu, self.memory, self.slots, self.model = name, cpu, memory, slots, model
        self.device_memory = device_memory
        self.devices = [[WHOLE, device_memory] for _ in range(count)]
        self.links = links or [0] * count
        self.closed = closed
        self.freed = -1  # number of the last event that gave something back

    def copy(self):
        return Node(self.name, self.cpu, self.memory, self.slots, self.model, len(self.devices),
                    self.device_memory, self.links, self.closed)


class Pod:
    def __init__(self, name, cpu, memory, count, milli, device_memory, models, link, least, node):
        self.name, self.cpu, self.memory, self.node = name, cpu, memory, node
        self.count, self.milli, self.device_memory = count, milli, device_memory
        self.models = models
        self.require = link == "require" and count > 1
        self.least = least or milli
        self.shape = (cpu, memory, count, milli, device_memory, frozenset(models), self.require)


class Tenant:
    def __init__(self, node, pod, chosen, milli):
        self.node, self.pod, self.chosen, self.milli = node, pod, chosen, milli


def number(row, column, default=0):
    return int(row.get(column) or default)


def csv_rows(path):
    with open(path, newline="", encoding="utf-8-sig") as f:
        yield from csv.DictReader(f)


def csv_nodes(path):
    for r in csv_rows(path):
        links = [int(x) for x in (r.get("link_group") or "").split("|") if x]
        yield Node(r["sn"], int(r["cpu_milli"]), int(r["memory_mib"]), 1001, r["model"],
                   int(r["gpu"]), number(r, "gpu_memory_mib"), links, r.get("cordoned") == "1")


def csv_pods(path):
    for r in csv_rows(path):
        count, milli, memory = int(r["num_gpu"]), int(r["gpu_milli"]), number(r, "gpu_memory_mib")
        if count == 0 or (milli == 0 and memory == 0):
            count = milli = memory = 0
        spec = {m for m in (r.get("gpu_spec") or "").split("|") if m} if count else set()
        yield Pod(r["name"], int(r["cpu_milli"]), int(r["memory_mib"]), count, milli, memory, spec,
                  r.get("link"), number(r, "min_gpu_milli"), r.get("node") or "")


def amount(resources, key, unit=1.0):
    """A Kubernetes quantity in so many units, rounded up."""
    if key not in (resources or {}):
        return 0
    match = re.fullmatch(r"([0-9.eE+-]+?)([a-zA-Z]*)", str(resources[key]))
    value = float(match[1]) * UNITS[match[2]] / unit
    return int(value) if value == int(value) else int(value - 1e-9) + 1


def items(path):
    with open(path, encoding="utf-8-sig") as f:
        data = json.load(f)
    return data["items"] if "items" in data else [data]


def kube_nodes(path):
    for item in items(path):
        meta, status, spec = item["metadata"], item.get("status") or {}, item.get("spec") or {}
        labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
        has = status.get("allocatable") or {}
        count = amount(has, "nvidia.com/gpu")
        if amount(labels, "nvidia.com/gpu.count"):
            count = min(count, amount(labels, "nvidia.com/gpu.count"))
        links = labels.get("divvy/gpu-links") or notes.get("divvy/gpu-links") or ""
        ready = all(c.get("status") == "True" for c in status.get("conditions") or []
                    if c.get("type") == "Ready")
        yield Node(meta["name"], amount(has, "cpu", 1e-3), amount(has, "memory", 2**20),
                   amount(has, "pods") or 110, labels.get("nvidia.com/gpu.product", ""), count,
                   amount(labels, "nvidia.com/gpu.memory"),
                   [int(x) for x in links.split(".") if x],
                   spec.get("unschedulable") is True or not ready)


def kube_pods(path, nodes):
    for item in items(path):
        if (item.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        meta, spec = item["metadata"], item.get("spec") or {}
        product = (spec.get("nodeSelector") or {}).get("nvidia.com/gpu.product", "")
        largest = max((n.device_memory for n in nodes if product in ("", n.model)), default=0)
        cpu = memory = count = milli = device_memory = 0
        partial = False
        for c in spec.get("containers") or []:
            limits = (c.get("resources") or {}).get("limits") or {}
            wants = {**limits, **((c.get("resources") or {}).get("requests") or {})}
            cpu += amount(wants, "cpu", 1e-3)
            memory += amount(wants, "memory", 2**20)
            count += amount(limits, "nvidia.com/gpu")
            cores = amount(limits, "nvidia.com/gpucores")
            mib = max(amount(limits, "nvidia.com/gpumem"),
                      amount(limits, "nvidia.com/gpumem-percentage") * largest // 100)
            partial = partial or cores > 0 or mib > 0
            milli, device_memory = max(milli, cores * 10), max(device_memory, mib)
        notes = meta.get("annotations") or {}
        if count == 0:
            milli = device_memory = 0
        elif not partial:
            milli = WHOLE
        yield Pod(f"{meta.get('namespace') or 'default'}/{meta['name']}", cpu, memory, count, milli,
                  device_memory, {product} if product and count else set(), notes.get("divvy/link"),
                  10 * amount(notes, "divvy/min-gpucores"), spec.get("nodeName") or "")


def is_json(path):
    with open(path, encoding="utf-8-sig", errors="replace") as f:
        return f.read(4096).lstrip()[:1] in ("{", "[")


def problem(node, pod, chosen, milli):
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
        if compute < milli or memory < pod.device_memory:
            return f"device {d}: {compute} milli, {memory} MiB left"
    if pod.require and len({node.links[d] for d in chosen}) > 1:
        return f"devices {chosen} are not of one link group"
    if not pod.least <= milli <= pod.milli:
        return f"{milli} milli for a request of {pod.least} to {pod.milli}"
    return None


def has_room(node, pod):
    if node.closed:
        return False
    fit = [d for d, (c, m) in enumerate(node.devices) if c >= pod.milli and m >= pod.device_memory]
    groups = {node.links[d] for d in fit} if pod.require else {None}
    return any(problem(node, pod, [d for d in fit if g is None or node.links[d] == g][: pod.count],
                       pod.milli) is None for g in groups or {None})


def take(node, tenant, sign):
    pod = tenant.pod
    node.cpu -= sign * pod.cpu
    node.memory -= sign * pod.memory
    node.slots -= sign
    for d in tenant.chosen:
        node.devices[d][0] -= sign * tenant.milli
        node.devices[d][1] -= sign * pod.device_memory


class Replay:
    def __init__(self, nodes, pods, log):
        self.nodes, self.pods, self.log = nodes, pods, log
        self.placed = {}
        self.no_room_since = {}  # shape -> event after which no node had room for it
        self.violations = 0

    def violation(self, number, text):
        self.violations += 1
        if self.violations <= 20:
            print(f"{self.log}:{number + 2}: {text}")

    def step(self, number, d):
        """Takes over one decision; what is wrong with it, or None."""
        what, instance = d["what"], d["instance"]
        tenant = self.placed.get(instance)
        if what in ("leave", "resize", "migrate", "preempt") and tenant is None:
            return f"{what} of instance {instance}, which is not there"
        if what in ("leave", "preempt"):
            del self.placed[instance]
            take(tenant.node, tenant, -1)
            tenant.node.freed = number
            return None
        if what == "resize":
            take(tenant.node, tenant, -1)
            tenant.node.freed = number
            wrong = problem(tenant.node, tenant.pod, tenant.chosen, int(d["milli"]))
            if wrong is None:
                tenant.milli = int(d["milli"])
            take(tenant.node, tenant, 1)
            return wrong
        row = int(d["row"])
        if not 1 <= row <= len(self.pods) or self.pods[row - 1].name != d["pod"]:
            return f"pod {d['pod']} is not number {row} of the list"
        pod = self.pods[row - 1]
        if what in ("deny", "refuse", "lost"):
            return None if what == "deny" else self.refused(number, what, pod, d["node"])
        node = self.nodes.get(d["node"])
        if node is None:
            return f"no node {d['node']}"
        chosen = [int(x) for x in d["devices"].split("|") if x]
        if what == "migrate":
            new = Tenant(node, pod, chosen, tenant.milli)
            wrong = problem(node, pod, chosen, tenant.milli)
            if wrong is None:
                take(tenant.node, tenant, -1)
                tenant.node.freed = number
        elif what in ("place", "runs"):
            new = Tenant(node, pod, chosen, int(d["milli"]))
            wrong = problem(node, pod, chosen, new.milli)
            if tenant is not None:
                wrong = f"instance {instance} is placed twice"
            if what == "runs" and pod.node != node.name:
                wrong = f"runs on {pod.node}, says the list"
        else:
            return f"unknown decision {what!r}"
        if node.closed and what != "runs":
            wrong = "the node takes nothing new"
        if wrong:
            return f"on {d['node']}: {wrong}"
        take(node, new, 1)
        self.placed[instance] = new
        return None

    def refused(self, number, what, pod, where):
        since = self.no_room_since.get(pod.shape, -2)
        for name, node in self.nodes.items():
            if what == "lost" and name != where:
                continue
            if (what == "lost" or node.freed > since) and has_room(node, pod):
                return f"{what}, but {name} has room"
        if what == "refuse":
            self.no_room_since[pod.shape] = number
        return None


def main():
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        path = sys.argv[1]
        specs = list(kube_nodes(path) if is_json(path) else csv_nodes(path))
        path = sys.argv[2]
        pods = list(kube_pods(path, specs) if is_json(path) else csv_pods(path))
        path = sys.argv[3]
        decisions = list(csv_rows(path))
        if any(None in d or None in d.values() for d in decisions[:-1]):
            raise ValueError("rows of different lengths")
        if decisions and set(decisions[0]) != {"what", "instance", "row", "pod", "node", "devices",
                                               "milli"}:
            raise ValueError("not a log of decisions")
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        print(f"replay_check: {path}: {type(error).__name__} {error}", file=sys.stderr)
        return 2
    if not decisions:
        print(f"replay_check: {path}: no decisions", file=sys.stderr)
        return 2
    names = {n.name for n in specs}
    copies = 1
    for d in decisions:  # "name#2" is the third copy, unless a node is called so
        name, mark, copy = (d["node"] or "").rpartition("#")
        if mark and d["node"] not in names and name in names and copy.isdigit():
            copies = max(copies, 1 + int(copy))
    nodes = {}
    for copy in range(copies):
        for n in specs:
            nodes[n.name if copy == 0 else f"{n.name}#{copy}"] = n.copy()
    replay = Replay(nodes, pods, sys.argv[3])
    last = decisions.pop() if decisions[-1]["what"] == "end" else None
    for number, d in enumerate(decisions):
        try:
            wrong = replay.step(number, d)
        except (ValueError, TypeError) as error:
            wrong = f"unreadable: {error}"
        if wrong:
            replay.violation(number, f"{d['pod']}: {wrong}")
    if last is None or None in last.values() or last["instance"] != str(len(decisions)):
        replay.violation(len(decisions), "the log is cut off: its last line does not close it")
    print(f"{len(decisions)} decisions, {replay.violations} violations")
    return 1 if replay.violations else 0


if __name__ == "__main__":
    sys.exit(main())
