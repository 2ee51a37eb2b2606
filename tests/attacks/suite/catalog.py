"""The attacks of the suite: name, command, machine, and how each can be shown to be real.

`bare` says what the same command gets of the machine without Divvy, so that no attack is "caught"
only because it never worked: more than the share ("memory"), or nothing to compare ("")."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Attack:
    name: str
    command: tuple
    profile: str = "h100"
    bare: str = "memory"
    neighbour: bool = False  # another tenant runs beside it
    mem: int = 2048  # the share, in MiB
    outlives: bool = False  # its runner ends first; then it is told to go on
    more: tuple = ()  # options of `divvy run`
    deliveries: tuple = ("root", "cooperative")


def one(name, *command, **more):
    return Attack(name, command, **more)


ROOT = ("root",)

ATTACKS = [
    one("plain", "grab"),
    # Getting rid of the shim by the environment.
    one("env-unset-exec", "env", "unset"),
    one("env-empty-exec", "env", "empty"),
    one("env-dead-socket", "env", "socket"),
    # Around the shim through the dynamic loader.
    one("dlsym-next", "loader", "next"),
    one("dlvsym", "loader", "dlvsym"),
    one("dlmopen", "loader", "dlmopen"),
    one("dlopen-absolute", "loader", "absolute"),
    one("libc-dlsym-by-hand", "loader", "bootstrap"),
    one("deepbind-linked", "deepbind", "linked"),
    one("deepbind-dlsym", "deepbind", "dlsym"),
    one("symbol-table-walk", "elf_walk"),
    one("second-copy-dlsym", "second_copy", "dlsym"),
    one("second-copy-renamed", "second_copy", "soname"),
    one("second-copy-walk", "second_copy", "walk"),
    one("static-driver", "static_driver"),
    # The driver's own back doors and indirect ways to memory.
    one("export-table-context", "export_table", "context", mem=256,  # less than a context
        more=("--overcommit",)),
    one("export-table-memory", "export_table", "memory"),
    one("vmm-map-release", "vmm", "cycle"),
    one("vmm-retain", "vmm", "retain"),
    one("vmm-unmap", "vmm", "unmap"),
    one("vmm-export", "vmm", "export", bare=""),  # no descriptor keeps memory on the simulator
    one("pool-default", "pools", "default"),
    one("pool-user", "pools", "user"),
    one("pool-switch", "pools", "switch"),
    one("pool-keep", "pools", "keep"),
    one("pool-import", "pools", "import"),
    one("size-odd", "sizes", "odd"),
    one("size-half", "sizes", "half"),
    one("size-holes", "sizes", "holes"),
    one("array", "arrays", "array"),
    one("array-layered", "arrays", "layered"),
    one("mipmap", "arrays", "mipmap"),
    one("graph-launch", "graphs", "once"),
    one("graph-clone", "graphs", "clone"),
    one("ipc-import", "ipc"),
    one("ipc-import-measured", "ipc", "measured", mem=2560),
    one("ipc-churn", "ipc", "churn", mem=3072),  # four contexts, and room for more than one copy
    one("managed-prefetch", "managed"),
    one("contexts-many", "contexts", "many"),
    one("context-heap", "contexts", "heap"),
    one("context-stack", "contexts", "stack"),
    # Devices without a share.
    one("device-by-index", "devices", "index", profile="h100x4"),
    one("device-by-number", "devices", "raw", profile="h100x4"),
    one("device-by-pci-id", "devices", "bus", profile="h100x4"),
    one("visible-reordered", "visible", "3,2,1,0", profile="h100x4"),
    one("visible-foreign", "visible", "2", profile="h100x4"),
    one("visible-foreign-uuid", "visible", "@uuid2", profile="h100x4"),
    # Processes.
    one("fork-after-init", "forks", "after"),
    one("clone-after-init", "forks", "clone"),
    one("fork-storm", "forks", "storm"),
    one("thread-storm", "forks", "threads"),
    one("outlive-before-hello", "outlive", "exit", outlives=True),
    one("runner-killed-before-hello", "outlive", "kill", outlives=True, bare=""),
    one("pid-reuse", "pid_reuse", deliveries=ROOT),
    # The shared segments.
    one("usage-zeroed", "segments", "zero", bare=""),
    one("usage-garbage", "segments", "garbage", bare=""),
    one("usage-forged", "segments", "forge", bare=""),
    one("usage-shared", "segments", "share", bare=""),
    one("policy-writable", "segments", "writable", bare=""),
    one("policy-replaced", "segments", "replace", bare=""),
    one("segments-truncated", "segments", "truncate", bare=""),
    one("restless", "restless"),
    # The daemon's sockets.
    one("socket-garbage", "sockets", "garbage"),
    one("socket-forged-hello", "sockets", "hello"),
    one("socket-silent", "sockets", "silent"),
    one("socket-of-another", "sockets", "other", neighbour=True),
    # As root against the delivery itself.
    one("umount-self", "namespaces", "umount_self", bare="", deliveries=ROOT),
    one("umount-preload", "namespaces", "umount_preload", bare="", deliveries=ROOT),
    one("umount-driver", "namespaces", "umount_driver", bare="", deliveries=ROOT),
    one("umount-all", "namespaces", "umount_all", bare="", deliveries=ROOT),
    one("leave-namespace", "namespaces", "leave", bare="", deliveries=ROOT),
    one("ptrace-neighbour", "ptrace", "@neighbour", bare="", neighbour=True),
]
