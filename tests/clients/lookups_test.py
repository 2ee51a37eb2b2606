#!/usr/bin/env python3
"""Every question of NVIDIA's runtime 13.0 gets the same function under the shim as without it, or
the shim's hook of that very function; told apart by address, in the libraries' own symbol tables.
The shim keeps its hooks to itself, but each function that it exports is one jump to its hook."""
import os
import re
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import share  # noqa: E402

DATA = os.environ.get("DIVVY_DATA_DIR", os.path.join(share.SOURCE, "..", "shared", "data"))
QUESTIONS = os.path.join(DATA, "cudart13_lookups.txt")


def symbols(path):
    """{address: {names}} of what a library exports."""
    out = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True,
                         check=True).stdout
    table = {}
    for line in out.splitlines():
        fields = line.split(" ", 2)
        if len(fields) == 3 and fields[0]:
            table.setdefault(int(fields[0], 16), set()).add(fields[2])
    return table


def hooks(path):
    """{address: {names}} of the shim's hooks: where the exported functions jump."""
    with open(path, "rb") as f:
        image = f.read()
    at, size, count = struct.unpack_from("<Q", image, 32)[0], *struct.unpack_from("<HH", image, 54)
    segments = [struct.unpack_from("<IIQQQQ", image, at + size * i) for i in range(count)]

    def code(address):
        for kind, _, offset, start, _, length in segments:
            if kind == 1 and start <= address < start + length:
                return image[offset + address - start:][:16]
        return b""

    table = {}
    for address, names in symbols(path).items():
        bytes_ = code(address)
        widened = re.match(rb"(?:[\x40-\x4f]?\x0f\xb6[\xc0-\xff])+", bytes_)  # narrow arguments
        if widened:
            address, bytes_ = address + widened.end(), bytes_[widened.end():]
        if bytes_[:1] == b"\xe9":
            address += 5 + struct.unpack_from("<i", bytes_, 1)[0]
        elif bytes_[:1] == b"\xeb":
            address += 2 + struct.unpack_from("<b", bytes_, 1)[0]
        table.setdefault(address, set()).update(names)
    return table


def answers(text):
    rows = []
    for line in text.splitlines():
        name, version, flags, status, where, offset = line.rsplit(" ", 5)
        rows.append(((name, version, flags), status, where, int(offset, 16)))
    return rows


def hooked():
    """The functions that the table says are hooked or denied: pass-through would be a hole."""
    with open(os.path.join(share.SOURCE, "api", "cuda", "driver.tsv"), encoding="utf-8") as f:
        lines = [l.rstrip("\n").split("\t") for l in f if not l.startswith("#")]
    head = lines[0]
    symbol, decision = head.index("symbol"), head.index("decision")
    return {l[symbol] for l in lines[1:] if l[decision] != "pass"}


def compare(plain, shimmed, driver, shim, must_hook):
    wrong = []
    for (question, status, _, offset), (asked, its_status, where, its_offset) in zip(plain, shimmed):
        label = " ".join(question)
        if question != asked or status != its_status:
            wrong.append(f"{label}: status {status} without, {its_status} with the shim")
            continue
        if where == "-" or offset == 0:
            if (where == "-") != (offset == 0):
                wrong.append(f"{label}: an answer on one side only ({where})")
            continue
        names = driver.get(offset, set())
        if "libdivvy" in where:
            found = shim.get(its_offset, set())
            if not found & names:
                wrong.append(f"{label}: {sorted(names)} without, {sorted(found)} with the shim")
        elif its_offset != offset:
            wrong.append(f"{label}: {sorted(names)} without, "
                         f"{sorted(driver.get(its_offset, set()))} in {where} with the shim")
        elif names & must_hook:
            wrong.append(f"{label}: {sorted(names)} is not hooked on this way")
    return wrong


def main():
    if not os.path.exists(QUESTIONS):
        print(f"skipped: {QUESTIONS} is not there (DIVVY_DATA_DIR)")
        return 77
    program = os.path.join(share.BUILD, "test", "lookups")
    plain_run = share.bare("h100", [program, QUESTIONS])
    plain = answers(plain_run.stdout)
    with open(QUESTIONS, encoding="utf-8") as f:
        asked = sum(1 for _ in f)
    if len(plain) != asked or sum(1 for row in plain if row[3]) < asked // 2:
        print(f"without the shim: {len(plain)} of {asked} answers, {plain_run.stderr}")
        return 1
    driver = symbols(os.path.join(share.SIM_LIB, "libcuda.so.1"))
    shim = hooks(os.path.join(share.BUILD, "lib", "libdivvy.so"))
    failed = 0
    with share.Share("h100") as tenant:
        for delivery, prefix in share.deliveries().items():
            run = tenant.run(prefix, [program, QUESTIONS])
            shimmed = answers(run.stdout)
            if len(shimmed) != asked:
                print(f"{delivery}: {len(shimmed)} of {asked} answers\n{run.stderr}")
                failed += 1
                continue
            wrong = compare(plain, shimmed, driver, shim, hooked())
            hooked_answers = sum("libdivvy" in row[2] for row in shimmed)
            for line in wrong:
                print(line)
            print(f"{delivery}: {asked} questions, {hooked_answers} answered by hooks, {len(wrong)} wrong")
            failed += len(wrong) + (hooked_answers == 0)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
