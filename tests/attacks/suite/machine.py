"""One simulated machine with its divvyd, in a runtime folder of its own, and what it says."""
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import nvml

BUILD = os.environ.get("DIVVY_BUILD_DIR", "build")
MIB = 1 << 20


def until(seconds, condition, step=0.02):
    """The first true value of condition(), or its last value when the time is up."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(step)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(self.path)


class Machine:
    def __init__(self, profile, audit="kill"):
        self.profile = profile
        self.runtime = tempfile.mkdtemp(prefix="divvy-attacks-")
        os.chmod(self.runtime, 0o755)
        self.dir = os.path.join(self.runtime, "sim", profile)
        self.sim_dir = os.path.join(self.dir, "machine")
        self.lib = os.path.join(BUILD, "lib", "sim")
        self.environment = dict(os.environ, DIVVY_RUNTIME_DIR=self.runtime)
        ready, write = os.pipe()
        self.daemon = subprocess.Popen(
            [f"{BUILD}/bin/divvyd", "--sim", profile, "--runtime-dir", self.runtime, "--foreground",
             "--audit", audit, "--ready-fd", str(write)],
            pass_fds=[write], stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT,
            stdout=open(os.path.join(self.runtime, "divvyd.said"), "w", encoding="utf-8"))
        os.close(write)
        with os.fdopen(ready) as pipe:
            said = pipe.readline().strip()
        if said != "ready":
            raise RuntimeError(f"divvyd: {said or self.log()}")
        self.nvml = nvml.Nvml(f"{self.lib}/libnvidia-ml.so.1", self.sim_dir,
                              self.runtime)

    def log(self):
        with open(os.path.join(self.runtime, "divvyd.said"), encoding="utf-8") as f:
            return f.read()[-2000:]

    def get(self, path):
        connection = UnixConnection(os.path.join(self.dir, "divvyd.sock"))
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def tenant(self, name):
        status, body = self.get(f"/v1/tenants/{name}")
        if status != 200:
            return None
        return body["tenants"][0] if "tenants" in body else body

    def tenants(self):
        return self.get("/v1/tenants")[1]["tenants"]

    def devices(self):
        return self.get("/v1/devices")[1]["devices"]

    def events(self, name):
        return [e for e in self.get("/v1/events")[1]["events"] if e["tenant"] == name]

    def bare_environment(self):
        """For a program that uses the simulated driver with nothing of Divvy's in between."""
        return dict(os.environ, LD_LIBRARY_PATH=self.lib, DIVVY_SIM_DIR=self.sim_dir)

    def start(self, name, command, mem="2GiB", cooperative=False, isolated_root=True, more=()):
        """`divvy run` of one command; its report is read from stdout, its stdin held open."""
        run = [f"{BUILD}/bin/divvy", "run", "--sim", self.profile, "--mem", mem, "--name", name,
               *more, "--", *command]
        if cooperative and isolated_root:  # root without the right to mount
            run = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", *run]
        environment = dict(self.environment, ATTACK_RUNTIME=self.runtime, ATTACK_SIM_LIB=self.lib,
                           ATTACK_SIM_DIR=self.sim_dir)
        return subprocess.Popen(run, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, start_new_session=True)

    def wait_empty(self, seconds=20):
        """No tenant and no memory in use; what is left otherwise."""
        def empty():
            return not self.tenants() and sum(self.nvml.held()) == 0
        if until(seconds, empty):
            return ""
        return f"left behind: tenants {[t['name'] for t in self.tenants()]}, NVML {self.nvml.held()}"

    def close(self):
        if self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            try:
                self.daemon.wait(10)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        shutil.rmtree(self.runtime, ignore_errors=True)
