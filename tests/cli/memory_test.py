"""The main job from end to end on a simulated GPU: load is held, verify finds no way out, set works
while it runs."""
import json
import os
import time
import unittest

import harness
from harness import DIVVY, GiB


class Memory(harness.DivvyTest):
    def load(self, *args, options=(), mem="2GiB"):
        return self.divvy(*self.run_args(*options, mem=mem), DIVVY, "load", *args)

    def test_within_and_beyond_the_share(self):
        self.assertEqual(self.load("--alloc", "1GiB").returncode, 0)
        done = self.load("--alloc", "3GiB")
        self.assertEqual(done.returncode, 3)
        first, second = done.stderr.splitlines()
        self.assertEqual(first, "divvy: CUDA_ERROR_OUT_OF_MEMORY (cuMemAlloc_v2, 3 GiB)")
        self.assertIn("its share is 2 GiB", second)

    def test_the_program_sees_its_share(self):
        out = json.loads(self.load("--alloc", "512MiB", "-o", "json").stdout)
        self.assertEqual(out["memory"]["total_bytes"], 2 * GiB)
        self.assertLessEqual(out["memory"]["free_bytes"], 2 * GiB - (512 << 20))

    def test_refusal_as_json(self):
        done = self.load("--alloc", "3GiB", "-o", "json")
        self.assertIn("CUDA_ERROR_OUT_OF_MEMORY", json.loads(done.stdout)["error"]["message"])

    def test_two_share_one_device(self):
        first = self.start(*self.run_args("--name", "a", mem="3GiB"), DIVVY, "load", "--alloc",
                           "2GiB", "--hold", "60s")
        self.line(first)
        second = self.start(*self.run_args("--name", "b"), DIVVY, "load", "--alloc", "1GiB",
                            "--hold", "60s")
        self.line(second)
        tenants = self.tenants()
        self.assertEqual({n: t["shares"][0]["kinds"]["linear"] for n, t in tenants.items()},
                         {"a": 2 * GiB, "b": GiB})
        self.assertEqual(tenants["a"]["shares"][0]["device"], tenants["b"]["shares"][0]["device"])
        with_processes = self.divvy("ps", "-p").stdout
        for tenant in tenants.values():
            self.assertIn(f"pid {tenant['processes'][0]['pid']}", with_processes)
        devices = {d["index"]: d for d in self.json("devices", "--sim", "h100")["devices"]}
        self.assertEqual(devices[0]["promised_bytes"], 5 * GiB)
        self.assertEqual(sorted(devices[0]["tenants"]), ["a", "b"])
        for p in (first, second):
            p.terminate()
            self.assertEqual(p.wait(harness.LONG), 0, "load ends in order on SIGTERM")

    def test_set_while_it_runs(self):
        # A shell that tries again after each line it gets.
        p = self.start(*self.run_args("--name", "live"), "sh", "-c",
                       f"while read x; do {DIVVY} load --alloc 3GiB >/dev/null 2>&1; echo $?; done")

        def attempt():
            p.stdin.write("\n")
            p.stdin.flush()
            return int(self.line(p))
        self.assertEqual(attempt(), 3)
        changed = self.json("set", "live", "--mem", "5GiB")
        self.assertEqual(changed["shares"][0]["limit_bytes"], 5 * GiB)
        self.assertEqual(attempt(), 0)
        self.json("set", "live", "--mem", "2GiB")
        self.assertEqual(attempt(), 3)

    def test_on_full_wait(self):
        # The second of two waits for the first to end instead of being refused.
        script = (f"{DIVVY} load --alloc 1536MiB --hold 1h & first=$!; read x; "
                  f"{DIVVY} load --alloc 1536MiB & second=$!; echo asked; read x; "
                  "kill $first; wait $second")
        p = self.start(*self.run_args("--name", "patient", "--on-full", "wait=50s", mem="3GiB"),
                       "bash", "-c", script)
        while not self.line(p).startswith("allocated"):
            pass
        p.stdin.write("\n")
        p.stdin.flush()
        self.assertEqual(self.line(p), "asked")
        deadline = time.monotonic() + harness.LONG
        while self.tenants()["patient"]["waiting_for_room"] == 0 and time.monotonic() < deadline:
            pass
        text = self.divvy("ps", "-p").stdout
        self.assertIn("running,waits-for-room", text)
        self.assertRegex(text, "pid .* waits-for-room .*divvy")
        self.assertIn("allocated   1.5 GiB (linear)", self.finish(p, "\n"))
        self.assertEqual(p.returncode, 0)

    def test_verify_finds_no_way_out(self):
        done = self.divvy("verify", "memory", "--sim", "h100", "--mem", "2GiB", "-o", "json",
                          timeout=150)
        out = json.loads(done.stdout)
        for row in out["rows"]:
            with self.subTest(path=row["path"]):
                self.assertNotIn("error", row)
                self.assertLessEqual(row["over_limit_bytes"], 2 << 20)
                self.assertGreater(row["granted_bytes"], 0)
                self.assertGreater(row["refused_at_bytes"], row["granted_bytes"])
                self.assertGreaterEqual(row["again_bytes"] + (2 << 20), row["granted_bytes"])
        self.assertEqual(len(out["rows"]), 18)
        self.assertEqual(done.returncode, 0)

    def test_verify_says_what_a_tiny_limit_leaves_untried(self):
        # Beside the first context, room for a few blocks and for no second context.
        done = self.divvy("verify", "memory", "--sim", "h100", "--mem", "540MiB", "--path",
                          "linear,context", "-o", "json")
        out = json.loads(done.stdout)
        rows = {row["path"]: row for row in out["rows"]}
        self.assertTrue(rows["linear"]["tried"])
        self.assertTrue(rows["linear"]["passed"])
        self.assertEqual((rows["context"]["tried"], rows["context"]["passed"]), (False, False))
        self.assertEqual(rows["context"]["granted_bytes"], 0)
        self.assertIn("nothing fits", rows["context"]["error"])
        self.assertEqual((done.returncode, out["passed"]), (1, False))
        text = self.divvy("verify", "memory", "--sim", "h100", "--mem", "540MiB", "--path",
                          "context").stdout
        self.assertIn("not tried: nothing fits", text)
        self.assertIn("(1 could not be tried)", text)

    def test_verify_can_fail(self):
        # Without the shim (an empty library in its place) nothing holds, and verify must say so.
        lib = os.path.join(self.dir, "lib")
        os.makedirs(lib)
        real = os.path.join(harness.BUILD, "lib")
        os.symlink(os.path.join(real, "sim"), os.path.join(lib, "sim"))
        os.symlink(os.path.join(real, "libcuda-forward"), os.path.join(lib, "libcuda-forward"))
        os.symlink(os.path.join(harness.TEST_BIN, "libnothing.so"),
                   os.path.join(lib, "libdivvy.so"))
        self.env["DIVVY_LIB_DIR"] = lib
        done = self.divvy("verify", "memory", "--sim", "t4", "--mem", "2GiB", "--path", "linear",
                          "-o", "json", prefix=harness.UNPRIVILEGED)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertGreater(json.loads(done.stdout)["rows"][0]["over_limit_bytes"], 8 * GiB)


if __name__ == "__main__":
    harness.main()
