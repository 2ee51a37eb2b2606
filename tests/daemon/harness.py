"""A simulated machine with its own divvyd in a folder of its own, and tenants on strings.

Nothing here waits by time alone: `until` looks again until something is so, with a generous limit
that only a failure ever reaches.
"""
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

BUILD = os.environ.get("DIVVY_BUILD_DIR", "build")
GIB, MIB = 1 << 30, 1 << 20
LIMIT_S = 30


def until(look, what="a condition"):
    """Looks until the answer is truthy and returns it."""
    end = time.monotonic() + LIMIT_S
    while True:
        answer = look()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not so within {LIMIT_S} s")
        time.sleep(0.01)


class ApiError(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status = status
        self.code = body.get("error", {}).get("code")
        self.message = body.get("error", {}).get("message")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("divvyd", timeout=LIMIT_S)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT_S)
        self.sock.connect(self.path)


class Probe:
    """One tenant process. Calling it sends a command and returns the answer."""

    def __init__(self, env=None):
        self.process = subprocess.Popen([f"{BUILD}/test/daemon_probe"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=env)
        self.pid = self.process.pid

    def __call__(self, *words):
        self.send(*words)
        return self.process.stdout.readline().strip()

    def send(self, *words):
        self.process.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.process.stdin.flush()

    def hello(self, tenant, *options):
        answer = self("hello", tenant["socket"], *options)
        if not answer.startswith("welcome"):
            raise AssertionError(answer)
        _, slot, generation, devices = answer.split()
        return int(slot), int(generation), int(devices)

    def policy(self, device=0):
        return {k: int(v) for k, v in (w.split("=") for w in self("policy", device).split())}

    def kill(self):
        self.process.kill()
        self.close()

    def close(self):
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass
        self.process.wait()


class Machine:
    """A runtime folder, a broker with options of the test's choice, and a divvyd."""

    def __init__(self, profile="h100", broker=(), options=(), runtime=None):
        self.profile, self.options = profile, list(options)
        self.runtime = runtime or tempfile.mkdtemp(prefix="divvy-test-")
        self.dir = f"{self.runtime}/sim/{profile}"
        self.env = dict(os.environ, DIVVY_RUNTIME_DIR=self.runtime)
        self.sim = f"{self.dir}/machine"
        os.makedirs(self.sim)
        self.probes, self.daemon, self.broker = [], None, None
        self.said = tempfile.TemporaryFile("w+")  # the daemons' stderr: what a sanitizer found
        read, write = os.pipe()
        self.broker = subprocess.Popen(
            [f"{BUILD}/bin/divvy-sim-broker", "--profile", profile, "--dir", self.sim,
             "--ready-fd", str(write), *broker], pass_fds=[write])
        os.close(write)
        assert os.read(read, 1), "the broker does not start"
        os.close(read)
        self.start()

    def try_start(self, *more, stderr=None):
        """Returns what the daemon said: "ready" or an error line."""
        read, write = os.pipe()
        process = subprocess.Popen(
            [f"{BUILD}/bin/divvyd", "--sim", self.profile, "--foreground", "--ready-fd",
             str(write), *self.options, *more], pass_fds=[write], env=self.env,
            stdout=subprocess.DEVNULL, stderr=stderr or self.said)
        os.close(write)
        with os.fdopen(read) as f:
            said = f.read().strip()
        return process, said

    def start(self, *more):
        self.daemon, said = self.try_start(*more)
        assert said == "ready", said

    def kill_daemon(self):
        self.daemon.kill()
        self.daemon.wait()

    def stop_daemon(self):
        self.daemon.terminate()
        assert self.daemon.wait(LIMIT_S) == 0, "divvyd did not end cleanly"

    def request(self, method, path, body=None):
        connection = UnixConnection(f"{self.dir}/divvyd.sock")
        try:
            connection.request(method, path, body if isinstance(body, (str, bytes, type(None)))
                               else json.dumps(body))
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        answer = json.loads(text)
        if response.status >= 400:
            raise ApiError(response.status, answer)
        return answer

    def tenant(self, mem, **fields):
        return self.request("POST", "/v1/tenants",
                            {"mem_bytes": mem, "runner_pid": os.getpid(), **fields})

    def show(self, name):
        return self.request("GET", f"/v1/tenants/{name}")

    def share(self, name, index=0):
        return self.show(name)["shares"][index]

    def device(self, index=0):
        return self.request("GET", "/v1/devices")["devices"][index]

    def events(self, cause=None, since=0):
        events = self.request("GET", f"/v1/events?since={since}")["events"]
        return [e for e in events if cause in (None, e["cause"])]

    def probe(self):
        env = dict(self.env, DIVVY_SIM_DIR=self.sim,
                   LD_LIBRARY_PATH=f"{BUILD}/lib/sim")
        env.pop("DIVVY_SOCKET", None)
        self.probes.append(Probe(env))
        return self.probes[-1]

    def close(self):
        for p in self.probes:
            if p.process.returncode is None:
                p.kill()
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()
        if self.broker is not None:
            self.broker.kill()
            self.broker.wait()
        shutil.rmtree(self.runtime, ignore_errors=True)
        self.said.seek(0)
        said = self.said.read()
        self.said.close()
        assert "Sanitizer" not in said, said


def make_cgroup(name):
    """(folder, path as the API takes it) of a cgroup below our own, or None where that is not ours
    to make."""
    with open("/proc/self/mounts", encoding="utf-8") as f:
        mounts = [line.split()[1] for line in f if line.split()[2] == "cgroup2"]
    with open("/proc/self/cgroup", encoding="utf-8") as f:
        own = [line.strip()[3:].rstrip("/") for line in f if line.startswith("0::")]
    try:
        path = f"{own[0]}/divvy-run-{os.getpid()}.{name}"
        os.mkdir(mounts[0] + path)
        return mounts[0] + path, path
    except (IndexError, OSError):
        return None


class MachineTest(unittest.TestCase):
    profile, broker, options = "h100", (), ()

    def cgroup(self, name):
        made = make_cgroup(name)
        if made is None:
            self.skipTest("no cgroup v2 of our own can be made here")
        self.addCleanup(lambda: os.path.exists(made[0]) and os.rmdir(made[0]))
        return made

    def started(self, *command, cgroup=None):
        """A process that the test ends by itself, or its end does."""
        p = subprocess.Popen(command)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        if cgroup is not None:
            with open(f"{cgroup}/cgroup.procs", "w", encoding="utf-8") as f:
                f.write(str(p.pid))
        return p

    def setUp(self):
        self.m = Machine(self.profile, self.broker, self.options)
        self.addCleanup(self.m.close)

    def refused(self, call, *args, **kwargs):
        with self.assertRaises(ApiError) as caught:
            call(*args, **kwargs)
        self.assertNotIn("\n", caught.exception.message)
        return caught.exception

    def with_memory(self, tenant, charge, allocate, context=True):
        """A probe in `tenant` with a charged context and `allocate` bytes, charged as `charge`."""
        p = self.m.probe()
        p.hello(tenant)
        if context:
            self.assertEqual(p("charge", 0, p.policy()["context"], 7), "ok")
        self.assertEqual(p("cuda", "libcuda.so.1", 0), "ok")
        if charge:
            self.assertEqual(p("charge", 0, charge), "ok")
        if allocate:
            self.assertNotIn("error", p("alloc", allocate))
        return p


def took_too_long(*_):
    raise SystemExit("the whole test took too long")  # its machines are still cleaned up


def main():
    for path in (f"{BUILD}/bin/divvyd", f"{BUILD}/bin/divvy-sim-broker",
                 f"{BUILD}/lib/sim/libcuda.so.1", f"{BUILD}/lib/sim/libnvidia-ml.so.1"):
        if not os.path.exists(path):
            print(f"skipped: {path} is not built")
            sys.exit(77)
    signal.signal(signal.SIGALRM, took_too_long)
    signal.alarm(160)
    unittest.main(verbosity=2)
