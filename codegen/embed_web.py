#!/usr/bin/env python3
"""Writes web_assets.cc: the files of web/ as data inside of divvyd. Called by the build.

index.html is served at /, every other file at /web/ and its path. Tests and notes are left out.
"""
import pathlib
import sys

TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
PIECE = 4096  # characters of one literal: compilers bound their length


def literal(data):
    out = []
    for start in range(0, len(data), PIECE):
        text = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\?' else f"\\{b:03o}"
                       for b in data[start:start + PIECE])
        out.append(f'    "{text}"')
    return "\n".join(out) or '    ""'


def main(web, target):
    web = pathlib.Path(web)
    body, rows = "", ""
    files = sorted(p for p in web.rglob("*") if p.suffix in TYPES)
    for number, path in enumerate(files):
        name = path.relative_to(web).as_posix()
        data = path.read_bytes()
        body += f"const char k{number}[] =\n{literal(data)};\n"
        served = "/" if name == "index.html" else f"/web/{name}"
        rows += f'    {{"{served}", "{TYPES[path.suffix]}", {{k{number}, {len(data)}}}}},\n'
    text = f"""// Written by codegen/embed_web.py from web/.
#include "src/daemon/web_assets.h"

namespace divvy::daemon {{
namespace {{
{body}
const WebAsset kAssets[] = {{
{rows}}};
}}  // namespace

std::span<const WebAsset> WebAssets() {{ return kAssets; }}

}}  // namespace divvy::daemon
"""
    pathlib.Path(target).write_text(text, encoding="ascii")


if __name__ == "__main__":
    main(*sys.argv[1:])
