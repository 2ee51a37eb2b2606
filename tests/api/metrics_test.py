#!/usr/bin/env python3
"""GET /metrics against a live daemon: agrees with the API, and promtool has nothing to say."""
import os
import re
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from client import GIB, MIB, MachineTest, get, main, until  # noqa: E402

SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def samples(text):
    """{(name, ((label, value), ...)): number}; a sample that stands twice is a fault."""
    out = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, labels, value = SAMPLE.fullmatch(line).groups()
        key = name, tuple(LABEL.findall(labels or ""))
        assert key not in out, f"{line}: twice"
        out[key] = float(value)
    return out


class Metrics(MachineTest):
    profile = "h100x2"

    def page(self, query=""):
        status, headers, text = get(self.m, "/metrics" + query)
        self.assertEqual(status, 200, text)
        self.assertIn("version=0.0.4", headers["Content-Type"])
        return text

    def load(self):
        self.m.tenant(4 * GIB, name="a", compute_percent=30, gpu_count=2)
        t = self.m.tenant(2 * GIB, name="b", **{"class": "batch"})
        self.with_memory(t, 300 * MIB, 300 * MIB)

    def test_figures_are_those_of_the_api(self):
        self.load()

        def same():
            metrics = samples(self.page())
            for tenant in self.m.request("GET", "/v1/tenants")["tenants"]:
                for share in tenant["shares"]:
                    labels = (("tenant", tenant["name"]), ("device", share["device"]))
                    for field in ("limit", "promised", "used", "charged", "overhead", "leaving"):
                        if metrics[f"divvy_tenant_memory_{field}_bytes", labels] != share[f"{field}_bytes"]:
                            return False
                    if metrics["divvy_tenant_compute_guaranteed_ratio", labels] * 100 != \
                            share["compute_percent"]:
                        return False
            for device in self.m.request("GET", "/v1/devices")["devices"]:
                labels = (("device", device["uuid"]),)
                for field in ("used", "promised", "outside", "free_to_promise"):
                    if metrics[f"divvy_device_memory_{field}_bytes", labels] != device[f"{field}_bytes"]:
                        return False
            return metrics[("divvy_tenants", ())] == 2
        until(same, "metrics and API that agree")  # a reading may fall between two requests

    def test_guaranteed_time_grows_with_the_share_of_the_moment(self):
        self.m.tenant(GIB, name="a", compute_percent=50)
        device = self.m.device()["uuid"]

        def promised():
            return samples(self.page("?name[]=divvy_tenant_gpu_promised_seconds_total"))[
                "divvy_tenant_gpu_promised_seconds_total", (("tenant", "a"), ("device", device))]
        until(lambda: promised() > 0.05, "guaranteed time")
        self.m.request("PATCH", "/v1/tenants/a", {"compute_percent": 0.001})
        then = promised()
        self.assertGreater(then, 0.05)
        self.assertLess(promised() - then, 0.001)  # as much as it would grow in 100 s

    def test_filter(self):
        self.load()
        only = samples(self.page("?name[]=divvy_tenants&name[]=divvy_tenant_paused"))
        self.assertEqual({name for name, _ in only}, {"divvy_tenants", "divvy_tenant_paused"})
        status, _, text = get(self.m, "/metrics?name[]=divvy_nonsense")
        self.assertEqual(status, 400)
        self.assertIn("divvy_nonsense", text)

    def promtool(self, text):
        if shutil.which("promtool") is None:
            print("promtool is not installed (Debian: prometheus): the format is not checked")
            raise unittest.SkipTest("no promtool")
        return subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)

    def test_promtool_has_nothing_to_say(self):
        self.load()
        done = self.promtool(self.page())
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))


class Hami(Metrics):
    options = ("--metrics-compat", "hami")

    def test_promtool_has_nothing_to_say(self):
        self.load()
        page = self.page()
        self.assertIn('vGPU_device_memory_limit_in_bytes{zone="vGPU",', page)
        self.assertIn("hami_vgpu_memory_used_bytes{", page)
        done = self.promtool(page)
        # HAMi's own names are not what promtool would choose; the format must hold all the same.
        for line in (done.stdout + done.stderr).splitlines():
            self.assertRegex(line, r"^(hami_|\w*GPU\w*|Device_utilization)", done.stderr)
        self.assertIn(done.returncode, (0, 3))


if __name__ == "__main__":
    main()
