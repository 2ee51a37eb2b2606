#!/usr/bin/env python3
"""Writes divvy.json, the Grafana board beside it. A board is 90 % layout; this says the other 10 %.

Run after a change here; a test compares the two. Standard library only.
"""
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = {"type": "prometheus", "uid": "${source}"}
BY_INDEX = "* on (instance, device) group_left (index, name) divvy_device_info"
CHOSEN = 'instance=~"$instance"'
TENANT = CHOSEN + ',tenant=~"$tenant"'

# (title, unit, stacked, [(expression, legend)])
ROWS = [
    ("Devices", [
        ("Compute used", "percentunit", True,
         [(f"rate(divvy_tenant_gpu_seconds_total{{{TENANT}}}[$__rate_interval])", "{{tenant}}")]),
        ("Memory used", "bytes", True,
         [(f"divvy_tenant_memory_used_bytes{{{TENANT}}}", "{{tenant}}"),
          (f"divvy_device_memory_outside_bytes{{{CHOSEN}}}", "outside {{device}}")]),
        ("Free to promise", "bytes", False,
         [(f"divvy_device_memory_free_to_promise_bytes{{{CHOSEN}}} {BY_INDEX}", "GPU {{index}}")]),
        ("Compute promised", "percentunit", False,
         [(f"divvy_device_compute_promised_ratio{{{CHOSEN}}} {BY_INDEX}", "GPU {{index}}")]),
    ]),
    ("Tenants", [
        ("Got over guaranteed", "percentunit", False,
         [(f"rate(divvy_tenant_gpu_seconds_total{{{TENANT}}}[$__rate_interval])"
           f" / (divvy_tenant_compute_guaranteed_ratio{{{TENANT}}} > 0)", "{{tenant}}")]),
        ("Memory used over limit", "percentunit", False,
         [(f"divvy_tenant_memory_used_bytes{{{TENANT}}} / divvy_tenant_memory_limit_bytes{{{TENANT}}}",
           "{{tenant}}")]),
        ("Waiting at the gate (threads)", "short", False,
         [(f"rate(divvy_tenant_gate_wait_seconds_total{{{TENANT}}}[$__rate_interval])", "{{tenant}}")]),
        ("The driver's overhead", "bytes", True,
         [(f"divvy_tenant_memory_context_bytes{{{TENANT}}}"
           f" + divvy_tenant_memory_overhead_bytes{{{TENANT}}}", "{{tenant}}")]),
    ]),
    ("Refusals and findings", [
        ("Refusals", "short", True,
         [(f"increase(divvy_tenant_refusals_total{{{TENANT}}}[$__rate_interval])", "{{tenant}} {{cause}}")]),
        ("Findings of the audit", "short", True,
         [(f"divvy_tenant_findings{{{TENANT}}}", "{{tenant}} {{code}}")]),
        ("divvyd's own CPU", "percentunit", False,
         [(f"rate(process_cpu_seconds_total{{job=\"divvy\",{CHOSEN}}}[$__rate_interval])", "{{instance}}")]),
        ("Devices that do not answer", "short", False,
         [(f"1 - divvy_device_healthy{{{CHOSEN}}}", "{{device}}")]),
    ]),
]


def panel(number, at, title, unit, stacked, queries):
    custom = {"fillOpacity": 40 if stacked else 5, "lineWidth": 1, "showPoints": "never",
              "stacking": {"mode": "normal" if stacked else "none"}}
    return {"id": number, "type": "timeseries", "title": title, "datasource": SOURCE,
            "gridPos": {"h": 8, "w": 6, **at},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": custom}, "overrides": []},
            "options": {"tooltip": {"mode": "multi", "sort": "desc"},
                        "legend": {"displayMode": "list", "placement": "bottom"}},
            "targets": [{"refId": chr(65 + i), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
                        for i, (expr, legend) in enumerate(queries)]}


def variable(name, query):
    return {"name": name, "label": name, "type": "query", "datasource": SOURCE, "query": query,
            "refresh": 2, "includeAll": True, "multi": True, "allValue": ".*",
            "current": {"text": "All", "value": "$__all"}}


def board():
    panels, number, y = [], 0, 0
    for title, row in ROWS:
        number += 1
        panels.append({"id": number, "type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}})
        for i, what in enumerate(row):
            number += 1
            panels.append(panel(number, {"x": 6 * i, "y": y + 1}, *what))
        y += 9
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {"uid": "divvy", "title": "Divvy", "tags": ["gpu"], "schemaVersion": 38, "refresh": "15s",
            "time": {"from": "now-1h", "to": "now"}, "panels": panels,
            "templating": {"list": [source, variable("instance", "label_values(divvy_tenants, instance)"),
                                    variable("tenant", 'label_values(divvy_tenant_info{instance=~"$instance"}, tenant)')]}}


def text():
    return json.dumps(board(), indent=1) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--verify"]:
        sys.exit((HERE / "divvy.json").read_text(encoding="utf-8") != text())
    (HERE / "divvy.json").write_text(text(), encoding="utf-8")
