"""A runtime folder of its own, divvy in it, and what tests ask of it. Used by every test here."""
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

BUILD = os.environ["DIVVY_BUILD_DIR"]
DIVVY = os.path.join(BUILD, "bin", "divvy")
TEST_BIN = os.path.join(BUILD, "test", "cli")
SKIPPED = 77
GiB = 1 << 30
LONG = 60  # a bound on waiting for an event that is sure to come; never a measure


def can_isolate():
    """Whether `divvy run` can make a private mount namespace here."""
    return os.geteuid() == 0 and subprocess.run(
        ["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


# As root, but without the right to mount: what an unprivileged user has.
UNPRIVILEGED = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]


class DivvyTest(unittest.TestCase):
    maxDiff = None
    sim = "h100"

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="divvy-cli-")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("DIVVY_")}
        for name in ("LD_PRELOAD", "LD_LIBRARY_PATH"):
            self.env.pop(name, None)
        self.env["DIVVY_RUNTIME_DIR"] = self.dir
        self.started = []
        self.unread = {}

    def tearDown(self):
        for p in self.started:
            if p.poll() is None:
                p.kill()
            p.communicate()
        subprocess.run([DIVVY, "daemon", "stop", "--all"], env=self.env, capture_output=True,
                       check=False)
        shutil.rmtree(self.dir, ignore_errors=True)

    def divvy(self, *args, prefix=(), **kw):
        """Runs divvy to its end."""
        kw.setdefault("timeout", LONG)
        kw.setdefault("env", self.env)
        return subprocess.run([*prefix, DIVVY, *map(str, args)], capture_output=True, text=True,
                              check=False, **kw)

    def json(self, *args):
        done = self.divvy(*args, "-o", "json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def run_args(self, *options, mem="2GiB"):
        return ["run", "--sim", self.sim, "--mem", mem, *options, "--"]

    def start(self, *args, prefix=(), **kw):
        """Starts divvy; its stdout is a pipe of lines."""
        kw.setdefault("env", self.env)
        p = subprocess.Popen([*prefix, DIVVY, *map(str, args)], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)
        self.started.append(p)
        return p

    def line(self, p):
        """The next line that `p` writes, without its end."""
        # Not through p.stdout's own buffer: select cannot see what waits there.
        while "\n" not in self.unread.setdefault(p.pid, ""):
            ready, _, _ = select.select([p.stdout], [], [], LONG)
            text = os.read(p.stdout.fileno(), 65536).decode() if ready else ""
            if not text:
                p.kill()
                self.fail("no line came; stderr: " + p.stderr.read())
            self.unread[p.pid] += text
        line, self.unread[p.pid] = self.unread[p.pid].split("\n", 1)
        return line

    def finish(self, p, text=None):
        """Gives `p` its last input and waits for its end; what it wrote and no line() took."""
        out, _ = p.communicate(text, timeout=LONG)
        return self.unread.pop(p.pid, "") + out

    def tenants(self):
        return {t["name"]: t for t in self.json("ps")["tenants"]}

    def daemons(self):
        return self.json("daemon", "status")["daemons"]

    def assert_one_line(self, done, *words):
        """An error is one line that says what to do."""
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertTrue(done.stderr.startswith("divvy: "), done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)


def wait_for_end(pid):
    """Waits until a process that is not our child has ended."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            return bool(select.select([fd], [], [], LONG)[0])
        finally:
            os.close(fd)
    return True


def main():
    for needed in ("bin/divvy", "bin/divvyd", "lib/libdivvy.so", "lib/sim/libcuda.so.1"):
        if not os.path.exists(os.path.join(BUILD, needed)):
            print("not built:", needed)
            sys.exit(1)
    signal.alarm(170)  # rather an end with a traceback than one without
    unittest.main(verbosity=2)
