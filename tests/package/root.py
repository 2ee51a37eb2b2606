"""A fresh Debian to install packages in, and what stands in for systemd there.

The system is made once by debootstrap under the build folder; each Root is an overlay over it, in the
mount and pid namespaces of the test, so that nothing of it outlives the test.
"""
import os
import pathlib
import shutil
import subprocess
import threading

LONG = 120  # a bound on waiting for an event that is sure to come; never a measure
MIRROR = os.environ.get("DIVVY_DEBIAN_MIRROR", "http://deb.debian.org/debian")


class CannotBeMade(Exception):
    pass


def run(*command, **kw):
    kw.setdefault("timeout", 900)
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **kw)


def make_system(roots, release="bookworm"):
    """A minimal Debian, made where there is none yet."""
    root = roots / release
    if (root / "bin/true").exists():
        return root
    if shutil.which("debootstrap") is None:
        raise CannotBeMade("debootstrap is not installed")
    fresh = roots / (release + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    roots.mkdir(parents=True, exist_ok=True)
    done = run("unshare", "--mount", "debootstrap", "--variant=minbase", release, fresh, MIRROR)
    if done.returncode != 0:
        raise CannotBeMade(f"debootstrap {release} failed: {done.stdout[-300:]}")
    fresh.rename(root)
    return root


class Root:
    """An overlay over `lower`, ready for chroot."""

    def __init__(self, work, *lower):
        self.upper, self.path = work / "upper", work / "root"
        for folder in (self.upper, work / "work", self.path):
            folder.mkdir(parents=True)
        layers = ":".join(map(str, lower))
        self.mount("-t", "overlay", "-o", f"lowerdir={layers},upperdir={self.upper},workdir={work}/work", "none",
                   self.path)
        for kind, where in (("proc", "proc"), ("tmpfs", "run"), ("tmpfs", "tmp")):
            self.mount("-t", kind, kind, self.path / where)
        for where in ("dev", "sys"):
            self.mount("--rbind", f"/{where}", self.path / where)
        (self.path / "run/lock").mkdir(mode=0o1777)

    @staticmethod
    def mount(*arguments):
        done = run("mount", *arguments)
        if done.returncode != 0:
            raise CannotBeMade(f"mount {arguments}: {done.stderr.strip()}")

    def command(self, *command):
        return ["chroot", str(self.path), "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                "DEBIAN_FRONTEND=noninteractive", *map(str, command)]

    def __call__(self, *command, **kw):
        return run(*self.command(*command), **kw)

    def copy(self, file):
        shutil.copy(file, self.path / "tmp")
        return "/tmp/" + pathlib.Path(file).name

    def files(self):
        """What packages and programs leave behind; not what dpkg and apt keep about themselves."""
        own = {"dev", "proc", "sys", "tmp", "var/lib/dpkg", "var/lib/apt", "var/cache", "var/log"}
        found = set()
        for folder, folders, files in os.walk(self.path):
            here = os.path.relpath(folder, self.path)
            folders[:] = [f for f in folders if os.path.normpath(f"{here}/{f}") not in own]
            found |= {os.path.normpath(f"{here}/{f}") for f in (*files, *folders)}
        return found


class Manager:
    """What systemd does with divvyd.service, as far as the unit asks for it: its command, environment,
    capabilities, read-only system, and starting it again. `systemctl` in the root speaks to it."""

    SYSTEMCTL = ('#!/bin/sh\necho "$*" >/run/manager/ask\nread -r status said </run/manager/answer\n'
                 '[ -z "$said" ] || echo "$said"\nexit "$status"\n')

    def __init__(self, root):
        self.root, self.asked, self.daemon, self.errors = root, [], None, ""
        (root.path / "run/systemd/system").mkdir(parents=True)
        (root.path / "run/manager").mkdir()
        for fifo in ("ask", "answer"):
            os.mkfifo(root.path / "run/manager" / fifo)
        systemctl = root.path / "usr/bin/systemctl"
        systemctl.write_text(self.SYSTEMCTL, encoding="ascii")
        systemctl.chmod(0o755)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            with open(self.root.path / "run/manager/ask", encoding="utf-8") as f:
                words = [w for w in f.read().split() if not w.startswith("-")]
            self.asked.append(words)
            status, said = 0, ""
            wanted = self.root.path / "etc/systemd/system/multi-user.target.wants/divvyd.service"
            if words and words[0] == "preset":  # Debian's says: enable everything
                wanted.symlink_to("/lib/systemd/system/divvyd.service")
            if words and words[0] == "is-enabled":
                said = "enabled" if wanted.is_symlink() else "disabled"
            if words and words[0] == "is-active":
                status = 3 if self.daemon is None else 0
            if words and words[0] in ("stop", "restart"):
                self.stop()
            if words and words[0] in ("start", "restart", "try-restart"):
                status = 0 if self.start() else 1
            with open(self.root.path / "run/manager/answer", "w", encoding="utf-8") as f:
                f.write(f"{status} {said}\n")

    def unit(self):
        """The unit's settings; a name that stands twice has its last value."""
        text = (self.root.path / "usr/lib/systemd/system/divvyd.service").read_text(encoding="utf-8")
        return dict(line.split("=", 1) for line in text.split("\n") if "=" in line and not line.startswith("#"))

    def options(self):
        text = (self.root.path / "etc/default/divvyd").read_text(encoding="utf-8")
        line = [x for x in text.split("\n") if x.startswith("DIVVYD_OPTIONS=")][-1]
        return line.split("=", 1)[1].strip('"')

    def start(self):
        unit = self.unit()
        rights = ",".join("+" + c.removeprefix("CAP_").lower() for c in unit["CapabilityBoundingSet"].split())
        folder = "/run/" + unit["RuntimeDirectory"]
        os.makedirs(f"{self.root.path}{folder}", exist_ok=True)
        writable = [folder] + [p.removeprefix("-") for p in unit["ReadWritePaths"].split()]
        # ProtectSystem=strict, PrivateTmp, CapabilityBoundingSet, NoNewPrivileges.
        script = ["set -e", f"mount --rbind {self.root.path} {self.root.path}", f"cd {self.root.path}"]
        script += [f"mount --bind .{path} .{path}" for path in writable]
        script += ["mount -o remount,bind,ro .", "mount -o remount,bind,ro ./run", "mount -t tmpfs none ./tmp"]
        command = unit["ExecStart"].replace("$DIVVYD_OPTIONS", self.options())
        script += [f"exec chroot . /usr/bin/setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,{rights} "
                   f"{command} --ready-fd 1"]
        self.daemon = subprocess.Popen(["unshare", "--mount", "sh", "-c", "\n".join(script)], env={},
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said = self.daemon.stdout.readline()
        if self.said != "ready\n":
            self.stop()
        return self.said == "ready\n"

    def stop(self):
        if self.daemon is not None:
            self.daemon.terminate()
            self.errors = self.daemon.communicate(timeout=LONG)[1]
            self.daemon = None
