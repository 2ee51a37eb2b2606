"""docs/security.md holds a verdict for each attack; this reads its table and compares."""
import os
import re

SOURCE = os.environ.get("DIVVY_SOURCE_DIR", ".")
WORDS = {"caught", "detected", "out of reach", "-"}
ROW = re.compile(r"^\| `([a-z0-9-]+)` \| ([a-z -]+?) \| ([a-z -]+?) \| (.+?) \|$")


def documented(path=None):
    """{attack: {"root": word, "cooperative": word, "why": text}}"""
    table = {}
    with open(path or os.path.join(SOURCE, "docs", "security.md"), encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            match = ROW.match(line.strip())
            if not match:
                continue
            name, root, cooperative, why = match.groups()
            for word in (root, cooperative):
                if word not in WORDS:
                    raise SystemExit(f"docs/security.md:{number}: '{word}' is no verdict")
            if name in table:
                raise SystemExit(f"docs/security.md:{number}: '{name}' stands there twice")
            table[name] = {"root": root, "cooperative": cooperative, "why": why}
    return table


def differences(results, table):
    """What the run showed against what the document says. `results`: {(attack, delivery): word}."""
    wrong = []
    for (name, delivery), word in sorted(results.items()):
        if word == "failed":
            continue  # told by itself
        entry = table.get(name)
        said = entry[delivery] if entry else None
        if said == word:
            continue
        if word == "passed" and said == "out of reach":
            continue
        if word == "passed":
            wrong.append(f"{name} ({delivery}): a silent pass; docs/security.md says {said}")
        else:
            wrong.append(f"{name} ({delivery}): {word}; docs/security.md says {said}")
    names = {name for name, _ in results}
    for name, entry in table.items():
        for delivery in ("root", "cooperative"):
            if name in names and entry[delivery] != "-" and (name, delivery) not in results:
                wrong.append(f"{name}: docs/security.md has a verdict for '{delivery}', never run")
    return wrong, [name for name in table if name not in names]
