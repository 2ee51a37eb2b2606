"""Reads and checks the tables under api/: the driver's surface, NVML's, and what else the shim exports.

Called by gen.py and by the tests. Nothing here has a default: a row without a decision, with a class, a
body or a rule that is not known, or with a rule that names a parameter that the function does not have,
is an error that names file, line and what to do.
"""

import dataclasses
import pathlib
import re

CUDA_COLUMNS = ["symbol", "api", "version", "variant", "decision", "body", "class", "device", "bytes",
                "signature"]
NVML_COLUMNS = ["symbol", "decision", "class", "returns", "signature"]

VARIANTS = {"legacy": "", "ptds": "_ptds", "ptsz": "_ptsz"}

# What a hook of that body does; the words of the reference page.
BODIES = {
    "hand": "written by hand",
    "guard": "refused with CUDA_ERROR_INVALID_DEVICE for a device without a share, else passed on",
    "submit": "passes the gate, is metered, then passed on",
    "blocking": "a marker is placed, then passed on; the caller may block",
    "sync": "a marker is placed, then passed on; the caller waits for the device",
    "order": "noted as able to hold its stream back, then passed on",
    "measure": "refused when the share is used up, else passed on; the overhead is measured again",
}

CLASSES = {
    "alloc": "Linear memory and arrays: charged before they are made",
    "capture": "Stream capture",
    "checkpoint": "Suspend and resume of processes",
    "context": "Contexts, primary contexts and green contexts",
    "copy_any": "Copies whose direction is known at run time only",
    "copy_device": "Copies inside or between devices",
    "copy_host": "Copies between host and device",
    "device": "Devices and what they are",
    "event": "Events",
    "free": "Linear memory and arrays: given back",
    "graph": "Graphs, their memory nodes and their launch",
    "host": "Host functions in a stream",
    "init": "Initialisation and version",
    "interop": "Memory, semaphores and resources of other APIs",
    "ipc": "Memory and events of other processes",
    "launch": "Kernel launches",
    "managed": "Managed memory",
    "memop": "Stream memory operations",
    "memset": "Memory sets",
    "misc": "Errors, logs, core dumps, profiler",
    "module": "Modules, libraries, kernels, linking, occupancy",
    "pinned": "Pinned host memory",
    "pool": "Stream-ordered allocation and memory pools",
    "query": "Memory figures and pointer queries",
    "resolve": "Resolution of the driver's functions",
    "stream": "Streams",
    "sync": "Waiting and asking",
    "texture": "Textures, surfaces, tensor maps",
    "vmm": "Virtual memory management and multicast",
}

NVML_CLASSES = {
    "library": "The library itself",
    "device": "Devices and their handles",
    "identity": "What a device is",
    "memory": "Memory figures",
    "process": "Processes and accounting",
    "utilization": "Utilisation",
    "health": "Clocks, temperature, power, errors",
    "mode": "Modes",
    "event": "Events",
    "control": "Changes to the device",
}

# How a call's device is known, and (after the colon) the parameter that says so.
DEVICE_RULES = {"none", "list", "current", "arg", "ordinal", "bus", "stream", "context", "green", "event",
                "pointer", "handle", "pool", "prop", "location", "graph"}
BYTES_RULES = {"credit", "array", "import", "reference", "node", "graph"}
BYTES_WORDS = {"-", "limit", "context", "measured"}
BYTES_HELPERS = {"static_cast", "size_t", "copy_bytes", "batch_bytes"}


class TableError(Exception):
    """What is wrong with a table, said so that the reader knows which line to change."""


@dataclasses.dataclass(frozen=True)
class Param:
    type: str
    name: str

    def text(self):
        return f"{self.type} {self.name}"


@dataclasses.dataclass(frozen=True)
class Function:
    index: int
    symbol: str
    api: str
    version: int
    variant: str
    decision: str  # pass, hook or deny
    deny_code: str
    body: str
    klass: str
    device: str
    bytes: str
    returns: str
    params: tuple

    def param_list(self):
        return "(" + ", ".join(p.text() for p in self.params) + ")"

    def arg_list(self):
        return "(" + ", ".join(p.name for p in self.params) + ")"


def read_rows(path, columns):
    """Yields (line number, {column: text}) and checks the shape of the file."""
    lines = path.read_text().splitlines()
    if not lines or lines[0].split("\t") != columns:
        raise TableError(f"{path}:1: the columns must be {' '.join(columns)}")
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if len(cells) != len(columns):
            raise TableError(f"{path}:{number}: {len(cells)} cells where {len(columns)} are due")
        yield number, dict(zip(columns, cells))


def parse_params(signature):
    if signature == "void":
        return ()
    params = []
    for part in signature.split(","):
        match = re.fullmatch(r"\s*(.*?[\s*])(\w+)\s*", part)
        if not match:
            raise TableError(f"parameter without a name: {part.strip()!r}")
        type_text = re.sub(r"\s*\*\s*", "*", match.group(1)).strip()
        params.append(Param(re.sub(r"\*(?=\w)", "* ", type_text), match.group(2)))
    names = [p.name for p in params]
    if len(set(names)) != len(names):
        raise TableError("two parameters have the same name")
    return tuple(params)


def split_decision(text, symbol):
    decision, _, code = text.partition(":")
    if decision not in ("pass", "hook", "deny"):
        raise TableError(f"{symbol} has no decision: say pass, hook or deny:CODE (there is no default)")
    if (decision == "deny") != bool(code):
        raise TableError(f"{symbol}: deny, and only deny, names the code that the caller gets")
    return decision, code


def check_device_rule(rule, params, symbol):
    word, _, rest = rule.partition(":")
    if word not in DEVICE_RULES:
        raise TableError(f"{symbol}: device rule {rule!r} is not known")
    for name in filter(None, rest.split(",")):
        if name.split("->")[0] not in params:
            raise TableError(f"{symbol}: device rule names {name!r}, which is no parameter")


def check_bytes_rule(rule, params, symbol):
    word, _, rest = rule.partition(":")
    if rule in BYTES_WORDS or (word in BYTES_RULES and rest in params | {"context", "pool"}):
        return
    names = re.findall(r"[A-Za-z_]\w*", re.sub(r"->\w+", "", rule))
    unknown = [n for n in names if n not in params and n not in BYTES_HELPERS]
    if unknown or not names:
        raise TableError(f"{symbol}: bytes rule {rule!r} names {unknown or 'nothing'}")


def load_cuda(root):
    path = root / "api/cuda/driver.tsv"
    functions, symbols, versions = [], set(), set()
    for number, row in read_rows(path, CUDA_COLUMNS):
        symbol = row["symbol"]
        try:
            decision, code = split_decision(row["decision"], symbol)
            params = parse_params(row["signature"])
            names = {p.name for p in params}
            if row["variant"] not in VARIANTS:
                raise TableError(f"{symbol}: variant {row['variant']!r} is not known")
            if row["class"] not in CLASSES:
                raise TableError(f"{symbol}: class {row['class']!r} is not known")
            if (decision == "hook") != (row["body"] in BODIES) or (decision != "hook" and row["body"] != "-"):
                raise TableError(f"{symbol}: a hook, and only a hook, has a body ({', '.join(BODIES)})")
            check_device_rule(row["device"], names, symbol)
            check_bytes_rule(row["bytes"], names, symbol)
            if symbol in symbols:
                raise TableError(f"{symbol} stands twice")
            key = (row["api"], int(row["version"]), row["variant"])
            if key in versions:
                raise TableError(f"{symbol}: {key} stands twice")
        except (TableError, ValueError) as error:
            raise TableError(f"{path}:{number}: {error}") from None
        symbols.add(symbol)
        versions.add(key)
        functions.append(Function(len(functions), symbol, row["api"], key[1], row["variant"], decision, code,
                                  row["body"], row["class"], row["device"], row["bytes"], "CUresult", params))
    return functions


def load_nvml(root):
    path = root / "api/nvml/nvml.tsv"
    functions, symbols = [], set()
    for number, row in read_rows(path, NVML_COLUMNS):
        symbol = row["symbol"]
        try:
            decision, code = split_decision(row["decision"], symbol)
            params = parse_params(row["signature"])
            if row["class"] not in NVML_CLASSES:
                raise TableError(f"{symbol}: class {row['class']!r} is not known")
            if symbol in symbols:
                raise TableError(f"{symbol} stands twice")
        except TableError as error:
            raise TableError(f"{path}:{number}: {error}") from None
        symbols.add(symbol)
        returns = re.sub(r"\s*\*", "*", row["returns"])
        functions.append(Function(len(functions), symbol, symbol, 0, "legacy", decision, code,
                                  "hand" if decision == "hook" else "-", row["class"], "none", "-", returns,
                                  params))
    return functions


def load_libc(root):
    return [row for _, row in read_rows(root / "api/libc.tsv", ["symbol", "why"])]


@dataclasses.dataclass(frozen=True)
class Tables:
    root: pathlib.Path  # for tables that one emitter alone reads
    cuda: list
    nvml: list
    libc: list


def load(root):
    root = pathlib.Path(root)
    return Tables(root, load_cuda(root), load_nvml(root), load_libc(root))
