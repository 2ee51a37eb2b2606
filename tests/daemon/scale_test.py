#!/usr/bin/env python3
"""A thousand tenants, two hundred processes in one tenant, a storm of forks: correct, and no leak."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import GIB, MIB, MachineTest, main, until  # noqa: E402


# Under a sanitizer the same steps take ten times as long: as many tenants as show the same.
TENANTS = 100 if os.environ.get("DIVVY_SANITIZED") == "1" else 1000


class Scale(MachineTest):
    def descriptors(self):
        return len(os.listdir(f"/proc/{self.m.daemon.pid}/fd"))

    def test_a_thousand_tenants(self):
        before = self.descriptors()
        for i in range(TENANTS):
            self.m.tenant(MIB, name=f"t{i}")
        device = self.m.device()
        self.assertEqual(device["promised_bytes"], TENANTS * MIB)
        p = self.m.probe()
        p.hello(self.m.show(f"t{TENANTS - 1}"))
        self.assertEqual(p("charge", 0, MIB), "ok")
        p.kill()
        self.m.kill_daemon()
        self.m.start()
        self.assertEqual(len(self.m.request("GET", "/v1/tenants")["tenants"]), TENANTS)
        for i in range(TENANTS):
            self.m.request("DELETE", f"/v1/tenants/t{i}?force=1")
        until(lambda: self.m.device()["promised_bytes"] == 0, "their end")
        self.assertEqual(os.listdir(f"{self.m.dir}/tenants"), [])
        until(lambda: self.descriptors() <= before + 2, "closed descriptors")

    def test_two_hundred_processes_in_one_tenant(self):
        t = self.m.tenant(10 * GIB, name="t")
        before = self.descriptors()
        p = self.m.probe()
        self.assertEqual(p("many", t["socket"], 200), "200")
        shown = self.m.show("t")
        self.assertEqual(len(shown["processes"]), 200)
        self.assertEqual(len({x["slot"] for x in shown["processes"]}), 200)
        self.assertEqual(shown["shares"][0]["charged_bytes"], 200 * MIB)
        p.kill()
        until(lambda: self.m.show("t")["processes"] == [], "their burial")
        self.assertEqual(self.m.share("t")["charged_bytes"], 0)
        # Again and again: slots and descriptors are used anew.
        for _ in range(3):
            p = self.m.probe()
            self.assertEqual(p("many", t["socket"], 100), "100")
            self.assertLess(max(x["slot"] for x in self.m.show("t")["processes"]), 300)
            p.kill()
            until(lambda: self.m.show("t")["processes"] == [], "their burial")
        until(lambda: self.descriptors() <= before, "closed descriptors")


if __name__ == "__main__":
    main()
