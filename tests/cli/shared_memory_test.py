"""Memory that processes of one tenant share (CUDA IPC, pool pointers) counts once: while it is shared,
whoever frees, closes or is killed first, and after divvyd was killed."""
import os
import signal
import sys
import time
import unittest

import harness
from harness import DIVVY, GiB

HERE = os.path.dirname(os.path.abspath(__file__))
MiB = 1 << 20
OUT_OF_MEMORY = 2
SHARED = 1200 * MiB


class Group:
    """The processes of ipc_tenant.py in a share."""

    def __init__(self, test, mem, *options, name="group"):
        self.test, self.name = test, name
        self.p = test.start(*test.run_args("--name", name, *options, mem=mem), sys.executable,
                            f"{HERE}/ipc_tenant.py")
        test.assertEqual(test.line(self.p), "ready")
        self.pids = {}

    def send(self, number, *words):
        self.p.stdin.write(" ".join(map(str, (number, *words))) + "\n")
        self.p.stdin.flush()

    def __call__(self, number, *words):
        self.send(number, *words)
        answer = self.test.line(self.p)
        return int(answer) if answer.isdigit() else answer

    def starts(self, *numbers):
        for number in numbers:
            self.pids[number] = self(number, "start")

    def share(self):
        return self.test.tenants()[self.name]["shares"][0]


class SharedMemory(harness.DivvyTest):
    def until(self, look, what):
        end = time.monotonic() + harness.LONG
        while not (answer := look()):
            if time.monotonic() > end:
                self.fail(what)
            time.sleep(0.02)
        return answer

    def counted(self, group):
        """What counts beside contexts."""
        share = group.share()
        return share["charged_bytes"] - share["kinds"]["context"]

    def settles(self, group, bytes_):
        self.until(lambda: self.counted(group) == bytes_,
                   f"{bytes_ >> 20} MiB; there are {self.counted(group) >> 20}")

    def agrees(self, group):
        """What is shown and what NVML says of the tenant's processes."""
        def look():
            share = group.share()
            booked = share["charged_bytes"] + share["overhead_bytes"]
            # What contexts cost less than they were charged is not told from an import whose
            # exporter is gone: it stays charged.
            unsure = share["kinds"]["context"] // 16 if share["kinds"]["import"] else 0
            return share["measured"] and booked == share["used_bytes"] and \
                0 <= booked - share["nvml_bytes"] <= unsure
        self.until(look, f"books and NVML differ: {group.share()}")

    def shares(self, *numbers, mem="4GiB"):
        """A group in which 0 exports and all others have it open: room for one copy only."""
        group = Group(self, mem)
        group.starts(0, *numbers)
        self.assertEqual(group(0, "alloc", "x", SHARED), 0)
        self.handle = group(0, "export", "x")
        self.assertEqual(group(0, "export", "x"), self.handle)
        for number in numbers:
            self.assertEqual(group(number, "open", "x", self.handle), 0)
        self.assertEqual(self.counted(group), SHARED)
        return group

    def test_it_counts_once_and_the_rest_is_free(self):
        group = self.shares(1, 2, mem="4GiB")
        self.agrees(group)
        # What is seen inside is the same.
        used = group.share()["used_bytes"]
        self.assertEqual({group(n, "info") for n in (0, 1, 2)}, {used})
        self.assertEqual(group.share()["kinds"]["import"], 0)
        self.assertEqual(group.share()["kinds"]["linear"], SHARED)
        # Opened again it has the same address, and counts as before.
        self.assertEqual(group(1, "open", "y", self.handle), 0)
        self.assertEqual(self.counted(group), SHARED)
        self.assertEqual(group(1, "close", "y"), 0)
        # All that is left may be taken, and no more.
        left = 4 * GiB - group(0, "info") & ~(2 * MiB - 1)
        self.assertGreater(left, 512 * MiB)
        self.assertEqual(group(2, "alloc", "more", left + 2 * MiB), OUT_OF_MEMORY)
        self.assertEqual(group(2, "alloc", "more", left), 0)
        self.assertEqual(group(1, "alloc", "some", 2 * MiB), OUT_OF_MEMORY)
        self.assertEqual(group(2, "free", "more"), 0)
        share = group.share()  # contexts cost less than they were charged
        self.assertLessEqual(share["charged_peak_bytes"], 4 * GiB - share["overhead_bytes"])
        for number in (1, 2):
            self.assertEqual(group(number, "close", "x"), 0)
            self.assertEqual(self.counted(group), SHARED)
        self.assertEqual(group(0, "free", "x"), 0)
        self.assertEqual(self.counted(group), 0)
        self.agrees(group)
        self.assertEqual(self.tenants()["group"]["findings"], [])

    def test_the_exporter_frees_first(self):
        group = self.shares(1, 2)
        self.assertEqual(group(0, "free", "x"), 0)
        self.assertEqual(self.counted(group), SHARED)
        # Another allocation, at the same address it may be, is other memory.
        self.assertEqual(group(0, "alloc", "y", SHARED), 0)
        self.assertEqual(self.counted(group), 2 * SHARED)
        self.assertEqual(group(1, "open", "y", group(0, "export", "y")), 0)
        self.assertEqual(self.counted(group), 2 * SHARED)
        self.assertEqual(group(1, "close", "x"), 0)
        self.assertEqual(self.counted(group), 2 * SHARED)
        self.assertEqual(group(2, "close", "x"), 0)
        self.assertEqual(self.counted(group), SHARED)
        self.agrees(group)

    def test_the_exporter_is_killed_first(self):
        group = self.shares(1, 2)
        group(0, "kill")
        # Never more than once, never less, while the driver takes its time and after.
        self.until(lambda: len(self.tenants()["group"]["processes"]) == 2, "its end")
        self.assertEqual(self.counted(group), SHARED)
        self.agrees(group)
        self.assertEqual(group(1, "close", "x"), 0)
        self.assertEqual(self.counted(group), SHARED)
        group(2, "kill")
        self.settles(group, 0)
        self.agrees(group)

    def test_an_importer_is_killed(self):
        group = self.shares(1, 2)
        group(1, "kill")
        self.until(lambda: len(self.tenants()["group"]["processes"]) == 2, "its end")
        self.assertEqual(self.counted(group), SHARED)
        self.agrees(group)
        self.assertEqual(group(2, "close", "x"), 0)
        self.assertEqual(group(0, "free", "x"), 0)
        self.assertEqual(self.counted(group), 0)

    def test_out_of_a_pool(self):
        group = Group(self, "4GiB")
        group.starts(0, 1, 2)
        self.assertEqual(group(0, "alloc", "x", SHARED, "pool"), 0)
        booked = self.counted(group)
        handle = group(0, "export", "x")
        for number in (1, 2):
            self.assertEqual(group(number, "open", "x", handle, group.pids[0], group(0, "fd")), 0)
            self.assertEqual(self.counted(group), booked)
        self.assertEqual(group(1, "free", "x"), 0)
        self.assertEqual(self.counted(group), booked)
        group(2, "kill")
        self.until(lambda: len(self.tenants()["group"]["processes"]) == 2, "its end")
        self.assertEqual(self.counted(group), booked)
        self.assertEqual(group(0, "free", "x"), 0)
        self.assertEqual(group(0, "trim"), 0)
        self.assertEqual(self.counted(group), 0)

    def test_it_counts_once_after_a_killed_daemon(self):
        group = self.shares(1, 2)
        os.kill(self.daemons()[0]["pid"], signal.SIGKILL)

        def joined():
            # What allocates says hello again; what does not is awaited.
            for number in (0, 1, 2):
                if group(number, "alloc", "touch", 2 * MiB) == 0:
                    group(number, "free", "touch")
            tenant = self.tenants().get("group")  # none while the next daemon takes over
            return tenant and tenant["awaited"] == [] and len(tenant["processes"]) == 3
        self.until(joined, "hello again")
        self.settles(group, SHARED)
        self.agrees(group)
        # What was exported before the daemon died is still shared with who comes.
        group.starts(3)
        self.assertEqual(group(3, "open", "x", self.handle), 0)
        self.assertEqual(self.counted(group), SHARED)
        self.assertEqual(group(0, "free", "x"), 0)
        for number in (1, 2, 3):
            self.assertEqual(self.counted(group), SHARED)
            self.assertEqual(group(number, "close", "x"), 0)
        self.assertEqual(self.counted(group), 0)

    def test_another_tenants_memory_is_charged_in_full(self):
        group = self.shares(1, mem="4GiB")
        other = Group(self, "2GiB", name="other")
        other.starts(0)
        self.assertEqual(other(0, "open", "x", self.handle), 0)
        self.assertEqual(self.counted(other), SHARED)
        self.assertEqual(other.share()["kinds"]["import"], SHARED)
        self.assertEqual(self.counted(group), SHARED)

    def test_nobody_is_refused_what_there_is_room_for(self):
        # Others open and close without end; in between one copy and this fit exactly.
        group = self.shares(1, 2, 3)
        size = 4 * GiB - group(0, "info") & ~(2 * MiB - 1)
        for number in (1, 2):
            self.assertEqual(group(number, "close", "x"), 0)
            group.send(number, "churn", self.handle, 300)
        group.send(3, "grab", size, 300)
        for number in (1, 2, 3):
            self.assertEqual(group(number, "answer"), 0, number)
        self.assertEqual(self.counted(group), SHARED)
        self.agrees(group)


if __name__ == "__main__":
    harness.main()
