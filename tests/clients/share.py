"""Runs a program in a share of a simulated machine, as root and cooperatively."""
import os
import shutil
import subprocess
import tempfile

BUILD = os.environ.get("DIVVY_BUILD_DIR", "build")
SOURCE = os.environ.get("DIVVY_SOURCE_DIR", ".")
SIM_LIB = os.path.join(BUILD, "lib", "sim")
MEM = 4 << 30
# Nothing that already names a simulated machine: the share brings its own.
CLEAN = {k: v for k, v in os.environ.items()
         if k not in ("LD_LIBRARY_PATH", "DIVVY_SIM", "DIVVY_SIM_DIR", "DIVVY_SOCKET")}


def deliveries():
    """Prefixes of the command that bring about each way of delivery this user can have."""
    if os.geteuid() != 0:
        return {"cooperative": []}
    return {"root": [],
            "cooperative": ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]}


class Share:
    """A runtime folder of its own; its private daemon ends by itself."""

    def __init__(self, profile):
        self.profile = profile
        self.runtime = tempfile.mkdtemp(prefix="divvy-clients-")
        self.environment = dict(CLEAN, DIVVY_RUNTIME_DIR=self.runtime)

    def command(self, prefix, command, mem=MEM, options=()):
        return [*prefix, f"{BUILD}/bin/divvy", "run", "--sim", self.profile, "--mem", str(mem), *options, "--",
                *command]

    def run(self, prefix, command, mem=MEM, options=(), **more):
        return subprocess.run(self.command(prefix, command, mem, options), env=self.environment,
                              capture_output=True, text=True, timeout=60, check=False, **more)

    def neighbour(self):
        """Another tenant of GPU 0, which keeps it busy until it is terminated."""
        return subprocess.Popen(
            self.command([], [f"{BUILD}/bin/divvy", "load", "--kernel", "1ms", "--for", "10m"], 1 << 30,
                         ["--gpu", "0", "--compute", "50"]),
            env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def close(self):
        subprocess.run([f"{BUILD}/bin/divvy", "daemon", "stop", "--sim", self.profile],
                       env=self.environment, capture_output=True, timeout=20, check=False)
        shutil.rmtree(self.runtime, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def bare(profile, command):
    """The same command on a machine of its own, with nothing of Divvy's in between."""
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False,
                          env=dict(CLEAN, LD_LIBRARY_PATH=SIM_LIB, DIVVY_SIM=profile))
