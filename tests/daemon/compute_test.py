"""Compute shares over the API, and the arbiter's thread, with tenants whose work is written by hand."""
from harness import GIB, MIB, MachineTest, main, until

SHUT, PAUSED, METERED, BELL, EACH_OP = 1, 2, 4, 8, 16


class Shares(MachineTest):
    profile = "h100x2"

    def probe(self, tenant, *hello):
        p = self.m.probe()
        p.hello(tenant, *hello)
        return p

    def until_gate(self, p, good, what, device=0):
        return until(lambda: good(p.policy(device)["gate"]), what)

    def test_promises_are_admitted_shown_and_kept(self):
        first = self.m.tenant(MIB, name="web", gpus=[0], compute_percent=60, compute_max_percent=80,
                              **{"class": "latency"})
        self.assertEqual(first["shares"][0]["compute_percent"], 60)
        refused = self.refused(self.m.tenant, MIB, name="greedy", gpus=[0], compute_percent=41)
        self.assertEqual((refused.status, refused.code), (507, "no_room"))
        self.assertIn("web 60 %", refused.message)
        self.m.tenant(MIB, name="over", gpus=[0], compute_percent=41, overcommit=True)
        self.m.request("DELETE", "/v1/tenants/over")
        self.m.tenant(MIB, name="rest", gpus=[0])
        # By count: the device with room for the promise.
        other = self.m.tenant(MIB, name="other", compute_percent=50)
        self.assertEqual(other["shares"][0]["index"], 1)
        until(lambda: self.m.share("web")["compute"]["part_percent"] == 60, "web's part")
        until(lambda: self.m.share("rest")["compute"]["part_percent"] == 40, "the rest's part")
        refused = self.refused(self.m.request, "PATCH", "/v1/tenants/other",
                               {"compute_percent": 50.5, "compute_max_percent": 40})
        self.assertEqual(refused.status, 400)
        self.m.request("PATCH", "/v1/tenants/web",
                       {"compute_percent": 70, "weight": 5, "class": "standard"})
        refused = self.refused(self.m.request, "PATCH", "/v1/tenants/web", {"class": "batch"})
        self.assertEqual(refused.status, 400)
        self.assertIn("compute_percent 0", refused.message)
        refused = self.refused(self.m.request, "PATCH", "/v1/tenants/rest", {"compute_percent": 31})
        self.assertEqual(refused.status, 507)
        self.m.kill_daemon()
        self.m.start()
        self.m.request("PATCH", "/v1/tenants/rest", {"paused": True})
        web = until(lambda: self.m.share("web")["compute"], "web")
        self.assertEqual((web["percent"], web["max_percent"], web["class"], web["weight"]),
                         (70, 80, "standard", 5))
        self.m.request("PATCH", "/v1/tenants/web", {"compute_percent": 0, "class": "batch"})
        until(lambda: self.m.share("web")["compute"]["part_percent"] == 0, "batch has no part")
        until(lambda: self.m.share("rest")["compute"]["part_percent"] == 100, "rest has it all")
        self.m.kill_daemon()
        self.m.start()
        self.assertTrue(self.m.show("rest")["paused"])
        until(lambda: self.m.share("rest")["compute"]["part_percent"] > 0, "the arbiter")

    def test_bad_input(self):
        for field, value in [("compute_percent", 0.0001), ("compute_percent", 101),
                             ("compute_percent", -1), ("compute_percent", "30"),
                             ("compute_max_percent", 0), ("weight", 0), ("weight", 1.5),
                             ("class", "latancy"), ("paused", 1)]:
            refused = self.refused(self.m.tenant, MIB, **{field: value})
            self.assertEqual(refused.status, 400, (field, value))
            self.assertIn(field, refused.message)
        refused = self.refused(self.m.request, "POST", "/v1/tenants",
                               '{"mem_bytes": 1048576, "compute_percent": NaN}')
        self.assertEqual(refused.status, 400)
        gone = self.refused(self.m.request, "PATCH", "/v1/tenants/gone", {"compute_percent": 5})
        self.assertEqual(gone.status, 404)

    def test_gates_follow_the_work(self):
        a = self.probe(self.m.tenant(MIB, name="a", gpus=[0], compute_percent=50))
        self.until_gate(a, lambda g: g == 0, "the free gate")
        self.assertEqual(a.policy()["bound"], 0)
        b = self.probe(self.m.tenant(MIB, name="b", gpus=[0], compute_percent=50))
        self.assertEqual(b.policy()["patience"], 2000)
        for p in (a, b):  # nobody wants the device
            self.until_gate(p, lambda g: g & 0xff == METERED | BELL, "a bell at each gate")
        # Both want it and never finish: one runs, the other waits for its turn.
        for p in (a, b):
            p("lane", 0, 0, 5, 5, 0, 1)
            p("meter", 0, 1, 1, 0)
            p("ring")
        until(lambda: any(p.policy()["gate"] & SHUT for p in (a, b)), "a shut gate")
        until(lambda: (self.m.share("a")["compute"]["used_percent_1s"] or 0) > 0, "billed time")
        self.assertGreater(self.m.share("a")["compute"]["windows"]
                           + self.m.share("b")["compute"]["windows"], 0)
        # Both have finished: bells again.
        for p in (a, b):
            p("lane", 0, 0, 5, 5, 5, 0)
            p("meter", 0, 0, 1, 0)
        for p in (a, b):
            self.until_gate(p, lambda g: g & 0xff == METERED | BELL, "a bell at each gate")
        # A process that dies with work outstanding takes it along.
        a("lane", 0, 0, 9, 9, 5, 1)
        a("ring")
        until(lambda: a.policy()["gate"] & BELL == 0, "no bell while it works")
        a.kill()
        self.until_gate(b, lambda g: g & 0xff == METERED | BELL, "rest after a death")

    def test_pause(self):
        tenant = self.m.tenant(MIB, name="a", gpus=[0])
        p = self.probe(tenant)
        self.m.request("PATCH", "/v1/tenants/a", {"paused": True})
        self.until_gate(p, lambda g: g & (SHUT | PAUSED) == SHUT | PAUSED, "a shut gate")
        self.assertTrue(self.m.share("a")["compute"]["paused"])
        self.m.request("PATCH", "/v1/tenants/a", {"paused": False})
        self.until_gate(p, lambda g: g == 0, "an open gate")

    def test_garbage_is_told(self):
        a = self.probe(self.m.tenant(MIB, name="a", gpus=[0]))
        b = self.probe(self.m.tenant(MIB, name="b", gpus=[0]))
        a("lane", 0, 3, 5, 77, 1 << 60, 3)
        a("ring")
        until(lambda: self.m.events("garbage_markers"), "the event")
        self.assertTrue(self.m.share("a")["compute"]["distrusted"])
        self.assertEqual(self.m.share("b")["compute"]["faults"], 0)
        self.assertFalse(b.policy()["gate"] & SHUT)


    def test_counters_of_nonsense_are_left_out_and_flagged(self):
        a = self.probe(self.m.tenant(MIB, name="a", gpus=[0]))
        self.probe(self.m.tenant(MIB, name="b", gpus=[0]))
        a("meter", 0, 0, 40, 1)
        a("ring")
        until(lambda: self.m.share("a")["compute"]["waits"] == 40, "its waits")
        a("meter", 0, 0, 1 << 63, 1)
        a("ring")
        until(lambda: self.m.share("a")["compute"]["distrusted"], "the flag")
        self.assertEqual(self.m.share("a")["compute"]["waits"], 40)
        self.assertFalse(self.m.share("b")["compute"]["distrusted"])

    def test_recording(self):
        p = self.probe(self.m.tenant(MIB, name="a", gpus=[0]))
        p("record", 10, 1, 1)
        begun = self.m.request("POST", "/v1/tenants/a/recording", {"for_ms": 60000})
        self.assertEqual(begun["head"], 10)
        self.until_gate(p, lambda g: g & EACH_OP, "a marker around each operation")
        p("record", 20, 500, 40)
        seen = self.m.request("GET", "/v1/tenants/a/recording?since=10")
        self.assertEqual((seen["head"], seen["lost"], len(seen["records"])), (30, 0, 20))
        self.assertEqual(seen["records"][0], [500, 40, 7, 0, 0, 1])
        p("record", 5000, 1, 1)
        seen = self.m.request("GET", "/v1/tenants/a/recording?since=30")
        self.assertEqual((seen["head"], seen["lost"]), (5030, 5000 - 4096))
        self.m.request("DELETE", "/v1/tenants/a/recording")
        self.until_gate(p, lambda g: g == 0, "the free gate again")
        self.m.request("POST", "/v1/tenants/a/recording", {"for_ms": 1})  # its recorder went away
        self.until_gate(p, lambda g: g == 0, "the free gate by itself")
        refused = self.refused(self.m.request, "POST", "/v1/tenants/a/recording", {"for_ms": 0})
        self.assertEqual(refused.status, 400)
        refused = self.refused(self.m.request, "GET", "/v1/tenants/b/recording")
        self.assertEqual(refused.status, 404)

    def test_gpu_time_that_no_meter_tells(self):
        thief = self.m.tenant(GIB, name="thief", gpus=[0])
        self.m.tenant(MIB, name="other", gpus=[0])
        p = self.with_memory(thief, 0, 0)
        # Alone on its device for the moment, and honest: that its few markers tell of little of its
        # work is no finding, and its figures are the driver's.
        honest = self.m.tenant(GIB, name="honest", gpus=[1])
        self.m.tenant(MIB, name="idle", gpus=[1])
        h = self.probe(honest)
        self.assertEqual(h("charge", 0, h.policy()["context"], 7), "ok")
        self.assertEqual(h("cuda", "libcuda.so.1", 1), "ok")
        h("lane", 0, 0, 1, 1, 0, 0, 0)  # submitted; that it began, no marker says
        h("ring")
        shown = []

        def seen():
            self.assertEqual(p("spin", 5_000_000, 40), "ok")
            self.assertEqual(h("spin", 5_000_000, 20), "ok")
            used = self.m.share("honest")["compute"]["used_percent_1s"]
            self.assertLessEqual(used, 100)
            shown.append(used)
            return [f for f in self.m.show("thief")["findings"] if f["code"] == "gpu_time_unseen"]
        finding = until(seen, "the finding")[0]
        self.assertIn("its own markers tell of 0 %", finding["message"])
        self.assertFalse(self.m.show("other")["findings"])
        self.assertFalse(self.m.show("honest")["findings"])
        self.assertGreater(max(shown), 20)
        until(lambda: self.m.share("thief")["compute"]["used_ns"] > 1e9, "a debit")


class Dilated(MachineTest):
    profile = "h100@x20"

    def test_durations_are_the_devices(self):
        a = self.m.probe()
        a.hello(self.m.tenant(MIB, name="a"))
        b = self.m.probe()
        b.hello(self.m.tenant(MIB, name="b"))
        until(lambda: a.policy()["gate"] & BELL, "a gate")
        self.assertEqual(a.policy()["patience"], 40000)
        self.assertEqual(a.policy()["bound"] % 20000, 0)
        self.assertGreater(a.policy()["bound"], 0)


class Many(MachineTest):
    def test_256_tenants_on_one_device(self):
        tenants = [self.m.tenant(MIB, name=f"t{i}") for i in range(256)]
        probes = []
        for tenant in tenants[::32]:
            p = self.m.probe()
            p.hello(tenant)
            probes.append(p)
        for p in probes:
            p("lane", 0, 0, 5, 5, 0, 1)
            p("ring")
        until(lambda: sum(1 for p in probes if p.policy()["gate"] & SHUT) >= len(probes) - 2,
              "turns")
        self.assertAlmostEqual(self.m.share("t9")["compute"]["part_percent"], 100 / 256, 1)


if __name__ == "__main__":
    main()
