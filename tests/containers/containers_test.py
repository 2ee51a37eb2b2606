"""Containers of real podman in shares of one simulated GPU.

Runs in a mount namespace of its own, so that neither the machine's CDI specs nor its containers are
touched, with podman's storage in a temporary folder. The image is made here of this machine's C
library, busybox and a CUDA program that knows nothing of Divvy. Skipped where podman, runc or a
static busybox are missing, or containers cannot be run at all.
"""
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest

BUILD = os.environ["DIVVY_BUILD_DIR"]
DIVVY = os.path.join(BUILD, "bin", "divvy")
PROGRAMS = [os.path.join(BUILD, "test", "cli", name) for name in ("finder", "finder_linked")]
LIBRARIES = ["/lib64/ld-linux-x86-64.so.2"] + [
    f"/lib/x86_64-linux-gnu/{name}" for name in ("libc.so.6", "libm.so.6", "libdl.so.2")]
BUSYBOX = "/bin/busybox"
SKIPPED = 77
RUNTIME = os.environ.get("DIVVY_TEST_RUNTIME", "runc")  # or crun
APART = "DIVVY_TEST_APART"
LONG = 60  # a bound on waiting for an event that is sure to come; never a measure
IMAGE = "localhost/divvy-test"
# What a restricted machine (no CAP_SYS_RESOURCE, cgroup v1) lets podman do.
LIMITS = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096", "--network", "none"]
# The program takes 1 GiB, then asks for 3 more.
IN_2_GIB = "1GiB:0 3GiB:2\n"
IN_8_GIB = "1GiB:0 3GiB:0\n"
GPU = ["--device", "divvy/simulator=h100"]


def share(name):
    return [*GPU, "--device", "divvy/share=" + name]


def skip(why):
    print("skipped:", why)
    sys.exit(SKIPPED)


def make_image(path):
    with tarfile.open(path, "w") as tar:
        def add_folder(name):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)

        def add(file, name):
            tar.add(os.path.realpath(file), name, filter=lambda i: i.replace(mode=0o755, uid=0, deep=False))
        for folder in ("bin", "etc", "lib64", "lib", "lib/x86_64-linux-gnu", "tmp", "proc", "sys",
                       "dev"):
            add_folder(folder)
        add(BUSYBOX, "bin/busybox")
        for applet in ("sh", "sleep", "env", "cat", "id", "ls"):
            info = tarfile.TarInfo("bin/" + applet)
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
        for file in LIBRARIES:
            add(file, file[1:])
        for file in PROGRAMS:
            add(file, "bin/" + os.path.basename(file))


class Containers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="divvy-containers-")
        cls.env = {k: v for k, v in os.environ.items() if not k.startswith("DIVVY_")}
        cls.env["DIVVY_RUNTIME_DIR"] = cls.dir + "/run"
        cls.made = []
        image = cls.dir + "/image.tar"
        make_image(image)
        done = cls.podman("import", image, IMAGE)
        if done.returncode == 0:
            done = cls.podman("run", "--rm", *LIMITS, IMAGE, "/bin/sh", "-c", "echo up")
        if done.stdout.strip() != "up":
            cls.tearDownClass()
            skip("no container can be run here: " + done.stderr.strip()[-400:])
        for name, mem in (("small", "2GiB"), ("large", "8GiB")):
            cls.divvy("share", "create", name, "--sim", "h100", "--mem", mem)
        cls.divvy("cdi", "generate")

    @classmethod
    def tearDownClass(cls):
        cls.podman("rm", "--all", "--force", "--time", "0")
        subprocess.run([DIVVY, "daemon", "stop", "--all"], env=cls.env, capture_output=True,
                       check=False)
        cls.podman("system", "reset", "--force")
        shutil.rmtree(cls.dir, ignore_errors=True)

    @classmethod
    def podman_command(cls, *args):
        return ["podman", "--root", cls.dir + "/storage", "--runroot", cls.dir + "/runroot",
                "--tmpdir", cls.dir + "/podman", "--storage-driver", "overlay", "--runtime", RUNTIME,
                "--cgroup-manager", "cgroupfs", "--events-backend", "none", *args]

    @classmethod
    def settled(cls):
        """Waits until the driver has taken back what ended processes held: it counts until then."""
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            tenants = json.loads(cls.divvy("ps", "-o", "json"))["tenants"]
            if not any(share["leaving_bytes"] for t in tenants for share in t["shares"]):
                return
            time.sleep(0.02)
        raise AssertionError("memory of ended processes is still booked")

    @classmethod
    def podman(cls, *args):
        if args[0] in ("run", "exec"):
            cls.settled()
        return subprocess.run(cls.podman_command(*args), env=cls.env, capture_output=True,
                              text=True, timeout=100, check=False)

    @classmethod
    def divvy(cls, *args):
        done = subprocess.run([DIVVY, *args], env=cls.env, capture_output=True, text=True,
                              timeout=60, check=False)
        if done.returncode != 0:
            raise AssertionError(f"divvy {args}: {done.stderr}")
        return done.stdout

    def run_in(self, name, *command, options=()):
        return self.podman("run", "--rm", *LIMITS, *share(name), *options, IMAGE, *command)

    def start(self, container, name, *options):
        done = self.podman("run", "--detach", "--name", container, *LIMITS, *share(name), *options,
                           IMAGE, "/bin/sleep", "1000")
        self.addCleanup(self.podman, "rm", "--force", "--time", "0", container)
        self.assertEqual(done.returncode, 0, done.stderr)

    def holds(self, done, expected):
        self.assertEqual((done.stdout, done.stderr, done.returncode), (expected, "", 0))

    def test_each_sees_its_own(self):
        for name, expected in (("small", IN_2_GIB), ("large", IN_8_GIB)):
            for way in (["finder", "dlopen"], ["finder", "getproc"], ["finder_linked", "linked"],
                        ["finder", "path", "/usr/lib64/libcuda.so.1"], ["finder", "dlmopen"],
                        ["finder_linked", "bare", "linked"], ["finder", "bare", "fork", "dlopen"]):
                with self.subTest(share=name, way=way):
                    self.holds(self.run_in(name, *way), expected)

    def test_two_at_once_in_one_share_have_it_together(self):
        # 4 GiB and a context fit twice into none but the large one, and not twice into that.
        self.start("a", "large")
        self.start("b", "large")
        held = subprocess.Popen(
            self.podman_command("exec", "--interactive", "a", "finder", "hold"),
            env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.assertEqual(held.stdout.readline(), IN_8_GIB)
            self.holds(self.podman("exec", "b", "finder", "dlopen"), "1GiB:0 3GiB:2\n")
            tenant = json.loads(self.divvy("share", "list", "-o", "json"))["shares"]
            large = next(t for t in tenant if t["name"] == "large")
            self.assertGreaterEqual(large["shares"][0]["used_bytes"], 4 << 30)
        finally:
            held.communicate("\n", timeout=60)

    def test_exec_with_an_empty_environment(self):
        self.start("c", "small")
        self.holds(self.podman("exec", "c", "/bin/env", "-i", "/bin/finder", "dlopen"), IN_2_GIB)
        self.holds(self.podman("exec", "--env", "LD_PRELOAD=", "c", "finder_linked", "linked"),
                   IN_2_GIB)

    def test_another_user(self):
        self.holds(self.run_in("small", "finder", "dlopen", options=["--user", "1234:1234"]),
                   IN_2_GIB)
        self.start("u", "small", "--user", "1234:1234")
        self.holds(self.podman("exec", "--user", "4321", "u", "finder", "dlopen"), IN_2_GIB)

    def test_a_read_only_root(self):
        self.holds(self.run_in("small", "finder", "dlopen",
                               options=["--read-only", "--read-only-tmpfs=false"]), IN_2_GIB)

    def test_namespaces(self):
        for options in (["--pid", "host"], ["--ipc", "host"], ["--ipc", "private"],
                        ["--uts", "host"], ["--cap-drop", "all"],
                        ["--security-opt", "no-new-privileges"]):
            with self.subTest(options=options):
                self.holds(self.run_in("small", "finder", "dlopen", options=options), IN_2_GIB)

    def test_killed_and_started_again(self):
        self.start("k", "small")
        for _ in range(2):
            self.holds(self.podman("exec", "k", "finder", "dlopen"), IN_2_GIB)
            self.assertEqual(self.podman("kill", "k").returncode, 0)
            self.podman("wait", "k")
            done = self.podman("start", "k")
            self.assertEqual(done.returncode, 0, done.stderr)
        self.holds(self.podman("exec", "k", "finder", "dlopen"), IN_2_GIB)

    def test_the_daemon_starts_again(self):
        self.start("d", "small")
        self.holds(self.podman("exec", "d", "finder", "dlopen"), IN_2_GIB)
        daemon, = json.loads(self.divvy("daemon", "status", "-o", "json"))["daemons"]
        end = os.pidfd_open(daemon["pid"])
        os.kill(daemon["pid"], signal.SIGKILL)
        select.select([end], [], [], LONG)  # or its socket may still take a request
        os.close(end)
        self.divvy("share", "list")  # starts the next one
        self.holds(self.podman("exec", "d", "finder", "dlopen"), IN_2_GIB)

    def test_what_can_be_seen_and_changed_from_inside(self):
        self.start("w", "small")
        look = self.podman("exec", "w", "/bin/sh", "-c",
                           "ls /run/divvy; cat /run/divvy/self/tenant")
        self.assertEqual(look.stdout, "ld.so.preload\nlib\nreal\nself\ntenant\nsmall\n")
        self.assertEqual(self.run_in("small", "/bin/sh", "-c", "echo $DIVVY_SHARE").stdout, "small\n")
        for change in ("echo > /etc/ld.so.preload", "echo > /usr/lib64/libcuda.so.1",
                       "echo > /run/divvy/lib/libdivvy.so", "echo > /run/divvy/x",
                       "echo > /run/divvy/self/x", "echo > /run/divvy/self/tenant"):
            with self.subTest(change=change):
                self.assertNotEqual(self.podman("exec", "w", "/bin/sh", "-c", change).returncode, 0)
        self.holds(self.podman("exec", "w", "finder", "dlopen"), IN_2_GIB)

    def test_a_share_that_is_gone(self):
        self.divvy("share", "create", "brief", "--sim", "h100", "--mem", "2GiB")
        self.divvy("cdi", "generate")
        self.divvy("share", "rm", "brief")
        done = self.run_in("brief", "finder", "dlopen")
        self.assertNotEqual(done.returncode, 0)
        # crun tells no more of a hook than that it failed.
        self.assertIn("is the share there" if RUNTIME == "runc" else "divvy-hook", done.stderr)
        # Without a GPU there is nothing to limit.
        done = self.podman("run", "--rm", *LIMITS, "--device", "divvy/share=brief", IMAGE,
                           "/bin/sh", "-c", "echo runs")
        self.assertEqual(done.stdout, "runs\n")
        self.divvy("cdi", "generate")

    def test_many_at_once(self):
        self.divvy("share", "create", "many", "--sim", "h100", "--mem", "60GiB")
        self.divvy("cdi", "generate")
        started = [subprocess.Popen(self.podman_command(
            "run", "--rm", *LIMITS, *share("many"), IMAGE, "finder", "dlopen"), env=self.env,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(12)]
        for p in started:
            out, errors = p.communicate(timeout=100)
            self.assertEqual((out, p.returncode), (IN_8_GIB, 0), errors)


def apart():
    """This test again, in a mount namespace where the machine's CDI folder is empty."""
    for program in ("podman", RUNTIME, "conmon", "unshare"):
        if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/usr/libexec/podman") is None:
            skip(f"{program} is not installed (Debian: podman, runc)")
    if os.geteuid() != 0:
        skip("needs root")
    if not os.path.exists(BUSYBOX) or b"statically linked" not in subprocess.run(
            ["file", "-L", BUSYBOX], capture_output=True, check=False).stdout:
        skip("needs a static busybox (Debian: busybox-static)")
    for needed in [DIVVY, os.path.join(BUILD, "bin", "divvy-hook"), *PROGRAMS]:
        if not os.path.exists(needed):
            print("not built:", needed)
            sys.exit(1)
    os.makedirs("/run/cdi", exist_ok=True)
    os.environ[APART] = "1"
    # crun knows no machine with both versions of cgroups.
    one_version = "umount /sys/fs/cgroup/unified 2>/dev/null; " if RUNTIME == "crun" else ""
    os.execvp("unshare", ["unshare", "--mount", "sh", "-c",
                          one_version + 'mount -t tmpfs none /run/cdi && exec "$@"', "sh", sys.executable,
                          *sys.argv])


if __name__ == "__main__":
    if APART not in os.environ:
        apart()
    signal.alarm(300)
    unittest.main(verbosity=2)
