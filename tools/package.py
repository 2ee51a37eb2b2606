#!/usr/bin/env python3
"""Makes the Debian packages `divvy` and `divvy-sim` and a tarball out of a build.

  package.py [--build build] [--out build/package] [--version V]
The same commit gives the same bytes, wherever and whenever it is built: members are sorted, owned by
root, as old as the commit (SOURCE_DATE_EPOCH, if it is set), and the ids of programs are digests of themselves.
Needs dpkg-dev, cmake, binutils.
"""
import argparse
import gzip
import hashlib
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tarfile
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
MAINTAINER = "Divvy maintainers <maintainers@divvy.invalid>"
SUMMARY = "shares of NVIDIA GPUs for programs that know nothing about it"
ABOUT = {
    "divvy": """Splits GPUs into shares: memory and compute, guaranteed and capped,
isolated, visible, changeable while running. Programs, images, the driver
and the kernel stay as they are.
.
This package has the command line, the daemon and its service, what runs
inside of shares, and the hook for containers.""",
    "divvy-sim": """Look-alikes of the CUDA driver and of NVML, to try shares on a machine
without a GPU (divvy run --sim h100). They are on no path of the loader.""",
}
# Each with its reason, on the line before.
OVERRIDES = {
    "divvy": """\
# A container's runtime calls it among the files of any image, with whatever C library, or none.
divvy: statically-linked-binary [usr/lib/divvy/divvy-hook]
# Built by the project itself, for who installs it; not an upload to Debian.
divvy: initial-upload-closes-no-bugs *
# Each segment more is a system call in every process that starts in a share.
divvy: hardening-no-relro [usr/lib/divvy/libcuda-forward/libcuda.so.1]
divvy: hardening-no-relro [usr/lib/divvy/libdivvy.so]
# Empty, for 32-bit programs of a container to preload: it needs nothing.
divvy: shared-library-lacks-prerequisites [usr/lib/divvy/libdivvy32.so]
""",
    "divvy-sim": """\
# Built by the project itself, for who installs it; not an upload to Debian.
divvy-sim: initial-upload-closes-no-bugs *
""",
}


def run(*command, **kw):
    return subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True, **kw).stdout


def git(*command):
    try:
        return run("git", "-C", ROOT, *command, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def epoch():
    said = os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct")
    return int(said or (ROOT / "CHANGELOG.md").stat().st_mtime)


def version():
    """That of CMakeLists.txt at its tag; before it, marked as older, with day and commit."""
    said = re.search(r"project\(divvy VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    plain, commit = said.group(1), git("rev-parse", "--short=10", "HEAD")
    if not commit or git("tag", "--points-at", "HEAD", "--list", "v" + plain):
        return plain
    return f"{plain}~git{time.strftime('%Y%m%d', time.gmtime(epoch()))}.{commit}"


def rename_build(path):
    """The id of a build is a digest that takes in where it was built; here it is one of what is left."""
    data = bytearray(path.read_bytes())
    sections, = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    at = [struct.unpack_from("<IIQQQQ", data, sections + i * size) for i in range(count)]
    for name, kind, _, _, offset, length in at:
        start = at[names][4] + name
        if kind == 7 and data[start:data.index(0, start)] == b".note.gnu.build-id":
            data[offset + 16:offset + length] = bytes(length - 16)
            data[offset + 16:offset + length] = hashlib.sha1(data).digest()[:length - 16]
    path.write_bytes(data)


def strip(folder):
    """Of debug information."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        with open(path, "rb") as f:
            elf = f.read(5)
        if elf == b"\x7fELF\x02":
            run("strip", "--strip-unneeded", "--remove-section=.comment", path)
            rename_build(path)


def install(build, component, to):
    run("cmake", "--install", build, "--component", component, "--prefix", "/usr", env={**os.environ, "DESTDIR": str(to)})


def compress(path):
    data = path.read_bytes()
    with open(str(path) + ".gz", "wb") as f, gzip.GzipFile(filename="", fileobj=f, mode="wb", mtime=0) as z:
        z.write(data)
    path.unlink()


def settle(folder):
    """Modes and times that depend on nobody's umask or clock."""
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            runs = path.is_dir() or (path.stat().st_mode & 0o100 and not path.name.endswith((".so", ".so.1", ".md")))
            path.chmod(0o755 if runs else 0o644)
        os.utime(path, (epoch(), epoch()), follow_symlinks=False)


def date_pages(usr):
    for page in (usr / "share/man").rglob("*.[18]"):
        text = page.read_text(encoding="utf-8")
        day = time.strftime("%Y-%m-%d", time.gmtime(epoch()))
        page.write_text(re.sub(r'(?m)^(\.TH \S+ \d) ""', rf"\1 {day}", text, count=1), encoding="utf-8")
        compress(page)


def depends(stage):
    """The packages that have the libraries which the programs need."""
    with tempfile.TemporaryDirectory() as work:
        (pathlib.Path(work) / "debian").mkdir()
        (pathlib.Path(work) / "debian/control").write_text("Source: divvy\n\nPackage: divvy\nArchitecture: any\n",
                                                           encoding="utf-8")
        needs = [stage / "usr" / p for p in ("bin/divvy", "bin/divvyd", "lib/divvy/libdivvy.so",
                                             "lib/divvy/divvy-sim-broker", "lib/divvy/sim/libcuda.so.1",
                                             "lib/divvy/sim/libnvidia-ml.so.1") if (stage / "usr" / p).exists()]
        said = run("dpkg-shlibdeps", "-O", *[f"-e{p.absolute()}" for p in sorted(needs)], cwd=work)
    return said.split("=", 1)[1].strip()


def deb(name, stage, out, debian_version):
    doc = stage / "usr/share/doc" / name
    doc.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "deploy/debian/copyright", doc)
    changes = doc / "changelog.Debian"
    changes.write_text(f"divvy ({debian_version}) unstable; urgency=medium\n\n"
                       "  * What changed: changelog.gz of the package divvy.\n\n"
                       f" -- {MAINTAINER}  {time.strftime('%a, %d %b %Y %H:%M:%S +0000', time.gmtime(epoch()))}\n",
                       encoding="utf-8")
    compress(changes)
    if (doc / "CHANGELOG.md").exists():
        (doc / "CHANGELOG.md").rename(doc / "changelog")
        compress(doc / "changelog")
    control = stage / "DEBIAN"
    control.mkdir()
    if OVERRIDES[name]:
        overrides = stage / "usr/share/lintian/overrides"
        overrides.mkdir(parents=True)
        (overrides / name).write_text(OVERRIDES[name], encoding="utf-8")
    needs = depends(stage)
    if name == "divvy":
        (stage / "etc/default").mkdir(parents=True)
        shutil.copy(ROOT / "deploy/systemd/divvyd.default", stage / "etc/default/divvyd")
        (control / "conffiles").write_text("/etc/default/divvyd\n", encoding="utf-8")
        for script in ("postinst", "prerm", "postrm"):
            shutil.copy(ROOT / "deploy/debian" / script, control)
        extra = "Pre-Depends: init-system-helpers (>= 1.54~)\nSuggests: divvy-sim, podman | docker.io\n"
    else:
        needs = f"divvy (= {debian_version}), {needs}"
        extra = ""
    files = sorted(p for p in stage.rglob("*") if p.is_file() and not p.is_symlink() and control not in p.parents)
    size = sum((p.stat().st_size + 1023) // 1024 for p in files)
    about = "\n".join(" " + line for line in ABOUT[name].split("\n"))
    (control / "control").write_text(
        f"Package: {name}\nSource: divvy\nVersion: {debian_version}\nArchitecture: amd64\n"
        f"Maintainer: {MAINTAINER}\nInstalled-Size: {size}\n{extra}Depends: {needs}\n"
        f"Section: admin\nPriority: optional\nDescription: {SUMMARY if name == 'divvy' else 'simulated GPUs for divvy'}\n"
        f"{about}\n", encoding="utf-8")
    settle(stage)
    for script in ("postinst", "prerm", "postrm"):
        if (control / script).exists():
            (control / script).chmod(0o755)
    sums = run("md5sum", *[p.relative_to(stage) for p in files], cwd=stage)
    (control / "md5sums").write_text(sums, encoding="utf-8")
    for path in (control / "md5sums", control):
        os.utime(path, (epoch(), epoch()))
    package = out / f"{name}_{debian_version}_amd64.deb"
    run("dpkg-deb", "--root-owner-group", "--threads-max=1", "-Zxz", "--build", stage, package,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch())})
    return package


def tarball(build, out, upstream):
    """Both components, with the libraries that the programs need beside the C library."""
    with tempfile.TemporaryDirectory() as work:
        stage = pathlib.Path(work)
        for component in ("divvy", "sim"):
            install(build, component, stage)
        top = stage / f"divvy-{upstream}-linux-x86_64"
        (stage / "usr").rename(top)
        # As built they look for libraries in lib/divvy/deps.
        for program, folder in (("divvy", "bin"), ("divvyd", "bin"), ("divvy-sim-broker", "lib/divvy")):
            shutil.copy(build / "bin" / program, top / folder / program)
        needed = run("ldd", top / "bin/divvy", top / "bin/divvyd", top / "lib/divvy/divvy-sim-broker")
        deps = top / "lib/divvy/deps"
        deps.mkdir()
        for name, path in sorted(set(re.findall(r"(\S+) => (/\S+)", needed))):
            if not re.match(r"lib(c|m|dl|pthread|rt)\.so|ld-linux", name):
                shutil.copy(path, deps / name)
        shutil.copytree(ROOT / "deploy/systemd", top / "share/doc/divvy/examples/systemd")
        (top / "share/doc/divvy/built-on").write_text(run("ldd", "--version").split("\n")[0] + "\n", encoding="utf-8")
        for file in ("LICENSE", "README.md", "deploy/install.sh"):
            shutil.copy(ROOT / file, top)
        date_pages(top)
        strip(top)
        settle(top)
        (top / "install.sh").chmod(0o755)
        path = out / f"{top.name}.tar.gz"
        with open(path, "wb") as f, gzip.GzipFile(filename="", fileobj=f, mode="wb", mtime=0) as z, \
                tarfile.open(fileobj=z, mode="w", format=tarfile.GNU_FORMAT) as tar:
            def plain(info):
                info.uid = info.gid = 0
                info.uname = info.gname = "root"
                info.mtime = epoch()
                return info
            for member in sorted([top, *top.rglob("*")]):
                tar.add(member, str(member.relative_to(stage)), recursive=False, filter=plain)
        return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--version", help="instead of the project's own")
    args = parser.parse_args()
    os.umask(0o022)
    build, upstream = args.build.absolute(), args.version or version()
    out = (args.out or build / "package").absolute()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name, component in (("divvy", "divvy"), ("divvy-sim", "sim")):
        with tempfile.TemporaryDirectory() as work:
            stage = pathlib.Path(work) / name
            install(build, component, stage)
            if (stage / "usr/share/man").exists():
                date_pages(stage / "usr")
            strip(stage)
            print(deb(name, stage, out, upstream + "-1"))
    print(tarball(build, out, upstream))


if __name__ == "__main__":
    main()
