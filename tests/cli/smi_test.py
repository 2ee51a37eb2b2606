"""divvy smi: inside of a share it shows the share and its own processes, outside the devices."""
import json
import os
import time
import unittest

from harness import DIVVY, LONG, UNPRIVILEGED, DivvyTest, GiB, can_isolate, main

MiB = 1 << 20


def until(look):
    end = time.monotonic() + LONG
    while not look():
        if time.monotonic() > end:
            raise AssertionError("never so")
        time.sleep(0.02)


class Smi(DivvyTest):
    sim = "h100x2"

    def inside(self, script, *options, prefix=()):
        done = self.divvy(*self.run_args(*options), "sh", "-c", script, prefix=prefix)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def check_inside(self, prefix=()):
        other = self.start(*self.run_args("--name", "other", "--gpu", "0", mem="4GiB"), DIVVY, "load", "--alloc",
                           "3GiB", "--hold", "1h", prefix=prefix)
        self.line(other)
        text = self.inside(f"'{DIVVY}' load --alloc 512MiB --hold 1h -o json > '{self.dir}/said' & "
                           f"load=$!; until [ -s '{self.dir}/said' ]; do sleep 0.05; done; "
                           f"echo $load; '{DIVVY}' smi -o json; kill $load", "--name", "mine", "--gpu", "0",
                           prefix=prefix)
        pid, report = text.split("\n", 1)
        report = json.loads(report)
        self.assertEqual(report["share"], "mine")
        [device] = report["devices"]  # the other one does not exist here
        self.assertEqual(device["total_bytes"], 2 * GiB)
        self.assertGreater(device["used_bytes"], 512 * MiB)
        self.assertLess(device["used_bytes"], 2 * GiB)
        self.assertEqual([p["pid"] for p in device["processes"]], [int(pid)])
        self.assertIn("load --alloc", device["processes"][0]["command"])

    def test_inside(self):
        self.check_inside()

    def test_inside_cooperative(self):
        if can_isolate():
            self.check_inside(prefix=UNPRIVILEGED)

    def test_outside(self):
        self.start(*self.run_args("--gpu", "1"), DIVVY, "load", "--alloc", "1GiB", "--hold", "1h")
        self.line(self.started[-1])
        report = self.json("smi", "--sim", self.sim)
        self.assertEqual(report["share"], "")
        self.assertEqual(len(report["devices"]), 2)
        self.assertGreater(report["devices"][1]["total_bytes"], 64 * GiB)
        self.assertEqual([len(d["processes"]) for d in report["devices"]], [0, 1])

    def test_utilisation_is_the_shares(self):
        self.start(*self.run_args("--name", "busy", "--gpu", "0"), DIVVY, "load", "--kernel", "1ms", "--for", "10m",
                   "--every", "100ms")
        self.line(self.started[-1])
        until(lambda: self.json("smi", "--sim", self.sim)["devices"][0]["utilization_percent"] > 50)

        def seen(script, *options):
            return json.loads(self.inside(script, "--gpu", "0", *options))["devices"][0]["utilization_percent"]
        self.assertEqual(seen(f"sleep 1; '{DIVVY}' smi -o json"), 0)
        # A kernel of 1 ms twenty times a second: 2 % of the device, 20 % of this share, once there is a whole
        # second to look at.
        part = seen(f"'{DIVVY}' load --kernel 1ms --rate 20 --for 50s >/dev/null & for i in $(seq 100); do sleep 0.2; "
                    f"'{DIVVY}' smi -o json >'{self.dir}/said'; grep -Eq 'percent\": ([1-9]|[1-5][0-9]),?$' '{self.dir}/said' && break; done; "
                    f"kill $!; cat '{self.dir}/said'", "--compute-max", "10")
        self.assertGreater(part, 0)
        self.assertLess(part, 60)

    def test_text(self):
        done = self.divvy("smi", "--sim", self.sim)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("MEMORY USED / TOTAL", done.stdout)
        self.assertIn("no processes", done.stdout)
        listed = self.divvy("smi", "--sim", self.sim, "-L").stdout.splitlines()
        self.assertEqual([line.split(":")[0] for line in listed], ["GPU 0", "GPU 1"])
        self.assertIn("MEMORY USED / SHARE", self.inside(f"'{DIVVY}' smi", "--name", "a"))

    def test_without_a_driver(self):
        if not os.path.exists("/proc/driver/nvidia/version"):
            done = self.divvy("smi")
            self.assertEqual(done.returncode, 4)
            self.assert_one_line(done, "divvy doctor")


if __name__ == "__main__":
    unittest.TestCase.maxDiff = None
    main()
