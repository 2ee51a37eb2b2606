#!/usr/bin/env python3
"""Structured events end to end: who, what and by which call; crashes, takeover, journal, Xids and cordons."""
import os
import signal
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import GIB, MIB, MachineTest, main, until  # noqa: E402

OUT_OF_SHARE = 1


class Told(MachineTest):
    profile = "h100x2"

    def one(self, cause):
        return until(lambda: self.m.events(cause), cause)[-1]

    def xid(self, device, number):
        with open(f"{self.m.sim}/xid", "a", encoding="utf-8") as f:
            f.write(f"{device} {number}\n")

    def test_a_refusal_names_process_device_and_call(self):
        t = self.m.tenant(2 * GIB, name="a")
        p = self.m.probe()
        p.hello(t)
        p("event", 3 * GIB, OUT_OF_SHARE, 1, 300)
        e = self.one("out_of_share")
        self.assertEqual((e["kind"], e["severity"], e["tenant"], e["pid"]),
                         ("refusal", "warning", "a", p.process.pid))
        self.assertEqual(e["device"], self.m.device()["uuid"])
        self.assertTrue(e["command"])
        self.assertTrue(e["call"].startswith("cu"), e)

    def test_a_crash_is_told_with_its_signal(self):
        t = self.m.tenant(GIB, name="a")
        p = self.m.probe()
        p.hello(t)
        pid = p.process.pid
        os.kill(pid, signal.SIGABRT)
        # A zombie tells how it ended; once it is reaped, only a new kernel does.
        e = self.one("crashed")
        p.kill()
        self.assertEqual((e["kind"], e["severity"], e["tenant"], e["pid"]), ("crash", "error", "a", pid))
        self.assertIn("SIGABRT", e["message"])

    def test_pause_resume_and_a_change_are_three_things(self):
        self.m.tenant(GIB, name="a")
        for body, causes in (({"paused": True}, ["paused"]), ({"paused": False}, ["resumed"]),
                             ({"mem_bytes": 2 * GIB}, ["changed"]),
                             ({"paused": True, "weight": 7}, ["paused", "changed"])):
            since = self.m.events()[-1]["seq"]
            self.m.request("PATCH", "/v1/tenants/a", body)
            told = [e["cause"] for e in self.m.events(since=since) if e["kind"] == "change"]
            self.assertEqual(told, causes)

    def test_a_log_that_nobody_reads_stops_nothing(self):
        self.m.stop_daemon()
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)
        os.set_blocking(write, False)
        for size in (4096, 1):
            try:
                while True:
                    os.write(write, b"." * size)
            except BlockingIOError:
                pass
        os.set_blocking(write, True)
        self.m.daemon, said = self.m.try_start(stderr=write)
        self.assertEqual(said, "ready")
        t = self.m.tenant(GIB, name="a")
        p = self.m.probe()
        p.hello(t)
        for mib in range(1, 101):
            self.m.request("PATCH", "/v1/tenants/a", {"mem_bytes": mib * MIB})
        self.one("changed")
        beat = p.policy()["heartbeat"]
        until(lambda: p.policy()["heartbeat"] > beat, "a heartbeat")
        self.m.stop_daemon()  # nor its end

    def test_a_takeover_says_who_and_whom(self):
        self.assertEqual(self.one("started")["kind"], "daemon")
        self.m.tenant(GIB, name="a")
        self.m.kill_daemon()
        self.m.start()
        e = self.one("takeover")
        self.assertEqual(e["pid"], self.m.daemon.pid)
        self.assertIn("1 of 1 tenants", e["message"])
        self.assertFalse(self.m.events("created"), "events of the one before")

    def test_an_xid_of_a_program_names_it_and_cordons_nothing(self):
        t = self.m.tenant(GIB, name="a", gpus=[1])
        p = self.m.probe()
        p.hello(t)
        self.xid(1, 31)
        e = self.one("xid")
        self.assertEqual((e["kind"], e["tenant"], e["pid"]), ("device", "a", p.process.pid))
        self.assertEqual(e["device"], self.m.device(1)["uuid"])
        self.assertIn("Xid 31", e["message"])
        self.assertFalse(self.m.device(1)["cordoned"])

    def test_a_sick_device_is_cordoned_until_somebody_lifts_it(self):
        for name in ("a", "b"):
            self.m.probe().hello(self.m.tenant(GIB, name=name, gpus=[0]))
        self.xid(0, 79)
        e = self.one("xid")
        self.assertEqual((e["tenant"], e["pid"]), ("", 0))
        self.assertIn("a, b", e["message"])
        self.assertIn("Xid 79", self.one("cordoned")["message"])
        refused = self.refused(self.m.tenant, GIB, name="c", gpus=[0])
        self.assertEqual(refused.status, 503)
        self.assertIn("Xid 79", refused.message)
        self.assertIn("--uncordon 0", refused.message)
        # By count another is taken; tenants that are there go on; the next daemon knows it, too.
        self.assertEqual(self.m.tenant(GIB, name="d")["shares"][0]["index"], 1)
        self.assertEqual(self.m.show("a")["state"], "running")
        self.m.kill_daemon()
        self.m.start()
        self.assertIn("Xid 79", self.m.device(0)["cordon_reason"])
        lifted = self.m.request("PATCH", "/v1/devices/0", {"cordoned": False})
        self.assertFalse(lifted["cordoned"])
        self.assertEqual(self.one("uncordoned")["device"], lifted["uuid"])
        self.m.tenant(GIB, name="c", gpus=[0])
        by_hand = self.m.request("PATCH", f"/v1/devices/{lifted['uuid']}", {"cordoned": True, "reason": "loud fan"})
        self.assertEqual(by_hand["cordon_reason"], "loud fan")

    def test_bad_cordons(self):
        for body in ({}, {"cordoned": 1}, {"cordoned": True, "why": "x"}, {"cordoned": True, "reason": 7}):
            self.assertEqual(self.refused(self.m.request, "PATCH", "/v1/devices/0", body).status, 400)
        self.assertEqual(self.refused(self.m.request, "PATCH", "/v1/devices/9", {"cordoned": True}).status, 404)


class Journal(MachineTest):
    def setUp(self):
        super().setUp()
        self.m.stop_daemon()
        path = f"{self.m.runtime}/journal"
        self.journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.journal.close)
        self.journal.bind(path)
        self.journal.settimeout(30)
        self.m.start("--journal", path)

    def test_events_reach_the_journal(self):
        self.m.tenant(MIB, name="a")
        entry = ""
        while "DIVVY_CAUSE=created" not in entry:
            entry = self.journal.recv(65536).decode()
        for line in ("DIVVY_TENANT=a", "DIVVY_KIND=tenant", "PRIORITY=6", "SYSLOG_IDENTIFIER=divvyd"):
            self.assertIn(line + "\n", entry)

    def test_a_full_journal_holds_nobody_up(self):
        for i in range(100):  # nobody reads: the socket is soon full
            self.m.request("PATCH" if i else "POST", "/v1/tenants/a" if i else "/v1/tenants",
                           {"mem_bytes": (i + 1) * MIB, **({} if i else {"name": "a"})})
        self.assertEqual(self.m.share("a")["limit_bytes"], 100 * MIB)


if __name__ == "__main__":
    main()
