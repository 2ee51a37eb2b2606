"""divvy dashboard: says where it is, opens it where there is a display, and starts nothing."""
import os
import subprocess
import unittest

from harness import BUILD, DivvyTest, main


class Dashboard(DivvyTest):
    def daemon(self, *options):
        ready, tell = os.pipe()
        p = subprocess.Popen([os.path.join(BUILD, "bin", "divvyd"), "--foreground", "--sim", self.sim, "--ready-fd",
                              str(tell), *options], env=self.env, pass_fds=[tell], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        os.close(tell)
        self.started.insert(0, p)
        self.assertEqual(os.read(ready, 100), b"ready\n")
        os.close(ready)

    def token(self):
        path = os.path.join(self.dir, "token")
        with open(path, "w", encoding="ascii") as f:
            f.write("0123456789abcdef\n")
        return path

    def test_no_daemon(self):
        done = self.divvy("dashboard", "--sim", self.sim)
        self.assertEqual(done.returncode, 4)
        self.assert_one_line(done, "no daemon runs", "--api-tcp")
        self.assertEqual(self.daemons(), [])

    def test_on_its_socket_only(self):
        self.daemon()
        report = self.json("dashboard", "--sim", self.sim)
        self.assertEqual((report["url"], report["opened"]), ("", False))
        self.assertTrue(os.path.exists(report["socket"]))
        done = self.divvy("dashboard", "--sim", self.sim)
        self.assertIn(f"ssh -L 8080:{report['socket']}", done.stdout)
        self.assertIn("--api-tcp", done.stdout)

    def test_on_tcp(self):
        self.daemon("--api-tcp", "127.0.0.1:0", "--api-token-file", self.token())
        [status] = self.daemons()
        self.env.pop("DISPLAY", None)
        self.env.pop("WAYLAND_DISPLAY", None)
        report = self.json("dashboard", "--sim", self.sim)
        self.assertEqual((report["url"], report["opened"]), (f"http://{status['tcp']}/", False))

    def test_opens_it_where_there_is_a_display(self):
        self.daemon("--api-tcp", "127.0.0.1:0", "--api-token-file", self.token())
        opener, opened = os.path.join(self.dir, "xdg-open"), os.path.join(self.dir, "opened")
        with open(opener, "w", encoding="ascii") as f:
            f.write(f'#!/bin/sh\necho "$1" > {opened}\n')
        os.chmod(opener, 0o755)
        self.env.update(PATH=f"{self.dir}:{self.env['PATH']}", DISPLAY=":9")
        report = self.json("dashboard", "--sim", self.sim)
        self.assertTrue(report["opened"])
        with open(opened, encoding="ascii") as f:
            self.assertEqual(f.read().strip(), report["url"])
        os.unlink(opened)
        self.assertFalse(self.json("dashboard", "--sim", self.sim, "--no-open")["opened"])
        self.assertFalse(os.path.exists(opened))


if __name__ == "__main__":
    unittest.TestCase.maxDiff = None
    main()
