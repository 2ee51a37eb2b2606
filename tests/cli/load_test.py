"""divvy load does the work that it is told to, on every stream, and says what it did."""
import json
import time
import unittest

import harness
from harness import DIVVY


class Load(harness.DivvyTest):
    def load(self, *args):
        done = self.divvy(*self.run_args(), DIVVY, "load", *args, "-o", "json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)["work"]

    def test_streams(self):
        for stream in ("null", "own", "ptsz"):
            with self.subTest(stream=stream):
                work = self.load("--kernel", "20us", "--sync-every", "30", "--stream", stream)
                self.assertEqual((work["operations"], work["requests"]), (30, 1))
                self.assertAlmostEqual(work["gpu_time_s"], 30 * 20e-6)

    def test_kinds_of_work(self):
        for options in (["--streams", "3"], ["--cooperative"], ["--devices", "0", "--several", "together"]):
            with self.subTest(options=options):
                work = self.load("--kernel", "20us", "--sync-every", "6", *options)
                self.assertEqual(work["operations"], 6)
        work = self.load("--kernel", "1ms", "--burst", "5ms", "--rest", "20ms", "--for", "100ms")
        self.assertLess(work["gpu_time_s"], 0.6 * work["elapsed_s"])

    def test_lines_count_what_is_finished(self):
        began = time.monotonic_ns()
        done = self.divvy(*self.run_args(), DIVVY, "load", "--kernel", "50us", "--sync-every", "0",
                          "--for", "150ms", "--every", "20ms", "-o", "json")
        *lines, last = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertGreaterEqual(len(lines), 3)
        self.assertEqual([l["done"] for l in lines], sorted(l["done"] for l in lines))
        self.assertEqual(sum(l["operations"] for l in lines), lines[-1]["done"])
        self.assertLessEqual(lines[-1]["done"], last["work"]["operations"])
        for line in lines:  # nobody finishes more than there was time for
            self.assertLessEqual(line["done"] * 50e3, line["now_ns"] - began)

    def test_ends_when_told_to_though_nothing_is_due(self):
        for waits in (["--rate", "0.001"], ["--rate", "1e-300"], ["--think", "1h"],
                      ["--burst", "1ms", "--rest", "1h"]):
            with self.subTest(waits=waits):
                work = self.load("--kernel", "2ms", *waits, "--for", "50ms")
                self.assertGreaterEqual(work["operations"], 1)

    def test_what_has_no_size_of_its_own_is_taken_until_it_is_enough(self):
        done = self.divvy(*self.run_args(mem="8GiB"), DIVVY, "load", "--path", "context", "--alloc",
                          "3GiB", "-o", "json")
        out = json.loads(done.stdout)
        self.assertGreaterEqual(out["alloc"]["bytes"], 3 << 30)
        self.assertGreater(out["alloc"]["times"], 1)
        self.assertLessEqual(out["alloc"]["bytes"] + out["memory"]["free_bytes"], 8 << 30)
        self.assertIn("(context x ", self.divvy(*self.run_args(mem="8GiB"), DIVVY, "load", "--path",
                                                "context", "--alloc", "1GiB").stdout)
        done = self.divvy(*self.run_args(), DIVVY, "load", "--path", "context", "--alloc", "3GiB")
        self.assertEqual(done.returncode, 3)
        self.assertRegex(done.stderr, "cuCtxCreate_v2.*, after . that took .* of 3 GiB")

    def test_bad_options(self):
        for options in (["--streams", "0"], ["--poisson"], ["--burst", "5ms"], ["--several", "never"],
                        ["--devices", "a"]):
            done = self.divvy("load", "--kernel", "20us", *options)
            self.assert_one_line(done, options[0])
            self.assertEqual(done.returncode, 2)

    def test_a_request_takes_at_least_its_work(self):
        work = self.load("--kernel", "2ms", "--sync-every", "5")
        self.assertGreaterEqual(work["latency_us"]["p50"], 10_000)
        self.assertGreaterEqual(work["elapsed_s"], 0.01)

    def test_graph_and_copy(self):
        work = self.load("--graph", "5ms")
        self.assertEqual(work["operations"], 1)
        self.assertGreaterEqual(work["latency_us"]["p50"], 5_000)
        self.assertEqual(self.load("--copy", "3MiB", "--sync-every", "4")["copied_bytes"], 12 << 20)

    def test_stops_in_order_when_told_to(self):
        p = self.start(*self.run_args(), DIVVY, "load", "--kernel", "50us", "--for", "1h",
                       "--every", "10ms", "-o", "json")
        before = 0
        while before == 0:  # a machine that is busy may let it finish none in a line's time
            before = json.loads(self.line(p))["operations"]
        p.terminate()
        lines = self.finish(p).splitlines()
        self.assertEqual(p.returncode, 0)
        total = json.loads(lines[-1])["work"]["operations"]
        parts = before + sum(json.loads(line)["operations"] for line in lines[:-1])
        self.assertGreaterEqual(total, parts)


if __name__ == "__main__":
    harness.main()
