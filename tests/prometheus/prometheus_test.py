#!/usr/bin/env python3
"""A real Prometheus reads a live divvyd with deploy/'s configuration and rules, and is asked itself:
is the target up, are the rules healthy, does an alert fire, does each query of the board have an
answer. Run by `make test-prometheus`; skipped where Prometheus is not installed."""
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("DIVVY_BUILD_DIR", ROOT / "build"))
DIVVY = BUILD / "bin/divvy"
EVENT_S = 90  # a bound on waiting for what is sure to come
TOKEN = "0123456789abcdef-prometheus"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, say):
    end = time.monotonic() + EVENT_S
    while time.monotonic() < end:
        got = what()
        if got:
            return got
        time.sleep(0.2)
    raise AssertionError(f"{say} did not come")


class RealPrometheus(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="divvy-prometheus-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir, True)
        cls.env = {k: v for k, v in os.environ.items() if not k.startswith("DIVVY_")}
        cls.env["DIVVY_RUNTIME_DIR"] = str(cls.dir / "run")
        token = cls.dir / "token"
        token.write_text(TOKEN + "\n", encoding="ascii")
        cls.start([BUILD / "bin/divvyd", "--foreground", "--sim", "h100", "--api-tcp", "127.0.0.1:0",
                   "--api-token-file", token])
        until(lambda: (cls.dir / "run/sim/h100/divvyd.sock").exists(), "the daemon's socket")
        # What deploy/ has, with this machine's addresses and a faster clock.
        status = cls.divvy("daemon", "status", "-o", "json")
        config = (ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8")
        for was, is_now in (("/etc/divvy/token", str(token)), ("127.0.0.1:9434", json.loads(status)["daemons"][0]["tcp"]),
                            ("scrape_interval: 15s", "scrape_interval: 250ms"),
                            ("evaluation_interval: 15s", "evaluation_interval: 250ms")):
            assert was in config, was
            config = config.replace(was, is_now)
        (cls.dir / "prometheus.yml").write_text(config, encoding="utf-8")
        shutil.copy(ROOT / "deploy/prometheus/divvy-rules.yml", cls.dir)
        # Two that share the device, one of them refused at a word's notice.
        cls.refused = cls.start([DIVVY, "run", "--sim", "h100", "--name", "small", "--mem", "1GiB", "--", "sh", "-c",
                                 f"while read x; do '{DIVVY}' load --alloc 2GiB 2>/dev/null; echo done; done"],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        cls.start([DIVVY, "run", "--sim", "h100", "--name", "busy", "--mem", "2GiB", "--compute", "30", "--", DIVVY,
                   "load", "--alloc", "1GiB", "--kernel", "1ms", "--rate", "20", "--for", "10m"],
                  stdout=subprocess.DEVNULL)
        cls.port = free_port()
        cls.start(["prometheus", f"--config.file={cls.dir}/prometheus.yml", f"--storage.tsdb.path={cls.dir}/data",
                   f"--web.listen-address=127.0.0.1:{cls.port}", "--log.level=error"])

    @classmethod
    def start(cls, command, **kw):
        p = subprocess.Popen(list(map(str, command)), env=cls.env, **kw)

        def end():
            p.terminate()
            if p.stdin:
                p.stdin.close()
            if p.stdout:
                p.stdout.close()
            p.wait()
        cls.addClassCleanup(end)
        return p

    @classmethod
    def divvy(cls, *args):
        return subprocess.run([str(DIVVY), *args], env=cls.env, capture_output=True, text=True, check=True).stdout

    def api(self, path, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?" + urllib.parse.urlencode(query)
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            if refused.code == 503:
                return None  # not started yet
            raise AssertionError(f"{path} {query}: {refused.read().decode()}") from None
        except OSError:
            return None  # not listening yet

    def query(self, text):
        answer = self.api("query", query=text)
        return answer["result"] if answer else []

    def refuse(self):
        self.refused.stdin.write("again\n")
        self.refused.stdin.flush()
        self.assertEqual(self.refused.stdout.readline(), "done\n")

    def test_1_target_is_up(self):
        def target():
            targets = (self.api("targets") or {}).get("activeTargets", [])
            return [t for t in targets if t["health"] != "unknown"]
        [one] = until(target, "a scrape")
        self.assertEqual((one["health"], one["lastError"], one["labels"]["job"]), ("up", "", "divvy"))

        # The page that a person looks at, in the plain form that Debian's package has.
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/classic/targets", timeout=30) as answer:
            page = answer.read().decode()
        self.assertRegex(page, r"divvy \(1/1 up\)")
        row = page.split(one["scrapeUrl"], 1)[1]
        self.assertEqual(re.search(r'state_indicator text-uppercase">\s*(\w+)', row)[1], "up")

    def test_2_rules_are_healthy(self):
        def evaluated():
            groups = (self.api("rules") or {}).get("groups", [])
            rules = [r for g in groups for r in g["rules"]]
            return rules if rules and all(r["health"] != "unknown" for r in rules) else None
        rules = until(evaluated, "an evaluation of each rule")
        written = re.findall(r"^ +- (?:alert|record): (\S+)$",
                             (ROOT / "deploy/prometheus/divvy-rules.yml").read_text(encoding="utf-8"), re.M)
        self.assertEqual(sorted(r["name"] for r in rules), sorted(written))
        self.assertEqual([(r["name"], r.get("lastError")) for r in rules if r["health"] != "ok"], [])

    def test_3_an_alert_fires(self):
        self.refuse()
        until(lambda: self.query('divvy_tenant_refusals_total{tenant="small",cause="out_of_share"} > 0'), "the refusal")
        self.refuse()  # a counter's first value is no increase

        def firing():
            alerts = (self.api("alerts") or {}).get("alerts", [])
            return [a for a in alerts if a["labels"]["alertname"] == "DivvyTenantRefused" and a["state"] == "firing"]
        [alert] = until(firing, "the alert")
        self.assertEqual(alert["labels"]["tenant"], "small")
        self.assertIn("small was refused memory", alert["annotations"]["summary"])
        self.assertFalse([a for a in self.api("alerts")["alerts"] if a["labels"]["alertname"] == "DivvyDown"])

    def test_4_the_board_has_answers(self):
        until(lambda: self.query('rate(divvy_tenant_gpu_seconds_total{tenant="busy"}[5s]) > 0'), "GPU time")
        board = json.loads((ROOT / "deploy/grafana/divvy.json").read_text(encoding="utf-8"))
        queries = [(p["title"], t["expr"]) for p in board["panels"] for t in p.get("targets", [])]
        self.assertGreater(len(queries), 10)
        empty = []
        for title, text in queries:
            # What Grafana puts in.
            text = text.replace("$__rate_interval", "5s").replace("$__interval", "1s").replace("$__range", "1m")
            text = re.sub(r"\$\{?\w+(:\w+)?\}?", ".*", text)
            answer = self.api("query", query=text)  # an error of Prometheus's fails here
            if not answer["result"]:
                empty.append((title, text))
        # Of what has not happened there is nothing; of what there is, something.
        unseen = ("finding", "fault", "sick", "overrun", "outside", "leaving", "down", "watch")
        self.assertEqual([e for e in empty if not any(w in e[0].lower() + e[1].lower() for w in unseen)], [])

    def test_5_it_goes_down_and_prometheus_says_so(self):
        self.divvy("daemon", "stop", "--all")
        until(lambda: self.query('up{job="divvy"} == 0'), "the end of the target")


if __name__ == "__main__":
    for needed in ("prometheus", "promtool"):
        if shutil.which(needed) is None:
            print(f"skipped: {needed} is not installed (Debian: prometheus)")
            sys.exit(77)
    if not (BUILD / "bin/divvyd").exists():
        print("skipped: not built")
        sys.exit(77)
    unittest.main(verbosity=2)
