"""Reads the dynamic part of a 64-bit little-endian ELF file.

The side that build tools need: mkstubs.py reads the host's libraries with it, check_elf.py a
library that we built. Python's standard library only; nothing here runs in a tenant.
"""
import struct
from collections import namedtuple

# version: name of the symbol's version or None; is_default: "@@" (defined) instead of "@".
Symbol = namedtuple("Symbol", "name version is_default defined kind binding size address")

PT_LOAD, PT_DYNAMIC, PT_GNU_STACK = 1, 2, 0x6474E551
PF_X = 1
DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_SONAME, DT_RPATH = 1, 4, 5, 6, 14, 15
DT_TEXTREL, DT_RUNPATH, DT_FLAGS, DT_GNU_HASH = 22, 29, 30, 0x6FFFFEF5
DT_VERSYM, DT_VERDEF, DT_VERDEFNUM = 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD
DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
DF_TEXTREL = 4
SHT_DYNSYM = 11
SHN_ABS = 0xFFF1  # the names of version nodes
KINDS = {0: "NOTYPE", 1: "OBJECT", 2: "FUNC", 6: "TLS", 10: "IFUNC"}
BINDINGS = {0: "LOCAL", 1: "GLOBAL", 2: "WEAK", 10: "UNIQUE"}


class ElfError(Exception):
    pass


class Elf:
    """One shared object: dynamic entries, segments, version needs, dynamic symbols."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = f.read()
        if self.data[:4] != b"\x7fELF" or self.data[4:6] != b"\x02\x01":
            raise ElfError(f"{path}: not a 64-bit little-endian ELF file")
        try:
            self._read()
        except (struct.error, IndexError) as e:
            raise ElfError(f"{path}: damaged ELF file ({e})") from e

    def _read(self):
        d = self.data
        phoff, shoff = struct.unpack_from("<QQ", d, 32)
        phentsize, phnum, shentsize, shnum = struct.unpack_from("<HHHH", d, 54)
        # (type, flags, file offset, address, bytes in the file)
        self.segments = []
        for i in range(phnum):
            kind, flags, offset, address, _, filesz = struct.unpack_from(
                "<IIQQQQ", d, phoff + i * phentsize)
            self.segments.append((kind, flags, offset, address, filesz))
        self.dynamic = []
        for kind, _, offset, _, filesz in self.segments:
            if kind == PT_DYNAMIC:
                for at in range(offset, offset + filesz, 16):
                    tag, value = struct.unpack_from("<qQ", d, at)
                    if tag == 0:
                        break
                    self.dynamic.append((tag, value))
        if not self.dynamic:
            raise ElfError("no dynamic section")
        self._strtab = self._offset(self.first(DT_STRTAB))
        self.needed = [self._string(v) for t, v in self.dynamic if t == DT_NEEDED]
        soname = self.first(DT_SONAME)
        self.soname = self._string(soname) if soname is not None else None
        self._read_versions()
        self._read_symbols(shoff, shentsize, shnum)

    def first(self, tag):
        """The first value of a dynamic tag, or None."""
        return next((v for t, v in self.dynamic if t == tag), None)

    def _offset(self, address):
        for kind, _, offset, start, filesz in self.segments:
            if kind == PT_LOAD and start <= address < start + filesz:
                return offset + address - start
        raise ElfError(f"address {address:#x} is in no segment")

    def _string(self, at):
        start = self._strtab + at
        return self.data[start:self.data.index(b"\0", start)].decode()

    def _read_versions(self):
        d = self.data
        self.version_names = {}  # index -> name
        self.version_needs = []  # (file, version)
        self.version_defs = []
        at = self.first(DT_VERNEED)
        if at is not None:
            at = self._offset(at)
            for _ in range(self.first(DT_VERNEEDNUM)):
                _, count, file, aux, step = struct.unpack_from("<HHIII", d, at)
                aux += at
                for _ in range(count):
                    _, _, index, name, aux_step = struct.unpack_from("<IHHII", d, aux)
                    self.version_names[index & 0x7FFF] = self._string(name)
                    self.version_needs.append((self._string(file), self._string(name)))
                    aux += aux_step
                at += step
        at = self.first(DT_VERDEF)
        if at is not None:
            at = self._offset(at)
            for _ in range(self.first(DT_VERDEFNUM)):
                _, flags, index, _, _, aux, step = struct.unpack_from("<HHHHIII", d, at)
                name = self._string(struct.unpack_from("<I", d, at + aux)[0])
                self.version_names[index & 0x7FFF] = name
                if not flags & 1:  # VER_FLG_BASE names the file itself
                    self.version_defs.append(name)
                at += step

    def _read_symbols(self, shoff, shentsize, shnum):
        d = self.data
        count = 0
        for i in range(shnum):
            kind, = struct.unpack_from("<I", d, shoff + i * shentsize + 4)
            if kind == SHT_DYNSYM:
                size, = struct.unpack_from("<Q", d, shoff + i * shentsize + 32)
                count = size // 24
        table = self._offset(self.first(DT_SYMTAB))
        versym = self.first(DT_VERSYM)
        self.symbols = []
        for i in range(1, count):
            name, info, _, section, address, size = struct.unpack_from(
                "<IBBHQQ", d, table + i * 24)
            version, is_default = None, True
            if versym is not None:
                index, = struct.unpack_from("<H", d, self._offset(versym) + 2 * i)
                is_default = not index & 0x8000
                if index & 0x7FFF > 1:
                    version = self.version_names[index & 0x7FFF]
            self.symbols.append(Symbol(
                self._string(name), version, is_default, section not in (0, SHN_ABS),
                KINDS.get(info & 15, str(info & 15)),
                BINDINGS.get(info >> 4, str(info >> 4)), size, address))


def glibc_version(name):
    """'GLIBC_2.2.5' -> (2, 2, 5); None for GLIBC_PRIVATE and for everything that is not glibc's."""
    if not name or not name.startswith("GLIBC_"):
        return None
    parts = name[len("GLIBC_"):].split(".")
    return tuple(map(int, parts)) if all(p.isdigit() for p in parts) else None
