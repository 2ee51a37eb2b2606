#!/usr/bin/env python3
"""The systemd unit, and what divvyd says to a service manager: ready, alive, ending."""
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ["DIVVY_BUILD_DIR"])
UNIT = ROOT / "deploy/systemd/divvyd.service"
LONG = 60  # a bound on waiting for an event that is sure to come; never a measure


class Unit(unittest.TestCase):
    def test_systemd_finds_nothing_wrong(self):
        if shutil.which("systemd-analyze") is None:
            self.skipTest("systemd is not installed")
        with tempfile.TemporaryDirectory() as folder:
            text = UNIT.read_text(encoding="utf-8").replace("/usr/bin/divvyd", str(BUILD / "bin/divvyd"))
            unit = pathlib.Path(folder) / UNIT.name
            unit.write_text(text.replace("man:divvyd(8) ", ""), encoding="utf-8")  # it need not be installed here
            done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
            ours = [line for line in done.stderr.split("\n") if "divvyd" in line]
            self.assertEqual(ours, [], done.stderr)
            unit.write_text(text.replace("KillMode=process", "KillMode=gently"), encoding="utf-8")
            done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
            self.assertIn("gently", done.stderr)  # it would have said so

    def test_its_options_are_divvyds(self):
        words = re.search(r"(?m)^ExecStart=/usr/bin/divvyd (.*)$", UNIT.read_text(encoding="utf-8")).group(1)
        example = re.search(r'DIVVYD_OPTIONS="(-.*)"', (UNIT.parent / "divvyd.default").read_text(encoding="utf-8"))
        known = subprocess.run([BUILD / "bin/divvyd", "--help"], capture_output=True, text=True, check=True).stdout
        for word in (words + " " + example.group(1)).split():
            if word.startswith("--"):
                self.assertIn(word, known)


class Notify(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="divvy-service-")
        self.addCleanup(shutil.rmtree, self.dir, True)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("DIVVY_")}
        self.env["DIVVY_RUNTIME_DIR"] = self.dir + "/run"
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.addCleanup(subprocess.run, [BUILD / "bin/divvy", "daemon", "stop", "--all"], env=self.env,
                        capture_output=True, check=False)

    def said(self):
        ready, _, _ = select.select([self.manager], [], [], LONG)
        return self.manager.recv(4096).decode() if ready else "nothing"

    def lives(self, address, told):
        self.manager.bind(address)
        env = {**self.env, "NOTIFY_SOCKET": told, "WATCHDOG_USEC": "300000"}
        daemon = subprocess.Popen([BUILD / "bin/divvyd", "--foreground", "--sim", "h100"], env=env,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.assertEqual(self.said(), "READY=1")
            subprocess.run([BUILD / "bin/divvy", "share", "create", "web", "--sim", "h100", "--mem", "2GiB"],
                           env=self.env, check=True, stdout=subprocess.DEVNULL)
            for _ in range(3):
                self.assertEqual(self.said(), "WATCHDOG=1")
            with open(f"/proc/{daemon.pid}/task/{daemon.pid}/children", encoding="ascii") as f:
                self.assertEqual(f.read(), "")  # the simulated machine is nobody's child
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(LONG)
        last = self.said()
        while last == "WATCHDOG=1":
            last = self.said()
        self.assertEqual((last, daemon.returncode), ("STOPPING=1", 0))

    def test_by_path(self):
        self.lives(self.dir + "/notify", self.dir + "/notify")

    def test_by_an_abstract_name(self):
        self.lives(f"\0divvy-service-{os.getpid()}", f"@divvy-service-{os.getpid()}")

    def test_nobody_listens(self):
        env = {**self.env, "NOTIFY_SOCKET": self.dir + "/absent"}
        daemon = subprocess.Popen([BUILD / "bin/divvyd", "--foreground", "--sim", "h100", "--ready-fd", "1"], env=env,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.assertEqual(daemon.stdout.readline(), "ready\n")
        daemon.send_signal(signal.SIGTERM)
        self.assertEqual(daemon.wait(LONG), 0)
        daemon.stdout.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
