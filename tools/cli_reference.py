#!/usr/bin/env python3
"""Writes docs/reference/cli.md, every verb with its options, from what `divvy VERB --help` says.

  tools/cli_reference.py [BUILD]     BUILD: where bin/divvy lies (build)
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "cli.md"
HEAD = """# Every verb and its options

*Written by `tools/cli_reference.py` from the program's own `--help`; do not edit. What the verbs are for, their
exit status and what they print: [The command line](../cli.md).*

`-h`, `--help` is an option of each; only its other options are listed.
"""
ROW = re.compile(r"^  (\S.*?)(?:\s{2,}(.*))?$")


def section(text, title):
    """The rows of one list of a help text: [(left, right)]."""
    rows = []
    inside = False
    for line in text.splitlines():
        if line == title + ":":
            inside = True
        elif inside and not line.startswith("  "):
            inside = False
        elif inside and line.startswith(" " * 20):  # goes on from the line before
            left, right = rows[-1]
            rows[-1] = (left, (right + " " + line.strip()).strip())
        elif inside and (row := ROW.match(line)):
            rows.append((row[1], row[2] or ""))
    return rows


def verbs(divvy, words=()):
    """Each verb that has no verbs below it: (words, what it is, positionals, options)."""
    text = subprocess.run([divvy, *words, "--help"], capture_output=True, text=True, check=True).stdout
    below = section(text, "Subcommands")
    for name, _ in below:
        yield from verbs(divvy, (*words, name))
    if not below:
        options = [row for row in section(text, "Options") if not row[0].startswith("-h,--help")]
        yield words, text.splitlines()[0], section(text, "Positionals"), options


def cell(text):
    return text.replace("|", "\\|")


def page(divvy):
    out = HEAD
    for words, what, positionals, options in verbs(divvy):
        out += f"\n## divvy {' '.join(words)}\n{what[:1].upper()}{what[1:]}.\n"
        if positionals + options:
            out += "\n| option | |\n|---|---|\n"
        for left, right in positionals + options:
            out += f"| `{cell(left)}` | {cell(right)} |\n"
    return out


def main():
    build = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build")
    PAGE.write_text(page(build / "bin" / "divvy"), encoding="utf-8")


if __name__ == "__main__":
    main()
