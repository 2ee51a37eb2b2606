"""Brings what the parity tests compare with into a folder of the build tree, once; later runs use it again.

Nothing is installed and nothing of it enters the repository. What cannot be had ends the test as skipped
(status 77) with the reason.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

SKIPPED = 77


def skip(why):
    print(f"skipped: {why}")
    sys.exit(SKIPPED)


def folder(name):
    build = os.environ.get("DIVVY_BUILD_DIR")
    if not build:
        skip("DIVVY_BUILD_DIR is not set (run by ctest)")
    path = pathlib.Path(build) / "parity" / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def run(command, **options):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        skip(f"{command[0]}: {error}")


def wheel(package, version):
    """The unpacked wheel's folder."""
    target = folder(f"{package}-{version}")
    done = target / "unpacked"
    if done.exists():
        return done
    result = run([sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check",
                  "--only-binary=:all:", "--retries", "0", "--timeout", "15", "--dest", str(target),
                  f"{package}=={version}"])
    wheels = list(target.glob("*.whl"))
    if result.returncode or not wheels:
        last = (result.stderr.strip() or "pip gave no file").splitlines()[-1]
        skip(f"{package} {version} cannot be had from the package index: {last}")
    partial = target / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(partial)
    partial.rename(done)
    return done


def header_folder(package, version, header):
    found = list(wheel(package, version).rglob(header))
    if not found:
        skip(f"{package} {version} has no {header}")
    return found[0].parent


def debian_mirror():
    """(mirror, release) of the first source that apt is set up with."""
    result = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"])
    if result.returncode or not result.stdout.split():
        skip("apt has no package source")
    return result.stdout.splitlines()[0].split()[:2]


def debian_package(package, component):
    """The unpacked tree of a Debian package, by an apt configuration of its own; nothing is installed."""
    target = folder(package)
    done = target / "unpacked"
    if done.exists():
        return done
    mirror, release = debian_mirror()
    for sub in ("state/lists/partial", "cache/archives/partial"):
        (target / sub).mkdir(parents=True, exist_ok=True)
    keyring = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    signed = f"[signed-by={keyring}] " if keyring.exists() else ""
    (target / "sources.list").write_text(f"deb {signed}{mirror} {release} {component}\n")
    options = ["-o", f"Dir::State={target}/state", "-o", "Dir::State::status=/dev/null",
               "-o", f"Dir::Cache={target}/cache", "-o", f"Dir::Etc::sourcelist={target}/sources.list",
               "-o", "Dir::Etc::sourceparts=/dev/null", "-o", "APT::Sandbox::User=root",
               "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=15", "-qq"]
    for command in (["update"], ["download", package]):
        result = run(["apt-get", *options, *command], cwd=target)
        if result.returncode:
            last = (result.stderr.strip() or "no reason given").splitlines()[-1]
            skip(f"{package} cannot be had from {component}: {last}")
    archives = list(target.glob("*.deb"))
    partial = target / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    if not archives or run(["dpkg", "-x", str(archives[0]), str(partial)]).returncode:
        skip(f"{package} cannot be unpacked")
    partial.rename(done)
    return done
