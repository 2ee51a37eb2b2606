"""divvy doctor from outside; what it finds on made-up machines is src/cli/doctor/doctor_test.cc."""
import json
import os
import subprocess
import unittest

from harness import DIVVY, DivvyTest, main


class Doctor(DivvyTest):
    def doctor(self, *args, prefix=(), env=None):
        done = self.divvy("doctor", *args, "-o", "json", prefix=prefix, env=env or self.env)
        return done, json.loads(done.stdout)

    def levels(self, report):
        return {(f["check"], f["level"]) for f in report["findings"]}

    def test_a_simulated_machine_is_well(self):
        done, report = self.doctor("--sim", "h100x2")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertTrue(report["works"])
        self.assertEqual(report["machine"], "sim/h100x2")
        for check in ("libraries", "nvml", "cuda-init", "compute-mode", "mig", "daemon"):
            self.assertIn((check, "ok"), self.levels(report))

    def test_what_stops_it_is_the_exit_status(self):
        env = dict(self.env, LD_PRELOAD="/opt/libvgpu.so")  # the loader says that it is missing
        done, report = self.doctor("--sim", "h100", env=env)
        self.assertEqual(done.returncode, 1)
        self.assertFalse(report["works"])
        self.assertEqual(report["stops"], 1)
        [stop] = [f for f in report["findings"] if f["level"] == "stop"]
        self.assertEqual((stop["check"], stop["command"]), ("preload", "unset LD_PRELOAD"))

    def test_warnings_do_not(self):
        done, report = self.doctor("--sim", "h100", prefix=["prlimit", "--nofile=1024:1024"])
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn(("limits", "warning"), self.levels(report))

    def test_a_folder_that_cannot_be(self):
        for folder in ("/tmp/" + "x" * 300, os.path.join(DIVVY, "below-a-file")):
            done, report = self.doctor(env=dict(self.env, DIVVY_RUNTIME_DIR=folder))
            self.assertEqual((done.returncode, done.stderr), (1, ""))
            self.assertIn(("runtime-folder", "stop"), self.levels(report))

    def test_text_says_what_to_do(self):
        env = dict(self.env, LD_PRELOAD="/opt/libvgpu.so")
        done = self.divvy("doctor", "--sim", "h100", "-q", env=env)
        self.assertEqual(done.returncode, 1)
        self.assertIn("$ unset LD_PRELOAD", done.stdout)
        self.assertIn("1 to be put right", done.stdout)
        self.assertNotIn("\nok ", done.stdout)

    def test_starts_nothing_on_the_machine_itself(self):
        done, report = self.doctor()
        self.assertEqual(done.returncode, 0 if report["works"] else 1)
        self.assertFalse(os.path.exists(os.path.join(self.dir, "divvyd.sock")))
        if not os.path.exists("/proc/driver/nvidia/version"):
            self.assertIn(("driver-module", "stop"), self.levels(report))

    def test_inside_of_a_share_it_sends_outside(self):
        inside = subprocess.run([DIVVY, *self.run_args(), DIVVY, "doctor"], env=self.env,
                                capture_output=True, text=True, timeout=60, check=False)
        if os.geteuid() == 0:
            self.assertEqual(inside.returncode, 4, inside.stdout)
            self.assertIn("inside of the share", inside.stderr)


if __name__ == "__main__":
    unittest.TestCase.maxDiff = None
    main()
