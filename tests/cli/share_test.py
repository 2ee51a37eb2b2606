"""Shares that live until they are removed, and what CDI specs make of them."""
import json
import os
import signal
import stat
import subprocess
import unittest

import harness
from harness import BUILD, DIVVY, GiB


class Shares(harness.DivvyTest):
    def create(self, name, *options, mem="4GiB"):
        return self.json("share", "create", name, "--sim", self.sim, "--mem", mem, *options)

    def shares(self):
        return {s["name"]: s for s in self.json("share", "list")["shares"]}

    def specs(self):
        return os.path.join(self.dir, "cdi")

    def generate(self, *options):
        return self.json("cdi", "generate", "--spec-dir", self.specs(), *options)

    def spec(self, name="divvy-share.json"):
        with open(os.path.join(self.specs(), name), encoding="utf-8") as f:
            return json.load(f)

    def test_a_share_lives_until_it_is_removed(self):
        made = self.create("web", "--compute", "30")
        self.assertEqual((made["name"], made["runner_pid"], made["cooperative"]), ("web", 0, False))
        self.assertEqual(made["shares"][0]["promised_bytes"], 4 * GiB)
        self.assertEqual(made["shares"][0]["compute_percent"], 30)
        self.assertEqual(list(self.shares()), ["web"])
        # Promised while nothing runs in it.
        self.assertEqual(self.divvy("share", "create", "all", "--sim", "h100", "--mem",
                                    "78GiB").returncode, 3)
        done = self.divvy("share", "list")
        self.assertIn("4 GiB of GPU 0, 30 % of the compute", done.stdout)
        self.assertEqual(self.divvy("share", "rm", "web").returncode, 0)
        self.assertEqual(self.shares(), {})
        self.assertFalse(os.path.exists(made["dir"]))

    def test_it_outlives_its_daemon(self):
        before = self.create("web", "--class", "latency")
        pid = self.daemons()[0]["pid"]
        os.kill(pid, signal.SIGKILL)
        harness.wait_for_end(pid)  # until then it may still take a request
        after = self.shares()["web"]
        for same in ("dir", "socket", "devices", "class", "created", "runner_pid"):
            self.assertEqual(after[same], before[same])
        self.assertEqual(after["shares"][0]["promised_bytes"], 4 * GiB)
        self.assertTrue(stat.S_ISSOCK(os.stat(after["socket"]).st_mode))

    @unittest.skipIf(os.environ.get("DIVVY_SANITIZED", "0") != "0",
                     "LD_PRELOAD stands before a sanitizer's run time")
    def test_processes_in_it(self):
        made = self.create("web")
        env = {**self.env, "DIVVY_SOCKET": made["socket"], "LD_PRELOAD": f"{BUILD}/lib/libdivvy.so",
               "LD_LIBRARY_PATH": f"{BUILD}/lib/sim",
               "DIVVY_SIM_DIR": os.path.join(self.dir, "sim", self.sim, "machine")}
        p = self.start("load", "--alloc", "1GiB", "--hold", "60s", env=env)
        self.line(p)
        self.assertGreaterEqual(self.shares()["web"]["shares"][0]["used_bytes"], GiB)
        self.assert_one_line(self.divvy("share", "rm", "web"), "--force", "web")
        self.assertEqual(self.divvy("share", "rm", "web", "--force").returncode, 0)
        self.assertEqual(p.wait(harness.LONG), -signal.SIGKILL)

    def test_a_command_s_share_is_not_listed_or_removed(self):
        p = self.start(*self.run_args("--name", "job"), "sh", "-c", "echo up; read x")
        self.line(p)
        self.assertEqual(self.shares(), {})
        self.assert_one_line(self.divvy("share", "rm", "job"), "ends with it")
        self.finish(p, "\n")

    def test_the_spec(self):
        web, batch = self.create("web"), self.create("batch-1")
        said = self.generate()
        self.assertEqual(said["devices"], ["divvy/share=batch-1", "divvy/share=web"])
        spec = self.spec()
        self.assertEqual(said["spec"], spec)
        self.assertEqual((spec["cdiVersion"], spec["kind"]), ("0.5.0", "divvy/share"))
        for device, share in zip(spec["devices"], (batch, web)):
            self.assertEqual(device["name"], share["name"])
            edits = device["containerEdits"]
            self.assertEqual(edits["env"], ["DIVVY_SHARE=" + share["name"]])
            hook, = edits["hooks"]
            self.assertEqual(hook["hookName"], "createContainer")
            self.assertEqual(hook["args"][1:], ["--tenant", share["dir"], "--lib", f"{BUILD}/lib"])
            self.assertTrue(os.access(hook["path"], os.X_OK), hook["path"])
        simulator, = self.spec("divvy-simulator.json")["devices"]
        self.assertEqual(simulator["name"], "h100")
        for mount in simulator["containerEdits"]["mounts"]:
            self.assertTrue(os.path.exists(mount["hostPath"]), mount)
        for file in os.listdir(self.specs()):
            self.assertEqual(stat.S_IMODE(os.stat(os.path.join(self.specs(), file)).st_mode), 0o644)
        listed = self.json("cdi", "list", "--spec-dir", self.specs())["devices"]
        self.assertEqual([(d["device"], d["gpu_devices"], bool(d["spec"])) for d in listed],
                         [("divvy/share=batch-1", ["divvy/simulator=h100"], True),
                          ("divvy/share=web", ["divvy/simulator=h100"], True)])

    def test_what_is_gone_leaves_the_spec(self):
        self.create("web")
        self.create("other")
        self.generate()
        self.divvy("share", "rm", "web")
        self.generate()
        self.assertEqual([d["name"] for d in self.spec()["devices"]], ["other"])
        self.divvy("share", "rm", "other")
        self.assertEqual(self.generate()["files"], [])
        self.assertEqual(os.listdir(self.specs()), [])

    def test_bad_input(self):
        for args, status, words in (
                (["share", "create", "web", "--sim", "h100"], 2, ["--mem"]),
                (["share", "create", "--sim", "h100", "--mem", "1GiB"], 2, ["name"]),
                (["share", "create", "web-", "--sim", "h100", "--mem", "1GiB"], 2, ["CDI"]),
                (["share", "create", "../x", "--sim", "h100", "--mem", "1GiB"], 2, ["../x"]),
                (["share", "create", "web", "--sim", "h100", "--mem", "81GiB"], 3, ["GiB"]),
                (["share", "rm", "nobody"], 4, ["nobody"]),
                (["share"], 2, ["create|list|rm"]),
                (["cdi"], 2, ["generate|list"]),
        ):
            with self.subTest(args=args):
                done = self.divvy(*args)
                self.assertEqual(done.returncode, status, done.stderr)
                self.assert_one_line(done, *words)
        self.create("web")
        blocked = os.path.join(self.dir, "file")
        with open(blocked, "w", encoding="utf-8"):
            pass
        self.assert_one_line(self.divvy("cdi", "generate", "--spec-dir", blocked), "--spec-dir")
        self.assertEqual(self.divvy("share", "create", "web", "--sim", "h100", "--mem",
                                    "1GiB").returncode, 1)
        done = subprocess.run([DIVVY, "cdi", "list", "--spec-dir", "/nonexistent"], env=self.env,
                              capture_output=True, text=True, check=True)
        self.assertIn("none: divvy cdi generate", done.stdout)


if __name__ == "__main__":
    harness.main()
