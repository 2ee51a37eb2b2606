"""divvy advise from outside: what it reports is what the program did, and its advice suffices."""
import json
import os
import unittest

from harness import DIVVY, DivvyTest, GiB, main

MiB = 1 << 20


class Advise(DivvyTest):
    def advise(self, *command):
        report = os.path.join(self.dir, "advice.json")
        done = self.divvy("advise", "--sim", self.sim, "-o", "json", "--to", report, "--", *command)
        if not os.path.exists(report):
            return done, None
        with open(report, encoding="utf-8") as f:
            return done, json.load(f)

    def test_what_it_reports_is_what_the_program_did(self):
        done, report = self.advise(DIVVY, "load", "--alloc", "700MiB", "--kernel", "2ms", "--rate", "50",
                                   "--for", "2s", "-o", "json")
        self.assertEqual(done.returncode, 0, done.stderr)
        said = json.loads(done.stdout)  # stdout is the command's alone
        memory, operations = report["memory"], report["operations"]
        self.assertEqual(operations["kernels"] + operations["not_read"], said["work"]["operations"])
        self.assertGreaterEqual(operations["p50_us"], 1999)
        self.assertGreaterEqual(operations["max_us"], operations["p95_us"])
        self.assertEqual(memory["kinds_peak_bytes"]["linear"], 700 * MiB)
        self.assertGreater(memory["kinds_peak_bytes"]["context"], 0)
        self.assertGreaterEqual(memory["peak_bytes"], 700 * MiB + memory["kinds_peak_bytes"]["context"])
        self.assertEqual(memory["refused"], 0)
        self.assertTrue(report["alone"])
        self.assertGreater(report["gpu"]["duty_percent"], 0)

    def test_a_peak_however_short(self):
        script = f"'{DIVVY}' load --alloc 5GiB && '{DIVVY}' load --alloc 100MiB"
        done, report = self.advise("sh", "-c", script)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreater(report["memory"]["peak_bytes"], 5 * GiB)
        self.assertLess(report["memory"]["peak_bytes"], 6 * GiB)

    def test_the_share_that_it_names_suffices(self):
        load = [DIVVY, "load", "--alloc", "1GiB", "--path", "pool"]
        done, report = self.advise(*load)
        self.assertEqual(done.returncode, 0, done.stderr)
        mem = report["advice"]["mem_bytes"]
        self.assertIn(f"--mem {mem // MiB}MiB", report["advice"]["run"])
        self.assertEqual(self.divvy(*self.run_args(mem=str(mem)), *load).returncode, 0)
        less = report["memory"]["peak_bytes"] - 64 * MiB
        self.assertEqual(self.divvy(*self.run_args(mem=str(less)), *load).returncode, 3)

    def test_text_names_the_command_and_the_reasons(self):
        done = self.divvy("advise", "--sim", self.sim, "--", DIVVY, "load", "--alloc", "1GiB")
        self.assertEqual(done.returncode, 0, done.stderr)
        for word in ("divvy run --mem ", "GiB at most", "no GPU work was seen"):
            self.assertIn(word, done.stderr)

    def test_exit_status_is_the_commands(self):
        self.assertEqual(self.advise("sh", "-c", "exit 7")[0].returncode, 7)
        self.assertEqual(self.advise("sh", "-c", "kill -9 $$")[0].returncode, 137)
        self.assertEqual(self.advise("/nonexistent")[0].returncode, 127)
        self.assertEqual(self.advise("/etc/passwd")[0].returncode, 126)
        self.assertEqual(self.divvy("advise", "--sim", self.sim).returncode, 125)
        self.assertEqual(self.divvy("advise", "--sim", self.sim, "--gpu", "9", "--", "true").returncode, 125)
        self.assertEqual(self.tenants(), {})


if __name__ == "__main__":
    unittest.TestCase.maxDiff = None
    main()
