"""divvy simulate cluster end to end, on a small made-up cluster: every policy's decisions pass the
independent checker, a falsified log does not, output is what it says, bad input is refused."""
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

BUILD = os.environ.get("DIVVY_BUILD_DIR", "build")
SOURCE = os.environ.get("DIVVY_SOURCE_DIR", ".")
DIVVY = os.path.join(BUILD, "bin", "divvy")
CHECK = [sys.executable, os.path.join(SOURCE, "tools", "replay_check.py")]
POLICIES = ["default", "fgd", "bestfit", "dotprod", "packing", "clustering", "random"]


def write(path, header, rows, end="\n"):
    with open(path, "w", newline="") as f:
        f.write(",".join(header) + end)
        for row in rows:
            f.write(",".join(str(x) for x in row) + end)


def run(*args):
    return subprocess.run([DIVVY, "simulate", "cluster", *args], capture_output=True, text=True)


class SimulateCluster(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory()
        cls.nodes = os.path.join(cls.dir.name, "nodes.csv")
        cls.pods = os.path.join(cls.dir.name, "pods.csv")
        cls.log = os.path.join(cls.dir.name, "decisions.csv")
        rng = random.Random(5)
        write(cls.nodes, ["sn", "cpu_milli", "memory_mib", "gpu", "model", "gpu_memory_mib"],
              [(f"node-{i:03}", rng.choice([32000, 64000, 96000]), 400000, rng.choice([1, 2, 4, 8]),
                rng.choice(["A", "B", "C"]), 40000) for i in range(60)])
        rows = []
        for i in range(400):
            kind = rng.random()
            spec = rng.choice(["", "", "", "A", "A|B"])
            if kind < 0.1:
                rows.append((f"pod-{i:04}", 4000, 8000, 0, 0, "", 0))
            elif kind < 0.2:
                rows.append((f"pod-{i:04}", 8000, 8000, rng.choice([2, 4, 8]), 1000, spec, 0))
            else:
                rows.append((f"pod-{i:04}", rng.choice([1000, 6000]), 8000, 1,
                             rng.choice([130, 270, 480, 720, 1000]), spec,
                             rng.choice([0, 9000, 17000])))
        cls.header = ["name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec",
                      "gpu_memory_mib"]
        write(cls.pods, cls.header, rows)

    @classmethod
    def tearDownClass(cls):
        cls.dir.cleanup()

    def check(self, *args, nodes=None, pods=None):
        return subprocess.run(CHECK + [nodes or self.nodes, pods or self.pods, self.log, *args],
                              capture_output=True, text=True)

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def log_rows(self):
        with open(self.log, newline="") as f:
            return list(csv.DictReader(f))

    def falsified(self, good, edit, *args, close=True, **lists):
        """What the checker prints of the log once `edit` has changed its rows."""
        rows = [dict(d) for d in good if d["what"] != "end"]
        rows = edit(rows) or rows
        if close:
            arrived = {d["instance"] for d in rows if d["instance"].isdigit()}
            rows.append({**dict.fromkeys(good[0], ""), "what": "end", "instance": len(rows),
                         "row": len(arrived)})
        with open(self.log, "w", newline="") as f:
            out = csv.DictWriter(f, list(good[0]))
            out.writeheader()
            out.writerows(rows)
        return self.check(*args, **lists)

    def simulate(self, *args):
        result = run("--nodes", self.nodes, "--pods", self.pods, *args)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def test_every_decision_is_feasible_and_every_refusal_true(self):
        for policy in POLICIES:
            for protocol in ["inflate", "churn"]:
                self.simulate("--policy", policy, "--protocol", protocol, "--decisions", self.log)
                check = self.check()
                self.assertEqual(check.returncode, 0, f"{policy} {protocol}: {check.stdout}")
                known = ["--arrived", "130"] if protocol == "inflate" else []
                check = self.check("--protocol", protocol, "--refusal", "none", *known)
                self.assertEqual(check.returncode, 0, f"{policy} {protocol}: {check.stdout}")
                self.assertRegex(check.stdout, r"^[1-9]\d+ decisions, 0 violations\n$")

    def test_copies_of_the_cluster(self):
        self.simulate("--policy", "default", "--replicate", "3", "--decisions", self.log)
        self.assertIn(" 0 violations", self.check("--replicate", "3").stdout)
        self.assertEqual({d["copy"] for d in self.log_rows() if d["node"]}, {"0", "1", "2"})
        self.assertEqual(self.check("--replicate", "2").returncode, 1)
        self.assertEqual(self.check().returncode, 1)

    def test_copies_of_nodes_that_are_called_like_copies(self):
        nodes, pods = self.path("hash_nodes.csv"), self.path("hash_pods.csv")
        write(nodes, ["sn", "cpu_milli", "memory_mib", "gpu", "model"],
              [("a", 64000, 400000, 4, "A"), ("a#1", 64000, 400000, 2, "A"),
               ("a#1#1", 64000, 400000, 1, "A")])
        write(pods, self.header[:5] + ["node"],
              [(f"p{i}", 1000, 1000, 1, 1000, "a#1" if i == 0 else "") for i in range(9)])
        result = run("--nodes", nodes, "--pods", pods, "--policy", "default", "--replicate", "2",
                     "--decisions", self.log)
        self.assertEqual(result.returncode, 0, result.stderr)
        check = self.check("--replicate", "2", nodes=nodes, pods=pods)
        self.assertIn(" 0 violations", check.stdout)

    def test_the_checker_finds_falsified_logs(self):
        self.simulate("--policy", "default", "--decisions", self.log)
        with open(self.log) as f:
            good = list(csv.DictReader(f))
        placed = [i for i, d in enumerate(good) if d["what"] == "place" and d["devices"]]

        def violations(edit):
            rows = [dict(d) for d in good]
            edit(rows)
            write(self.log, list(good[0]), [d.values() for d in rows])
            check = self.check()
            self.assertEqual(check.returncode, 1, check.stdout)

        def move_all_to_one_node(rows):
            for i in placed:
                rows[i]["node"] = rows[placed[0]]["node"]
        violations(move_all_to_one_node)
        violations(lambda rows: rows[placed[3]].update(devices="31"))
        violations(lambda rows: rows[placed[3]].update(node="nowhere"))
        violations(lambda rows: rows[placed[-1]].update(instance=rows[placed[0]]["instance"]))
        violations(lambda rows: rows[placed[0]].update(what="refuse", node="", devices=""))
        violations(lambda rows: rows[placed[3]].update(pod="unknown"))

    def test_the_checker_sees_what_is_missing_or_denied_without_reason(self):
        self.simulate("--policy", "default", "--decisions", self.log)
        good = self.log_rows()
        refused = [i for i, d in enumerate(good) if d["what"] == "refuse"]
        self.assertTrue(refused)
        self.assertEqual(self.falsified(good, lambda rows: rows).returncode, 0)

        def deny_all(rows):
            for d in rows:
                d.update(what="deny", node="", copy="", devices="", milli="")
        check = self.falsified(good, deny_all)
        self.assertEqual(check.returncode, 1, check.stdout)
        self.assertIn("no quota forbids it", check.stdout)
        # A quota that is used up is a reason, one that is not is none.
        self.assertEqual(self.falsified(good, deny_all, "--quota", "default=0").returncode, 1)
        gpus = [{**d, "instance": str(i)} for i, d in enumerate(d for d in good if d["devices"])]
        self.assertEqual(self.falsified(gpus, deny_all, "--quota", "default=0").returncode, 0)
        check = self.falsified(good, lambda rows: [d for d in rows if d["what"] != "refuse"])
        self.assertIn("is the next to arrive", check.stdout)
        check = self.falsified(good, lambda rows: rows[:refused[0]] + rows[refused[0] + 1:])
        self.assertIn("is the next to arrive", check.stdout)
        self.assertEqual(check.returncode, 1)
        check = self.falsified(good, lambda rows: None, "--quota", "default=3")
        self.assertIn("milli in use", check.stdout)
        with open(self.log, "w") as f:
            f.write(",".join(good[0]) + "\nend,0,0,,,,,\n")
        check = self.check()
        self.assertEqual(check.returncode, 1, check.stdout)
        self.assertIn("nothing was decided", check.stdout)

    def test_the_checker_reads_long_names_and_fields_that_are_null(self):
        nodes, pods = self.path("null_nodes.json"), self.path("null_pods.json")
        long = "n" * 5_000_000
        with open(nodes, "w") as f:
            json.dump({"items": [{"metadata": {"name": name, "labels": None, "annotations": None},
                                  "status": {"allocatable": {"cpu": "8", "memory": "4Gi",
                                                             "pods": None, "nvidia.com/gpu": gpus},
                                             "conditions": None},
                                  "spec": None}
                                 for name, gpus in [(long, "4"), ("b", None)]]}, f)
        with open(pods, "w") as f:
            json.dump({"items": [{"metadata": {"name": f"p{i}", "namespace": None},
                                  "spec": {"nodeName": None, "nodeSelector": None, "containers": [
                                      {"resources": {"requests": {"cpu": None}, "limits": {
                                          "cpu": "1", "nvidia.com/gpu": "1" if i else None}}},
                                      {"resources": None}, None]}} for i in range(4)]}, f)
        result = run("--nodes", nodes, "--pods", pods, "--policy", "default", "--decisions", self.log)
        self.assertEqual(result.returncode, 0, result.stderr)
        check = self.check(nodes=nodes, pods=pods)
        self.assertIn(" 0 violations", check.stdout + check.stderr)
        with open(nodes, "w") as f:
            json.dump({"items": [{"metadata": {"name": long}}] * 2}, f)
        twice = run("--nodes", nodes, "--pods", pods)
        self.assertEqual(twice.returncode, 2)
        self.assertLess(len(twice.stderr), 500)

    def rich(self):
        """Lists with all that the readers know: links, gangs, priorities, elasticity, odd names."""
        rng = random.Random(11)
        nodes = os.path.join(self.dir.name, "rich_nodes.csv")
        pods = os.path.join(self.dir.name, "rich_pods.csv")
        write(nodes, ["sn", "cpu_milli", "memory_mib", "gpu", "model", "link_group", "cordoned"],
              [('"a,""%d"""' % i, 64000, 400000, gpus, "A",
                "|".join(str(d // 2) for d in range(gpus)), 1 if i == 3 else "")
               for i, gpus in enumerate([2, 4, 8, 8] * 6)])
        rows = []
        for i in range(150):
            gang, count, milli, least = "", 1, rng.choice([300, 500, 700, 1000]), ""
            if i % 5 == 0:
                gang, count, milli = f"job-{i // 15}", 2, 1000
            elif i % 7 == 0:
                count, milli = rng.choice([2, 4]), 1000
            elif i % 3 == 0:
                least = milli * 3 // 4
            rows.append((f"pod-{i % 140}", 1000, 1000, count, milli, "require" if count == 2 else "",
                         rng.choice(["red", "blue"]), rng.randrange(3), least, gang,
                         '"a,""2"""' if i < 3 else ""))
        write(pods, ["name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "link", "namespace",
                     "priority", "min_gpu_milli", "gang", "node"], rows)
        return nodes, pods

    def test_what_is_done_about_refusals_is_feasible_too(self):
        nodes, pods = self.rich()
        seen = {}
        for ways in ["", "squeeze", "migrate", "preempt", "reclaim,queue", "queue",
                     "squeeze,migrate,preempt,reclaim,queue"]:
            limit, quota = (100, "red=100:80") if "reclaim" in ways else (60, "red=60:10:2")
            for protocol in ["inflate", "churn"]:
                args = ["--policy", "default", "--protocol", protocol, "--load", "1.3", "--decisions",
                        self.log, "--quota", quota, "-o", "json"]
                if ways:
                    args += ["--refusal", ways]
                result = run("--nodes", nodes, "--pods", pods, *args)
                self.assertEqual(result.returncode, 0, result.stderr)
                check = self.check("--quota", quota, "--protocol", protocol, "--refusal",
                                   ways or "none", nodes=nodes, pods=pods)
                self.assertEqual(check.returncode, 0, f"{ways} {protocol}: {check.stdout}{check.stderr}")
                out = json.loads(result.stdout)["runs"][0]["refusals"]
                for key, value in out.items():
                    if isinstance(value, (int, float)):
                        seen[ways, key] = seen.get((ways, key), 0) + value
                red = {s["namespace"]: s for s in out["namespaces"]}["red"]
                self.assertLessEqual(red["used_gpus"], limit)
        for ways, keys in {"squeeze": ["squeezed"], "migrate": ["migrated", "moves"],
                           "preempt": ["preempting", "preempted", "preempted_gpus"],
                           "reclaim,queue": ["reclaiming", "preempted", "reclaimed_gpus"], "queue": ["waited", "placed_later"],
                           "": ["over_quota", "gangs_placed", "gangs_refused"]}.items():
            for key in keys:
                self.assertGreater(seen[ways, key], 0, f"{ways}: {key}")
        for key in ["squeezed", "migrated", "preempted", "reclaiming", "waited"]:
            self.assertEqual(seen["", key], 0, key)

    def test_all_at_once_on_lists_drawn_at_random(self):
        nodes, pods = self.path("x_nodes.csv"), self.path("x_pods.csv")
        for seed in range(10):
            rng = random.Random(seed)
            memory = rng.random() < 0.5
            sizes = [4] + [rng.choice([0, 1, 2, 4, 8]) for _ in range(rng.randint(1, 12))]
            names = [f"n{'#' if rng.random() < 0.2 else ''}{i}" for i in range(len(sizes))]
            write(nodes, ["sn", "cpu_milli", "memory_mib", "gpu", "model", "gpu_memory_mib",
                          "link_group", "cordoned"],
                  [(name, rng.choice([4000, 64000]), rng.choice([8000, 400000]), gpus,
                    rng.choice("AB"), rng.choice([16000, 40000]) if memory else 0,
                    "|".join(str(d // 2) for d in range(gpus)) if rng.random() < 0.5 else "",
                    1 if rng.random() < 0.1 else "") for name, gpus in zip(names, sizes)])
            rows = []
            for i in range(rng.randint(30, 100)):
                count = rng.choice([0, 1, 1, 1, 1, 2, 4])
                milli = rng.choice([100, 300, 500, 700, 1000]) if count == 1 else 1000
                rows.append((f"p{i % 80}", rng.choice([0, 500, 4000]), rng.choice([0, 1000, 9000]),
                             count, milli, rng.choice(["", "", "A", "A|B", "C"]),
                             rng.choice([0, 4000, 12000]) if memory else 0,
                             rng.choice(["", "require", "prefer"]), rng.choice(["x", "y", ""]),
                             rng.randint(0, 2), rng.choice(["", milli // 2]),
                             rng.choice([""] * 5 + ["g1", "g2", "g3"]),
                             rng.choice(names) if rng.random() < 0.15 else ""))
            write(pods, self.header[:7] + ["link", "namespace", "priority", "min_gpu_milli", "gang",
                                           "node"], rows)
            ways = [w for w in ["squeeze", "migrate", "preempt", "reclaim", "queue"]
                    if rng.random() < 0.5]
            same = ["--replicate", str(rng.randint(1, 3)), "--quota", f"default={rng.choice([1.5, 9])}"]
            args = same + ["--protocol", rng.choice(["inflate", "churn"]), "--load", "1.5"]
            result = run("--nodes", nodes, "--pods", pods, "--policy", rng.choice(POLICIES),
                         "--decisions", self.log, *args, *(["--refusal", ",".join(ways)] * bool(ways)))
            self.assertEqual(result.returncode, 0, result.stderr)
            check = self.check(*same, nodes=nodes, pods=pods)
            self.assertEqual(check.returncode, 0, f"seed {seed}: {check.stdout}{check.stderr}")

    def test_a_namespace_below_its_fair_share_reclaims_from_one_above(self):
        nodes = os.path.join(self.dir.name, "forty.csv")
        pods = os.path.join(self.dir.name, "two_spaces.csv")
        write(nodes, ["sn", "cpu_milli", "memory_mib", "gpu", "model"],
              [(f"n{i}", 64000, 400000, 4, "A") for i in range(10)])
        write(pods, ["name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "namespace", "priority"],
              [(f"p{i}", 1000, 1000, 1, 1000, "late" if i % 3 == 0 else "greedy", 5 * (i % 3 != 0))
               for i in range(90)])

        def used(*ways):
            out = json.loads(run("--nodes", nodes, "--pods", pods, "--policy", "default", "-o", "json",
                                 "--quota", "late=40:20", "--decisions", self.log, *ways).stdout)
            check = self.check("--quota", "late=40:20", nodes=nodes, pods=pods)
            self.assertEqual(check.returncode, 0, check.stdout)
            refusals = out["runs"][0]["refusals"]
            return refusals, {s["namespace"]: s["used_gpus"] for s in refusals["namespaces"]}

        with open(self.log, "w"):
            pass
        before, plain = used()
        after, fair = used("--refusal", "reclaim")
        with open(self.log) as f:
            arrived = sum(",p" in row and int(row.split(",p")[1].split(",")[0]) % 3 == 0
                          for row in f if row.startswith(("place", "refuse")))
        self.assertEqual(plain["late"] + plain["greedy"], 40)
        self.assertEqual(fair["late"] + fair["greedy"], 40)
        # All that it asked for was within what it is guaranteed, also against higher priorities.
        self.assertLess(plain["late"], arrived)
        self.assertEqual(fair["late"], min(20, arrived))
        self.assertEqual(after["reclaiming"], fair["late"] - plain["late"])
        self.assertEqual(after["preempted"], after["reclaimed_gpus"])

    def test_gangs_come_whole_and_each_in_its_namespace(self):
        nodes, pods = self.path("g_nodes.csv"), self.path("g_pods.csv")
        write(nodes, ["sn", "cpu_milli", "memory_mib", "gpu", "model"],
              [(f"n{i}", 64000, 400000, 4, "A") for i in range(10)])
        write(pods, ["name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "namespace", "gang",
                     "priority"],
              [(f"{space}{i}", 1000, 1000, 2, 1000, space, "job", 0)
               for space in ["red", "blue"] for i in range(3)]
              + [(f"single{i}", 1000, 1000, 1, 1000, "blue", "", 1) for i in range(6)])
        base = ["--nodes", nodes, "--pods", pods, "--policy", "default", "-o", "json", "--decisions",
                self.log]
        lists = {"nodes": nodes, "pods": pods}
        for protocol in ["inflate", "churn"]:
            args = ["--protocol", protocol, "--load", "4", "--quota", "red=5",
                    "--refusal", "preempt,queue"]
            result = run(*base, *args)
            self.assertEqual(result.returncode, 0, result.stderr)
            out = json.loads(result.stdout)["runs"][0]
            # The three of red are six GPUs: one too many. Those of blue have a quota of their own.
            self.assertGreater(out["refusals"]["gangs_placed"], 0)
            self.assertGreater(out["refusals"]["over_quota"], 0)
            used = {s["namespace"]: s["used_gpus"] for s in out["refusals"]["namespaces"]}
            self.assertEqual(used["red"], 0)
            if protocol == "inflate":
                self.assertEqual(out["arrived_percent"], 130)
            else:
                self.assertGreater(out["refusals"]["preempted"], 0)
            check = self.check("--quota", "red=5", **lists)
            self.assertEqual(check.returncode, 0, check.stdout)
        good = self.log_rows()
        one = next(i for i, d in enumerate(good) if d["what"] == "place" and "blue" in d["pod"])
        check = self.falsified(good, lambda rows: rows[:one] + rows[one + 1:], "--quota", "red=5",
                               **lists)
        self.assertEqual(check.returncode, 1, check.stdout)
        ended = next(i for i, d in enumerate(good) if d["what"] == "preempt" and "blue" in d["pod"])
        check = self.falsified(good, lambda rows: rows[:ended] + rows[ended + 1:], "--quota",
                               "red=5", **lists)
        self.assertIn("stays of a gang that was ended", check.stdout)
        # A gang that is denied although there is room for it.
        first = next(i for i, d in enumerate(good) if "blue" in d["pod"])

        def deny(rows):
            return [{**d, "what": "deny", "instance": str(i), "node": "", "copy": "", "devices": "",
                     "milli": ""} for i, d in enumerate(rows[first:first + 3])]
        check = self.falsified(good, deny, "--quota", "red=5", **lists)
        self.assertIn("a gang of 3 is denied, but there is room for 20", check.stdout)

    def test_pods_that_run_where_there_is_no_room_are_told_of(self):
        nodes, pods = self.path("r_nodes.csv"), self.path("r_pods.csv")
        write(nodes, ["sn", "cpu_milli", "memory_mib", "gpu", "model"],
              [("n0", 64000, 400000, 2, "A"), ("n1", 64000, 400000, 4, "A")])
        write(pods, self.header[:5] + ["node"],
              [(f"p{i}", 1000, 1000, 1, 1000, "n0" if i < 4 else "gone" if i == 4 else "")
               for i in range(9)])
        result = run("--nodes", nodes, "--pods", pods, "--policy", "default", "-o", "json",
                     "--replicate", "2", "--decisions", self.log)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("r_pods.csv:4: pods that run on nodes without room for them, and are left "
                      "out: 2 (p2, p3)\n", result.stderr)
        self.assertIn("r_pods.csv:6: pods that run on nodes that the node list lacks, and are left "
                      "out: 1 (p4)\n", result.stderr)
        without = json.loads(result.stdout)["without_place"]
        self.assertEqual(without["run_where_there_is_no_room"], {"pods": 2, "first": ["p2", "p3"]})
        self.assertEqual(without["run_on_unknown_nodes"], {"pods": 1, "first": ["p4"]})
        lists = {"nodes": nodes, "pods": pods}
        self.assertIn(" 0 violations", self.check("--replicate", "2", **lists).stdout)
        good = self.log_rows()
        lost = next(i for i, d in enumerate(good) if d["what"] == "lost")
        check = self.falsified(good, lambda rows: rows[:lost] + rows[lost + 1:], "--replicate", "2",
                               **lists)
        self.assertIn("1 pods that run are not accounted for", check.stdout)

    def test_a_snapshot_in_which_all_run(self):
        nodes, pods = self.path("a_nodes.csv"), self.path("a_pods.csv")
        write(nodes, ["sn", "cpu_milli", "memory_mib", "gpu", "model"], [("n", 64000, 400000, 4, "A")])
        write(pods, self.header[:5] + ["node"], [(f"p{i}", 1000, 1000, 1, 500, "n") for i in range(4)])
        result = run("--nodes", nodes, "--pods", pods, "--policy", "default,fgd", "-o", "json",
                     "--protocol", "inflate,churn")
        self.assertEqual(result.returncode, 0, result.stderr)
        for r in json.loads(result.stdout)["runs"]:
            self.assertEqual((r["arrived_percent"], r["allocated_percent"]), (0, 50))
            self.assertIsNone(r["rejected_before_95_percent"])
            self.assertIsNone(r["churn_accepted_percent"])

    def test_a_pod_larger_than_the_cluster_does_not_end_the_arrivals(self):
        nodes, pods = self.path("s_nodes.csv"), self.path("s_pods.csv")
        write(nodes, ["sn", "cpu_milli", "memory_mib", "gpu", "model"],
              [(f"n{i}", 64000, 400000, 4, "A") for i in range(5)])
        for huge in [21, 1000]:
            write(pods, self.header[:5], [("a-huge", 1000, 1000, huge, 1000)]
                  + [(f"p{i}", 1000, 1000, 1, 500) for i in range(30)])
            for seed in ["1", "2", "3", "4"]:
                result = run("--nodes", nodes, "--pods", pods, "--policy", "default", "-o", "json",
                             "--seed", seed, "--protocol", "inflate,churn", "--load", "0.5")
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertIn("s_pods.csv:2: pods that ask, alone or as a gang, for more compute "
                              "than all nodes have, and do not arrive: 1 (a-huge)\n", result.stderr)
                out = json.loads(result.stdout)["runs"][0]
                self.assertEqual((out["arrived_percent"], out["allocated_percent"]), (130, 100))
                self.assertEqual(out["rejected_before_95_percent"], 0)
                self.assertIsNone(out["multi_gpu_accepted_percent"])
                self.assertIsNone(out["churn_multi_gpu_accepted_percent"])
                self.assertGreater(out["churn_accepted_percent"], 90)
        # Eight GPUs and requests of eight: demand of 130 % is not to be had.
        write(nodes, ["sn", "cpu_milli", "memory_mib", "gpu", "model"], [("n", 64000, 400000, 8, "A")])
        write(pods, self.header[:5], [(f"p{i}", 1000, 1000, 8, 1000) for i in range(3)])
        result = run("--nodes", nodes, "--pods", pods, "--policy", "default")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("demand ended at 100 % of capacity, not 130 %", result.stderr)
        self.assertRegex(result.stdout, r"\n *default +42 +100\.00 +100\.00 +0\.00 +- +- +-\n")

    def test_orders_of_other_lists_are_told_from_damaged_ones(self):
        orders = self.path("orders")
        os.makedirs(orders, exist_ok=True)
        nodes, pods = self.path("o_nodes.csv"), self.path("o_pods.csv")
        write(nodes, ["sn", "cpu_milli", "memory_mib", "gpu", "model"],
              [(f"n{i}", 64000, 400000, gpus, "A") for i, gpus in enumerate([4, 4, 2])])
        write(pods, self.header[:5], [(f"p{i}", 1000, 1000, 1, 1000) for i in range(6)])
        arrivals = [3, 1, 0, 5, 2, 4, 1, 1, 5, 0, 3, 3, 2]

        def place(text, *args):
            with open(os.path.join(orders, "o_pods_42.txt"), "wb") as f:
                f.write(text if isinstance(text, bytes) else text.encode())
            return run("--nodes", nodes, "--pods", pods, "--policy", "default", "-o", "json",
                       "--orders", orders, *args)

        def order(ranks, arrivals):
            return (f"# a comment\nnode_rank {' '.join(map(str, ranks))}\n"
                    f"arrivals {' '.join(map(str, arrivals))}\n")
        good = order([2, 0, 1], arrivals)
        for text in [good, good.replace("\n", "\r\n"), "\ufeff" + good]:
            result = place(text)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertEqual(json.loads(result.stdout)["runs"][0]["order"], "published")
        for text in [order([2, 0, 1, 3], arrivals), order([1, 0], arrivals),
                     order([2, 0, 1], range(9)), order([2, 0, 1], [0, 1, 2, 0]),
                     order([2, 0, 1, 3], [7, 90, 11]), order([2, 0, 1], arrivals * 3)]:
            result = place(text)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("not used: ", result.stderr)
            self.assertEqual(json.loads(result.stdout)["runs"][0]["order"], "drawn")
        for where, text in [
                (1, ""), (3, good[:-1]), (3, good[:40]), (2, good[:20]), (2, "# c\n5 5 5 5\n"),
                (2, order([5, 5, 5], arrivals)), (2, order([0, 0, 1], arrivals)),
                (3, order([2, 0, 1], [5] * 13)), (3, order([2, 0, 1], arrivals[:7] + [6])),
                (3, order([2, 0, 1], arrivals[:7])), (3, order([2, 0, 1], [0, 0] + arrivals)),
                (3, good.replace("5", "x")), (3, good.replace("5", "-5")), (4, good + "more\n"),
                (4, good + "arrivals 1\n"), (1, b"\xff\x00\n"), (3, "# a\n# b\nnode_rank\n"),
                (3, good.replace("5", "99999999999"))]:
            result = place(text)
            self.assertEqual(result.returncode, 2, (text, result.stderr))
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
            self.assertIn(f"o_pods_42.txt:{where}: ", result.stderr, text)
        # Beside the pods it is no other.
        os.makedirs(self.path("fixtures"), exist_ok=True)
        os.rename(os.path.join(orders, "o_pods_42.txt"), self.path("fixtures/o_pods_42.txt"))
        beside = run("--nodes", nodes, "--pods", pods)
        self.assertEqual(beside.returncode, 2)
        self.assertIn("fixtures/o_pods_42.txt:3: ", beside.stderr)
        os.remove(self.path("fixtures/o_pods_42.txt"))
        none = run("--nodes", nodes, "--pods", pods, "--orders", orders)
        self.assertEqual(none.returncode, 0)
        self.assertIn("no o_pods_42.txt in ", none.stderr)
        missing = run("--nodes", nodes, "--pods", pods, "--orders", self.path("nowhere"))
        self.assertEqual(missing.returncode, 4)
        self.assertIn("nowhere: no such folder", missing.stderr)

    def test_an_answer_that_cannot_be_written_is_an_error(self):
        for args in [[], ["-o", "json"], ["--help"]]:
            with open("/dev/full", "w") as full:
                result = subprocess.run([DIVVY, "simulate", "cluster", "--nodes", self.nodes,
                                         "--pods", self.pods, *args], stdout=full,
                                        stderr=subprocess.PIPE, text=True)
            self.assertEqual(result.returncode, 1, args)
            self.assertIn("divvy: stdout: No space left on device", result.stderr)
        for option in ["--plot", "--decisions"]:
            result = run("--nodes", self.nodes, "--pods", self.pods, "--policy", "default", option,
                         "/dev/full")
            self.assertEqual(result.returncode, 1, option)
            self.assertIn("/dev/full: cannot be written: No space left", result.stderr)
            result = run("--nodes", self.nodes, "--pods", self.pods, "--policy", "default", option,
                         "/nowhere/x")
            self.assertIn("/nowhere/x: cannot be written: No such file", result.stderr)

    def test_outputs_overwrite_no_input_and_not_each_other(self):
        folder = self.path("outputs")
        os.makedirs(os.path.join(folder, "fixtures"))
        nodes, pods = os.path.join(folder, "n.csv"), os.path.join(folder, "p.csv")
        order = os.path.join(folder, "fixtures", "p_42.txt")
        write(nodes, ["sn", "cpu_milli", "memory_mib", "gpu", "model"], [("n", 64000, 400000, 4, "A")])
        write(pods, self.header[:5], [(f"p{i}", 1000, 1000, 1, 1000) for i in range(5)])
        text = "node_rank 0\narrivals 3 1 0 4 2\n"
        with open(order, "w") as f:
            f.write(text)
        os.link(order, os.path.join(folder, "hard"))
        os.symlink(pods, os.path.join(folder, "soft"))
        base = ["--nodes", nodes, "--pods", pods, "--policy", "default", "-o", "json"]

        def refused(expect, *args):
            result = run(*base, *args)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn(expect, result.stderr)
        for option in ["--plot", "--decisions"]:
            refused("is an order that is read", option, order)
            refused("is an order that is read", option, os.path.join(folder, "hard"))
            refused("is a list that is read", option, os.path.join(folder, "soft"))
            with open(order) as f:
                self.assertEqual(f.read(), text)
        same = os.path.join(folder, "same")
        refused("name the same file", "--plot", same, "--decisions", os.path.join(folder, ".", "same"))
        os.link(same, same + "2")
        refused("name the same file", "--plot", same, "--decisions", same + "2")
        result = run(*base, "--plot", same, "--decisions", os.path.join(folder, "other"))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(json.loads(result.stdout)["runs"][0]["order"], "published")
        # A folder of orders without one for these lists: which is used is said.
        empty = os.path.join(folder, "empty")
        os.makedirs(empty)
        result = run(*base, "--orders", empty)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("fixtures/p_42.txt is used", result.stderr)

    def test_what_takes_nothing_new_and_what_brings_no_demand_is_said(self):
        nodes, pods = self.path("c_nodes.csv"), self.path("c_pods.csv")
        write(nodes, ["sn", "cpu_milli", "memory_mib", "gpu", "model", "cordoned", "link_group",
                      "gpu_memory_mib"],
              [("a", 64000, 256000, 4, "X", 1, "0|0|1|1", 40000),
               ("b", 64000, 256000, 2, "Y", 0, "0|1", 40000)])
        write(pods, ["name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec", "link",
                     "gpu_memory_mib", "min_gpu_milli"],
              [("x", 1000, 100, 1, 1000, "X", "", 0, ""),
               ("y", 1000, 100, 2, 1000, "Y", "require", 0, ""),
               ("z", 1000, 100, 1, 1000, "", "", 0, ""), ("m", 1000, 100, 1, 0, "", "", 9000, ""),
               ("cpu", 1000, 100, 0, 500, "", "", 0, 200)])
        result = run("--nodes", nodes, "--pods", pods, "--policy", "default", "-o", "json",
                     "--decisions", self.log)
        self.assertEqual(result.returncode, 0, result.stderr)
        out = json.loads(result.stdout)
        self.assertEqual(out["gpus_on_closed_nodes"], 4)
        self.assertIn("4 of 6 GPUs are on nodes that take nothing new", result.stderr)
        self.assertEqual(out["without_place"]["fit_on_no_node"], {"pods": 2, "first": ["x", "y"]})
        self.assertEqual(out["without_demand"], {"pods": 1, "first": ["m"]})
        self.assertIn("c_pods.csv:5: pods that ask for memory of GPUs but for no compute",
                      result.stderr)
        check = self.check(nodes=nodes, pods=pods)
        self.assertIn(" 0 violations", check.stdout)

    def test_nodes_and_pods_in_one_list(self):
        both = self.path("both.json")
        with open(both, "w") as f:
            json.dump({"kind": "List", "items": [
                {"kind": "Node", "metadata": {"name": "n"}, "status": {"allocatable": {
                    "cpu": "8", "memory": "4Gi", "nvidia.com/gpu": "4"}}}] + [
                {"kind": "Pod", "metadata": {"name": f"p{i}"}, "spec": {"containers": [
                    {"resources": {"limits": {"nvidia.com/gpu": 1}}}]}} for i in range(4)]}, f,
                indent=1)
        result = run("--nodes", both, "--pods", both, "--policy", "default", "-o", "json",
                     "--decisions", self.log)
        self.assertEqual(result.returncode, 0, result.stderr)
        out = json.loads(result.stdout)
        self.assertEqual((out["nodes"], out["pods"]), (1, 4))
        self.assertIn("both.json:17: left out: 4 items that are no nodes (the first: Pod)",
                      result.stderr)
        self.assertIn(" 0 violations", self.check(nodes=both, pods=both).stdout)

    def test_the_checker_doubts_ends_and_ways(self):
        self.simulate("--policy", "default", "--decisions", self.log)
        good = self.log_rows()
        told = ["--protocol", "inflate", "--refusal", "none", "--arrived", "130"]
        self.assertEqual(self.falsified(good, lambda rows: rows, *told).returncode, 0)
        check = self.falsified(good, lambda rows: rows[:20], *told)
        self.assertIn("% of capacity, not 130 %", check.stdout)

        def after_each(what):
            def edit(rows):
                out = []
                for d in rows:
                    out.append(d)
                    if d["what"] == "place":
                        out.append({**d, "what": what, "node": "", "copy": "", "devices": "",
                                    "milli": ""})
                return [d for d in out if d["what"] != "refuse"][:40]
            return edit
        self.assertIn("leaves, where none does",
                      self.falsified(good, after_each("leave"), *told).stdout)
        self.assertIn("preempt, without preempt or reclaim",
                      self.falsified(good, after_each("preempt"), *told).stdout)
        self.assertIn("was ended for one of no higher priority",
                      self.falsified(good, after_each("preempt"), "--refusal", "preempt").stdout)

    def test_churn_offers_the_load_or_says_what_it_offered(self):
        nodes, pods = self.path("l_nodes.csv"), self.path("l_pods.csv")
        write(nodes, ["sn", "cpu_milli", "memory_mib", "gpu", "model"],
              [(f"n{i}", 64000, 400000, 4, "A") for i in range(2)])
        args = ["--nodes", nodes, "--pods", pods, "--policy", "default", "--protocol", "churn", "-o",
                "json"]
        # Mostly pods for CPUs only: they do not count among the arrivals that are too many.
        write(pods, self.header[:5], [(f"p{i}", 10, 10, int(i % 30 == 0), 1000) for i in range(90)])
        result = run(*args)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertAlmostEqual(json.loads(result.stdout)["runs"][0]["churn_offered_load"], 0.95)
        write(pods, self.header[:5], [(f"p{i}", 10, 10, 1, 25) for i in range(40)])
        result = run(*args)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("churn offered a GPU load of 0.4, not 0.95: ", result.stderr)
        self.assertAlmostEqual(json.loads(result.stdout)["runs"][0]["churn_offered_load"], 0.4)

    def test_a_log_that_was_cut_off_is_found(self):
        self.simulate("--policy", "default", "--decisions", self.log)
        with open(self.log) as f:
            text = f.read()
        self.assertEqual(self.check().returncode, 0)
        for cut in [len(text) - 3, len(text) // 2, text.rindex("\nend") + 1]:
            with open(self.log, "w") as f:
                f.write(text[:cut])
            self.assertNotEqual(self.check().returncode, 0, f"cut at {cut} of {len(text)}")

    def test_json(self):
        out = json.loads(self.simulate("--policy", "fgd,default", "--seed", "3-4", "--protocol",
                                       "inflate,churn", "-o", "json"))
        self.assertEqual([(r["policy"], r["seed"]) for r in out["runs"]],
                         [("fgd", 3), ("fgd", 4), ("default", 3), ("default", 4)])
        for r in out["runs"] + out["means"]:
            for key in ["allocated_percent", "fragmentation_percent_of_total",
                        "rejected_before_95_percent", "multi_gpu_accepted_percent",
                        "churn_accepted_percent"]:
                self.assertGreaterEqual(r[key], 0)
                self.assertLessEqual(r[key], 100)
        means = {m["policy"]: m["allocated_percent"] for m in out["means"]}
        runs = [r["allocated_percent"] for r in out["runs"] if r["policy"] == "fgd"]
        self.assertAlmostEqual(means["fgd"], sum(runs) / 2, delta=1e-3)
        self.assertIsNone(json.loads(self.simulate("-o", "json"))["runs"][0]
                          ["churn_accepted_percent"])

    def test_same_input_same_output(self):
        args = ["--policy", "default,random", "--protocol", "inflate,churn", "-o", "json"]
        self.assertEqual(self.simulate(*args), self.simulate(*args))

    def test_windows_line_ends(self):
        with open(self.nodes) as f:
            rows = [line.rstrip("\n").split(",") for line in f]
        crlf = os.path.join(self.dir.name, "crlf.csv")
        write(crlf, rows[0], rows[1:], end="\r\n")
        self.assertEqual(run("--nodes", crlf, "--pods", self.pods).stdout, self.simulate())

    def test_plot(self):
        path = os.path.join(self.dir.name, "plot.svg")
        self.simulate("--policy", "default,fgd", "--plot", path)
        with open(path) as f:
            svg = f.read()
        self.assertTrue(svg.startswith("<svg ") and svg.endswith("</svg>\n"))
        self.assertEqual(svg.count("<polyline"), 4)
        self.simulate("--policy", "default", "--protocol", "churn,inflate", "--plot", path)
        # Whatever the list is called, the plot is XML.
        odd = os.path.join(os.fsencode(self.dir.name), b"\xff<&\x01\x1b.csv")
        shutil.copy(self.pods, odd)
        result = subprocess.run([DIVVY, "simulate", "cluster", "--nodes", self.nodes, "--pods", odd,
                                 "--policy", "default", "--plot", path], capture_output=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("\\xff<&\\x01", "".join(xml.etree.ElementTree.parse(path).getroot().itertext()))

    def test_a_pod_larger_than_any_node_is_refused_not_an_error(self):
        pods = os.path.join(self.dir.name, "large.csv")
        write(pods, self.header, [("big", 1000, 1000, 16, 1000, "", 0),
                                  ("cpu", 500000, 1000, 1, 1000, "", 0),
                                  ("ok", 1000, 1000, 1, 1000, "", 0)])
        result = run("--nodes", self.nodes, "--pods", pods, "--policy", "default,fgd", "-o", "json")
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_a_kubernetes_snapshot(self):
        nodes = os.path.join(self.dir.name, "nodes.json")
        pods = os.path.join(self.dir.name, "pods.json")
        with open(nodes, "w") as f:
            json.dump({"items": [{
                "metadata": {"name": f"n{i}", "labels": {"nvidia.com/gpu.product": "A100",
                                                         "nvidia.com/gpu.memory": "40960"}},
                "status": {"allocatable": {"cpu": "64", "memory": "256Gi", "pods": "110",
                                           "nvidia.com/gpu": "8"}}} for i in range(4)]}, f)
        with open(pods, "w") as f:
            json.dump({"items": [{
                "metadata": {"name": f"p{i}", "namespace": "team"},
                "spec": {"nodeName": "n0" if i < 3 else "", "containers": [{"resources": {
                    "requests": {"cpu": "2", "memory": "8Gi"},
                    "limits": {"nvidia.com/gpu": "1", "nvidia.com/gpucores": str(20 + 10 * (i % 4)),
                               "nvidia.com/gpumem": "10000"}}}]}} for i in range(40)]}, f)
        result = run("--nodes", nodes, "--pods", pods, "--policy", "default", "-o", "json",
                     "--decisions", self.log)
        self.assertEqual(result.returncode, 0, result.stderr)
        out = json.loads(result.stdout)
        self.assertEqual(out["gpus"], 32)
        self.assertGreater(out["runs"][0]["allocated_percent"], 50)
        check = subprocess.run(CHECK + [nodes, pods, self.log], capture_output=True, text=True)
        self.assertIn(" 0 violations", check.stdout + check.stderr)
        with open(self.log) as f:
            self.assertEqual(sum(line.startswith("runs,") for line in f), 3)

    def test_bad_input_is_one_clear_line(self):
        def bad(expect, text=None, which="--nodes", args=(), bare=False):
            path = os.path.join(self.dir.name, "bad.csv")
            if text is not None:
                with open(path, "w", errors="surrogateescape") as f:
                    f.write(text)
            files = {"--nodes": self.nodes, "--pods": self.pods}
            if text is not None:
                files[which] = path
            if "--nodes" in args:
                del files["--nodes"]
            if bare:  # of GPU memory nothing is said
                files["--nodes"] = self.path("bare.csv")
                with open(files["--nodes"], "w") as f:
                    f.write("sn,cpu_milli,memory_mib,gpu,model\nn,5,1,1,A\n")
            result = run(*[x for pair in files.items() for x in pair], *args)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
            self.assertIn(expect, result.stderr)
        head = "sn,cpu_milli,memory_mib,gpu,model\n"
        bad("bad.csv:1: the file is empty", "")
        bad("bad.csv:1: no column \"gpu\"", "sn,cpu_milli,memory_mib,model\n")
        bad("bad.csv:2: cpu_milli is -5", head + "n,-5,1,1,A\n")
        bad("bad.csv:3: node n stands twice", head + "n,5,1,1,A\nn,5,1,1,A\n")
        bad("bad.csv:1: the node list has no nodes", head)
        bad("bad.csv:3: gpu is -1", head + "n,5,1,1,A\nm,5,1,-1,A\n")
        bad("bad.csv:2: link_group: 1 numbers for 2 GPUs",
            "sn,cpu_milli,memory_mib,gpu,model,link_group\nn,5,1,2,A,0\n")
        bad("bad.csv:1: the list \"items\" has no nodes", "{\"items\": []}")
        bad("bad.csv:1: nested too deeply", "{\"items\":" + 200000 * "[" + 200000 * "]" + "}")
        bad("bad.csv:1: no node of the node list has a GPU", head + "n,5,1,0,A\n")
        bad("bad.csv:3: pod q asks for GPU memory, but the node list does not say", "name,cpu_milli,"
            "memory_mib,num_gpu,gpu_milli,gpu_memory_mib\np,1,1,1,9,0\nq,1,1,1,9,5\n", "--pods",
            bare=True)
        bad("bad.csv:1: a carriage return without a line feed", "sn,cpu_milli\rn,5")
        bad("bad.csv:3: item 2 (n): node n stands twice",
            "{\"items\": [{\"metadata\": {\"name\": \"n\"}},\n\n{\"metadata\": {\"name\": \"n\"}}]}")
        bad("bad.csv:1: a list of kind Pod where nodes are wanted",
            json.dumps({"items": [{"kind": "Pod", "metadata": {"name": "p"}}]}))
        bad("bad.csv:2: 3 fields instead of 5", head + "n,5,1")
        bad("bad.csv:2: gpu_milli is 2000", "name,cpu_milli,memory_mib,num_gpu,gpu_milli\n"
            "p,1,1,1,2000\n", "--pods")
        bad("bad.csv:1: not JSON", "{\"items\": [", "--pods")
        bad("node a\\nb\\x1b[2J stands twice", head + 2 * '"a\nb\x1b[2J",5,1,1,A\n')
        bad("node \\xff\\xfe stands twice", head + 2 * "\udcff\udcfe,5,1,1,A\n")
        bad("no policy \"nonsense\"", args=["--policy", "nonsense"])
        bad("--seed", args=["--seed", "x"])
        bad("--quota", args=["--quota", "default=x"])
        bad("no pod is in namespace \"nobody\"", args=["--quota", "nobody=1"])
        bad("--quota: default is named twice", args=["--quota", "default=1,default=2"])
        bad("at most the limit", args=["--quota", "default=1:2"])
        bad("a whole number", args=["--quota", "default=2:1:0.5"])
        bad("--seed: 7 is named twice", args=["--seed", "6-8,7"])
        bad("up to 2^64-1", args=["--seed", "18446744073709551616"])
        bad("--policy: fgd is named twice", args=["--policy", "fgd,fgd"])
        bad("--protocol: churn is named twice", args=["--protocol", "churn,churn"])
        for option in ["--plot", "--decisions", "--orders"]:
            bad("is empty", args=[option, ""])
        bad("is a list that is read", args=["--plot", self.pods])
        bad("is a folder, not a file", args=["--nodes", self.dir.name])
        self.assertEqual(json.loads(self.simulate("--seed", "18446744073709551615", "-o", "json"))
                         ["runs"][0]["seed"], 2**64 - 1)
        # A pod that no node could ever hold is refused each time it comes; a warning names it.
        large = os.path.join(self.dir.name, "large.csv")
        with open(self.pods) as f:
            header = f.readline().strip().split(",")
        write(large, header[:5], [("huge", 1000, 1000, 31, 1000), ("small", 1000, 1000, 1, 1000)])
        result = run("--nodes", self.nodes, "--pods", large)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("large.csv:2: pods that fit on no node, not even an empty one, and are always "
                      "refused: 1 (huge)\n", result.stderr)
        missing = run("--nodes", "/nowhere", "--pods", self.pods)
        self.assertNotEqual(missing.returncode, 0)
        self.assertIn("/nowhere: cannot be read", missing.stderr)


if __name__ == "__main__":
    unittest.main()
