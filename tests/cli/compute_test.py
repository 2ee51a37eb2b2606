"""Compute shares from the command line: run, set, pause, ps, and what verify measures."""
import json
import os
import signal
import time
import unittest

import harness
from harness import DIVVY


def until(look):
    end = time.monotonic() + harness.LONG
    while not look():
        if time.monotonic() > end:
            raise AssertionError("never so")
        time.sleep(0.02)


class Compute(harness.DivvyTest):
    sim = "h100@x10"

    def share(self, name):
        return self.tenants()[name]["shares"][0]["compute"]

    def busy(self, name, *options):
        p = self.start(*self.run_args("--name", name, *options), DIVVY, "load", "--kernel", "200us",
                       "--sync-every", "0", "--for", "1h", "--every", "10ms", "-o", "json")
        self.line(p)
        return p

    def test_bad_options_are_one_line(self):
        for option, value, word in (("--compute", "0", "'0' is not a percentage"),
                                    ("--compute", "101", "'101' is not a percentage"),
                                    ("--compute=-1", None, "'-1' is not a percentage"),
                                    ("--compute", "nan", "'nan' is not a percentage"),
                                    ("--compute-max", "x", "'x' is not a percentage"),
                                    ("--class", "latancy", "latency, standard or batch"),
                                    ("--weight", "0", "'0' is not a weight")):
            words = [option] if value is None else [option, value]
            done = self.divvy(*self.run_args(*words), "true")
            self.assert_one_line(done, word)
            self.assertEqual(done.returncode, 125)
            if words == ["--compute", "0"]:
                continue  # takes a promise away
            done = self.divvy("set", "nobody", *words)
            self.assert_one_line(done, word)
            self.assertEqual(done.returncode, 2)
        for case, word in (("", "part of a case's name"), ("nothing so called", "no case is called")):
            done = self.divvy("verify", "compute", "--sim", "h100", "--case", case)
            self.assert_one_line(done, word)
            self.assertEqual(done.returncode, 2)
        done = self.divvy("set", "gone", "--compute", "30")
        self.assert_one_line(done, "gone")
        self.assertEqual(done.returncode, 4)
        self.assert_one_line(self.divvy("pause", "gone"), "gone")

    def test_shares_shown_changed_and_paused(self):
        a = self.busy("a", "--compute", "60", "--compute-max", "90", "--class", "latency")
        self.assertEqual(self.share("a")["percent"], 60)
        done = self.divvy(*self.run_args("--name", "b", "--compute", "50"), "true")
        self.assert_one_line(done, "a 60 %")
        b = self.busy("b", "--weight", "7")
        until(lambda: self.share("b")["part_percent"] == 40)
        until(lambda: (self.share("a")["used_percent_1s"] or 0) > 30)
        table = self.divvy("ps").stdout
        self.assertIn("COMPUTE", table)
        self.assertIn("60 % <= 90 %", table)
        self.assertEqual(self.divvy("set", "a", "--compute", "30").returncode, 0)
        until(lambda: self.share("b")["part_percent"] == 70)
        self.assertEqual(self.divvy("pause", "a").returncode, 0)
        self.assertIn("paused", self.divvy("ps").stdout)
        # Nothing more is finished after what was in flight: many lines that say the same.
        def finished():
            return json.loads(self.line(a))["done"]
        before, same = -1, 0
        while same < 60:
            now = finished()
            same = same + 1 if now == before else 0
            before = now
        self.assertEqual(self.divvy("resume", "a").returncode, 0)
        while finished() == before:
            pass
        for p in (a, b):
            p.terminate()
            self.finish(p)

    def test_verify_measures(self):
        done = self.divvy("verify", "compute", "--sim", "h100", "--case", "50us/50us", "--seconds",
                          "1", "-o", "json")
        report = json.loads(done.stdout)
        self.assertTrue(report["simulated"])
        rows = {row["tenant"]: row for row in report["rows"]}
        self.assertGreater(rows["a"]["got_percent"], rows["b"]["got_percent"])
        self.assertLess(rows["a"]["share_error_percent"], 30)
        self.assertGreater(rows["b"]["native_progress"], 0.2)
        self.assert_one_line(self.divvy("verify", "compute", "--sim", "h100", "--case", "nothing"),
                             "nothing")


class Halves(harness.DivvyTest):
    """Tenants with half of the device each, whose progress can be waited for."""

    def half(self, name, *work):
        p = self.start(*self.run_args("--name", name, "--compute", "50"), DIVVY, "load", *work,
                       "--for", "1h", "--every", "20ms", "-o", "json")
        self.line(p)
        return p

    def more(self, p, operations):
        begun = json.loads(self.line(p))["done"]
        while json.loads(self.line(p))["done"] < begun + operations:
            pass


class InsideItsWindow(Halves):
    """A tenant that is stopped or killed while it holds the device."""

    def test_stopped_and_killed(self):
        a, b = (self.half(name, "--kernel", "200us", "--sync-every", "0") for name in "ab")
        pid = self.tenants()["a"]["processes"][0]["pid"]
        for _ in range(3):
            self.more(a, 20)  # it has just had its window
            os.kill(pid, signal.SIGSTOP)
            self.more(b, 200)
            os.kill(pid, signal.SIGCONT)
        self.more(a, 20)
        os.kill(pid, signal.SIGKILL)
        self.more(b, 200)
        self.assertNotEqual(a.wait(harness.LONG), 0)
        until(lambda: "a" not in self.tenants())
        self.more(b, 200)
        b.terminate()
        self.finish(b)


class LongKernel(Halves):
    """A kernel that no gate can take back: its neighbour goes on, and it is named."""

    def test_a_kernel_of_ten_seconds(self):
        small = self.half("small", "--kernel", "100us", "--sync-every", "10")
        long = self.half("long", "--kernel", "10s")
        self.more(small, 300)
        until(lambda: self.tenants()["long"]["shares"][0]["compute"]["overruns"] > 0)
        self.assertEqual(json.loads(self.line(long))["done"], 0)
        self.assertEqual(self.tenants()["small"]["shares"][0]["compute"]["overruns"], 0)
        long.kill()
        self.more(small, 300)
        small.terminate()
        self.finish(small)


if __name__ == "__main__":
    harness.main()
