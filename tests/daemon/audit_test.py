#!/usr/bin/env python3
"""What the shim did not say, NVML tells: the audit finds it, counts it and acts on it."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import GIB, MIB, MachineTest, main, until  # noqa: E402


class AuditTest(MachineTest):
    def findings(self, name="t"):
        return {f["code"]: f for f in self.m.show(name)["findings"] if f["active"]}

    def some_readings(self):
        before = self.m.device()["readings"]
        until(lambda: self.m.device()["readings"] >= before + 8, "some readings")

    def stranger(self, allocate=2 * GIB, device=0):
        """A descendant of the tenant's runner that uses the GPU and never says hello."""
        p = self.m.probe()
        self.assertEqual(p("cuda", "libcuda.so.1", device), "ok")
        self.assertNotIn("error", p("alloc", allocate))
        return p


class Warn(AuditTest):
    profile = "h100x2"

    def test_process_without_the_shim(self):
        t = self.m.tenant(4 * GIB, name="t", gpus=[0])
        p = self.stranger()
        f = until(lambda: self.findings().get("no_hello"), "the finding")
        self.assertEqual((f["pid"], f["action"]), (p.pid, "warn"))
        self.assertGreaterEqual(f["bytes"], 2 * GIB)
        # What it holds is the tenant's: others of the tenant get so much less.
        q = self.m.probe()
        q.hello(t)
        self.assertGreaterEqual(q.policy()["overhead"], 2 * GIB)
        self.assertEqual(q("charge", 0, 2 * GIB), "refused")
        self.assertEqual(len(self.m.events("no_hello")), 1)
        p.kill()
        until(lambda: not self.findings(), "the finding's end")
        until(lambda: q("charge", 0, 2 * GIB) == "ok", "room again")

    def test_device_without_a_share(self):
        t = self.m.tenant(4 * GIB, name="t", gpus=[0])
        p = self.m.probe()
        p.hello(t)
        self.assertEqual(p("cuda", "libcuda.so.1", 1), "ok")
        f = until(lambda: self.findings().get("foreign_device"), "the finding")
        self.assertEqual((f["pid"], f["device"]), (p.pid, self.m.device(1)["uuid"]))

    def test_memory_beyond_the_charges(self):
        t = self.m.tenant(4 * GIB, name="t", gpus=[0])
        honest = self.with_memory(self.m.tenant(4 * GIB, name="honest", gpus=[0]), GIB, GIB)
        p = self.with_memory(t, 0, 10 * GIB)
        f = until(lambda: self.findings().get("beyond_charges"), "the finding")
        self.assertEqual(f["pid"], p.pid)
        self.assertGreaterEqual(f["bytes"], 9 * GIB)
        # Bounded: what no context explains is not called overhead, but it is seen and counted.
        self.assertLessEqual(p.policy()["overhead"], 640 * MIB)
        self.assertGreaterEqual(self.m.share("t")["used_bytes"], 10 * GIB)
        self.assertTrue(self.m.share("t")["over"])
        self.assertEqual(self.findings("honest"), {})
        honest.kill()

    def test_context_that_was_never_charged(self):
        t = self.m.tenant(4 * GIB, name="t", gpus=[0])
        p = self.with_memory(t, 0, 0, context=False)
        f = until(lambda: self.findings().get("beyond_charges"), "the finding")
        self.assertEqual(f["pid"], p.pid)

    def test_scribbling_harms_only_the_scribbler(self):
        t = self.m.tenant(4 * GIB, name="t", gpus=[0])
        other = self.with_memory(self.m.tenant(4 * GIB, name="other", gpus=[0]), GIB, GIB)
        p = self.with_memory(t, GIB, GIB)
        free = self.m.device()["free_to_promise_bytes"]
        for pattern in (255, 0, 165):
            p("scribble", pattern)
            until(lambda: self.findings().get("scribbled"), "the finding")
            self.assertEqual(p("truncate"), "refused")
            # However much it claims to hold, others' shares are not less.
            self.assertGreaterEqual(self.m.device()["free_to_promise_bytes"], free - 2 * MIB)
            self.m.request("GET", "/v1/tenants")
        self.m.tenant(free - 8 * GIB, name="next", gpus=[0])
        self.assertEqual(other("charge", 0, GIB), "ok")
        self.assertEqual(self.findings("other"), {})
        p.kill()
        until(lambda: len(self.m.show("t")["processes"]) == 0, "its burial")
        q = self.m.probe()
        q.hello(t)


class Gate(AuditTest):
    options = ("--audit", "gate")

    def test_gate_shuts_and_opens(self):
        t = self.m.tenant(8 * GIB, name="t")
        q = self.m.probe()
        q.hello(t)
        p = self.stranger()
        until(lambda: self.m.share("t")["gated"], "the gate")
        policy = q.policy()
        self.assertEqual((policy["rest"], policy["gate"] & 3), (0, 3))
        p.kill()
        until(lambda: not self.m.share("t")["gated"], "the gate's opening")
        self.assertEqual(q.policy()["gate"] & 3, 0)
        self.assertGreater(q.policy()["rest"], 8 * GIB - 1)


class Kill(AuditTest):
    options = ("--audit", "kill")

    def test_kill(self):
        t = self.m.tenant(8 * GIB, name="t")
        innocent = self.with_memory(t, GIB, GIB)
        p = self.stranger()
        self.assertEqual(p.process.wait(60), -9)
        self.assertIsNone(innocent.process.poll())


class Measured(AuditTest):
    def test_first_context_is_overcharged_then_corrected(self):
        t = self.m.tenant(2 * GIB, name="t")
        p = self.with_memory(t, 256 * MIB, 256 * MIB)
        # A figure that would be lower for everybody takes two tenants to be believed.
        self.with_memory(self.m.tenant(2 * GIB, name="s"), 256 * MIB, 256 * MIB)
        until(lambda: self.m.share("t")["context_bytes"] < 512 * MIB, "a learned figure")
        truth = self.m.share("t")["nvml_bytes"]
        until(lambda: abs(self.m.share("t")["charged_bytes"] + self.m.share("t")["overhead_bytes"]
                          - truth) <= 2 * MIB, "charges and overhead as NVML has it")
        self.assertEqual(self.findings(), {})
        # The next process is charged the true figure at once.
        self.assertLessEqual(abs(p.policy()["context"] + 256 * MIB - truth), 2 * MIB)


    def test_what_the_driver_has_not_answered_is_no_overhead(self):
        # A thread that is stopped between its charge and the driver: the rest of the tenant must
        # not be given the room that its charge seems to leave.
        t = self.m.tenant(2 * GIB, name="t")
        p = self.with_memory(t, 256 * MIB, 320 * MIB)

        def agreed():
            share = self.m.share("t")
            return share["charged_bytes"] + share["overhead_bytes"] == share["nvml_bytes"] and share
        before = until(agreed, "charges and overhead as NVML has it")["overhead_bytes"]
        self.assertEqual(p("charge", 0, 512 * MIB, 0, 1), "ok")
        self.some_readings()
        self.assertEqual(self.m.share("t")["overhead_bytes"], before)
        self.assertNotIn("error", p("alloc", 512 * MIB))
        self.assertEqual(p("answered"), "ok")
        self.some_readings()
        self.assertEqual(self.m.share("t")["overhead_bytes"], before)
        # What was charged and is never taken does fall back, at once.
        self.assertEqual(p("charge", 0, 64 * MIB), "ok")
        until(lambda: self.m.share("t")["overhead_bytes"] < before, "less overhead")
        self.assertEqual(self.findings(), {})

    def test_overhead_that_grows_is_no_fault_of_the_tenant(self):
        t = self.m.tenant(2 * GIB, name="t")
        p = self.with_memory(t, GIB, GIB + 96 * MIB)  # the driver holds more than was charged
        until(lambda: self.m.share("t")["overhead_bytes"] >= 64 * MIB, "overhead")
        self.m.request("PATCH", "/v1/tenants/t", {"mem_bytes": 1400 * MIB})
        until(lambda: self.m.share("t")["over"], "more than the lowered limit")
        self.some_readings()
        self.assertEqual(self.findings(), {})
        p.kill()


class Lag(AuditTest):
    broker = ("--nvml-lag", "200")

    def test_nvml_that_lags_leads_to_no_finding_and_no_early_credit(self):
        t = self.m.tenant(40 * GIB, name="t")
        for i in range(1, 4):
            p = self.with_memory(t, 20 * GIB, 20 * GIB)
            charged = self.m.share("t")["charged_bytes"]
            self.assertGreaterEqual(charged, 20 * GIB)
            p.kill()  # before NVML has ever listed it
            until(lambda: len(self.m.events("leaving")) == i, "the leaving account")
            self.assertEqual(self.m.events("leaving")[-1]["bytes"], charged)
            until(lambda: self.m.share("t")["charged_bytes"] == 0, "the credit")
            used = self.m.device()
            self.assertLess(used["used_bytes"] - used["driver_reserved_bytes"], GIB)
        self.assertEqual(self.findings(), {})
        self.assertEqual(self.m.events("beyond_charges"), [])


class NotAvailable(AuditTest):
    broker = ("--nvml", "na")

    def test_without_figures_charges_are_what_there_is(self):
        t = self.m.tenant(4 * GIB, name="t")
        p = self.with_memory(t, GIB, GIB)
        until(lambda: self.m.device()["used_bytes"] > GIB, "a reading")
        share = self.m.share("t")
        self.assertFalse(share["measured"])
        self.assertEqual((share["overhead_bytes"], share["nvml_bytes"]), (0, 0))
        outside = self.stranger(30 * GIB)
        e = self.refused(self.m.tenant, 60 * GIB)
        self.assertIn("outside Divvy", e.message)
        outside.kill()
        p.kill()
        until(lambda: self.m.share("t")["charged_bytes"] == 0, "the credit")


class Rest(AuditTest):
    def test_rest_binds_only_when_promises_cannot_all_be_kept(self):
        t = self.m.tenant(70 * GIB, name="t")
        p = self.m.probe()
        p.hello(t)
        self.assertGreaterEqual(p.policy()["rest"], 70 * GIB)
        runner = subprocess.Popen(["sleep", "1000"])
        self.addCleanup(runner.wait)
        self.addCleanup(runner.kill)
        self.m.tenant(70 * GIB, name="u", runner_pid=runner.pid, overcommit=True)
        free = self.m.device()["free_bytes"]
        until(lambda: p.policy()["rest"] == free, "the device's rest")


if __name__ == "__main__":
    main()
