#!/usr/bin/env python3
"""Tenants come, are admitted or refused with names, change while they run, die and leave exact books."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import GIB, MIB, MachineTest, main, until  # noqa: E402


class Admission(MachineTest):
    def test_refusal_names_who_holds_what(self):
        self.m.tenant(60 * GIB, name="big")
        self.m.tenant(10 * GIB, name="small")
        e = self.refused(self.m.tenant, 20 * GIB)
        self.assertEqual((e.status, e.code), (507, "no_room"))
        for part in ("big 60 GiB", "small 10 GiB", "GPU 0"):
            self.assertIn(part, e.message)
        self.m.tenant(20 * GIB, overcommit=True)
        e = self.refused(self.m.tenant, 200 * GIB, overcommit=True)
        self.assertEqual(e.code, "no_room")

    def test_outside_processes_are_listed_and_counted(self):
        before = self.m.device()["free_to_promise_bytes"]
        p = self.m.probe()
        self.assertEqual(p("cuda", "libcuda.so.1", 0), "ok")
        self.assertNotIn("error", p("alloc", 30 * GIB))
        # Only an admission reads a device nobody shares.
        e = self.refused(self.m.tenant, before - 1 * GIB)
        self.assertIn(f"outside Divvy: pid {p.pid}", e.message)
        device = self.m.device()
        self.assertEqual([o["pid"] for o in device["outside"]], [p.pid])
        self.assertGreaterEqual(device["outside_bytes"], 30 * GIB)
        self.assertEqual(device["free_to_promise_bytes"], before - device["outside_bytes"])
        p.kill()

    def test_names_and_gpus(self):
        self.assertEqual(self.m.tenant(GIB, command=["/usr/bin/python3", "x"])["name"], "python3-1")
        self.assertEqual(self.m.tenant(GIB, command=["/usr/bin/python3"])["name"], "python3-2")
        self.m.tenant(GIB, name="x")
        self.assertEqual(self.refused(self.m.tenant, GIB, name="x").status, 409)
        self.assertEqual(self.refused(self.m.tenant, GIB, gpus=[7]).status, 404)
        self.assertEqual(self.refused(self.m.tenant, GIB, gpus=[0, 0]).status, 400)
        self.assertEqual(self.refused(self.m.tenant, GIB, gpu_count=2).status, 404)
        self.assertEqual(self.refused(self.m.tenant, GIB, runner_pid=2 ** 22 + 1).status, 404)

    def test_a_tenant_ends_with_its_runner(self):
        runner = self.started("sleep", "1000")
        t = self.m.tenant(GIB, name="t", runner_pid=runner.pid)
        self.assertTrue(os.path.exists(t["socket"]))
        runner.kill()
        runner.wait()
        until(lambda: not self.m.request("GET", "/v1/tenants")["tenants"], "the tenant's end")
        self.assertFalse(os.path.exists(t["dir"]))
        self.assertEqual(self.m.device()["promised_bytes"], 0)


    def test_a_name_is_free_again_at_once(self):
        for _ in range(3):
            runner = self.started("sleep", "1000")
            t = self.m.tenant(60 * GIB, name="web", runner_pid=runner.pid)  # its memory, too
            p = self.with_memory(t, GIB, GIB)
            runner.kill()
            p.kill()
            runner.wait()

    def test_a_name_that_is_taken_says_by_whom(self):
        runner = self.started("sleep", "1000")
        t = self.m.tenant(GIB, name="web", runner_pid=runner.pid)
        p = self.m.probe()
        p.hello(t)
        e = self.refused(self.m.tenant, GIB, name="web")
        self.assertEqual(e.code, "exists")
        self.assertIn(f"by pid {runner.pid}", e.message)
        runner.kill()
        runner.wait()
        until(lambda: self.m.show("web")["state"] == "orphaned", "the runner's end")
        e = self.refused(self.m.tenant, GIB, name="web")
        self.assertIn(f"left pid {p.pid}", e.message)

    def test_a_tenant_lives_while_its_cgroup_does(self):
        folder, path = self.cgroup("lives")
        runner = self.started("sleep", "1000")
        survivor = self.started("sleep", "1000", cgroup=folder)
        t = self.m.tenant(GIB, name="t", runner_pid=runner.pid, cgroup=path)
        runner.kill()
        runner.wait()
        until(lambda: self.m.show("t")["state"] == "orphaned", "the runner's end")
        self.assertEqual(self.refused(self.m.request, "DELETE", "/v1/tenants/t").status, 409)
        # It may yet say hello.
        p = self.m.probe()
        p.hello(t)
        p.kill()
        until(lambda: self.m.show("t")["processes"] == [], "its burial")
        self.assertEqual(self.m.show("t")["state"], "orphaned")
        survivor.kill()
        survivor.wait()
        until(lambda: not self.m.request("GET", "/v1/tenants")["tenants"], "the tenant's end")
        until(lambda: not os.path.exists(folder), "the cgroup's end")

    def test_force_ends_what_has_not_said_hello(self):
        folder, path = self.cgroup("forced")
        runner = self.started("sleep", "1000")
        survivor = self.started("sleep", "1000", cgroup=folder)
        self.m.tenant(GIB, name="t", runner_pid=runner.pid, cgroup=path)
        self.m.request("DELETE", "/v1/tenants/t?force=1")
        self.assertEqual(survivor.wait(60), -9)
        until(lambda: not self.m.request("GET", "/v1/tenants")["tenants"], "the tenant's end")
        self.assertIsNone(runner.poll())


class TwoDevices(MachineTest):
    profile = "h100x2"

    def test_the_roomiest_device_is_chosen_and_several_are_possible(self):
        self.assertEqual(self.m.tenant(10 * GIB)["devices"][0]["index"], 0)
        self.assertEqual(self.m.tenant(10 * GIB)["devices"][0]["index"], 1)
        both = self.m.tenant(5 * GIB, gpu_count=2)
        self.assertEqual([d["index"] for d in both["devices"]], [0, 1])
        uuid = both["devices"][1]["uuid"]
        self.assertEqual(self.m.tenant(GIB, gpus=[uuid])["devices"][0]["index"], 1)


class Teardown(MachineTest):
    broker = ("--teardown-delay", "3000")

    def test_kill_leaves_exact_books_and_promises_nothing_early(self):
        t = self.m.tenant(40 * GIB, name="t")
        p = self.with_memory(t, 30 * GIB, 30 * GIB)
        charged = self.m.share("t")["charged_bytes"]
        p.kill()
        until(lambda: self.m.events("leaving"), "the leaving account")
        self.assertEqual(self.m.events("leaving")[0]["bytes"], charged)
        # While the driver holds the memory it is the tenant's still.
        self.assertEqual(self.m.share("t")["charged_bytes"], charged)
        q = self.m.probe()
        q.hello(t)
        self.assertEqual(q("charge", 0, 20 * GIB), "refused")
        until(lambda: self.m.share("t")["charged_bytes"] == 0, "the credit")
        self.assertEqual(self.m.share("t")["nvml_bytes"], 0)
        self.assertEqual(self.m.device()["used_bytes"], self.m.device()["driver_reserved_bytes"])
        self.assertEqual(q("charge", 0, 20 * GIB), "ok")


class LongTeardown(MachineTest):
    broker = ("--teardown-delay", "20000")

    def test_a_name_that_is_leaving_says_so(self):
        runner = self.started("sleep", "1000")
        p = self.with_memory(self.m.tenant(4 * GIB, name="web", runner_pid=runner.pid), GIB, GIB)
        runner.kill()
        p.kill()
        runner.wait()
        e = self.refused(self.m.tenant, GIB, name="web")
        self.assertEqual(e.code, "exists")
        for part in ("s ago", "leaving", "GiB", "another --name"):
            self.assertIn(part, e.message)


class NoBroker(MachineTest):
    def test_a_lost_device_is_told_and_holds_nobody_up(self):
        runner = self.started("sleep", "1000")
        t = self.m.tenant(4 * GIB, name="t", runner_pid=runner.pid)
        self.m.probe().hello(t)
        self.assertEqual(self.m.device()["health"], "ok")
        self.m.broker.kill()
        until(lambda: self.m.device()["health"] != "ok", "the fault")
        self.assertIn("lost", self.m.device()["health"])
        self.assertIn("lost", self.m.share("t")["health"])
        told = self.m.events("device_fault")
        self.assertEqual((len(told), told[0]["device"]), (1, t["devices"][0]["uuid"]))
        e = self.refused(self.m.tenant, GIB, name="next")
        self.assertEqual(e.status, 503)
        self.m.request("PATCH", "/v1/tenants/t", {"mem_bytes": 5 * GIB})
        runner.kill()
        runner.wait()
        self.m.probes[-1].kill()
        until(lambda: not self.m.request("GET", "/v1/tenants")["tenants"], "the tenant's end")


class Life(MachineTest):
    def test_process_rows_never_sum_to_more_than_the_share_uses(self):
        t = self.m.tenant(8 * GIB, name="t")
        for _ in range(3):
            self.with_memory(t, 256 * MIB, 256 * MIB)

        def agree():
            shown = self.m.show("t")
            used = shown["shares"][0]["used_bytes"]
            self.assertLessEqual(sum(p["used_bytes"] for p in shown["processes"]), used)
            charged = sum(p["charged_bytes"] for p in shown["processes"])
            # Contexts are charged by a figure that is too high here, which is taken back as a
            # negative overhead: the charges alone would not agree.
            return charged > used and shown["shares"][0]["overhead_bytes"] < 0
        until(agree, "over-charged contexts")

    def test_killed_halfway_through_a_charge(self):
        t = self.m.tenant(40 * GIB, name="t")
        p = self.m.probe()
        p.hello(t)
        self.assertEqual(p("charge", 0, GIB), "ok")
        p.send("charge_and_die", 0, 2 * GIB)
        p.close()
        until(lambda: self.m.events("leaving"), "both charges leaving")
        self.assertEqual(self.m.events("leaving")[0]["bytes"], 3 * GIB)
        until(lambda: self.m.share("t")["charged_bytes"] == 0, "the credit")

    def test_killed_while_a_forked_worker_holds_the_socket(self):
        t = self.m.tenant(4 * GIB, name="t")
        p = self.m.probe()
        slot, _, _ = p.hello(t)
        p("charge", 0, GIB)
        child = int(p("fork"))
        p.kill()
        try:
            until(lambda: self.m.share("t")["charged_bytes"] == 0, "the credit")
            q = self.m.probe()
            self.assertEqual(q.hello(t)[0], slot)  # the slot is free again
            self.assertEqual(q("charge", 0, GIB), "ok")
        finally:
            os.kill(child, 9)
        self.assertEqual(self.m.share("t")["charged_bytes"], GIB)  # the worker's end took nothing

    def test_exec_gives_back_what_the_old_image_held(self):
        t = self.m.tenant(4 * GIB, name="t")
        p = self.with_memory(t, GIB, GIB)
        self.assertEqual(p("exec"), "again")
        p.hello(t)
        until(lambda: self.m.share("t")["charged_bytes"] == 0, "the credit after exec")
        self.assertEqual([x["pid"] for x in self.m.show("t")["processes"]], [p.pid])

    def test_exec_beside_a_driver_call_leaves_nothing_under_way(self):
        # What other threads were doing is over: a free that was asked for and never credited, a
        # charge that stands in the book alone.
        t = self.m.tenant(4 * GIB, name="t")
        p, q = self.m.probe(), self.m.probe()
        p.hello(t)
        q.hello(t)
        self.assertEqual(p("charge", 0, 64 * MIB, 0, 1), "ok")
        self.assertEqual(p("charge", 0, -64 * MIB), "ok")
        self.assertEqual(p("exec"), "again")
        self.assertEqual(q("charge", 0, GIB), "ok")
        self.assertEqual(q("charge_and_die", 0, 64 * MIB, "exec"), "again")
        until(lambda: self.m.share("t")["charged_bytes"] == 0, "the credit after exec")
        # Both live on, so the tenant does; what it holds is measured as ever.
        self.with_memory(t, 256 * MIB, 320 * MIB)

        def agreed():
            share = self.m.share("t")
            return share["charged_bytes"] + share["overhead_bytes"] == share["nvml_bytes"]
        until(agreed, "charges and overhead as NVML has it")
        self.assertEqual(len(self.m.show("t")["processes"]), 3)

    def test_what_nobody_was_there_to_read_is_told_to_who_comes(self):
        # A tenant without processes is not published to: its first process must not find old figures.
        runner = self.started("sleep", "1000").pid  # not this process: its child is to be outside
        t = self.m.tenant(20 * GIB, name="t", runner_pid=runner)
        until(lambda: self.m.device()["free_bytes"] > 60 * GIB, "a reading")
        other, outside = self.m.probe(), self.m.probe()
        other.hello(self.m.tenant(GIB, name="other", runner_pid=runner))
        self.assertEqual(outside("cuda", "libcuda.so.1", 0), "ok")
        self.assertNotIn("error", outside("alloc", 70 * GIB))
        until(lambda: other.policy()["rest"] < 10 * GIB, "the device as good as full")
        self.m.request("PATCH", "/v1/tenants/t", {"mem_bytes": 19 * GIB})
        p = self.m.probe()
        p.hello(t)
        policy = p.policy()
        self.assertEqual(policy["limit"], 19 * GIB)
        self.assertLess(policy["rest"], 10 * GIB)

    def test_limits_change_while_running(self):
        t = self.m.tenant(4 * GIB, name="t")
        p = self.m.probe()
        p.hello(t)
        self.assertEqual(p("charge", 0, 3 * GIB), "ok")
        share = self.m.request("PATCH", "/v1/tenants/t", {"mem_bytes": 2 * GIB})["shares"][0]
        self.assertTrue(share["over"])
        self.assertEqual(p("charge", 0, MIB), "refused")
        self.assertEqual(p("charge", 0, -2 * GIB), "ok")
        self.assertEqual(p("charge", 0, MIB), "ok")
        self.assertFalse(self.m.share("t")["over"])
        self.m.tenant(70 * GIB, name="other")
        e = self.refused(self.m.request, "PATCH", "/v1/tenants/t", {"mem_bytes": 30 * GIB})
        self.assertIn("other 70 GiB", e.message)
        self.assertEqual(self.m.share("t")["limit_bytes"], 2 * GIB)
        # A tenant over its lowered share still holds the memory: it cannot be promised to others.

    def test_memory_above_the_promise_is_lent_and_taken_back(self):
        free = self.m.device()["free_to_promise_bytes"]
        t = self.m.tenant(2 * GIB, name="t", mem_max_bytes=20 * GIB)
        p = self.m.probe()
        p.hello(t)
        until(lambda: p.policy()["limit"] == 20 * GIB, "the loan")
        self.assertEqual(p("charge", 0, 10 * GIB), "ok")
        e = self.refused(self.m.tenant, free - 5 * GIB)
        self.assertIn("t 10 GiB (over its share)", e.message)
        self.m.tenant(free - 11 * GIB, name="other")
        self.assertLessEqual(p.policy()["limit"], 11 * GIB)
        self.assertEqual(p("charge", 0, 2 * GIB), "refused")

    def test_refusals_are_told_and_rate_limited(self):
        t = self.m.tenant(GIB, name="t")
        p = self.m.probe()
        p.hello(t)
        p("event", 3 * GIB, 1, 200)
        until(lambda: self.m.show("t")["refusals"].get("out_of_share") == 200, "the count")
        told = self.m.events("out_of_share")
        self.assertEqual(len(told), 20)
        self.assertIn("3 GiB refused: of 1 GiB", told[0]["message"])
        self.assertEqual((told[0]["pid"], told[0]["tenant"]), (p.pid, "t"))

    def test_delete(self):
        t = self.m.tenant(GIB, name="t")
        p = self.m.probe()
        p.hello(t)
        e = self.refused(self.m.request, "DELETE", "/v1/tenants/t")
        self.assertEqual(e.status, 409)
        self.m.request("DELETE", "/v1/tenants/t?force=1")
        self.assertEqual(p.process.wait(60), -9)
        until(lambda: not self.m.request("GET", "/v1/tenants")["tenants"], "the tenant's end")
        self.assertEqual(self.refused(self.m.request, "DELETE", "/v1/tenants/t").status, 404)


class Private(MachineTest):
    options = ("--private",)

    def test_ends_with_its_last_tenant(self):
        runner = self.started("sleep", "1000")
        self.m.tenant(GIB, runner_pid=runner.pid)
        runner.kill()
        runner.wait()
        self.assertEqual(self.m.daemon.wait(60), 0)
        self.assertFalse(os.path.exists(f"{self.m.dir}/divvyd.sock"))


if __name__ == "__main__":
    main()
