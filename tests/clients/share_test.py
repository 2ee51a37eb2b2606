#!/usr/bin/env python3
"""cuda-bindings, nvidia-ml-py, nvitop and gpustat under a share, delivered in both ways: they run,
and what they show is the share and not the device. Run by run.sh in the clients' environment."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import share  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.path.dirname(sys.executable)
MIB = 1 << 20


class Wrong(Exception):
    pass


def expect(what, got, wanted):
    if got != wanted:
        raise Wrong(f"{what}: {got}, not {wanted}")


def output(run):
    if run.returncode != 0:
        raise Wrong(f"status {run.returncode}\n{run.stdout[-1000:]}\n{run.stderr[-2000:]}")
    return run.stdout


def bindings(run):
    seen = json.loads(output(run([f"{BIN}/python", f"{HERE}/bindings_client.py"])))
    expect("devices", seen["devices"], 1)
    expect("cuDeviceTotalMem", seen["device_total"], share.MEM)
    expect("total of cuMemGetInfo", seen["total"], share.MEM)
    expect("bytes gone for 1 GiB", seen["taken"], 1 << 30)
    expect("a request beyond the share", seen["beyond"], "CUDA_ERROR_OUT_OF_MEMORY")
    expect("copy there and back", seen["copied"], True)
    expect("free after the free", seen["given_back"], True)
    if not 0 < seen["free_at_first"] < share.MEM:
        raise Wrong(f"free at first: {seen['free_at_first']}")
    return f"{seen['name']}: {seen['total'] // MIB} MiB, {seen['beyond']} beyond"


def nvml(run):
    seen = json.loads(output(run([f"{BIN}/python", f"{HERE}/nvml_client.py"])))
    expect("devices", seen["devices"], 1)
    expect("total", seen["total"], share.MEM)
    expect("total, version 2", seen["total_v2"], share.MEM)
    expect("processes", seen["pids"], [seen["own_pid"]])
    if not (1 << 30) < seen["used"] < share.MEM:
        raise Wrong(f"used: {seen['used']}")
    return f"{seen['used'] // MIB} of {seen['total'] // MIB} MiB, pids {seen['pids']}"


def nvitop(run):
    seen = json.loads(output(run([f"{BIN}/python", f"{HERE}/nvitop_client.py"])))
    expect("devices", len(seen), 1)
    expect("total", seen[0]["total"], share.MEM)
    screen = output(run([f"{BIN}/nvitop", "--once", "--no-unicode"]))
    if "/ 4.00GiB" not in screen and "/ 4096MiB" not in screen:
        raise Wrong(f"nvitop's screen does not show 4 GiB:\n{screen}")
    return f"{seen[0]['name']}: {seen[0]['total'] // MIB} MiB, and on its screen"


def gpustat(run):
    seen = json.loads(output(run([f"{BIN}/gpustat", "--json"])))["gpus"]
    expect("devices", len(seen), 1)
    expect("memory.total", seen[0]["memory.total"], share.MEM // MIB)
    return f"{seen[0]['name']}: {seen[0]['memory.used']} of {seen[0]['memory.total']} MiB"


# Of GPU 0, which a neighbour keeps busy: a kernel of 1 ms twenty times a second is 2 % of the device
# and 20 % of this share; the device itself says about 100.
CAPPED = ["--gpu", "0", "--compute", "5", "--compute-max", "10"]
LIGHT = f"{share.BUILD}/bin/divvy load --kernel 1ms --rate 20 --for 50s >/dev/null & "


def utilisation(run):
    def seen(what):
        return json.loads(output(run(["sh", "-c", what], options=CAPPED)))

    def of_share(what, value):
        if not 5 <= value <= 60:
            raise Wrong(f"{what} of the share: {value}")
    busy = seen(f"{LIGHT} {BIN}/python {HERE}/nvml_use_client.py; kill $!")
    of_share("utilisation rates", busy["gpu"])
    of_share("the newest samples", max(busy["samples"]))
    expect("processes with a utilisation", len(busy["processes"]), 1)
    of_share("its process", busy["processes"][0][1])
    if busy["memory"] > busy["gpu"] or (busy["pstates"] is not None and busy["pstates"] > 60):
        raise Wrong(f"memory, pstates: {busy}")
    idle = seen(f"exec {BIN}/python {HERE}/nvml_use_client.py idle")
    expect("utilisation of one that does nothing", (idle["gpu"], idle["memory"], idle["samples"]),
           (0, 0, [0] * len(idle["samples"])))
    # As people see it.
    screen = seen(f"{LIGHT} sleep 3; {BIN}/gpustat --json; kill $!")["gpus"][0]
    if not screen["utilization.gpu"] <= 60:
        raise Wrong(f"gpustat: {screen['utilization.gpu']} %")
    program = "import json, nvitop; print(json.dumps(nvitop.Device(0).gpu_utilization()))"
    shown = seen(f"{LIGHT} sleep 3; {BIN}/python -c '{program}'; kill $!")
    if not shown <= 60:
        raise Wrong(f"nvitop: {shown} %")
    return f"{busy['gpu']} % of its share, samples {busy['samples']}, gpustat {screen['utilization.gpu']} %, nvitop {shown} %"


def main():
    failed = 0
    with share.Share("h100x4") as tenant:  # of four devices it has a share of one
        for delivery, prefix in share.deliveries().items():
            for client in (bindings, nvml, nvitop, gpustat):
                try:
                    shown = client(lambda command, p=prefix, **more: tenant.run(p, command, **more))
                    print(f"{client.__name__:9} {delivery:12} {shown}")
                except (Wrong, ValueError, KeyError, subprocess.TimeoutExpired) as e:
                    print(f"{client.__name__:9} {delivery:12} FAILED {type(e).__name__}: {e}")
                    failed += 1
        neighbour = tenant.neighbour()
        try:
            print(f"utilisation {utilisation(lambda command, **more: tenant.run([], command, **more))}")
        except (Wrong, ValueError, KeyError, subprocess.TimeoutExpired) as e:
            print(f"utilisation FAILED {type(e).__name__}: {e}")
            failed += 1
        finally:
            neighbour.terminate()
            neighbour.wait()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
