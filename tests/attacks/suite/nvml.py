"""The simulated NVML, read from outside of every tenant: who holds how much of each device."""
import ctypes
import os
import shutil


class ProcessInfo(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong),
                ("gpu_instance", ctypes.c_uint), ("compute_instance", ctypes.c_uint)]


NOT_AVAILABLE = (1 << 64) - 1


class Nvml:
    """One simulated machine. The library reads its environment once, so each machine gets a copy of
    it (`folder` is where) that the loader takes for another library."""

    def __init__(self, library, sim_dir, folder):
        os.environ["DIVVY_SIM_DIR"] = sim_dir
        self.lib = ctypes.CDLL(shutil.copy(library, os.path.join(folder, "nvml.so")))
        if self.lib.nvmlInit_v2() != 0:
            raise RuntimeError(f"{library}: no machine at {sim_dir}")
        count = ctypes.c_uint()
        self.check(self.lib.nvmlDeviceGetCount_v2(ctypes.byref(count)))
        self.devices = []
        for i in range(count.value):
            handle = ctypes.c_void_p()
            self.check(self.lib.nvmlDeviceGetHandleByIndex_v2(i, ctypes.byref(handle)))
            self.devices.append(handle)

    @staticmethod
    def check(code):
        if code != 0:
            raise RuntimeError(f"NVML answers {code}")

    def processes(self, device):
        """{pid: bytes} of one device."""
        rows = (ProcessInfo * 4096)()
        count = ctypes.c_uint(len(rows))
        self.check(self.lib.nvmlDeviceGetComputeRunningProcesses_v3(
            self.devices[device], ctypes.byref(count), rows))
        held = {}
        for row in rows[:count.value]:
            if row.used != NOT_AVAILABLE:
                held[row.pid] = held.get(row.pid, 0) + row.used
        return held

    def held(self):
        """Bytes held by processes, for each device."""
        return [sum(self.processes(d).values()) for d in range(len(self.devices))]
