"""divvy run behaves towards its caller as the command itself would: status, signals, stdin, stops;
and it starts one daemon, however many start at once."""
import contextlib
import json
import os
import signal
import subprocess
import unittest

import harness
from harness import DIVVY, LONG


class Run(harness.DivvyTest):
    def sh(self, script, *options, **kw):
        return self.divvy(*self.run_args(*options), "sh", "-c", script, **kw)

    def test_status_of_the_command(self):
        for wanted in (0, 1, 7, 255):
            self.assertEqual(self.sh(f"exit {wanted}").returncode, wanted)

    def test_status_after_a_signal(self):
        self.assertEqual(self.sh("kill -TERM $$").returncode, 128 + signal.SIGTERM)
        self.assertEqual(self.sh("kill -KILL $$").returncode, 128 + signal.SIGKILL)

    def test_command_not_found_or_not_executable(self):
        done = self.divvy(*self.run_args(), "no-such-command-here")
        self.assertEqual(done.returncode, 127)
        self.assert_one_line(done, "no-such-command-here", "PATH")
        done = self.divvy(*self.run_args(), "/etc/passwd")
        self.assertEqual(done.returncode, 126)
        self.assert_one_line(done, "/etc/passwd")
        self.assertEqual(self.tenants(), {}, "a command that never ran leaves no tenant")

    def test_streams_are_the_commands_own(self):
        done = self.sh("cat; echo err >&2", input="in\n")
        self.assertEqual((done.stdout, done.stderr), ("in\n", "err\n"))

    def test_command_without_dashes(self):
        done = self.divvy("run", "--sim", self.sim, "--mem", "2GiB", "sh", "-c", "echo $0", "-o")
        self.assertEqual((done.returncode, done.stdout), (0, "-o\n"))

    def test_working_folder_and_environment_are_kept(self):
        done = self.sh("pwd; echo $WORD", cwd="/usr", env={**self.env, "WORD": "kept"})
        self.assertEqual(done.stdout, "/usr\nkept\n")

    def test_signals_are_forwarded(self):
        for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            name = signal.Signals(sent).name[3:]
            p = self.start(*self.run_args(), "sh", "-c",
                           f"trap 'echo got; exit 42' {name}; echo ready; "
                           "while :; do read x || :; done", start_new_session=True)
            self.assertEqual(self.line(p), "ready")
            p.send_signal(sent)
            # The shell looks for signals, then reads: one that comes between the two is seen after
            # the next line only.
            with contextlib.suppress(BrokenPipeError):
                p.stdin.write("\n")
                p.stdin.flush()
            self.assertEqual(self.line(p), "got")
            self.assertEqual(p.wait(LONG), 42)

    def test_stop_and_continue(self):
        p = self.start(*self.run_args(), "sh", "-c", "echo $$; read x; echo went on",
                       start_new_session=True)
        inner = int(self.line(p))
        p.send_signal(signal.SIGTSTP)
        # An orphaned process group ignores SIGTSTP; ours is one here, so stop the command by force
        # and see that the runner does not stop with it.
        os.kill(inner, signal.SIGSTOP)
        os.kill(inner, signal.SIGCONT)
        p.stdin.write("\n")
        p.stdin.flush()
        self.assertEqual(self.line(p), "went on")
        self.assertEqual(p.wait(LONG), 0)

    def test_job_control(self):
        # In a shell with job control the runner stops when its command does, and `fg` continues
        # both.
        script = (f"set -m; {DIVVY} {' '.join(self.run_args())} sh -c "
                  "'kill -TSTP $$; echo went on; exit 5' & wait $!; echo stopped $?; "
                  "fg >/dev/null; echo ended $?")
        done = subprocess.run(["bash", "-c", script], env=self.env, capture_output=True, text=True,
                              timeout=LONG, check=False, start_new_session=True)
        self.assertEqual(done.stdout.split("\n")[:3],
                         [f"stopped {128 + signal.SIGSTOP}", "went on", "ended 5"], done.stderr)

    def test_kill_of_the_runner_ends_the_command(self):
        p = self.start(*self.run_args(), "sh", "-c", "echo $$; read x")
        inner = int(self.line(p))
        p.kill()
        self.assertTrue(harness.wait_for_end(inner))

    def test_background_children_do_not_hold_it_up(self):
        p = self.start(*self.run_args("--name", "bg"), "sh", "-c",
                       "sleep 1000 >/dev/null 2>&1 & echo $!")
        inner = int(self.line(p))
        self.assertEqual(p.wait(LONG), 0)
        os.kill(inner, 0)  # it lives on, as it would without Divvy
        os.kill(inner, signal.SIGKILL)

    def test_report_is_one_line_on_stderr(self):
        done = self.sh("echo out; exit 3", "-o", "json", "--name", "one")
        self.assertEqual((done.returncode, done.stdout), (3, "out\n"))
        report = json.loads(done.stderr)
        self.assertEqual((report["name"], report["status"], report["signal"]), ("one", 3, 0))
        self.assertEqual(len(report["devices"]), 1)

    def test_several_devices(self):
        self.sim = "h100x4"
        done = self.sh("exit 0", "--gpus", "2", "-o", "json")
        self.assertEqual(len(json.loads(done.stderr)["devices"]), 2)
        done = self.sh("exit 0", "--gpu", "3,1", "-o", "json")
        self.assertEqual([d["index"] for d in json.loads(done.stderr)["devices"]], [3, 1])

    def test_starting_at_once_makes_one_daemon(self):
        runs = [self.start(*self.run_args("--name", f"t{i}"), "sh", "-c", "echo up; read x")
                for i in range(8)]
        for p in runs:
            self.assertEqual(self.line(p), "up")
        self.assertEqual(len(self.daemons()), 1)
        self.assertEqual(sorted(self.tenants()), [f"t{i}" for i in range(8)])
        for p in runs:
            p.communicate("\n", timeout=LONG)
            self.assertEqual(p.returncode, 0)

    def test_many_at_once_lose_nothing(self):
        self.sim = "h100x8"
        runs = [self.start(*self.run_args(mem="600MiB"), DIVVY, "load", "--alloc", "1MiB")
                for _ in range(60)]
        for p in runs:
            _, error = p.communicate(timeout=2 * LONG)
            self.assertEqual((p.returncode, error), (0, ""))
        for daemon in self.daemons():
            self.assertTrue(harness.wait_for_end(daemon["pid"]))
        self.assertEqual(self.tenants(), {})
        folder = os.path.join(self.dir, "sim", self.sim)
        self.assertEqual(os.listdir(os.path.join(folder, "tenants")), [])
        self.assertFalse(os.path.exists(os.path.join(folder, "divvyd.sock")))

    def test_private_daemon_ends_by_itself(self):
        self.assertEqual(self.sh("exit 0").returncode, 0)
        for daemon in self.daemons():
            self.assertTrue(harness.wait_for_end(daemon["pid"]))
        self.assertEqual(self.daemons(), [])
        self.assertEqual(self.sh("exit 0").returncode, 0, "and the next run starts another")

    def test_nested_run_is_refused(self):
        done = self.divvy(*self.run_args("--name", "outer"), DIVVY, *self.run_args(), "true")
        self.assertEqual(done.returncode, 125)
        self.assertIn("outer", done.stderr)

    def test_ps_shows_the_tenant(self):
        p = self.start(*self.run_args("--name", "seen", mem="3GiB"), "sh", "-c", "echo up; read x")
        self.line(p)
        tenant = self.tenants()["seen"]
        self.assertEqual(tenant["command"][:2], ["sh", "-c"])
        self.assertEqual(tenant["shares"][0]["limit_bytes"], 3 * harness.GiB)
        self.assertEqual(tenant["cooperative"], not harness.can_isolate())
        text = self.divvy("ps").stdout
        self.assertIn("NAME", text)
        self.assertIn("seen", text)
        self.assertIn("3 GiB", text)
        p.communicate("\n", timeout=LONG)

    def test_a_process_that_the_audit_killed_is_named(self):
        ready, write = os.pipe()
        with subprocess.Popen(
                [os.path.join(harness.BUILD, "bin", "divvyd"), "--sim", self.sim, "--runtime-dir",
                 self.dir, "--audit", "kill", "--ready-fd", str(write)],
                env=self.env, pass_fds=[write], stderr=subprocess.DEVNULL) as daemon:
            os.close(write)
            with os.fdopen(ready) as said:
                self.assertEqual(said.readline(), "ready\n")
            done = self.divvy(*self.run_args("--name", "evader"), "env", "-u", "LD_PRELOAD", DIVVY,
                              "load", "--alloc", "1GiB", "--hold", "1h",
                              prefix=harness.UNPRIVILEGED)
            daemon.terminate()
        self.assertEqual(done.returncode, 128 + signal.SIGKILL)
        self.assertRegex(done.stderr, r"divvy: the audit killed pid \d+ of 'evader': .*no_hello")

    def test_without_the_right_to_mount_it_is_cooperative(self):
        p = self.start(*self.run_args("--name", "coop"), "sh", "-c", "echo $LD_PRELOAD; read x",
                       prefix=harness.UNPRIVILEGED)
        self.assertIn("libdivvy.so", self.line(p))
        self.assertTrue(self.tenants()["coop"]["cooperative"])
        self.assertIn("cooperative", self.divvy("ps").stdout)
        p.communicate("\n", timeout=LONG)


if __name__ == "__main__":
    harness.main()
