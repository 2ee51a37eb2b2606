#!/usr/bin/env python3
"""Bad folders, bad neighbours, bad bytes: one clear line or correct work, never a crash or a hang."""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import BUILD, GIB, LIMIT_S, ApiError, Machine, MachineTest, UnixConnection, main, until  # noqa: E402

NOBODY = 65534
with open(os.path.join(os.environ["DIVVY_SOURCE_DIR"], "src/region/layout.h")) as header:
    LAYOUT = int(re.search(r"kLayoutVersion = (\d+)", header.read())[1])


def divvyd(*options, **env):
    """Runs a divvyd that is expected to refuse; returns its one line."""
    r = subprocess.run([f"{BUILD}/bin/divvyd", *options], env=dict(os.environ, **env), text=True,
                       capture_output=True, timeout=LIMIT_S)
    assert r.returncode == 1, r
    assert r.stderr.count("\n") == 1 and r.stderr.startswith("divvyd: "), r.stderr
    return r.stderr


class Starts(MachineTest):
    def test_two_daemons_at_once(self):
        said = divvyd("--sim", "h100", DIVVY_RUNTIME_DIR=self.m.runtime)
        self.assertIn(f"pid {self.m.daemon.pid}", said)
        self.assertIn("divvy ps", said)

    def test_one_arbiter_per_device(self):
        other = tempfile.mkdtemp(prefix="divvy-test-")
        self.addCleanup(shutil.rmtree, other)
        os.makedirs(f"{other}/sim/h100")
        os.symlink(self.m.sim, f"{other}/sim/h100/machine")  # the same devices
        said = divvyd("--sim", "h100", DIVVY_RUNTIME_DIR=other)
        for part in ("GPU 0", f"pid {self.m.daemon.pid}", f"DIVVY_RUNTIME_DIR={self.m.runtime}"):
            self.assertIn(part, said)

    def test_stale_sockets_are_replaced(self):
        t = self.m.tenant(GIB, name="t")
        self.m.kill_daemon()
        self.assertTrue(os.path.exists(f"{self.m.dir}/divvyd.sock"))
        self.m.start()
        self.m.probe().hello(t)

    def test_folders(self):
        self.assertIn("DIVVY_RUNTIME_DIR", divvyd("--sim", "h100", DIVVY_RUNTIME_DIR="/proc/x"))
        if os.geteuid() != 0:
            self.skipTest("folders of other users need root")
        folder = tempfile.mkdtemp(prefix="divvy-test-")
        self.addCleanup(shutil.rmtree, folder)
        os.makedirs(f"{folder}/sim/h100")
        os.chown(f"{folder}/sim/h100", NOBODY, NOBODY)
        self.assertIn("belongs to another user",
                      divvyd("--sim", "h100", DIVVY_RUNTIME_DIR=folder))

    def test_bad_simulated_machine(self):
        folder = tempfile.mkdtemp(prefix="divvy-test-")
        self.addCleanup(shutil.rmtree, folder)
        for profile in ("h999", "h100@x0", "../../etc"):
            self.assertIn(profile, divvyd("--sim", profile, DIVVY_RUNTIME_DIR=folder))
        self.assertEqual(os.listdir(folder), [])

    def test_own_pid_namespace(self):
        r = subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True)
        if r.returncode != 0:
            self.skipTest("no pid namespaces here")
        r = subprocess.run(["unshare", "--pid", "--fork", f"{BUILD}/bin/divvyd"], text=True,
                           capture_output=True, env=self.m.env)
        self.assertEqual(r.returncode, 1)
        self.assertIn("--pid=host", r.stderr)


class Folders(MachineTest):
    def setUp(self):  # its machines are made where the tests say
        pass

    def mount(self, options):
        if os.geteuid() != 0:
            self.skipTest("mounting needs root")
        folder = tempfile.mkdtemp(prefix="divvy-test-")
        self.addCleanup(os.rmdir, folder)
        r = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder],
                           capture_output=True)
        if r.returncode != 0:
            self.skipTest("no tmpfs here")
        self.addCleanup(subprocess.run, ["umount", "-l", folder])
        return folder

    def test_read_only(self):
        said = divvyd("--sim", "h100", DIVVY_RUNTIME_DIR=self.mount("ro"))
        self.assertIn("Read-only file system", said)

    def test_full_while_running(self):
        small = self.mount("size=400k")
        m = Machine(runtime=small)
        self.addCleanup(m.close)
        m.tenant(GIB, name="kept")
        with open(f"{small}/filler", "wb", buffering=0) as f:
            with self.assertRaises(OSError):
                while True:
                    f.write(b"x" * 4096)
        e = self.refused(m.tenant, GIB, name="new")
        self.assertIn("No space left", e.message)
        self.assertEqual([t["name"] for t in m.request("GET", "/v1/tenants")["tenants"]], ["kept"])
        self.assertEqual(os.listdir(f"{m.dir}/tenants"), ["kept"])
        e = self.refused(m.request, "PATCH", "/v1/tenants/kept", {"mem_bytes": 2 * GIB})
        self.assertIn("nothing was changed", e.message)
        self.assertEqual(m.share("kept")["limit_bytes"], GIB)
        os.unlink(f"{small}/filler")
        m.probe().hello(m.tenant(GIB, name="new"))


class Sockets(MachineTest):
    def test_garbage_on_a_tenant_socket(self):
        t = self.m.tenant(GIB, name="t")
        p = self.m.probe()
        for seed in range(5):
            self.assertEqual(p("garbage", t["socket"], 200, seed), "ok")
        q = self.m.probe()
        q.hello(t)
        self.assertEqual(q("charge", 0, 1 << 20), "ok")
        # Talk after Welcome ends the connection.
        self.assertEqual(q("eof"), "no")
        until(lambda: len(os.listdir(f"/proc/{self.m.daemon.pid}/fd")) < 60, "no descriptor leaks")

    def test_connections_of_one_process_are_bounded(self):
        t = self.m.tenant(GIB, name="t")
        p = self.m.probe()
        slot, generation, _ = p.hello(t)  # and each hello leaves its connection open
        before = len(os.listdir(f"/proc/{self.m.daemon.pid}/fd"))
        for _ in range(3):
            self.assertEqual(p.hello(t, f"gen={generation}")[0], slot)
        for _ in range(50):
            self.assertRegex(p("hello", t["socket"], f"gen={generation}"),
                             "refused 28 .*has 4 connections already")
        for gen in range(50):  # one that says that it never got an answer, without end
            p.hello(t, f"gen={gen % 2}")
        self.assertLessEqual(len(os.listdir(f"/proc/{self.m.daemon.pid}/fd")), before + 3)
        self.assertEqual(len(self.m.show("t")["processes"]), 1)
        self.m.probe().hello(t)  # others are served

    def test_versions_are_refused_with_words(self):
        t = self.m.tenant(GIB, name="t")
        p = self.m.probe()
        answer = p("hello", t["socket"], "flags=0x80000000")
        self.assertTrue(answer.startswith("refused 71 unknown flags"), answer)  # EPROTO

    def test_another_user(self):
        if os.geteuid() != 0:
            self.skipTest("needs root to become somebody else")
        runner = subprocess.Popen(["sleep", "1000"])
        self.addCleanup(runner.wait)
        self.addCleanup(runner.kill)
        t = self.m.tenant(GIB, name="t", runner_pid=runner.pid)
        os.chmod(self.m.runtime, 0o755)

        def as_nobody(path, cwd):
            code = ("import os,socket,sys\n"
                    f"os.chdir({cwd!r}); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
                    "s=socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
                    "try: s.connect(sys.argv[1])\n"
                    "except PermissionError: print('no entry'); sys.exit()\n"
                    "import struct\n"
                    f"h=struct.pack('<IHHHHIQII16s',0x31565644,1,1456,2,{LAYOUT},1,0,0,0,b'x')\n"
                    "h+=b'\\0'*(1456-len(h)); s.send(h)\n"
                    "r=s.recv(4096); print('refused' if len(r)==256 else len(r), r[8])\n")
            return subprocess.run([sys.executable, "-c", code, path], text=True, cwd="/",
                                  capture_output=True).stdout.strip()

        self.assertEqual(as_nobody(t["socket"], "/"), "no entry")  # tenants/ is closed
        # Through a folder bound for a tenant the socket is in reach: the daemon checks who it is.
        self.assertEqual(as_nobody("tenant.sock", t["dir"]), "refused 1")
        self.assertEqual(len(self.m.events("foreign_user")), 1)

    def test_garbage_on_the_api(self):
        for noise in (b"\0" * 100, b"GET / HTTP/1.1\r\n\r\n", b"POST /v1/tenants HTTP/9\r\n\r\n",
                      b"PATCH /v1/tenants/%00 HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
                      b"POST /v1/tenants HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"):
            s = socket.socket(socket.AF_UNIX)
            s.connect(f"{self.m.dir}/divvyd.sock")
            s.sendall(noise)
            s.close()
        self.assertEqual(self.refused(self.m.request, "GET", "/nothing").status, 404)
        for body in ("", "{", "[]", "null", '{"mem_bytes":-1}', '{"mem_bytes":0}', '{"x":1}',
                     '{"mem_bytes":1e300}', '{"mem_bytes":1,"name":"../../x"}', "[" * 60000):
            self.assertEqual(self.refused(self.m.request, "POST", "/v1/tenants", body).status, 400)
        self.assertEqual(self.refused(self.m.request, "GET", "/v1/tenants/" + "x" * 8000).status, 404)
        with self.assertRaises(ApiError) as e:
            self.m.request("POST", "/v1/tenants", "x" * 100000)
        self.assertIn(e.exception.status, (400, 413))
        e = self.refused(self.m.tenant, 1 << 44)
        self.assertEqual(e.code, "no_room")
        self.assertEqual(self.m.request("GET", "/v1/tenants")["tenants"], [])


if __name__ == "__main__":
    main()
