#!/usr/bin/env python3
"""Writes a manual page from a template of docs/man and what a program says of its own command line
(`divvy --describe`): the text of verbs and options is that of --help, so the two cannot drift.

  man_pages.py --program build/bin/divvy --template docs/man/divvy.1.in --version V --out FILE
The date is left empty: tools/package.py puts in the commit's. Python's standard library alone.
"""
import argparse
import json
import re
import subprocess


def roff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    return re.sub(r"(?m)^(?=[.'])", r"\\&", text)


def prose(text):
    """Paragraphs are filled; lines that are indented stand as they are."""
    out, shown = [], False
    for block in text.strip("\n").split("\n\n"):
        fresh = True
        for line in block.split("\n"):
            indented = line.startswith("  ")
            if indented != shown:
                out.append(".PP\n.RS 4\n.nf" if indented else ".fi\n.RE\n.PP")
                shown, fresh = indented, False
            elif fresh and out:
                out.append("" if shown else ".PP")
            fresh = False
            out.append(roff(line[2:] if indented else line))
    if shown:
        out.append(".fi\n.RE")
    return "\n".join(out)


def option(o):
    value = o["value"]
    names = ", ".join(f"\\fB{roff(n)}\\fR" if n.startswith("-") else f"\\fI{roff(n)}\\fR"
                      for n in o["names"])
    if o["names"][0].startswith("-") and value:
        names += f" \\fI{roff(value)}\\fR"
    if o["many"]:
        names += " ..."
    return f".TP\n{names}\n{roff(o['help'] + (' (required)' if o['required'] else ''))}"


def options(app):
    return "\n".join(option(o) for o in app["options"])


def verbs(app, path):
    out = []
    for verb in app["verbs"]:
        name = f"{path} {verb['name']}"
        about = verb["about"].partition("\n")
        out.append(f".SS {roff(name)}")
        out.append(prose(about[0][:1].upper() + about[0][1:] + "." + "\n" + about[2]))
        own = [o for o in verb["options"] if o["names"] != ["-h", "--help"]]
        if own and not verb["verbs"]:
            out.append(options({"options": own}))
        if verb["verbs"]:
            out.append(verbs(verb, name))
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser()
    for name in ("program", "template", "version", "out"):
        parser.add_argument("--" + name, required=True)
    args = parser.parse_args()
    app = json.loads(subprocess.run([args.program, "--describe"], stdout=subprocess.PIPE, check=True).stdout)
    with open(args.template, encoding="utf-8") as f:
        page = f.read()
    for mark, text in {
            "VERSION": args.version, "OPTIONS": options(app), "VERBS": verbs(app, app["name"]),
            "FOOTER": prose(app["footer"])}.items():
        page = page.replace(f"@{mark}@", text)
    if left := re.search(r"@[A-Z]+@", page):
        raise SystemExit(f"{args.template}: {left.group()} is unknown")
    with open(args.out, "w", encoding="utf-8") as f:
        f.write(page)


if __name__ == "__main__":
    main()
