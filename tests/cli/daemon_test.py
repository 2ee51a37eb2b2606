"""The daemon dies, hangs or is told to end while commands run: nobody says "no shares", running
tenants keep theirs, and their new processes find theirs again."""
import json
import os
import signal
import socket
import unittest

import harness
from harness import DIVVY, LONG

LOAD = f"{DIVVY} load --alloc 256MiB -o json"


class Daemon(harness.DivvyTest):
    def machine_dir(self):
        return os.path.join(self.dir, "sim", self.sim)

    def daemon_pid(self):
        with open(os.path.join(self.machine_dir(), "divvyd.pid"), encoding="utf-8") as f:
            return int(f.read())

    def kill_daemon(self):
        pid = self.daemon_pid()
        fd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        harness.select.select([fd], [], [], LONG)
        os.close(fd)
        return pid

    def shell(self, name, *options, prefix=()):
        """A tenant that runs the lines it is sent; ready when this returns."""
        p = self.start(*self.run_args("--name", name, *options), "sh", "-c",
                       'echo up; while read -r line; do eval "$line"; done', prefix=prefix)
        self.assertEqual(self.line(p), "up")
        return p

    def stop(self, p):
        """Stops every thread of it: it will not start the next daemon."""
        os.kill(p.pid, signal.SIGSTOP)
        states = ""
        while set(states) != {"T"}:
            states = ""
            for task in os.listdir(f"/proc/{p.pid}/task"):
                with open(f"/proc/{p.pid}/task/{task}/stat", encoding="utf-8") as f:
                    states += f.read().rsplit(")", 1)[1].split()[0]

    def does(self, p, line):
        p.stdin.write(line + "\n")
        p.stdin.flush()
        return self.line(p)

    def finds_its_share(self, p):
        self.assertEqual(self.does(p, f"{LOAD} >/dev/null 2>&1; echo $?"), "0")
        self.assertEqual(self.does(p, f"{DIVVY} load --alloc 3GiB >/dev/null 2>&1; echo $?"), "3")

    def test_a_killed_daemon_is_started_again_by_the_runner(self):
        for prefix in ([], harness.UNPRIVILEGED):
            with self.subTest(prefix=prefix[:1]):
                p = self.shell("t", prefix=prefix)
                first = self.kill_daemon()
                self.finds_its_share(p)  # at once: it waits for the next daemon
                self.assertNotEqual(self.daemon_pid(), first)
                # The new one is nobody's descendant: it is not counted as the tenant's process.
                with open(f"/proc/{self.daemon_pid()}/stat", encoding="utf-8") as f:
                    self.assertNotEqual(int(f.read().rsplit(")", 1)[1].split()[1]), p.pid)
                self.kill_daemon()
                self.finds_its_share(p)
                self.finish(p)
                self.assertEqual(p.returncode, 0)

    def test_several_runners_start_one(self):
        runners = [self.shell(f"t{i}") for i in range(4)]
        self.kill_daemon()
        for p in runners:
            self.finds_its_share(p)
        self.assertEqual(len(self.daemons()), 1)
        self.assertEqual(len(self.tenants()), 4)
        for p in runners:
            self.finish(p)

    def test_one_that_was_told_to_end_stays_away_until_it_is_needed(self):
        p = self.shell("kept")
        pid = self.daemon_pid()
        fd = os.pidfd_open(pid)
        self.assertEqual(self.divvy("daemon", "stop", "--sim", self.sim).returncode, 0)
        harness.select.select([fd], [], [], LONG)
        os.close(fd)
        self.assertEqual(self.daemons(), [])
        self.assertEqual(list(self.tenants()), ["kept"], "ps starts the next one, and it adopts")
        self.finds_its_share(p)
        self.kill_daemon()  # and the runner has noticed the new one
        self.finds_its_share(p)
        self.finish(p)

    def test_no_verb_takes_a_dead_daemon_for_no_shares(self):
        for verb in (["ps", "-o", "json"], ["devices", "--sim", self.sim, "-o", "json"],
                     ["set", "t", "--mem", "3GiB", "-o", "json"]):
            with self.subTest(verb=verb[0]):
                p = self.shell("t")
                # The runner may not start it: what comes is the verb's own doing.
                self.stop(p)
                self.kill_daemon()
                done = self.divvy(*verb)
                self.assertEqual(done.returncode, 0, done.stderr)
                answer = json.loads(done.stdout)
                if verb[0] == "ps":
                    self.assertEqual([t["name"] for t in answer["tenants"]], ["t"])
                elif verb[0] == "devices":
                    self.assertEqual(answer["devices"][0]["tenants"], ["t"])
                else:
                    self.assertEqual(answer["shares"][0]["limit_bytes"], 3 * harness.GiB)
                os.kill(p.pid, signal.SIGCONT)
                self.finish(p)
                harness.wait_for_end(self.daemon_pid())

    def test_a_daemon_of_somebody_elses_is_not_replaced(self):
        p = self.shell("t")
        self.stop(p)
        self.kill_daemon()
        path = os.path.join(self.machine_dir(), "state.json")
        with open(path, encoding="utf-8") as f:
            state = json.load(f)
        self.assertTrue(state["private"])
        state["private"] = False
        with open(path, "w", encoding="utf-8") as f:
            json.dump(state, f)
        for verb in (["ps"], ["set", "t", "--mem", "3GiB"]):
            done = self.divvy(*verb)
            self.assertEqual(done.returncode, 4)
            self.assert_one_line(done, "divvyd", self.machine_dir(), "start it again")
        os.kill(p.pid, signal.SIGCONT)
        self.finish(p)

    def test_a_new_program_finds_a_daemon_however_often_it_has_died(self):
        # With each death the runner waits longer before the next start, soon longer than a new
        # program waits for it: 0, 0.5, 1, 2, 4, 8 s. A program that waits is what it does not let
        # wait.
        p = self.shell("t")
        for _ in range(6):
            self.kill_daemon()
            self.assertEqual(self.does(p, f"{LOAD} >/dev/null 2>&1; echo $?"), "0")
        self.finish(p)

    def test_a_hung_daemon_is_named(self):
        p = self.shell("t")
        pid = self.daemon_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            verbs = [(["ps"], 4), (["daemon", "status"], 4), ([*self.run_args(), "true"], 125)]
            started = [(self.start(*verb), status) for verb, status in verbs]
            errors = []
            for asked, status in started:
                _, error = asked.communicate(timeout=LONG)
                self.assertEqual(asked.returncode, status, error)
                errors.append(error)
        finally:
            os.kill(pid, signal.SIGCONT)
        for error in errors:
            self.assertEqual(error.count("\n"), 1, error)
            for word in (f"pid {pid}", "does not answer", f"kill -CONT {pid}", f"kill -9 {pid}"):
                self.assertIn(word, error)
        self.assertEqual(list(self.tenants()), ["t"])
        self.finish(p)

    def test_a_daemon_that_is_too_busy_is_asked_again(self):
        os.makedirs(self.machine_dir())
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.join(self.machine_dir(), "divvyd.sock"))
            listener.listen(16)
            p = self.start("ps", "-o", "json")
            asked = []
            while len(asked) < 4:
                listener.settimeout(LONG)
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(LONG)
                    request = connection.recv(65536)
                    if not request:
                        continue  # a look whether anybody listens
                    asked.append(request.split(b"\r\n")[0])
                    busy = len(asked) < 4
                    body = b'{"error":{"code":"unavailable","message":"x"}}' if busy else \
                        b'{"tenants":[{"name":"found"}]}'
                    head = "503 Service Unavailable\r\nRetry-After: 1" if busy else "200 OK"
                    connection.sendall(
                        f"HTTP/1.1 {head}\r\nContent-Type: application/json\r\n"
                        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            out, error = p.communicate(timeout=LONG)
        self.assertEqual(p.returncode, 0, error)
        self.assertEqual([t["name"] for t in json.loads(out)["tenants"]], ["found"])
        self.assertEqual(asked, [b"GET /v1/tenants HTTP/1.1"] * 4)

    def test_a_relative_folder_is_where_the_caller_is(self):
        env = {**self.env, "DIVVY_RUNTIME_DIR": os.path.basename(self.dir)}
        p = self.start(*self.run_args("--name", "t"), "sh", "-c", "echo up; read x", env=env,
                       cwd=os.path.dirname(self.dir))
        self.assertEqual(self.line(p), "up")
        self.assertEqual(list(self.tenants()), ["t"], "in the folder that was meant")
        self.finish(p, "\n")
        self.assertEqual(p.returncode, 0)

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to be another user")
    def test_another_users_folder_is_not_empty(self):
        other = ["setpriv", "--reuid", "65534", "--clear-groups"]
        if self.divvy("--version", prefix=other).returncode != 0:
            self.skipTest("another user cannot run divvy where it lies")
        p = self.shell("t")
        verbs = (["ps"], ["daemon", "status"], ["daemon", "stop", "--sim", self.sim], ["events"],
                 ["set", "t", "--mem", "3GiB"], ["devices"], ["devices", "--sim", self.sim],
                 ["top", "--once"], ["dashboard", "--sim", self.sim])
        for mode in (0o755, 0o700):  # may look into it, but not ask; may not even look
            os.chmod(self.dir, mode)
            for verb in verbs:
                with self.subTest(mode=oct(mode), verb=verb):
                    done = self.divvy(*verb, prefix=other)
                    self.assertEqual((done.returncode, done.stdout), (4, ""), done.stderr)
                    self.assert_one_line(done, "another user", self.dir, "DIVVY_RUNTIME_DIR")
            done = self.divvy(*self.run_args(), "true", prefix=other)
            self.assertEqual(done.returncode, 125)
            self.assert_one_line(done, "another user")
        self.finish(p)

    @unittest.skipUnless(harness.can_isolate(), "needs root and mount namespaces")
    def test_inside_of_a_share(self):
        p = self.shell("inner")
        for verb in ("ps", "devices", "set x --mem 1GiB"):
            text = self.does(p, f"{DIVVY} {verb} 2>&1; echo $?")
            self.assertIn("inside of the share 'inner'", text)
            self.assertEqual(self.line(p), "4")
        self.finish(p)


if __name__ == "__main__":
    harness.main()
