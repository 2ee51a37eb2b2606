"""nvitop and gpustat, as people run them, show a process's memory on the simulator."""

import ctypes
import json
import os
import subprocess
import sys
import unittest

BIN = os.path.dirname(sys.executable)


class Monitors(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cuda = ctypes.CDLL("libcuda.so.1")
        context, ptr = ctypes.c_void_p(), ctypes.c_uint64()
        assert cls.cuda.cuInit(0) == 0
        assert cls.cuda.cuCtxCreate_v2(ctypes.byref(context), 0, 0) == 0
        assert cls.cuda.cuMemAlloc_v2(ctypes.byref(ptr), ctypes.c_size_t(2 << 30)) == 0
        # The library has named the machine it started for its children.
        libc = ctypes.CDLL(None)
        libc.getenv.restype = ctypes.c_char_p
        cls.env = dict(os.environ, DIVVY_SIM_DIR=libc.getenv(b"DIVVY_SIM_DIR").decode())

    def run_tool(self, *argv):
        done = subprocess.run([os.path.join(BIN, argv[0]), *argv[1:]], env=self.env, text=True,
                              capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_gpustat(self):
        shown = json.loads(self.run_tool("gpustat", "--json"))
        self.assertEqual(len(shown["gpus"]), 2)
        gpu = shown["gpus"][0]
        self.assertIn("H100", gpu["name"])
        self.assertGreater(gpu["memory.used"], 2048)  # MiB
        mine = [p for p in gpu["processes"] if p["pid"] == os.getpid()]
        self.assertEqual(len(mine), 1)
        self.assertGreater(mine[0]["gpu_memory_usage"], 2048)

    def test_nvitop(self):
        shown = self.run_tool("nvitop", "--once", "--ascii")
        self.assertIn("H100", shown)
        self.assertIn(str(os.getpid()), shown)
        self.assertIn("MiB", shown)


if __name__ == "__main__":
    unittest.main()
