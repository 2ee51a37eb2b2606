"""A tenant of several processes that hand memory to each other, run by shared_memory_test.py inside
a share. Lines in, lines out: `N command arguments` goes to process N, which is started by `N start`
and answers with one line; codes are the driver's.

    alloc NAME BYTES [pool]   export NAME   open NAME HANDLE [PID FD]   close NAME   free NAME   info
    churn HANDLE COUNT        grab BYTES COUNT
"""
import ctypes
import os
import subprocess
import sys

DEVICE_TYPE, FD_HANDLE = 1, 1


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_ubyte * 64)]


class PoolProps(ctypes.Structure):
    _fields_ = [("alloc_type", ctypes.c_int), ("handle_types", ctypes.c_int),
                ("location_type", ctypes.c_int), ("location_id", ctypes.c_int),
                ("security", ctypes.c_void_p), ("max_size", ctypes.c_size_t),
                ("reserved", ctypes.c_ubyte * 56)]


class Worker:
    def __init__(self):
        self.cu = ctypes.CDLL("libcuda.so.1")
        context = ctypes.c_void_p()
        for name, *arguments in (("cuInit", 0),
                                 ("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0),
                                 ("cuCtxSetCurrent", context)):
            code = self.call(name, *arguments)
            if code != 0:
                raise SystemExit(f"{name}: {code}")
        self.at, self.imported = {}, set()
        self.pool = ctypes.c_void_p()
        self.pool_fd = ctypes.c_int(-1)

    def call(self, name, *arguments):
        return getattr(self.cu, name)(*arguments)

    def make_pool(self):
        props = PoolProps(alloc_type=1, handle_types=FD_HANDLE, location_type=DEVICE_TYPE)
        code = self.call("cuMemPoolCreate", ctypes.byref(self.pool), ctypes.byref(props))
        return code or self.call("cuMemPoolExportToShareableHandle", ctypes.byref(self.pool_fd),
                                 self.pool, FD_HANDLE, ctypes.c_ulonglong(0))

    def alloc(self, name, size, pool=""):
        pointer = ctypes.c_uint64()
        if pool:
            code = 0 if self.pool else self.make_pool()
            code = code or self.call("cuMemAllocFromPoolAsync", ctypes.byref(pointer),
                                     ctypes.c_size_t(int(size)), self.pool, None)
            code = code or self.call("cuStreamSynchronize", None)
        else:
            code = self.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(int(size)))
        if code == 0:
            self.at[name] = (pointer, bool(pool))
        return code

    def export(self, name):
        handle = Handle()
        pointer, pooled = self.at[name]
        code = self.call("cuMemPoolExportPointer" if pooled else "cuIpcGetMemHandle",
                         ctypes.byref(handle), pointer)
        return bytes(handle.bytes).hex() if code == 0 else code

    def open_raw(self, handle):
        pointer = ctypes.c_uint64()
        return self.call("cuIpcOpenMemHandle_v2", ctypes.byref(pointer),
                         Handle.from_buffer_copy(bytes.fromhex(handle)), 1), pointer

    def open(self, name, handle, pid="", fd=""):
        if pid:
            return self.open_pooled(name, handle, pid, fd)
        code, pointer = self.open_raw(handle)
        if code == 0:
            self.at[name] = (pointer, False)
        return code

    def open_pooled(self, name, handle, pid, fd):
        pool, pointer = ctypes.c_void_p(), ctypes.c_uint64()
        own = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDWR)
        code = self.call("cuMemPoolImportFromShareableHandle", ctypes.byref(pool),
                         ctypes.c_void_p(own), FD_HANDLE, ctypes.c_ulonglong(0))
        code = code or self.call("cuMemPoolImportPointer", ctypes.byref(pointer), pool,
                                 ctypes.byref(Handle.from_buffer_copy(bytes.fromhex(handle))))
        os.close(own)
        if code == 0:
            self.at[name] = (pointer, True)
        return code

    def close(self, name):
        return self.call("cuIpcCloseMemHandle", self.at.pop(name)[0])

    def free(self, name):
        pointer, pooled = self.at.pop(name)
        if not pooled:
            return self.call("cuMemFree_v2", pointer)
        return self.call("cuMemFreeAsync", pointer, None) or self.call("cuStreamSynchronize", None)

    def trim(self):
        return self.call("cuMemPoolTrimTo", self.pool, ctypes.c_size_t(0))

    def fd(self):
        return self.pool_fd.value

    def info(self):
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return total.value - free.value

    def churn(self, handle, count):
        """Opens and closes; how often it was refused."""
        refused = 0
        for _ in range(int(count)):
            code, pointer = self.open_raw(handle)
            if code == 0:
                self.call("cuIpcCloseMemHandle", pointer)
            refused += code != 0
        return refused

    def grab(self, size, count):
        """Takes and gives back; how often it was refused."""
        refused = 0
        for _ in range(int(count)):
            code = self.alloc("grabbed", size)
            refused += code != 0
            if code == 0:
                self.free("grabbed")
        return refused

    def pid(self):
        return os.getpid()


def work():
    worker = Worker()
    print(os.getpid(), flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        print(getattr(worker, command)(*arguments), flush=True)


def lead():
    print("ready", flush=True)
    workers = {}
    for line in sys.stdin:
        number, command, *arguments = line.split()
        if command == "start":
            workers[number] = subprocess.Popen([sys.executable, __file__, "work"],
                                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                               text=True)
        elif command == "kill":
            workers[number].kill()
            workers[number].wait()
            print("killed", flush=True)
            continue
        elif command != "answer":
            workers[number].stdin.write(" ".join([command, *arguments]) + "\n")
            workers[number].stdin.flush()
        if command == "churn" or command == "grab":
            continue  # its line comes with `answer`
        print(workers[number].stdout.readline().strip(), flush=True)
    for worker in workers.values():
        worker.kill()
        worker.wait()


if __name__ == "__main__":
    work() if sys.argv[1:] == ["work"] else lead()
