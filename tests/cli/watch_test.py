"""What operators look at: divvy top (through a terminal), why and events, against a live daemon."""
import fcntl
import json
import os
import pty
import re
import select
import struct
import termios
import time
import unittest

import harness
from harness import DIVVY


def until(look, what):
    end = time.monotonic() + harness.LONG
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > end:
            raise AssertionError("never so: " + what)
        time.sleep(0.02)


class Screen:
    """As much of a VT100 as ncurses asks of it (TERM=vt100): the characters on it."""
    TOKEN = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b([()][A-Z0-9]|[=>78DMHEc])|([\x00-\x1f])|(.)", re.S)

    def __init__(self, rows=24, columns=80):
        self.resize(rows, columns)
        self.rest = ""

    def resize(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.cells = [[" "] * columns for _ in range(rows)]
        self.y = self.x = 0
        self.top, self.bottom = 0, rows - 1  # of what scrolls

    def down(self):
        if self.y != self.bottom:
            self.y = min(self.y + 1, self.rows - 1)
            return
        del self.cells[self.top]
        self.cells.insert(self.bottom, [" "] * self.columns)

    def up(self):
        if self.y != self.top:
            self.y = max(self.y - 1, 0)
            return
        del self.cells[self.bottom]
        self.cells.insert(self.top, [" "] * self.columns)

    def feed(self, text):
        text = self.rest + text
        cut = text.rfind("\x1b", max(0, len(text) - 16))
        self.rest = ""
        if cut >= 0 and not self.TOKEN.match(text, cut):
            text, self.rest = text[:cut], text[cut:]
        for csi, final, escaped, control, char in self.TOKEN.findall(text):
            if final:
                self.sequence([int(n) if n.isdigit() else 0 for n in csi.split(";")], final)
            elif control == "\r":
                self.x = 0
            elif control == "\n" or escaped == "D":
                self.down()
            elif escaped == "M":
                self.up()
            elif control == "\t":
                self.x = min((self.x // 8 + 1) * 8, self.columns - 1)
            elif control == "\b":
                self.x = max(self.x - 1, 0)
            elif char and self.x < self.columns:
                self.cells[self.y][self.x] = char
                self.x += 1

    def sequence(self, numbers, final):
        n = max(numbers[0], 1)
        if final == "H":
            self.y = min(n, self.rows) - 1
            self.x = min(max(numbers[1] if len(numbers) > 1 else 1, 1), self.columns) - 1
        elif final == "r":
            self.top = max(numbers[0], 1) - 1
            self.bottom = (numbers[1] if len(numbers) > 1 and numbers[1] else self.rows) - 1
            self.y = self.x = 0
        elif final in "AB":
            self.y = min(max(self.y + (n if final == "B" else -n), 0), self.rows - 1)
        elif final in "CD":
            self.x = min(max(self.x + (n if final == "C" else -n), 0), self.columns - 1)
        elif final == "J":
            for y in range(self.y, self.rows):
                for x in range(self.x if y == self.y else 0, self.columns):
                    self.cells[y][x] = " "
        elif final == "K":
            first, last = (0, self.x + 1) if numbers[0] == 1 else (self.x, self.columns)
            for x in range(first, last):
                self.cells[self.y][x] = " "

    def lines(self):
        return ["".join(row).rstrip() for row in self.cells]


class Terminal:
    """divvy on the other side of a pseudo-terminal."""

    def __init__(self, env, *args, rows=24, columns=80, term="vt100"):
        self.screen, self.raw = Screen(rows, columns), ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(DIVVY, [DIVVY, *args], dict(env, TERM=term))
        self.size(rows, columns)

    def size(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, rows, columns):
        self.screen.resize(rows, columns)
        self.size(rows, columns)  # the kernel sends SIGWINCH

    def type(self, text):
        os.write(self.fd, text.encode())

    def read(self, seconds):
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if not ready:
            return True
        try:
            text = os.read(self.fd, 65536).decode(errors="replace")
        except OSError:  # the other side is gone
            return False
        self.raw += text
        self.screen.feed(text)
        return bool(text)

    def until(self, so, what):
        """Reads on until what is on the screen is so: a frame comes in pieces."""
        end = time.monotonic() + harness.LONG
        while not so(self.screen.lines()):
            if not self.read(0.2) or time.monotonic() > end:
                raise AssertionError(f"{what!r} never came:\n" + "\n".join(self.screen.lines()))

    def wait(self, text):
        self.until(lambda lines: text in "\n".join(lines), text)

    def end(self):
        """Its exit status, once all that it wrote is read."""
        while self.read(harness.LONG):
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


class Watching(harness.DivvyTest):
    sim = "h100"

    def holder(self, name, *options):
        p = self.start(*self.run_args("--name", name, *options), "sh", "-c", "echo up; read x")
        self.line(p)
        return p

    def top(self, *args, **how):
        t = Terminal(self.env, "top", "--interval", "100ms", *args, **how)
        self.addCleanup(lambda: os.path.exists(f"/proc/{t.pid}/fd") and os.kill(t.pid, 9))
        return t

    def test_top_on_a_terminal_of_80_by_24(self):
        self.holder("web", "--compute", "30", "--compute-max", "50", "--class", "latency")
        self.holder("train", "--weight", "7")
        t = self.top()
        t.wait("train")
        t.wait("q leave")  # the last line
        lines = t.screen.lines()
        self.assertTrue(lines[0].startswith("divvy top  1 GPU, 2 tenants"), lines)
        self.assertTrue(lines[1].startswith("GPU NAME"), lines)
        self.assertIn("NVIDIA H100", lines[2])
        self.assertTrue(lines[3].startswith("TENANT"), lines)
        row = next(line for line in lines if line.startswith("web"))
        self.assertIn("30<50", row)
        self.assertIn(" lt ok", row)
        self.assertTrue(lines[23].startswith("q leave"), lines)
        self.assertNotIn("\x1b[3", t.raw.replace("\x1b[3;", ""), "no colour on a vt100")
        # Keys: what changes something asks first.
        t.type("/")
        t.wait("filter: ")
        t.type("web\r")
        t.wait("filter 'web'")
        t.until(lambda lines: not [l for l in lines if l.startswith("train")], "only web")
        t.type("j ")
        t.wait("pause 'web'?")
        t.type("n")
        t.wait("nothing was changed")
        self.assertFalse(self.tenants()["web"]["paused"])
        t.type(" y")
        t.wait("paused")
        self.assertTrue(self.tenants()["web"]["paused"])
        t.type(" y")
        until(lambda: not self.tenants()["web"]["paused"], "resumed")
        t.type("m3GiB\r")
        t.wait("give 'web' 3 GiB")
        t.type("y")
        until(lambda: self.tenants()["web"]["shares"][0]["limit_bytes"] == 3 * harness.GiB, "more")
        t.type("c45\ry")
        until(lambda: self.tenants()["web"]["shares"][0]["compute_percent"] == 45, "its promise")
        t.type("c90\ry")  # more than its own cap: the daemon's word is shown
        t.wait("compute_max_percent")
        # Another size, and the end.
        t.resize(12, 60)
        t.type("?")
        t.wait("up, down")
        t.type("?")
        t.wait("45<50")
        self.assertLessEqual(max(len(line) for line in t.screen.lines()), 60)
        t.type("q")
        self.assertEqual(t.end(), 0)

    def test_top_without_a_terminal_that_is_one(self):
        self.holder("web")
        t = self.top(term="dumb")
        self.assertEqual(t.end(), 2)
        self.assertIn("TERM", t.raw)
        self.assertIn("--once", t.raw)
        t = self.top(term="no-such-terminal")
        self.assertEqual(t.end(), 2)
        self.assertIn("no-such-terminal", t.raw)
        done = self.divvy("top")
        self.assertEqual(done.returncode, 2)
        self.assert_one_line(done, "needs a terminal", "--once")

    def test_top_with_and_without_colour(self):
        self.holder("web")
        self.divvy("pause", "web")
        for env, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
            t = Terminal(dict(self.env, **env), "top", term="xterm-256color")
            end = time.monotonic() + harness.LONG
            while "web" not in t.raw and time.monotonic() < end:
                t.read(0.2)
            t.type("q")
            self.assertEqual(t.end(), 0)
            self.assertEqual("\x1b[36m" in t.raw or "\x1b[1;36m" in t.raw or "[36;1m" in t.raw or "\x1b[33m" in t.raw,
                             coloured, repr(t.raw[:2000]))

    def test_top_goes_on_when_the_daemon_does_not(self):
        self.holder("web")
        t = self.top()
        t.wait("web")
        os.kill(self.daemons()[0]["pid"], 9)
        # `divvy run` of the tenant starts another, which takes over.
        t.wait("web")
        until(lambda: self.daemons(), "another daemon")
        t.type("\x0c")
        t.wait("web")
        t.type("q")
        self.assertEqual(t.end(), 0)

    def test_once(self):
        done = self.divvy("top", "--once")
        self.assertEqual(done.returncode, 4)
        self.assert_one_line(done, "no daemon")
        self.holder("web", "--compute", "30")
        seen = self.json("top", "--once")
        self.assertEqual([t["name"] for t in seen["tenants"]], ["web"])
        self.assertEqual(seen["tenants"][0]["machine"], "sim/h100")
        self.assertEqual(seen["devices"][0]["tenants"], ["web"])
        self.assertGreater(seen["time"], 1.6e9)
        done = self.divvy("top", "--once", "-p", env=dict(self.env, COLUMNS="120"))
        self.assertIn("TENANT", done.stdout)
        self.assertTrue([line for line in done.stdout.splitlines() if line.startswith("web") and "sh -c" in line])
        for args in (["--sort", "size"], ["--interval", "1ms"], ["-o", "json"]):
            self.assertEqual(self.divvy("top", *args).returncode, 2)

    def test_events(self):
        done = self.divvy("events")
        self.assertEqual(done.returncode, 4)
        self.assert_one_line(done, "divvyd.log")
        self.holder("web")
        follow = self.start("events", "--follow", "--tenant", "web", "-o", "json")
        self.assertEqual(json.loads(self.line(follow))["cause"], "created")
        self.divvy("pause", "web")
        paused = json.loads(self.line(follow))
        self.assertEqual((paused["cause"], paused["kind"], paused["machine"]), ("paused", "change", "sim/h100"))
        self.divvy("set", "web", "--mem", "3GiB")
        self.assertEqual(json.loads(self.line(follow))["cause"], "changed")
        # A refusal, with the call that met it, and by whom.
        self.divvy("resume", "web")
        self.assertEqual(json.loads(self.line(follow))["cause"], "resumed")
        done = self.divvy(*self.run_args("--name", "greedy"), DIVVY, "load", "--alloc", "5GiB")
        self.assertNotEqual(done.returncode, 0)
        refusal = self.json("events", "--tenant", "greedy", "--kind", "refusal")["events"][0]
        self.assertEqual((refusal["cause"], refusal["call"], refusal["severity"]),
                         ("out_of_share", "cuMemAlloc_v2", "warning"))
        self.assertGreater(refusal["pid"], 0)
        self.assertIn("load", refusal["command"])
        # From a number, and from a moment.
        since = self.json("events", "--since", refusal["seq"])["events"]
        self.assertTrue(all(e["seq"] > refusal["seq"] for e in since))
        self.assertTrue(self.json("events", "--since", "10m")["events"])
        table = self.divvy("events", "--tenant", "greedy").stdout
        self.assertIn("out_of_share", table)
        self.assertIn("cuMemAlloc_v2", table)
        for args in (["--since", "yesterday"], ["--kind", "x"]):
            self.assertEqual(self.divvy("events", *args).returncode, 2)
        # Over a restart: the tenant's `divvy run` brings another daemon, that begins anew.
        os.kill(self.daemons()[0]["pid"], 9)
        self.assertEqual(json.loads(self.line(follow))["cause"], "adopted")

    def test_cordon(self):
        done = self.divvy("devices", "--sim", "h100", "--cordon", "0", "--reason", "loud fan")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("CORDONED", self.divvy("devices", "--sim", "h100").stdout)
        done = self.divvy(*self.run_args(), "true")
        self.assertEqual(done.returncode, 125)
        self.assert_one_line(done, "loud fan", "--uncordon 0")
        self.assertEqual(self.divvy("devices", "--sim", "h100", "--uncordon", "0").returncode, 0)
        self.assertEqual(self.divvy(*self.run_args(), "true").returncode, 0)
        for args in (["--cordon", "../x"], ["--cordon", "0", "--uncordon", "0"], ["--reason", "x"]):
            self.assertEqual(self.divvy("devices", "--sim", "h100", *args).returncode, 2)
        self.assertEqual(self.divvy("devices", "--sim", "h100", "--cordon", "7").returncode, 4)


class Why(harness.DivvyTest):
    """Tenants of known behaviour on a machine whose time runs ten times slower."""
    sim = "h100@x10"

    def load(self, name, *options, share=()):
        p = self.start(*self.run_args("--name", name, *share), DIVVY, "load", "--for", "1h",
                       "--every", "10ms", "-o", "json", *options)
        self.line(p)
        return p

    def limited(self, name, by):
        """Its first share's answer, once it says so; whatever it says sums to 100."""
        def look():
            share = (self.json("why", name)["shares"] or [None])[0]
            if share is None or share["span_s"] < 2:
                return None
            self.assertAlmostEqual(sum(p["percent"] for p in share["parts"]), 100, places=6)
            return share if share["limited_by"] == by else None
        return until(look, f"{name} limited by {by}: " + self.divvy("why", name).stdout)

    def part(self, share, what):
        return sum(p["percent"] for p in share["parts"] if p["what"] == what)

    def test_whom_it_waits_for_and_its_cap(self):
        self.load("big", "--kernel", "200us", "--sync-every", "0", share=["--compute", "70"])
        self.load("small", "--kernel", "200us", "--sync-every", "0", share=["--compute", "30"])
        share = self.limited("small", "others")
        self.assertEqual(share["waited_for"][0]["tenant"], "big")
        self.assertIn("'big', who has 70 % guaranteed", share["verdict"])
        text = self.divvy("why", "small").stdout
        self.assertIn("waiting for its turn", text)
        self.assertIn("small waits for tenant 'big'", text)
        self.assertEqual(self.divvy("why", "nobody").returncode, 4)
        # A cap, on a device that is idle otherwise.
        self.divvy("pause", "big")
        self.divvy("set", "small", "--compute-max", "30")
        self.limited("big", "paused")
        self.assertIn("cap of 30 %", self.limited("small", "cap")["verdict"])

    def test_a_host_that_is_slow_and_one_alone(self):
        self.load("lone", "--kernel", "200us", "--sync-every", "0")
        self.limited("lone", "alone")
        self.load("slow", "--kernel", "100us", "--sync-every", "1", "--think", "20ms")

        def mostly_host():
            # On a machine that is busy itself its turn comes late, too: no fixed part.
            parts = self.limited("slow", "host")["parts"]
            return max(parts, key=lambda p: p["percent"])["what"] == "host"
        until(mostly_host, "slow to be mostly host-bound")


if __name__ == "__main__":
    harness.main()
