#!/usr/bin/env python3
"""Checks every decision of a `divvy simulate cluster --decisions` run against the input lists.

  replay_check.py NODES PODS DECISIONS.csv [--replicate K] [--quota NAME=LIMIT,...]
      [--protocol inflate|churn] [--refusal WAYS|none] [--arrived PERCENT]
      (lists: openb CSV, or kubectl ... -o json; K, quotas, protocol and ways as they were given to
      the run; PERCENT: the run's arrived_percent. What is not given is not checked)

Independent of the engine: reads the lists itself, keeps its own books, and reports a violation for
- a placement that did not fit (CPU, memory, slots, device model, compute and memory of each
  device, number of devices, device named twice, link group) or goes beyond a quota;
- a refusal although some node had room, a denial although the quota had;
- a gang placed, denied or ended in part;
- arrivals that are missing (each has the next number), pods that run and are not accounted for;
- a log that was cut off;
- a pod that is ended for one of no higher priority (unless reclaiming), or for none;
- with --protocol inflate: a pod that leaves; with --refusal: a way that the run did not have; with
  --arrived: demand that ends before.
Prints "N decisions, 0 violations"; exit status 1 if there are any, 2 if a file is unusable. That a
gang does not fit as a whole can be doubted where its members are alike and need no links; how many
refusals of gangs could not is said.
"""
import argparse
import csv
import json
import re
import sys
from fractions import Fraction

WHOLE = 1000
UNITS = {"": 1, "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "k": 1000, "M": 10**6, "G": 10**9,
         "T": 10**12, "P": 10**15, "E": 10**18, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
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
    def __init__(self, name, cpu, memory, count, milli, device_memory, models, link, least, node,
                 space, gang, priority):
        self.priority = priority
        self.name, self.cpu, self.memory, self.node = name, cpu, memory, node
        self.space, self.gang = space, (space, gang) if gang else None
        self.count, self.milli, self.device_memory = count, milli, device_memory
        self.models = models
        self.require = link == "require" and count > 1
        self.least = (least if count else 0) or milli
        self.total = count * milli  # what a quota counts, also where it is squeezed
        self.shape = (cpu, memory, count, milli, device_memory, frozenset(models), self.require)


class Tenant:
    def __init__(self, node, row, pod, chosen, milli):
        self.node, self.row, self.pod, self.chosen, self.milli = node, row, pod, chosen, milli


def number(row, column, default=0):
    return int(row.get(column) or default)


def csv_rows(path):
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as f:
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
                  r.get("link"), number(r, "min_gpu_milli"), r.get("node") or "",
                  r.get("namespace") or "default", r.get("gang"), number(r, "priority"))


def dig(data, *path):
    """The member at a path; None where there is none, whatever stands instead."""
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def text(data, *path):
    found = dig(data, *path)
    return found if isinstance(found, str) else ""


def amount(resources, key, unit=1, up=True):
    """A Kubernetes quantity in so many units, rounded up (what is there: down)."""
    value = dig(resources, key)
    if value is None:
        return 0
    match = re.fullmatch(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([a-zA-Z]*)", str(value))
    if match is None or match[2] not in UNITS:
        raise ValueError(f"{key}: {str(value)[:40]} is not a quantity")
    exact = Fraction(match[1]) * UNITS[match[2]] / unit
    return -int(-exact // 1) if up else int(exact // 1)


def items(path, kind):
    with open(path, encoding="utf-8-sig") as f:
        data = json.load(f)
    found = dig(data, "items")
    return [i for i in (found if isinstance(found, list) else [data])
            if text(i, "kind") in ("", kind)]


def kube_nodes(path):
    for item in items(path, "Node"):
        labels, notes = dig(item, "metadata", "labels"), dig(item, "metadata", "annotations")
        has = dig(item, "status", "allocatable")
        count = amount(has, "nvidia.com/gpu")
        if amount(labels, "nvidia.com/gpu.count"):
            count = min(count, amount(labels, "nvidia.com/gpu.count"))
        links = text(labels, "divvy/gpu-links") or text(notes, "divvy/gpu-links")
        conditions = dig(item, "status", "conditions")
        ready = all(text(c, "status") == "True" for c in
                    (conditions if isinstance(conditions, list) else [])
                    if text(c, "type") == "Ready")
        yield Node(text(item, "metadata", "name"), amount(has, "cpu", UNITS["m"]),
                   amount(has, "memory", 2**20, up=False), amount(has, "pods") or 110,
                   text(labels, "nvidia.com/gpu.product"), count,
                   amount(labels, "nvidia.com/gpu.memory"),
                   [int(x) for x in links.split(".") if x],
                   dig(item, "spec", "unschedulable") is True or not ready)


def kube_pods(path, nodes):
    for item in items(path, "Pod"):
        if text(item, "status", "phase") in ("Succeeded", "Failed"):
            continue
        product = text(item, "spec", "nodeSelector", "nvidia.com/gpu.product")
        largest = max((n.device_memory for n in nodes if product in ("", n.model)), default=0)
        cpu = memory = count = milli = device_memory = 0
        containers = dig(item, "spec", "containers")
        for c in containers if isinstance(containers, list) else []:
            limits, requests = dig(c, "resources", "limits"), dig(c, "resources", "requests")
            cpu += amount(limits if dig(requests, "cpu") is None else requests, "cpu", UNITS["m"])
            memory += amount(limits if dig(requests, "memory") is None else requests, "memory",
                             2**20)
            own = amount(limits, "nvidia.com/gpu")
            count += own
            cores = amount(limits, "nvidia.com/gpucores")
            mib = max(amount(limits, "nvidia.com/gpumem"),
                      amount(limits, "nvidia.com/gpumem-percentage") * largest // 100)
            milli = max(milli, WHOLE if own and not cores and not mib else cores * 10)
            device_memory = max(device_memory, mib)
        labels, notes = dig(item, "metadata", "labels"), dig(item, "metadata", "annotations")
        if count == 0:
            milli = device_memory = 0
        space = text(item, "metadata", "namespace") or "default"
        gang = (text(labels, "scheduling.x-k8s.io/pod-group")
                or text(labels, "pod-group.scheduling.sigs.k8s.io")
                or text(notes, "scheduling.k8s.io/group-name"))
        yield Pod(f"{space}/{text(item, 'metadata', 'name')}", cpu, memory, count, milli,
                  device_memory, {product} if product and count else set(),
                  text(notes, "divvy/link"), 10 * amount(notes, "divvy/min-gpucores"),
                  text(item, "spec", "nodeName"), space, gang,
                  priority if isinstance(priority := dig(item, "spec", "priority"), int) else 0)


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


def has_room(node, pod, runs=False):
    if node.closed and not runs:
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
    def __init__(self, nodes, pods, copies, quotas, log, protocol=None, ways=None):
        self.protocol, self.ways = protocol, ways
        self.victims = []        # ended for the next placement
        self.demand = 0          # milli that arrived
        self.nodes, self.pods, self.quotas, self.log = nodes, pods, quotas, log
        self.placed = {}
        self.waiting = {}        # instance -> row: refused, or ended for others; may be placed later
        self.arrived = 0         # instances 0 to here have arrived
        self.used = {}           # per namespace
        self.no_room_since = {}  # shape -> event after which no node had room for it
        self.gangs = {}          # rows of those that come together
        known = {n.name for n in nodes.values()}
        for row, p in enumerate(pods, 1):
            if p.gang and not p.node:
                self.gangs.setdefault(p.gang, []).append(row)
        self.there = {(row, copy) for row, p in enumerate(pods, 1) if p.node in known
                      for copy in range(copies)}  # run already, and not yet accounted for
        self.coming = None       # (what, rows, instances) still to come of a gang
        self.whole = {}          # instance of a gang's member -> the instances of all of them
        self.torn = set()        # instances whose gangs were ended in part, so far
        self.undoubted = 0
        self.violations = 0

    def violation(self, number, text):
        self.violations += 1
        if self.violations <= 20:
            print(f"{self.log}:{number + 2}: {text}")

    def gang_of(self, pod, instance):
        """Rows of the gang that this arrival belongs to; [] if it comes alone."""
        rows = self.gangs.get(pod.gang, []) if not instance.startswith("r") else []
        return rows if len(rows) > 1 else []

    def arrives(self, what, instance, row):
        """What is wrong with an instance that is placed, refused or denied now; or None."""
        if instance in self.waiting:
            if what != "place":
                return f"instance {instance} is refused twice"
            if self.waiting[instance] != row:
                return f"instance {instance} was another pod when it arrived"
            del self.waiting[instance]
        elif instance != str(self.arrived):
            return f"instance {instance} where {self.arrived} is the next to arrive"
        else:
            self.arrived += 1
            self.demand += self.pods[row - 1].total
            if self.pods[row - 1].node:
                return "it runs already, says the list"
        if what != "place":
            self.waiting[instance] = row
        return None

    def together(self, what, instance, row, rows):
        """A gang's members follow one another."""
        if self.coming is None:
            if not rows:
                return None
            self.coming = (what, sorted(rows), [])
        expected, left, instances = self.coming
        if what != expected or row not in left:
            self.coming = None
            return f"the gang of row {(left or [row])[0]} is handled in part"
        left.remove(row)
        instances.append(instance)
        if not left:
            self.coming = None
            if what == "place":
                for i in instances:
                    self.whole[i] = set(instances)
        return None

    def unfinished(self, what):
        """Gangs of which only some members were handled before another decision, or None."""
        if self.coming is not None and what not in ("place", "deny"):
            left, self.coming = self.coming[1], None
            return f"row {left[0]} of a gang is missing"
        if self.victims and what not in ("place", "preempt", "resize", "migrate"):
            self.victims = []
            return "a pod was ended, and nothing placed for it"
        if self.torn and what not in ("preempt", "resize", "migrate"):
            torn, self.torn = self.torn, set()
            return f"instance {min(torn)} stays of a gang that was ended"
        return None

    def way_of(self, what, instance):
        """Whether the run may decide such a thing at all."""
        if what == "leave" and self.protocol == "inflate":
            return "leaves, where none does"
        needs = {"resize": {"squeeze"}, "migrate": {"migrate"}, "preempt": {"preempt", "reclaim"}}
        if what == "place" and instance in self.waiting:
            needs["place"] = {"queue"}
        if self.ways is not None and what in needs and not needs[what] & self.ways:
            return f"{what}, without {' or '.join(sorted(needs[what]))} among the run's ways"
        return None

    def ended_for(self, pod, rows):
        """Victims are of lower priority than what comes in their place."""
        victims, self.victims = self.victims, []
        highest = max(p.priority for p in [pod] + [self.pods[r - 1] for r in rows])
        if self.ways is None or "reclaim" in self.ways or not victims:
            return None
        if max(v.priority for v in victims) >= highest:
            return f"{victims[0].name} was ended for one of no higher priority"
        return None

    def charge(self, pod, sign):
        self.used[pod.space] = self.used.get(pod.space, 0) + sign * pod.total

    def beyond_quota(self, pods):
        for space in {p.space for p in pods}:
            asked = sum(p.total for p in pods if p.space == space)
            if space in self.quotas and asked and (
                    self.used.get(space, 0) + asked > self.quotas[space]):
                return f"namespace {space}: {self.used.get(space, 0)} milli in use, {asked} asked"
        return None

    def end(self, number, what, instance, tenant):
        del self.placed[instance]
        take(tenant.node, tenant, -1)
        tenant.node.freed = number
        self.charge(tenant.pod, -1)
        gang = self.whole.pop(instance, set())
        if what == "preempt":
            self.waiting[instance] = tenant.row
            self.victims.append(tenant.pod)
            self.torn |= {i for i in gang if i in self.placed}
            self.torn.discard(instance)

    def step(self, number, d):
        """Takes over one decision; what is wrong with it, or None."""
        what, instance, row = d["what"], d["instance"], int(d["row"])
        if not 1 <= row <= len(self.pods) or self.pods[row - 1].name != d["pod"]:
            return f"this pod is not number {row} of the list"
        pod = self.pods[row - 1]
        wrong = self.unfinished(what) or self.way_of(what, instance)
        if wrong:
            return wrong
        tenant = self.placed.get(instance)
        if what in ("leave", "resize", "migrate", "preempt"):
            if tenant is None or tenant.row != row:
                return f"{what} of instance {instance}, which is not there"
        if what in ("leave", "preempt"):
            self.end(number, what, instance, tenant)
            return None
        if what == "resize":
            take(tenant.node, tenant, -1)
            tenant.node.freed = number
            wrong = problem(tenant.node, tenant.pod, tenant.chosen, int(d["milli"]))
            if wrong is None:
                tenant.milli = int(d["milli"])
            take(tenant.node, tenant, 1)
            return wrong
        node = None
        if what in ("place", "migrate", "runs", "lost"):
            node = self.nodes.get((d["node"], int(d["copy"])))
            if node is None:
                return f"no node {d['node']}, copy {d['copy']}"
        if what in ("runs", "lost"):
            if pod.node != node.name:
                return f"runs on {pod.node or 'no node'}, says the list"
            if (row, int(d["copy"])) not in self.there:
                return "is accounted for twice"
            self.there.discard((row, int(d["copy"])))
            if what == "lost":
                return f"lost, but {node.name} has room" if has_room(node, pod, True) else None
        if what in ("place", "refuse", "deny"):
            wrong = self.arrives(what, instance, row)
            rows = self.gang_of(pod, instance)
            first = self.coming is None
            wrong = wrong or self.together(what, instance, row, rows if what != "refuse" else [])
            if what == "place" and not wrong:
                wrong = self.ended_for(pod, rows)
            if wrong:
                return wrong
            if what == "refuse":
                return ("one of a gang is refused alone" if rows
                        else self.refused(number, pod))
            if what == "deny":
                return self.denied([self.pods[r - 1] for r in rows or [row]]) if first else None
        chosen = [int(x) for x in d["devices"].split("|") if x]
        if what == "migrate":
            new = Tenant(node, row, pod, chosen, tenant.milli)
            wrong = problem(node, pod, chosen, tenant.milli)
            if wrong is None:
                take(tenant.node, tenant, -1)
                tenant.node.freed = number
        elif what in ("place", "runs"):
            new = Tenant(node, row, pod, chosen, int(d["milli"]))
            wrong = problem(node, pod, chosen, new.milli)
            if what == "place":
                wrong = wrong or self.beyond_quota([pod])
            elif not re.fullmatch("r[0-9]+", instance):
                wrong = f"instance {instance} of one that runs already"
            if tenant is not None:
                wrong = f"instance {instance} is placed twice"
        else:
            return f"unknown decision {what!r}"
        if node.closed and what != "runs":
            wrong = "the node takes nothing new"
        if wrong:
            return f"on {d['node']}: {wrong}"
        take(node, new, 1)
        if what != "migrate":
            self.charge(pod, 1)
        self.placed[instance] = new
        return None

    def refused(self, number, pod):
        since = self.no_room_since.get(pod.shape, -2)
        for node in self.nodes.values():
            if node.freed > since and has_room(node, pod):
                return f"refused, but {node.name} has room"
        self.no_room_since[pod.shape] = number
        return None

    def denied(self, pods):
        """Beyond a quota, or a gang that does not fit."""
        if self.beyond_quota(pods):
            return None
        if len(pods) == 1:
            return "denied, but no quota forbids it (are the run's quotas given?)"
        if any(all(not has_room(n, p) for n in self.nodes.values()) for p in pods):
            return None
        pod = pods[0]
        alike = len({p.shape for p in pods}) == 1
        if not alike or pod.require or (pod.count > 1 and pod.milli < WHOLE):
            self.undoubted += 1
            return None
        # It makes no difference where such members go: each takes one of the places that there are.
        places = sum(places_on(n, pod) for n in self.nodes.values())
        if places >= len(pods):
            return f"a gang of {len(pods)} is denied, but there is room for {places}"
        return None

    def finish(self, number):
        wrong = self.unfinished("end")
        if wrong:
            self.violation(number, wrong)
        if self.there:
            row, copy = min(self.there)
            self.violation(number, f"{len(self.there)} pods that run are not accounted for, as row "
                                   f"{row} in copy {copy}")


def places_on(node, pod):
    """How many such pods the node could take beside what it has."""
    if not has_room(node, pod):
        return 0
    most = node.slots
    if pod.cpu:
        most = min(most, node.cpu // pod.cpu)
    if pod.memory:
        most = min(most, node.memory // pod.memory)
    if pod.count:
        on = [min(c // pod.milli if pod.milli else most,
                  m // pod.device_memory if pod.device_memory else most) for c, m in node.devices]
        most = min(most, sum(on) if pod.count == 1 else sum(n > 0 for n in on) // pod.count)
    return most


def quota(text):
    name, _, figures = text.rpartition("=")
    return name, round(float(figures.split(":")[0]) * WHOLE)


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].strip(), add_help=False)
    parser.add_argument("lists", nargs=3)
    parser.add_argument("--replicate", type=int, default=1)
    parser.add_argument("--quota", default="")
    parser.add_argument("--protocol", choices=["inflate", "churn"])
    parser.add_argument("--refusal")
    parser.add_argument("--arrived", type=float)
    args = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")
    csv.field_size_limit(2**31 - 1)
    path = args.lists[0]
    try:
        if args.replicate < 1:
            raise ValueError("--replicate is less than 1")
        quotas = dict(quota(x) for x in args.quota.split(",") if x)
        specs = list(kube_nodes(path) if is_json(path) else csv_nodes(path))
        path = args.lists[1]
        pods = list(kube_pods(path, specs) if is_json(path) else csv_pods(path))
        path = args.lists[2]
        decisions = list(csv_rows(path))
        if any(None in d or None in d.values() for d in decisions[:-1]):
            raise ValueError("rows of different lengths")
        if decisions and set(decisions[0]) != {"what", "instance", "row", "pod", "node", "copy",
                                               "devices", "milli"}:
            raise ValueError("not a log of decisions")
    except (OSError, KeyError, ValueError, TypeError, csv.Error, RecursionError) as error:
        print(f"replay_check: {path}: {type(error).__name__} {error}", file=sys.stderr)
        return 2
    if not decisions:
        print(f"replay_check: {path}: no decisions", file=sys.stderr)
        return 2
    nodes = {(n.name, copy): n.copy() for copy in range(args.replicate) for n in specs}
    ways = None if args.refusal is None else set(args.refusal.split(",")) - {"", "none"}
    replay = Replay(nodes, pods, args.replicate, quotas, path, args.protocol, ways)
    last = decisions.pop() if decisions[-1]["what"] == "end" else None
    for number, d in enumerate(decisions):
        try:
            wrong = replay.step(number, d)
        except (ValueError, TypeError) as error:
            wrong = f"unreadable: {error}"
        if wrong:
            replay.violation(number, f"{d['pod'][:60]}: {wrong}")
    replay.finish(len(decisions))
    ended = last and None not in last.values() and (last["instance"], last["row"])
    if ended != (str(len(decisions)), str(replay.arrived)):
        replay.violation(len(decisions), "the log is cut off: its last line does not close it")
    if not decisions:
        replay.violation(0, "nothing was decided")
    capacity = WHOLE * sum(len(n.devices) for n in nodes.values())
    if args.arrived is not None and 100 * replay.demand < (args.arrived - 0.51) * capacity:
        replay.violation(len(decisions), f"demand ends at {100 * replay.demand / capacity:.1f} % of "
                                         f"capacity, not {args.arrived:g} %")
    print(f"{len(decisions)} decisions, {replay.violations} violations"
          + (f"; {replay.undoubted} refusals of gangs could not be doubted" if replay.undoubted
             else ""))
    return 1 if replay.violations else 0


if __name__ == "__main__":
    sys.exit(main())
