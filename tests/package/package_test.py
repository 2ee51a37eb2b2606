#!/usr/bin/env python3
"""The packages as a platform engineer meets them. Run by `make test-package`, as root:

- built a second time, elsewhere, under another umask, clock zone and language: the same bytes;
- read by lintian;
- installed in a fresh Debian 12: a share holds; the next version is installed under a running tenant,
  who goes on; removed and purged: nothing is left;
- the tarball in a Debian without any of the libraries.
Skipped (status 77) with the reason where a fresh Debian cannot be made.
"""
import hashlib
import json
import os
import pathlib
import re
import select
import shutil
import subprocess
import sys
import tempfile
import unittest

import root as fresh
from root import LONG, run

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("DIVVY_BUILD_DIR", SOURCE / "build")).resolve()
PACKAGES = BUILD / "package"
APART = "DIVVY_TEST_APART"
SKIPPED = 77
NO_NETWORK = re.compile("Failed to fetch|Could not (resolve|connect)|Temporary failure|Some index files failed")
TARGETS = ["divvy", "divvyd", "divvy-hook", "divvy_loader32", "divvy_shim", "divvy_forwarder", "divvy-sim-broker",
           "sim_cuda", "sim_nvml", "divvy_help"]


def the(pattern, folder=PACKAGES):
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise AssertionError(f"{folder}/{pattern}: {found}; run make package")
    return found[0]


def skip(why):
    print("skipped:", why)  # .ci/run reads it
    raise unittest.SkipTest(why)


def system():
    try:
        return fresh.make_system(BUILD / "roots")
    except fresh.CannotBeMade as why:
        return skip(str(why))


class Artefacts(unittest.TestCase):
    def test_lintian(self):
        if shutil.which("lintian") is None:
            skip("lintian is not installed")
        done = run("lintian", "--fail-on", "error,warning", *PACKAGES.glob("*.deb"))
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_built_twice(self):
        """Every object is compiled again, without a cache, from a copy in another folder."""
        again = BUILD / "again"
        again.mkdir(exist_ok=True)
        listed = run("git", "-C", SOURCE, "ls-files", "-co", "--exclude-standard")
        if listed.returncode != 0:
            skip("not a git checkout")
        copied = subprocess.run(["tar", "--create", "--directory", SOURCE, "--no-recursion", "--null", "--files-from=-"],
                                input="\0".join(f for f in listed.stdout.split("\n") if (SOURCE / f).exists()).encode(),
                                capture_output=True, check=True).stdout
        source = again / "a-folder-of-another-name"
        keep = source / "build"
        for old in source.glob("*"):
            if old != keep:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        source.mkdir(exist_ok=True)
        subprocess.run(["tar", "--extract", "--directory", source], input=copied, check=True)
        env = {**os.environ, "CCACHE_DISABLE": "1", "TZ": "Pacific/Apia", "LC_ALL": "C", "HOME": str(again),
               "SOURCE_DATE_EPOCH": run("git", "-C", SOURCE, "log", "-1", "--format=%ct").stdout.strip()}

        def build(*command):
            done = run(*command, cwd=source, env=env, umask=0o077, timeout=2400)
            self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr[-3000:])
        build("cmake", "--preset", "release", "-DDIVVY_BENCH=OFF")
        build("ninja", "-C", "build", *TARGETS)
        version = the("divvy_*.deb").name.split("_")[1].rsplit("-", 1)[0]
        build("tools/package.py", "--version", version)

        def digests(folder):
            return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}
        self.assertEqual(digests(source / "build/package"), digests(PACKAGES))


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = pathlib.Path(tempfile.mkdtemp(prefix="divvy-package-"))
        cls.addClassCleanup(shutil.rmtree, cls.work, True)
        fresh.Root.mount("-t", "tmpfs", "none", cls.work)
        cls.addClassCleanup(run, "umount", "--recursive", "--lazy", cls.work)
        cls.bare = system()
        cls.next = cls.work / "next"
        done = run(SOURCE / "tools/package.py", "--build", BUILD, "--out", cls.next, "--version", "9999.0")
        assert done.returncode == 0, done.stderr

    @classmethod
    def libraries(cls):
        """What the packages depend on, as Debian has it: kept for the next run."""
        needs = run("dpkg-deb", "--field", the("divvy_*.deb"), "Depends").stdout.strip()
        names = sorted(n.split(" (")[0] for n in needs.split(", "))
        layer = BUILD / "roots" / ("bookworm-" + hashlib.sha256(" ".join(names).encode()).hexdigest()[:8])
        if not layer.exists():
            root = fresh.Root(cls.work / "libraries", cls.bare)
            shutil.copy("/etc/resolv.conf", root.path / "etc/resolv.conf")
            for proxy in ("/etc/apt/apt.conf.d/01proxy", "/etc/apt/apt.conf"):
                if os.path.isfile(proxy):
                    shutil.copy(proxy, root.path / "etc/apt/apt.conf.d/")
            for command in (["update"], ["install", "--yes", "--no-install-recommends", *names], ["clean"]):
                done = root("apt-get", "-qq", *command)
                if done.returncode != 0 and NO_NETWORK.search(done.stderr):
                    skip("Debian's packages cannot be had: " + done.stderr[-200:])
                assert done.returncode == 0, done.stdout + done.stderr
            done = run("cp", "-a", root.upper, str(layer) + ".new")  # files that were removed, too
            assert done.returncode == 0, done.stderr
            os.rename(str(layer) + ".new", layer)
        return layer

    def new_root(self, *lower):
        return fresh.Root(pathlib.Path(tempfile.mkdtemp(dir=self.work)), *lower)

    def ok(self, done):
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def line_of(self, process):
        ready, _, _ = select.select([process.stdout], [], [], LONG)
        self.assertTrue(ready, "no line came")
        line = process.stdout.readline()
        self.assertNotEqual(line, "", "it ended")
        return line

    def test_debian(self):
        root = self.new_root(self.libraries(), self.bare)
        manager = fresh.Manager(root)
        before = root.files()
        divvy = root.copy(the("divvy_*.deb"))

        # Without a driver the service cannot start; installing succeeds all the same, and says so.
        done = root("dpkg", "-i", divvy)
        self.ok(done)
        self.assertIn("divvyd does not run yet", done.stderr)
        self.assertIn(["start", "divvyd.service"], manager.asked)
        self.assertTrue((root.path / "etc/systemd/system/multi-user.target.wants/divvyd.service").is_symlink())
        done = root("divvy", "run", "--sim", "h100", "--mem", "2GiB", "--", "true")
        self.assertEqual(done.returncode, 125)
        self.assertIn("divvy-sim", done.stderr)
        self.ok(root("dpkg", "-i", root.copy(the("divvy-sim_*.deb"))))
        self.assertNotIn("divvy", self.ok(root("ldconfig", "-p")))

        # The service, as the unit has it, for a simulated machine.
        settings = root.path / "etc/default/divvyd"
        settings.write_text('DIVVYD_OPTIONS="--sim h100"\n', encoding="utf-8")
        self.assertEqual(root("systemctl", "restart", "divvyd.service").returncode, 0, manager.errors)
        daemon, = json.loads(self.ok(root("divvy", "daemon", "status", "-o", "json")))["daemons"]
        self.assertEqual(daemon["pid"], manager.daemon.pid)
        with open(f"/proc/{daemon['pid']}/status", encoding="ascii") as f:
            rights = dict(line.split(":\t", 1) for line in f.read().strip().split("\n"))
        self.assertEqual(int(rights["CapEff"], 16).bit_count(), len(manager.unit()["CapabilityBoundingSet"].split()))
        with open(f"/proc/{daemon['pid']}/mounts", encoding="utf-8") as f:
            options = {line.split()[1]: line.split()[3].split(",")[0] for line in f}
        self.assertEqual((options["/"], options["/run"], options["/run/divvy"]), ("ro", "ro", "rw"))
        refused = root("divvy", "run", "--sim", "h100", "--mem", "2GiB", "--", "divvy", "load", "--alloc", "3GiB")
        self.assertEqual(refused.returncode, 3, refused.stdout + refused.stderr)
        self.ok(root("divvy", "run", "--sim", "h100", "--mem", "4GiB", "--", "divvy", "load", "--alloc", "3GiB"))
        self.ok(root("divvy", "share", "create", "box", "--sim", "h100", "--mem", "2GiB"))
        self.ok(root("divvy", "cdi", "generate"))
        spec = json.loads((root.path / "run/cdi/divvy-share.json").read_text(encoding="utf-8"))
        hook = spec["devices"][0]["containerEdits"]["hooks"][0]["path"]
        self.assertEqual(hook, "/usr/lib/divvy/divvy-hook")
        self.ok(root(hook, "--version"))

        self.upgrade(root, manager)

        # Removed: the service is told to end, and containers find no device whose hook is gone.
        manager.asked.clear()
        self.ok(root("dpkg", "--remove", "divvy-sim", "divvy"))
        self.assertIn(["stop", "divvyd.service"], manager.asked)
        self.assertFalse((root.path / "run/cdi/divvy-share.json").exists())
        self.assertTrue(settings.exists())
        self.ok(root("dpkg", "--purge", "divvy-sim", "divvy"))
        self.assertEqual(sorted(root.files() - before), ["run/cdi"])
        self.assertEqual(before - root.files(), set())

    def upgrade(self, root, manager):
        tenant = subprocess.Popen(
            root.command("divvy", "run", "--sim", "h100", "--mem", "2GiB", "--name", "web", "--", "divvy", "load", "--alloc",
                         "1GiB", "--kernel", "1ms", "--rate", "20", "--for", "1h", "--every", "100ms"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(tenant.communicate)
        self.addCleanup(tenant.kill)

        def state():
            tenants = json.loads(self.ok(root("divvy", "ps", "-o", "json")))["tenants"]
            return next(t for t in tenants if t["name"] == "web")
        self.line_of(tenant)
        old, was = manager.daemon.pid, state()
        manager.asked.clear()
        self.ok(root("dpkg", "-i", *[root.copy(p) for p in self.next.glob("*.deb")]))
        self.assertIn("9999.0-1", self.ok(root("dpkg-query", "--show", "--showformat", "${Version}\n", "divvy", "divvy-sim")))
        self.assertIn(["restart", "divvyd.service"], manager.asked)
        self.assertNotIn(["stop", "divvyd.service"], manager.asked)
        self.assertNotEqual(manager.daemon.pid, old)
        # The same process, in the same share, works on, is counted and is held to what is asked now.
        for _ in range(20):
            self.line_of(tenant)
        now = state()
        self.assertEqual([p["pid"] for p in now["processes"]], [p["pid"] for p in was["processes"]])
        self.assertGreaterEqual(now["shares"][0]["used_bytes"], 1 << 30)
        self.assertEqual(now["shares"][0]["limit_bytes"], 2 << 30)
        self.ok(root("divvy", "set", "web", "--mem", "3GiB"))
        self.assertEqual(state()["shares"][0]["limit_bytes"], 3 << 30)
        tenant.terminate()
        tenant.wait(LONG)

    def test_tarball(self):
        root = self.new_root(self.bare)
        self.ok(root("tar", "xf", root.copy(the("divvy-*.tar.gz")), "-C", "/tmp"))
        before = root.files()
        script = next((root.path / "tmp").glob("divvy-*/install.sh"))
        script = "/" + str(script.relative_to(root.path))
        self.ok(root(script))
        self.ok(root(script))  # over itself
        unit = (root.path / "usr/local/lib/systemd/system/divvyd.service").read_text(encoding="utf-8")
        self.assertIn("\nExecStart=/usr/local/bin/divvyd ", unit)
        for mem, expected in (("2GiB", 3), ("4GiB", 0)):
            done = root("/usr/local/bin/divvy", "run", "--sim", "h100", "--mem", mem, "--", "/usr/local/bin/divvy", "load",
                        "--alloc", "3GiB")
            self.assertEqual(done.returncode, expected, done.stdout + done.stderr)
        self.ok(root("/usr/local/bin/divvy", "daemon", "stop", "--all"))
        self.ok(root(script, "--uninstall"))
        left = {f for f in root.files() - before if not f.startswith("run/")}
        self.assertEqual(left, {"etc/ld.so.preload"})  # empty: a mount point of divvy run
        self.assertEqual((root.path / "etc/ld.so.preload").read_bytes(), b"")
        self.assertEqual(root(script, "--uninstall").returncode, 1)
        self.assertEqual(root(script, "--prefix", "here").returncode, 2)


class Image(unittest.TestCase):
    """deploy/Containerfile, on the fresh Debian in place of debian:12-slim."""

    def test_containerfile(self):
        for program in ("podman", "runc"):
            if shutil.which(program) is None:
                skip(f"{program} is not installed (Debian: podman, runc)")
        work = pathlib.Path(tempfile.mkdtemp(prefix="divvy-image-"))
        self.addCleanup(shutil.rmtree, work, True)
        fresh.Root.mount("-t", "tmpfs", "none", work)
        self.addCleanup(run, "umount", "--recursive", "--lazy", work)
        def podman(*command):
            return run("podman", "--root", work / "storage", "--runroot", work / "runroot", "--tmpdir", work / "tmp",
                       "--storage-driver", "overlay", "--runtime", "runc", "--cgroup-manager", "cgroupfs",
                       "--events-backend", "none", *command)
        done = run("tar", "--create", "--file", work / "base.tar", "--directory", system(), ".")
        self.assertEqual(done.returncode, 0, done.stderr)
        done = podman("import", work / "base.tar", "localhost/base")
        if done.returncode != 0:
            skip("no image can be made here: " + done.stderr.strip()[-300:])
        done = podman("build", "--isolation", "chroot", "--network", "host", "--build-arg", "BASE=localhost/base",
                      "--file", SOURCE / "deploy/Containerfile", "--tag", "localhost/divvyd", PACKAGES)
        if done.returncode != 0 and NO_NETWORK.search(done.stdout + done.stderr):
            skip("Debian's packages cannot be had in a container")
        self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr[-3000:])
        limits = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096", "--network", "none"]
        done = podman("run", "--rm", *limits, "localhost/divvyd", "--version")
        self.assertRegex(done.stdout, r"^divvyd \d", done.stderr)
        done = podman("run", "--rm", *limits, "localhost/divvyd")
        self.assertIn("--pid=host", done.stderr)  # what it says where it cannot see the host's pids
        self.assertEqual(done.returncode, 1)


def main():
    if APART not in os.environ:
        if os.geteuid() != 0:
            print("skipped: a fresh Debian needs root rights (debootstrap, chroot)")
            sys.exit(SKIPPED)
        os.environ[APART] = "1"
        # Whatever it starts ends with it, whatever it mounts goes with it.
        os.execvp("unshare", ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, *sys.argv])
    unittest.main(verbosity=2)


if __name__ == "__main__":
    main()
