"""Wrong input gets one line that says what to do, the documented status, and leaves nothing."""
import contextlib
import json
import os
import socket
import subprocess
import unittest

import harness


class BadInput(harness.DivvyTest):
    def refused(self, args, status, *words):
        done = self.divvy(*args)
        self.assertEqual(done.returncode, status, (args, done.stderr))
        self.assert_one_line(done, *words)

    def test_run(self):
        sim = ["run", "--sim", "h100"]
        cmd = ["--", "true"]
        for args, words in (
                ([*sim, *cmd], ["--mem"]),
                ([*sim, "--mem", "0", *cmd], ["--mem", "512MiB"]),
                ([*sim, "--mem", "-1", *cmd], ["--mem"]),
                ([*sim, "--mem=-1GiB", *cmd], ["4GiB"]),
                ([*sim, "--mem", "nan", *cmd], ["4GiB"]),
                ([*sim, "--mem", "99999999999TiB", *cmd], ["4GiB"]),
                ([*sim, "--mem", "81GiB", *cmd], ["GiB"]),
                ([*sim, "--mem", "2", *cmd], ["2 B", "512 MiB", "2GiB meant?", "GPU 0"]),
                ([*sim, "--mem", "4096", *cmd], ["4096MiB meant?"]),
                ([*sim, "--mem", "2K", *cmd], ["a share of 2 KiB is too small", "512 MiB of GPU 0"]),
                ([*sim, "--mem", "100MiB", *cmd], ["512 MiB"]),
                (["run", "--sim", "", "--mem", "2GiB", *cmd], ["--sim", "h100"]),
                ([*sim, "--mem", "2GiB"], ["what to run"]),
                ([*sim, "--mem", "2GiB", "--"], ["what to run"]),
                ([*sim, "--mem", "2GiB", "--gpu", "9", *cmd], ["9"]),
                ([*sim, "--mem", "2GiB", "--gpu", "GPU-nonsense", *cmd], ["GPU-nonsense"]),
                ([*sim, "--mem", "2GiB", "--gpu", ",", *cmd], ["--gpu"]),
                ([*sim, "--mem", "2GiB", "--gpu", "0,", *cmd], ["--gpu", "comma"]),
                ([*sim, "--mem", "2GiB", "--gpu", "0,,1", *cmd], ["--gpu", "comma"]),
                ([*sim, "--mem", "2GiB", "--gpus", "0", *cmd], ["--gpus"]),
                ([*sim, "--mem", "2GiB", "--gpus", "2", *cmd], ["2"]),
                ([*sim, "--mem", "2GiB", "--gpus", "x", *cmd], ["--gpus"]),
                ([*sim, "--mem", "2GiB", "--gpu", "0", "--gpus", "1", *cmd], ["not both"]),
                ([*sim, "--mem", "2GiB", "--mem-max", "1GiB", *cmd], ["--mem-max"]),
                ([*sim, "--mem", "2GiB", "--mem-max", "500GiB", *cmd],
                 ["GPU 0 has", "500 GiB were asked for", "--mem-max"]),
                ([*sim, "--mem", "2GiB", "--mem", "3GiB", *cmd],
                 ["--mem is given more than once"]),
                ([*sim, "--mem", "2GiB", "--gpu", "0", "--gpu", "7", *cmd], ["no GPU '7'"]),
                ([*sim, "--mem", "2GiB", "--gpu", "0", "--gpu", "0", *cmd], ["'0' is named twice"]),
                ([*sim, "--mem", "2GiB", "--on-full", "maybe", *cmd], ["wait=30s"]),
                ([*sim, "--mem", "2GiB", "--on-full", "wait=30", *cmd],
                 ["--on-full", "'wait=30'", "wait=30s"]),
                ([*sim, "--mem", "2GiB", "--on-full", "wait=x", *cmd], ["--on-full", "wait=30s"]),
                ([*sim, "--mem", "2GiB", "--on-full", "wait=48h", *cmd], ["--on-full", "a day"]),
                ([*sim, "--mem", "2GiB", "--name", "../up", *cmd], ["../up"]),
                ([*sim, "--mem", "2GiB", "--name", "", *cmd], ["name"]),
                ([*sim, "--mem", "2GiB", "--meme", "x", *cmd], ["--meme"]),
                (["run", "--sim", "b9000", "--mem", "2GiB", *cmd], ["b9000", "h100"]),
                (["run", "--sim", "h100x99", "--mem", "2GiB", *cmd], ["h100x99"]),
        ):
            with self.subTest(args=args):
                self.refused(args, 125, *words)
        self.assertEqual(self.tenants(), {})

    def test_a_refused_simulated_machine_leaves_no_folder(self):
        for profile in ("h100@x0", "../../etc", "h100x0", "h100 ", "x"):
            for verb in (["run", "--mem", "2GiB"], ["devices"], ["verify", "memory"]):
                tail = ["--", "true"] if verb[0] == "run" else []
                done = self.divvy(*verb, "--sim", profile, *tail)
                self.assertNotEqual(done.returncode, 0, (verb, profile))
                self.assert_one_line(done, profile)
        self.assertEqual(os.listdir(self.env["DIVVY_RUNTIME_DIR"]), [])

    def test_errors_as_json(self):
        for args, status, code in ((["set", "nobody", "--mem", "2GiB"], 4, "not_found"),
                                   (["set", "nobody"], 2, "invalid"),
                                   (["set"], 2, "invalid"),
                                   (["pause", "nobody"], 4, "not_found"),
                                   (["ps", "--nonsense"], 2, "invalid"),
                                   (["daemon", "stop", "--sim", "h100"], 4, "not_found")):
            with self.subTest(args=args):
                done = self.divvy(*args, "-o", "json")
                self.assertEqual(done.returncode, status, done.stderr)
                self.assert_one_line(done)
                error = json.loads(done.stdout)["error"]
                self.assertEqual(error["code"], code)
                self.assertEqual(f"divvy: {error['message']}\n", done.stderr)
        # What belongs to somebody else's stdout, or to a file, stays free of it.
        done = self.divvy("run", "-o", "json", "--sim", "h100", "--mem", "900GiB", "--", "true")
        self.assertEqual((done.returncode, done.stdout), (125, ""))
        self.assertEqual(json.loads(done.stderr.splitlines()[1])["error"]["code"], "no_room")
        done = self.divvy("record", "nobody", "-o", "json")
        self.assertEqual((done.returncode, done.stdout), (4, ""))

    def test_the_error_of_a_full_device_names_who_holds_what(self):
        p = self.start(*self.run_args("--name", "holder", mem="60GiB"), "sh", "-c",
                       "echo up; read x")
        self.line(p)
        self.refused(["run", "--sim", "h100", "--mem", "40GiB", "--", "true"], 125, "holder",
                     "60 GiB")

    def test_a_name_that_is_taken(self):
        p = self.start(*self.run_args("--name", "mine"), "sh", "-c", "echo up; read x")
        self.line(p)
        self.refused(self.run_args("--name", "mine") + ["true"], 125, "mine")

    def test_set(self):
        self.refused(["set", "nobody", "--mem", "2GiB"], 4, "nobody", "divvy ps")
        self.refused(["set", "nobody"], 2, "--mem")
        self.refused(["set", "../x", "--mem", "2GiB"], 2, "../x")
        self.refused(["set"], 2, "name")
        p = self.start(*self.run_args("--name", "here"), "sh", "-c", "echo up; read x")
        self.line(p)
        self.refused(["set", "here", "--mem", "500GiB"], 3, "GiB")
        self.refused(["set", "here", "--mem", "0"], 2, "--mem")
        self.refused(["set", "here", "--mem", "2"], 2, "2GiB meant?")
        self.refused(["set", "here", "--mem-max", "500GiB"], 3, "500 GiB were asked", "--mem-max")
        self.refused(["set", "here", "--mem-max", "1GiB"], 2, "1 GiB", "2 GiB")
        self.assertEqual(self.tenants()["here"]["shares"][0]["limit_bytes"], 2 * harness.GiB)
        changed = self.json("set", "here", "--mem-max", "4GiB")
        self.assertEqual(changed["shares"][0]["limit_max_bytes"], 4 * harness.GiB)

    def test_verbs(self):
        self.refused([], 2, "--help")
        self.refused(["frob"], 2, "frob")
        self.refused(["ps", "-o", "xml"], 2, "xml")
        self.refused(["ps", "extra"], 2, "extra")
        self.refused(["ps", "--frob"], 2, "--frob")
        self.refused(["verify"], 2, "verify memory")
        self.refused(["verify", "bogus"], 2, "bogus", "memory")
        self.refused(["simulate", "bogus"], 2, "bogus", "device")
        self.refused(["daemon", "bogus"], 2, "bogus", "stop", "status")
        self.refused(["help", "frob"], 2, "frob")
        self.refused(["load"], 2, "--alloc")
        self.refused(["load", "--alloc", "1GiB", "--path", "tape"], 2, "tape", "linear")
        self.refused(["load", "--kernel", "fast"], 2, "20us")
        self.refused(["verify", "memory"], 2, "--mem")
        self.refused(["verify", "memory", "--mem", "2GiB", "--sim", "h100", "--path", "tape"], 2,
                     "tape")
        self.refused(["daemon", "stop"], 4, "daemon")
        self.refused(["events", "--kind", "bad"], 2, "'bad'", "refusal, finding, crash")
        self.refused(["devices", "--sim", "b9000"], 2, "b9000")

    def test_simulate_device(self):
        mix = os.path.join(os.environ["DIVVY_SOURCE_DIR"], "docs", "mixes", "recorded.json")
        simulate = ["simulate", "device", "--mix", mix]
        for bad in ("nan", "inf", "-inf", "-3", "0", "1e9", "3x"):
            self.refused([*simulate, f"--seconds={bad}"], 2, "--seconds", "3600")
        for bad in ("nan", "0", "101", "1.5"):
            self.refused([*simulate, f"--seeds={bad}"], 2, "--seeds", "100")
        for bad in ("nan", "0", "inf"):
            self.refused(["verify", "compute", "--sim", "h100", f"--seconds={bad}"], 2, "--seconds")
        self.refused(["simulate", "device", "--mix", "/no/mix.json"], 2, "/no/mix.json")
        self.refused(["simulate", "device", "--mix", "/etc/passwd"], 2, "/etc/passwd")

    def test_help_and_version(self):
        for words in (["--version"], ["-v"], ["-V"], ["version"]):
            done = self.divvy(*words)
            self.assertEqual((done.returncode, done.stdout.split()[0]), (0, "divvy"))
        self.assertEqual(self.divvy("help").stdout, self.divvy("--help").stdout)
        self.assertEqual(self.divvy("help", "run").stdout, self.divvy("run", "--help").stdout)
        for verb in (["run"], ["simulate", "device"], ["load"], ["verify", "memory"], ["set"]):
            text = self.divvy(*verb, "--help").stdout
            for internal in ("UINT", "INT:", "FLOAT", "TEXT", "{false}", "REQUIRED:"):
                self.assertNotIn(internal, text, verb)
        with open("/dev/full", "w", encoding="utf-8") as full:
            for words in (["version"], ["version", "-o", "json"], ["--help"], ["run", "--help"]):
                lost = subprocess.run([harness.DIVVY, *words], stdout=full, stderr=subprocess.PIPE,
                                      text=True, check=False)
                self.assertEqual((lost.returncode, lost.stderr),
                                 (1, "divvy: stdout: No space left on device: the answer is not "
                                     "complete\n"), words)
        divvyd = os.path.join(os.path.dirname(harness.DIVVY), "divvyd")
        for bad in (["extra"], ["--frob"], ["--audit", "maybe"]):
            done = subprocess.run([divvyd, *bad], capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1), done.stderr)
            self.assertTrue(done.stderr.startswith("divvyd: "), done.stderr)

    def test_runtime_folder_that_cannot_be_used(self):
        file = os.path.join(self.dir, "file")
        with open(file, "w", encoding="utf-8"):
            pass
        self.env["DIVVY_RUNTIME_DIR"] = file
        self.refused(self.run_args() + ["true"], 125, file, "DIVVY_RUNTIME_DIR")
        self.env["DIVVY_RUNTIME_DIR"] = "/proc/divvy"
        self.refused(self.run_args() + ["true"], 125, "/proc/divvy")
        self.env["DIVVY_RUNTIME_DIR"] = os.path.join(self.dir, "x" * 120)
        self.refused(self.run_args() + ["true"], 125, "DIVVY_RUNTIME_DIR")
        self.env["DIVVY_RUNTIME_DIR"] = self.dir

    @unittest.skipUnless(harness.can_isolate(), "needs root and mount namespaces")
    def test_runtime_folder_that_is_full_or_read_only(self):
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", self.dir]
        for then, words in (
                (["dd", "if=/dev/zero", f"of={self.dir}/fill", "bs=1k", "count=128"],
                 ["No space left"]),
                (["mount", "-o", "remount,ro", self.dir], ["Read-only", "DIVVY_RUNTIME_DIR"])):
            script = "; ".join(" ".join(c) + " 2>/dev/null" for c in (mount, then))
            with self.subTest(then=then[0]):
                done = self.divvy(*self.run_args(), "echo", "ran",
                                  prefix=["unshare", "-m", "sh", "-c", script + '; exec "$@"', "-"])
                self.assertEqual((done.returncode, done.stdout), (125, ""))
                self.assert_one_line(done, self.dir, *words)

    def test_stale_socket_is_no_daemon(self):
        where = os.path.join(self.dir, "sim", "h100")
        os.makedirs(where)
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(os.path.join(where, "divvyd.sock"))
        self.assertEqual(self.daemons(), [])
        self.assertEqual(self.divvy(*self.run_args(), "true").returncode, 0)

    def test_socket_that_never_speaks_http(self):
        where = os.path.join(self.dir, "sim", "h100")
        os.makedirs(where)
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(os.path.join(where, "divvyd.sock"))
            s.listen()
            p = self.start("set", "x", "--mem", "1GiB", "--sim", "h100")
            # FindTenant looks whether anybody listens, then asks; answer both with garbage.
            for _ in range(2):
                c, _ = s.accept()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    c.sendall(b"\x00garbage\r\n\r\n")
                c.close()
            self.assertEqual(p.wait(harness.LONG), 4)
            self.assertEqual(p.stderr.read().count("\n"), 1)


if __name__ == "__main__":
    harness.main()
