"""divvy simulate cluster end to end, on a small made-up cluster: every policy's decisions pass the
independent checker, a falsified log does not, output is what it says, bad input is refused."""
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import unittest

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

    def check(self):
        return subprocess.run(CHECK + [self.nodes, self.pods, self.log], capture_output=True,
                              text=True)

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
                self.assertRegex(check.stdout, r"^[1-9]\d+ decisions, 0 violations\n$")

    def test_copies_of_the_cluster(self):
        self.simulate("--policy", "default", "--replicate", "3", "--decisions", self.log)
        self.assertIn("0 violations", self.check().stdout)
        with open(self.log) as f:
            self.assertIn("#2,", f.read())

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
            for protocol in ["inflate", "churn"]:
                args = ["--policy", "default", "--protocol", protocol, "--load", "1.3", "--decisions",
                        self.log, "--quota", "red=60:10:2", "-o", "json"]
                if ways:
                    args += ["--refusal", ways]
                result = run("--nodes", nodes, "--pods", pods, *args)
                self.assertEqual(result.returncode, 0, result.stderr)
                check = subprocess.run(CHECK + [nodes, pods, self.log], capture_output=True, text=True)
                self.assertEqual(check.returncode, 0, f"{ways} {protocol}: {check.stdout}{check.stderr}")
                out = json.loads(result.stdout)["runs"][0]["refusals"]
                for key, value in out.items():
                    if isinstance(value, (int, float)):
                        seen[ways, key] = seen.get((ways, key), 0) + value
                red = {s["namespace"]: s for s in out["namespaces"]}["red"]
                self.assertLessEqual(red["used_gpus"], 60)
        for ways, keys in {"squeeze": ["squeezed"], "migrate": ["migrated", "moves"],
                           "preempt": ["preempting", "preempted", "preempted_gpus"],
                           "reclaim,queue": ["reclaiming", "preempted", "reclaimed_gpus"], "queue": ["waited", "placed_later"],
                           "": ["over_quota", "gangs_placed", "gangs_refused"]}.items():
            for key in keys:
                self.assertGreater(seen[ways, key], 0, f"{ways}: {key}")
        for key in ["squeezed", "migrated", "preempted", "reclaiming", "waited"]:
            self.assertEqual(seen["", key], 0, key)

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
            check = subprocess.run(CHECK + [nodes, pods, self.log], capture_output=True, text=True)
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
        def bad(expect, text=None, which="--nodes", args=()):
            path = os.path.join(self.dir.name, "bad.csv")
            if text is not None:
                with open(path, "w") as f:
                    f.write(text)
            files = {"--nodes": self.nodes, "--pods": self.pods}
            if text is not None:
                files[which] = path
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
        bad("bad.csv:3: item 2 (n): node n stands twice",
            "{\"items\": [{\"metadata\": {\"name\": \"n\"}},\n\n{\"metadata\": {\"name\": \"n\"}}]}")
        bad("bad.csv:1: a list of kind Pod where nodes are wanted",
            json.dumps({"items": [{"kind": "Pod", "metadata": {"name": "p"}}]}))
        bad("bad.csv:2: 3 fields instead of 5", head + "n,5,1")
        bad("bad.csv:2: gpu_milli is 2000", "name,cpu_milli,memory_mib,num_gpu,gpu_milli\n"
            "p,1,1,1,2000\n", "--pods")
        bad("bad.csv:1: not JSON", "{\"items\": [", "--pods")
        bad("no policy \"nonsense\"", args=["--policy", "nonsense"])
        bad("--seed", args=["--seed", "x"])
        bad("--quota", args=["--quota", "default=x"])
        bad("no pod is in namespace \"nobody\"", args=["--quota", "nobody=1"])
        # A pod that no node could ever hold is refused each time it comes; a warning names it.
        large = os.path.join(self.dir.name, "large.csv")
        with open(self.pods) as f:
            header = f.readline().strip().split(",")
        write(large, header[:5], [("huge", 1000, 1000, 31, 1000), ("small", 1000, 1000, 1, 1000)])
        result = run("--nodes", self.nodes, "--pods", large)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("large.csv: 1 pod(s) fit on no node, not even an empty one (the first is huge)",
                      result.stderr)
        missing = run("--nodes", "/nowhere", "--pods", self.pods)
        self.assertNotEqual(missing.returncode, 0)
        self.assertIn("/nowhere: cannot be read", missing.stderr)


if __name__ == "__main__":
    unittest.main()
