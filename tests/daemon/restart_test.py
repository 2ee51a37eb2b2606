#!/usr/bin/env python3
"""A daemon that dies, is stopped or upgraded loses no tenant: limits hold, books are taken over."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import GIB, MIB, MachineTest, main, until  # noqa: E402

UNITS = 512


class Restart(MachineTest):
    def again(self, clean=False):
        (self.m.stop_daemon if clean else self.m.kill_daemon)()
        self.m.start()

    def test_killed_daemon_is_followed_by_one_that_adopts(self):
        t = self.m.tenant(4 * GIB, name="t", compute_percent=30, on_full={"mode": "wait"})
        before = self.m.show("t")
        p = self.m.probe()
        _, generation, _ = p.hello(t)
        self.assertEqual(p("charge", 0, 3 * GIB), "ok")
        self.m.kill_daemon()
        # Nobody lives who could write the policy; the old books hold meanwhile.
        self.assertEqual(p("charge", 0, 2 * GIB), "refused")
        self.m.start()
        after = self.m.show("t")
        for same in ("devices", "dir", "on_full", "created", "command", "runner_pid", "class"):
            self.assertEqual(before[same], after[same])
        self.assertEqual(after["shares"][0]["compute_percent"], 30)
        self.assertEqual([e["tenant"] for e in self.m.events("adopted")], ["t"])
        slot, new_generation, _ = p.hello(t, f"gen={generation}", f"held={3 * GIB // UNITS}")
        self.assertNotEqual(generation, new_generation)
        self.assertEqual(self.m.share("t")["charged_bytes"], 3 * GIB)
        self.assertEqual(self.m.share("t")["kinds"]["linear"], 3 * GIB)
        self.assertEqual(p("charge", 0, 2 * GIB), "refused")
        self.assertEqual(p("charge", 0, GIB), "ok")
        # The same once more, with the answer lost on the way: nothing is booked twice.
        p.hello(t, f"gen={generation}", f"held={3 * GIB // UNITS}")
        self.assertEqual(self.m.share("t")["charged_bytes"], 3 * GIB)
        # And within one generation the books stand as they are.
        p.hello(t, f"gen={new_generation}", f"held={3 * GIB // UNITS}")
        self.assertEqual(self.m.share("t")["charged_bytes"], 3 * GIB)
        p.kill()
        until(lambda: self.m.share("t")["charged_bytes"] == 0, "the credit")

    def test_clean_stop_leaves_tenants_too(self):
        t = self.m.tenant(4 * GIB, name="t")
        inode = os.stat(t["dir"]).st_ino
        p = self.m.probe()
        p.hello(t)
        self.again(clean=True)
        self.assertEqual(os.stat(t["dir"]).st_ino, inode)  # a mount namespace may have it bound
        p.hello(t)
        self.assertEqual(p("eof"), "no")

    def test_the_unheard_count_with_what_nvml_shows(self):
        t = self.m.tenant(4 * GIB, name="t")
        silent = self.with_memory(t, 2 * GIB, 2 * GIB)
        until(lambda: silent.pid in [p["pid"] for p in json.load(
            open(f"{self.m.dir}/state.json"))["tenants"][0]["processes"]], "the saved process")
        self.again()
        shown = self.m.show("t")
        self.assertEqual(shown["awaited"], [silent.pid])
        # What is known of it is told, and not as the driver's.
        self.assertEqual([(x["pid"], x["state"]) for x in shown["processes"]],
                         [(silent.pid, "awaited")])
        row, share = shown["processes"][0], shown["shares"][0]
        self.assertIn("daemon_probe", row["command"])
        self.assertGreaterEqual(row["nvml_bytes"], 2 * GIB)
        self.assertEqual(row["used_bytes"], row["nvml_bytes"])
        self.assertEqual(share["overhead_bytes"], share["unattached_bytes"])
        self.assertEqual(share["unattached_bytes"], row["nvml_bytes"])
        # Before it says hello again, its memory narrows what the tenant's others may have.
        p = self.m.probe()
        p.hello(t)
        self.assertGreaterEqual(p.policy()["overhead"], 2 * GIB)
        self.assertEqual(p("charge", 0, 2 * GIB), "refused")
        silent.hello(t, "gen=1", f"held={2 * GIB // UNITS}")
        self.assertEqual(self.m.show("t")["awaited"], [])
        self.assertEqual({x["state"] for x in self.m.show("t")["processes"]}, {"live"})
        self.assertLess(p.policy()["overhead"], GIB)
        self.assertEqual(self.m.show("t")["findings"], [])
        self.assertEqual(p("charge", 0, 3 * GIB), "refused")

    def test_what_died_meanwhile(self):
        runner = subprocess.Popen(["sleep", "1000"])
        orphan_runner = subprocess.Popen(["sleep", "1000"])
        self.m.tenant(GIB, name="dead", runner_pid=runner.pid)
        orphan = self.m.tenant(GIB, name="orphan", runner_pid=orphan_runner.pid)
        self.m.tenant(GIB, name="kept", runner_pid=0)
        p = self.m.probe()
        p.hello(orphan)
        until(lambda: '"pid":%d,' % p.pid in open(f"{self.m.dir}/state.json").read(), "the save")
        self.m.kill_daemon()
        for r in (runner, orphan_runner):
            r.kill()
            r.wait()
        self.m.start()
        names = [t["name"] for t in self.m.request("GET", "/v1/tenants")["tenants"]]
        self.assertEqual(sorted(names), ["kept", "orphan"])
        self.assertFalse(os.path.exists(f"{self.m.dir}/tenants/dead"))
        self.assertEqual(self.m.show("orphan")["state"], "orphaned")
        p.kill()
        until(lambda: len(self.m.request("GET", "/v1/tenants")["tenants"]) == 1, "its end")

    def test_what_lives_in_its_cgroup_alone(self):
        folder, path = self.cgroup("adopted")
        empty, empty_path = self.cgroup("empty")
        runner = self.started("sleep", "1000")
        survivor = self.started("sleep", "1000", cgroup=folder)
        t = self.m.tenant(GIB, name="t", runner_pid=runner.pid, cgroup=path)
        self.m.tenant(GIB, name="gone", runner_pid=runner.pid, cgroup=empty_path)
        self.m.kill_daemon()
        runner.kill()
        runner.wait()
        self.m.start()
        self.assertEqual(self.m.show("t")["state"], "orphaned")
        self.assertFalse(os.path.exists(empty))
        self.m.probe().hello(t)
        self.m.probes[-1].kill()
        survivor.kill()
        until(lambda: not self.m.request("GET", "/v1/tenants")["tenants"], "the tenant's end")
        until(lambda: not os.path.exists(folder), "the cgroup's end")

    def test_a_reused_pid_is_not_the_old_process(self):
        self.m.tenant(GIB, name="t")
        self.m.kill_daemon()
        path = f"{self.m.dir}/state.json"
        state = json.load(open(path))
        state["tenants"][0]["runner"]["start"] -= 1  # the pid lives, as somebody else
        json.dump(state, open(path, "w"))
        self.m.start()
        self.assertEqual(self.m.request("GET", "/v1/tenants")["tenants"], [])

    def test_a_damaged_state_file_is_kept_and_told(self):
        self.m.tenant(GIB, name="t")
        self.m.kill_daemon()
        path = f"{self.m.dir}/state.json"
        text = open(path).read()
        open(path, "w").write(text[:len(text) // 2])
        self.m.start()
        self.assertEqual(self.m.request("GET", "/v1/tenants")["tenants"], [])
        self.assertEqual(len(self.m.events("state_damaged")), 1)
        self.assertEqual(open(path + ".damaged").read(), text[:len(text) // 2])


class SlowTeardown(MachineTest):
    broker = ("--teardown-delay", "5000")  # longer than a request waits

    def test_memory_that_leaves_across_a_restart_is_not_promised(self):
        runner = subprocess.Popen(["sleep", "1000"])
        t = self.m.tenant(50 * GIB, name="t", runner_pid=runner.pid)
        p = self.with_memory(t, 40 * GIB, 40 * GIB)
        until(lambda: '"pid":%d,' % p.pid in open(f"{self.m.dir}/state.json").read(), "the save")
        self.m.kill_daemon()
        p.kill()
        runner.kill()
        runner.wait()
        self.m.start()
        # Dead, both of them, and yet the driver holds 40 GiB: the tenant stays until it does not.
        self.assertEqual(self.m.show("t")["name"], "t")
        self.refused(self.m.tenant, 60 * GIB, name="next")
        until(lambda: not self.m.request("GET", "/v1/tenants")["tenants"], "the tenant's end")
        self.m.tenant(60 * GIB, name="next")


class Learned(MachineTest):
    def test_figures_survive(self):
        t = self.m.tenant(4 * GIB, name="t")
        p = self.with_memory(t, 64 * MIB, 64 * MIB)
        # One tenant alone is not believed.
        self.with_memory(self.m.tenant(4 * GIB, name="s"), 64 * MIB, 64 * MIB)
        figure = until(lambda: (p.policy()["context"] != 512 * MIB) and p.policy()["context"],
                       "a learned figure")
        self.assertTrue(490 * MIB <= figure < 512 * MIB, figure)
        self.m.stop_daemon()
        self.m.start()
        q = self.m.probe()
        q.hello(self.m.tenant(GIB, name="u"))
        self.assertEqual(q.policy()["context"], figure)


if __name__ == "__main__":
    main()
