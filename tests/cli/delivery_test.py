"""Whichever way a program finds its driver, it finds the share: as root every way, also with an
empty environment; by LD_PRELOAD those that preloading reaches."""
import os
import subprocess
import unittest

import harness
from harness import BUILD, TEST_BIN

HELD = "1GiB:0 3GiB:2\n"
FINDER = os.path.join(TEST_BIN, "finder")
LINKED = os.path.join(TEST_BIN, "finder_linked")
RPATH = os.path.join(TEST_BIN, "finder_rpath")
RUNPATH = os.path.join(TEST_BIN, "finder_runpath")
PLUGIN = os.path.join(TEST_BIN, "libfinder_plugin.so")
DRIVER = os.path.join(BUILD, "lib", "sim", "libcuda.so.1")

EVERYWHERE = {
    "linked": [LINKED, "linked"],
    "dlopen": [FINDER, "dlopen"],
    "path": [FINDER, "path", DRIVER],
    "getproc": [FINDER, "getproc"],
    "fork": [FINDER, "fork", "dlopen"],
    "exec": [FINDER, "exec", "dlopen"],
    "rpath to a copy": [RPATH, "linked"],
    "runpath to a copy": [RUNPATH, "linked"],
    "fork and linked": [LINKED, "fork", "linked"],
}
ISOLATED_TOO = {
    "dlmopen": [FINDER, "dlmopen"],
    "deepbind": [FINDER, "deepbind", PLUGIN],
    "bare": [FINDER, "bare", "dlopen"],
    "bare and linked": [LINKED, "bare", "linked"],
    "bare twice": [FINDER, "bare", "fork", "bare", "dlopen"],
    "env -i": ["env", "-i", FINDER, "dlopen"],
    "env -i path": ["env", "-i", FINDER, "path", DRIVER],
    "unset": ["env", "-u", "LD_PRELOAD", "-u", "DIVVY_SOCKET", FINDER, "dlopen"],
}


class Delivery(harness.DivvyTest):
    def holds(self, ways, prefix=()):
        for name, command in ways.items():
            with self.subTest(way=name):
                done = self.divvy(*self.run_args(), *command, prefix=prefix)
                self.assertEqual((done.stdout, done.returncode), (HELD, 0), done.stderr)

    @unittest.skipUnless(harness.can_isolate(), "needs root and mount namespaces")
    def test_isolated(self):
        self.holds({**EVERYWHERE, **ISOLATED_TOO})

    def test_cooperative(self):
        self.holds(EVERYWHERE, prefix=harness.UNPRIVILEGED)

    @unittest.skipUnless(harness.can_isolate(), "needs root and mount namespaces")
    def test_another_user_inside_the_namespace(self):
        # A service that drops its rights is held too. Its program must be readable for it.
        probe = ["setpriv", "--reuid", "65534", "--clear-groups", FINDER, "dlopen"]
        readable = subprocess.run([*probe[:4], "test", "-x", FINDER], check=False)
        if readable.returncode != 0:
            self.skipTest("the build folder is not readable for other users")
        self.holds({"nobody": probe})

    @unittest.skipUnless(harness.can_isolate(), "needs root and mount namespaces")
    def test_the_namespace_hides_the_daemon_and_other_tenants(self):
        other = self.start(*self.run_args("--name", "other"), "sh", "-c", "echo up; read x")
        self.line(other)
        done = self.divvy(*self.run_args("--name", "me"), "sh", "-c",
                          f"find {self.dir} /run/divvy -name 'divvyd.sock' -o -name other; "
                          "cat /run/divvy/self/tenant")
        self.assertEqual(done.stdout.strip(), "me", done.stderr)

    @unittest.skipUnless(harness.can_isolate(), "needs root and mount namespaces")
    def test_a_daemon_that_starts_again_stays_hidden(self):
        # The real machine's socket lies in the runtime folder itself; a new daemon makes it anew.
        socket = os.path.join(self.dir, "divvyd.sock")
        with open(socket, "w", encoding="utf-8"):
            pass
        p = self.start(*self.run_args(), "sh", "-c", f"echo up; read x; ls -A {self.dir}")
        self.line(p)
        os.rename(socket, socket + ".old")
        with open(socket, "w", encoding="utf-8"):
            pass
        self.assertEqual(self.finish(p, "\n"), "")

    @unittest.skipUnless(harness.can_isolate(), "needs root and mount namespaces")
    def test_the_machine_stays_as_it_is(self):
        def mounts():
            with open("/proc/self/mounts", encoding="utf-8") as f:
                return f.read()
        before = mounts()
        p = self.start(*self.run_args(), "sh", "-c", "echo up; read x")
        self.line(p)
        self.assertEqual(mounts(), before)
        with open("/etc/ld.so.preload", encoding="utf-8") as f:
            self.assertNotIn("divvy", f.read())


if __name__ == "__main__":
    harness.main()
