#!/usr/bin/env python3
"""api/openapi.json against the server: every path, method and field that is answered is described, and
everything described is there."""
import json
import os
import pathlib
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from client import GIB, MIB, MachineTest, get, main, until  # noqa: E402
from schema import DOC, Checker  # noqa: E402
from sse import Watcher  # noqa: E402

SCHEMAS = DOC["components"]["schemas"]
ROOT = pathlib.Path(__file__).resolve().parents[2]
METHODS = ("get", "post", "patch", "delete")
REQUEST = {"mem_bytes": MIB, "mem_max_bytes": 2 * MIB, "gpus": [0], "gpu_count": 1, "name": "x", "class": "batch",
           "on_full": {"mode": "wait", "wait_ms": 5}, "compute_percent": 1, "compute_max_percent": 50, "weight": 2,
           "paused": False, "runner_pid": os.getpid(), "cgroup": "", "command": ["a"], "cooperative": True,
           "overcommit": False}


def operations():
    return {(m, path) for path, item in DOC["paths"].items() for m in METHODS if m in item}


class OpenApi(MachineTest):
    def ask(self, method, path, template, body=None):
        """Asks, checks the answer against what is described for its status, and returns it."""
        status, headers, text = get(self.m, path, method=method.upper(),
                                    body=None if body is None else json.dumps(body))
        self.asked.add((method, template))
        described = DOC["paths"][template][method]["responses"]
        response = described.get(str(status), described["default"])
        kind = headers["Content-Type"].split(";")[0]
        if kind == "application/json":
            self.checker.check(json.loads(text), response["content"][kind]["schema"], f"{method} {template}")
            return json.loads(text)
        self.assertIn(kind, response["content"])
        return text

    def setUp(self):
        super().setUp()
        self.checker, self.asked = Checker(), set()

    def test_every_answer_is_described_and_everything_described_is_answered(self):
        t = self.m.tenant(2 * GIB, name="a", compute_percent=20, command=["python", "x.py"],
                          on_full={"mode": "wait", "wait_ms": 10}, runner_pid=0)
        self.with_memory(t, 300 * MIB, 300 * MIB)
        outside = self.m.probe()
        self.assertEqual(outside("cuda", "libcuda.so.1", 0), "ok")
        bypass = self.with_memory(t, 0, 900 * MIB, context=False)  # more than it charges: a finding
        self.assertTrue(bypass)
        until(lambda: self.m.show("a")["findings"] and self.m.device()["outside"], "a finding")
        for path in ("status", "devices", "tenants", "events", "history"):
            self.ask("get", f"/v1/{path}", f"/v1/{path}")
        until(lambda: self.ask("get", "/v1/history?span=60s", "/v1/history")["tenants"], "history")
        self.ask("get", "/v1/events?since=x", "/v1/events")
        self.ask("get", "/v1/tenants/a", "/v1/tenants/{name}")
        self.ask("get", "/v1/tenants/nobody", "/v1/tenants/{name}")
        until(lambda: self.ask("get", "/v1/tenants/a/why", "/v1/tenants/{name}/why")["shares"], "a share's why")
        self.ask("get", "/v1/tenants/nobody/why", "/v1/tenants/{name}/why")
        for body in ({"cordoned": True, "reason": "test"}, {"cordoned": False}, {}):
            self.ask("patch", "/v1/devices/0", "/v1/devices/{name}", body)
        self.ask("patch", "/v1/tenants/a", "/v1/tenants/{name}", {"weight": 3})
        for method, body in (("post", {"for_ms": 1000}), ("get", None), ("delete", None)):
            self.ask(method, "/v1/tenants/a/recording", "/v1/tenants/{name}/recording", body)
        self.ask("post", "/v1/tenants", "/v1/tenants", {"mem_bytes": GIB, "name": "b"})
        self.ask("post", "/v1/tenants", "/v1/tenants", {"mem_bytes": GIB, "name": "b"})
        self.ask("delete", "/v1/tenants/b", "/v1/tenants/{name}")
        self.ask("get", "/metrics", "/metrics")
        w = Watcher(f"{self.m.dir}/divvyd.sock", "/v1/watch?since=0")
        self.addCleanup(w.close)
        for kind, name in (("event", "Event"), ("snapshot", "Snapshot")):
            self.checker.check(w.next(kind), SCHEMAS[name], name)
        self.asked.add(("get", "/v1/watch"))
        self.ask("post", "/v1/shutdown", "/v1/shutdown", {})
        self.assertEqual(operations() - self.asked, set(), "described and not tried here")
        self.assertEqual(self.checker.unseen(), [], "described and never answered")

    def test_every_route_of_the_server_is_described(self):
        source = (ROOT / "src/daemon/api.cc").read_text(encoding="utf-8")
        routes = re.findall(r'server\.(Get|Post|Put|Patch|Delete)\(\s*"([^"]+)"', source)
        self.assertGreater(len(routes), 10)
        self.assertEqual({(m.lower(), path.replace("([^/]+)", "{name}")) for m, path in routes}, operations())

    def test_every_field_of_a_request_is_taken_and_described(self):
        for name, ask in (("TenantRequest", lambda b: self.m.request("POST", "/v1/tenants", b)),
                          ("TenantPatch", lambda b: self.m.request("PATCH", "/v1/tenants/base", b))):
            fields = SCHEMAS[name]["properties"]
            self.assertLessEqual(set(fields), set(REQUEST), name)
            self.m.tenant(MIB, name="base")
            for field in fields:
                body = {"mem_bytes": MIB, field: REQUEST[field]}
                if name == "TenantRequest":
                    body["name"] = f"t-{field.replace('_', '-')}"
                Checker().check(body, SCHEMAS[name], name)
                try:
                    ask(body)
                except Exception as e:  # a value may be refused; a field may not
                    self.assertNotIn("unknown field", str(e))
            self.m.request("DELETE", "/v1/tenants/base")
        # The reverse: the names that the parser asks for.
        source = (ROOT / "src/daemon/request.cc").read_text(encoding="utf-8")
        for functions, name in ((("TakePatch", "ParseTenantRequest"), "TenantRequest"), (("TakePatch",), "TenantPatch")):
            text = "".join(source[source.index(f" {f}("):].split("\n}\n")[0] for f in functions)
            taken = set(re.findall(r'\bf\.\w+\(\s*"(\w+)"', text))
            self.assertEqual(taken, set(SCHEMAS[name]["properties"]), name)


if __name__ == "__main__":
    main()
