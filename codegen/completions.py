#!/usr/bin/env python3
"""Writes the completions of bash, zsh and fish from what the programs say of their own command lines
(`divvy --describe`, `divvyd --describe`). Names of tenants are asked for when they are completed.

  completions.py --program build/bin/divvy --out DIR     DIR/divvy.bash, DIR/divvy.fish, DIR/_divvy
Python's standard library alone.
"""
import argparse
import json
import os
import re
import subprocess

# What stands for a value in --help -> the words that it can be; tests/package asks each program
# whether it knows them. What is not here is completed as a file's name, or not at all.
WORDS = {
    "FORMAT": "text json",
    "PROFILE": "h100 a100 t4 h100x4",
    "CLASS": "latency standard batch",
    "fail|wait=TIME": "fail wait=10s",
    "PRODUCT": "hami",
    "--sort": "name GPU memory compute waits refusals",
    "--kind": "tenant change refusal finding crash compute connection device daemon",
    "--audit": "warn gate kill",
    "--on-fault": "open deny",
}
FILES, FOLDERS = {"FILE", "SOCKET", "TEXT"}, {"DIR"}
TENANTS, SHARES = "ps", "share list"  # the verbs whose first column they are


def kind(path, option):
    """words:…, names:VERB, files, folders, or none."""
    name, value = option["names"][-1], option["value"] or ""
    if name == "--tenant" or (name == "name" and path != "share create"):
        return "names:" + (SHARES if path == "share rm" else TENANTS)
    if name in WORDS or value in WORDS:
        return "words:" + WORDS.get(name, WORDS.get(value, ""))
    if choice := re.fullmatch(r"[A-Z]+:\{(.*)\}", value):
        return "words:" + choice.group(1).replace(",", " ")
    return "files" if value in FILES else "folders" if value in FOLDERS else "none"


def nodes(app, path=""):
    """(path, verbs, options, positional's kind) of the program and of each verb below it."""
    options = [o for o in app["options"] if o["names"][0].startswith("-")]
    first = next((o for o in app["options"] if not o["names"][0].startswith("-")), None)
    yield path, app["verbs"], options, kind(path, first) if first else "none"
    for verb in app["verbs"]:
        yield from nodes(verb, f"{path} {verb['name']}".strip())


def brief(text):
    return text.split("\n")[0]


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def cases(app, describe):
    """The tables of bash and zsh, as the branches of two `case`s."""
    tables, values = [], []
    for path, verbs, options, positional in nodes(app):
        def item(name, text):
            return quoted(name + ":" + brief(text).replace(":", "\\:")) if describe else name
        listed = " ".join(item(v["name"], v["about"]) for v in verbs)
        flags = " ".join(item(n, o["help"]) for o in options for n in o["names"])
        tables.append(f"    {quoted(path)}) verbs=({listed}) options=({flags}) positional={quoted(positional)} ;;")
        for o in options:
            if o["value"] is not None:
                names = " | ".join(quoted(f"{path} {n}".strip()) for n in o["names"])
                values.append(f"    {names}) value={quoted(kind(path, o))} ;;")
    return "\n".join(tables), "\n".join(values)


# What both do: find the verb, and whether an option waits for its value. `$first` is the index of
# the program's name in `words`, `$at` that of the word which is completed.
WALK = """\
  local verb='' value='' word i
  local -a verbs options
  local positional=none
  _{name}_table "$verb"
  for ((i = first + 1; i < at; i++)); do
    word=${{words[i]}}
    if [[ $word == -- ]]; then {command}; return; fi
    if [[ $word == '=' ]]; then continue; fi
    if [[ -n $value ]]; then value=''; continue; fi
    if [[ $word == -*=* ]]; then continue; fi
    if [[ $word == -* ]]; then _{name}_value "${{verb:+$verb }}$word"; continue; fi
    if [[ '{verb_list}' == *"|${{verb:+$verb }}$word|"* ]]; then
      verb="${{verb:+$verb }}$word"
      _{name}_table "$verb"
    else
      positional=none
    fi
  done
"""

BASH = """\
# bash completion of {name}(1), made from `{name} --describe`.
_{name}_table() {{
  case $1 in
{tables}
  esac
}}
_{name}_value() {{
  value=''
  case $1 in
{values}
  esac
}}
_{name}_names() {{ command {name} $1 2>/dev/null | awk 'NR > 1 && /^[^ ]/ {{ print $1 }}'; }}
_{name}_offer() {{
  case $1 in
    words:*) COMPREPLY=($(compgen -W "${{1#words:}}" -- "$2")) ;;
    names:*) COMPREPLY=($(compgen -W "$(_{name}_names "${{1#names:}}")" -- "$2")) ;;
    files) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$2")) ;;
    folders) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- "$2")) ;;
  esac
}}
_{name}_command() {{
  if ((at == i + 1)); then COMPREPLY=($(compgen -c -- "$cur")); else compopt -o default 2>/dev/null; fi
}}
_{name}() {{
  local -a words=("${{COMP_WORDS[@]}}")
  local first=0 at=$COMP_CWORD cur=${{COMP_WORDS[COMP_CWORD]}}
  [[ $cur == '=' ]] && cur=''
  COMPREPLY=()
{walk}\
  if [[ -n $value ]]; then _{name}_offer "$value" "$cur"
  elif [[ $cur == -* ]]; then COMPREPLY=($(compgen -W "${{options[*]}}" -- "$cur"))
  elif ((${{#verbs[@]}} > 0)); then COMPREPLY=($(compgen -W "${{verbs[*]}}" -- "$cur"))
  else _{name}_offer "$positional" "$cur"
  fi
}}
complete -F _{name} {name}
"""

ZSH = """\
#compdef {name}
# zsh completion of {name}(1), made from `{name} --describe`.
_{name}_table() {{
  case $1 in
{tables}
  esac
}}
_{name}_value() {{
  value=''
  case $1 in
{values}
  esac
}}
_{name}_offer() {{
  local -a found
  case $1 in
    words:*) compadd -- ${{=1#words:}} ;;
    names:*) found=(${{(f)"$(command {name} ${{=1#names:}} 2>/dev/null | awk 'NR > 1 && /^[^ ]/ {{ print $1 }}')"}})
             compadd -- $found ;;
    files) _files ;;
    folders) _files -/ ;;
  esac
}}
_{name}_command() {{
  words=("${{(@)words[i+1,-1]}}")
  ((CURRENT -= i))
  _normal
}}
_{name}() {{
  local first=1 at=$CURRENT cur=${{words[CURRENT]}}
{walk}\
  if [[ -n $value ]]; then _{name}_offer "$value"
  elif [[ $cur == -* ]]; then _describe -o option options
  elif (($#verbs > 0)); then _describe verb verbs
  else _{name}_offer "$positional"
  fi
}}
if [[ $funcstack[1] == _{name} ]]; then _{name} "$@"; else compdef _{name} {name}; fi
"""

FISH = """\
# fish completion of {name}(1), made from `{name} --describe`.
function __{name}_verb # the verb that the line has so far
    set -l verb
    for word in (commandline -opc)[2..-1]
        test "$word" = -- && break
        set -l longer (string join -- ' ' $verb $word)
        contains -- $longer {verb_list} && set verb $verb $word
    end
    string join -- ' ' $verb
end
function __{name}_is
    set -l verb (__{name}_verb)
    not contains -- -- (commandline -opc) && test "$verb" = "$argv"
end
function __{name}_names
    command {name} $argv 2>/dev/null | awk 'NR > 1 && /^[^ ]/ {{ print $1 }}'
end
function __{name}_command # what stands behind -- is a line of its own
    set -l words (commandline -opc)
    set -e words[1..(contains -i -- -- $words)]
    complete -C (string join -- ' ' $words (commandline -ct))
end
complete -c {name} -f
complete -c {name} -n 'contains -- -- (commandline -opc)' -a '(__{name}_command)'
"""


def walk(app, command):
    known = "".join(f"|{path}|" for path, *_ in nodes(app) if path)
    return WALK.format(name=app["name"], command=command, verb_list=known)


def fish(app):
    name = app["name"]
    known = " ".join(quoted(path) for path, *_ in nodes(app) if path) or "''"
    out = [FISH.format(name=name, verb_list=known)]

    def argument(k):
        what, _, rest = k.partition(":")
        return {"words": f" -x -a {quoted(rest)}", "names": f" -x -a '(__{name}_names {rest})'",
                "files": " -r -F", "folders": " -x -a '(__fish_complete_directories)'", "none": " -x"}[what]
    for path, verbs, options, positional in nodes(app):
        start = f"complete -c {name} -n {quoted(f'__{name}_is {path}'.strip())}"
        for v in verbs:
            out.append(f"{start} -a {v['name']} -d {quoted(brief(v['about']))}")
        for o in options:
            flags = "".join(f" -l {n[2:]}" if n.startswith("--") else f" -s {n[1:]}" for n in o["names"])
            value = "" if o["value"] is None else argument(kind(path, o))
            out.append(f"{start}{flags}{value} -d {quoted(brief(o['help']))}")
        if positional != "none":
            out.append(start + argument(positional).replace(" -x", "").replace(" -r", ""))
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser()
    for option in ("program", "out"):
        parser.add_argument("--" + option, required=True)
    args = parser.parse_args()
    app = json.loads(subprocess.run([args.program, "--describe"], stdout=subprocess.PIPE, check=True).stdout)
    name = app["name"]
    texts = {f"{name}.fish": fish(app)}
    for file, template, describe in ((f"{name}.bash", BASH, False), (f"_{name}", ZSH, True)):
        tables, values = cases(app, describe)
        texts[file] = template.format(name=name, tables=tables, values=values or "    '') ;;",
                                      walk=walk(app, f"_{name}_command"))
    for file, text in texts.items():
        with open(os.path.join(args.out, file), "w", encoding="utf-8") as f:
            f.write(text)


if __name__ == "__main__":
    main()
