#!/usr/bin/env python3
"""The alert rules, Prometheus's configuration and the Grafana board in deploy/: valid, and about
metrics that there are."""
import csv
import json
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
METRIC = re.compile(r"\b(?:divvy|process)_[a-z_]+\b")


def metrics():
    with open(ROOT / "api/metrics/divvy.tsv", encoding="utf-8", newline="") as f:
        return {row["name"]: set(row["labels"].split()) for row in csv.DictReader(f, delimiter="\t")}


class Deploy(unittest.TestCase):
    def promtool(self, *args):
        if shutil.which("promtool") is None:
            self.skipTest("promtool is not installed (Debian: prometheus)")
        done = subprocess.run(["promtool", "check", *args], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_rules(self):
        self.promtool("rules", str(ROOT / "deploy/prometheus/divvy-rules.yml"))

    def test_configuration(self):
        # Syntax alone: the token's file is the operator's.
        self.promtool("config", "--syntax-only", str(ROOT / "deploy/prometheus/prometheus.yml"))

    def test_board_is_what_its_program_writes(self):
        done = subprocess.run([sys.executable, ROOT / "deploy/grafana/make_dashboard.py", "--verify"])
        self.assertEqual(done.returncode, 0, "run deploy/grafana/make_dashboard.py")

    def test_board_is_a_board(self):
        board = json.loads((ROOT / "deploy/grafana/divvy.json").read_text(encoding="utf-8"))
        ids = [p["id"] for p in board["panels"]]
        self.assertEqual(len(ids), len(set(ids)))
        self.assertTrue(all(t["expr"] for p in board["panels"] for t in p.get("targets", [])))

    def test_only_metrics_that_there_are(self):
        known = metrics()
        for path in ("deploy/grafana/divvy.json", "deploy/prometheus/divvy-rules.yml"):
            text = (ROOT / path).read_text(encoding="utf-8")
            text = re.sub(r"tenant_device:divvy_\w+:\w+", "", text)  # recorded by the rules
            used = set(METRIC.findall(text))
            self.assertTrue(used)
            self.assertEqual(used - set(known), set(), path)


if __name__ == "__main__":
    unittest.main()
