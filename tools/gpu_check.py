#!/usr/bin/env python3
"""What Divvy does on the GPU at hand: `make gpu-check`, or check.sh of a bundle (`make gpu-bundle`).

Measures what the compute algorithm stands on, then runs verify memory and verify compute, and writes
one JSON and one Markdown table, named by device and driver. Needs an NVIDIA driver, no network, and
ends within eight minutes. `--sim MODEL` tries the procedure itself: what it writes says "simulated"
and never goes to docs/measurements.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import time

LIMIT_S = 480


def run(divvy, *args, left):
    """One divvy verb's JSON, or why there is none."""
    try:
        done = subprocess.run([divvy, *args], capture_output=True, text=True, timeout=left, check=False)
    except subprocess.TimeoutExpired:
        return {"error": "out of time"}
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {"error": (done.stderr.strip() or "no answer").splitlines()[-1]}


def device_of(args):
    if args.sim:
        return args.sim.split("@")[0], "simulated"
    try:
        said = subprocess.run(["nvidia-smi", f"--id={args.gpu}", "--query-gpu=name,driver_version",
                               "--format=csv,noheader"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        said = None
    if said is None or said.returncode != 0:
        sys.exit("no NVIDIA driver here (nvidia-smi fails); --sim h100 tries the procedure without one")
    name, driver = said.stdout.strip().split(", ")
    return name, driver


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return lines + ["| " + " | ".join("–" if x is None else str(x) for x in row) + " |" for row in rows]


def short(value):
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else value


def markdown(report):
    word = "**Simulated**, not measured" if report["simulated"] else "Measured"
    out = [f"# {report['device']}, driver {report['driver']}", "",
           f"{word} by `make gpu-check`; {report['took_s']:.0f} s.", ""]
    out += table(["what", "figure"], [(k, short(v)) for k, v in report["hardware"].items()])
    out += [""] + table(["memory path", "over limit (bytes)", "holds"],
                        [(r["path"], r["over_limit_bytes"], r["passed"])
                         for r in report["memory"].get("rows", [])])
    keys = ["case", "tenant", "wanted_percent", "got_percent", "share_error_percent",
            "shortfall_percent", "budget_percent", "progress", "native_progress", "latency_p99_ratio"]
    out += [""] + table(keys, [[r[k] for k in keys] for r in report["compute"].get("rows", [])])
    for part in ("hardware", "memory", "compute"):
        if "error" in report[part]:
            out += ["", f"verify {part}: {report[part]['error']}"]
    return "\n".join(out) + "\n"


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--divvy", default=os.path.join(here, "..", "build", "bin", "divvy"))
    parser.add_argument("--gpu", default="0")
    parser.add_argument("--sim", default="", help="a simulated model: only tries the procedure")
    parser.add_argument("--out", default="", help="folder for the two files")
    parser.add_argument("--case", default="", help="only these cases of verify compute")
    args = parser.parse_args()
    device, driver = device_of(args)
    folder = os.path.realpath(
        args.out or os.path.join(here, "..", "build" if args.sim else "docs", "measurements"))
    if args.sim and folder.endswith("docs/measurements"):
        sys.exit("simulated figures do not go to docs/measurements")
    began = time.monotonic()
    where = ["--sim", args.sim] if args.sim else ["--gpu", args.gpu]
    report = {"device": device, "driver": driver, "simulated": bool(args.sim)}
    cases = ["--case", args.case] if args.case else []
    for name, verb in (("hardware", ["hardware"]),
                       ("memory", ["memory", "--mem", "2GiB", "-o", "json"]),
                       ("compute", ["compute", "-o", "json", *cases])):
        print(f"verify {name} ...", flush=True)
        left = max(1.0, LIMIT_S - (time.monotonic() - began))
        report[name] = run(args.divvy, "verify", *verb, *where, left=left)
    report["took_s"] = round(time.monotonic() - began, 1)
    os.makedirs(folder, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{device} {driver}").strip("-").lower()
    stem = os.path.join(folder, name)
    with open(stem + ".json", "w", encoding="utf-8") as f:
        json.dump(report, f, indent=1)
        f.write("\n")
    with open(stem + ".md", "w", encoding="utf-8") as f:
        f.write(markdown(report))
    print(f"{stem}.json and .md written" + (" (simulated)" if args.sim else ""))
    return 1 if any("error" in report[k] for k in ("hardware", "memory", "compute")) else 0


if __name__ == "__main__":
    sys.exit(main())
