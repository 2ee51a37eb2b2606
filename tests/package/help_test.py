#!/usr/bin/env python3
"""Manual pages and completions say what the programs' --help says, and tools that read them find
nothing wrong. bash is always there; zsh, fish, mandoc and man are asked where they are installed."""
import importlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ["DIVVY_BUILD_DIR"])
MADE = BUILD / "share"
sys.path.insert(0, str(ROOT / "codegen"))
completions = importlib.import_module("completions")

BASH = """
source "$1"; line=$2
read -ra COMP_WORDS <<<"$line"
[[ $line == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_divvy
printf '%s\\n' "${COMPREPLY[@]}"
"""


def describe(program):
    done = subprocess.run([BUILD / "bin" / program, "--describe"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def words_of(text):
    return sorted(w for w in text.split("\n") if w)


class Completions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="divvy-help-")
        cls.addClassCleanup(shutil.rmtree, cls.dir, True)
        cls.env = {k: v for k, v in os.environ.items() if not k.startswith("DIVVY_")}
        cls.env.update(DIVVY_RUNTIME_DIR=cls.dir + "/run", PATH=f"{BUILD}/bin:" + os.environ["PATH"], HOME=cls.dir)

        def end():
            subprocess.run(["divvy", "daemon", "stop", "--all"], env=cls.env, capture_output=True, check=False)
        cls.addClassCleanup(end)
        for name in ("web", "wide"):
            subprocess.run(["divvy", "share", "create", name, "--sim", "h100", "--mem", "2GiB"], env=cls.env,
                           check=True, stdout=subprocess.DEVNULL)

    def bash(self, line):
        done = subprocess.run(["bash", "--norc", "-c", BASH, "bash", MADE / "divvy.bash", line], env=self.env,
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.stderr, "", line)
        return words_of(done.stdout)

    def fish(self, line):
        done = subprocess.run(["fish", "--no-config", "-c", f"source {MADE}/divvy.fish; complete -C $argv[1]", line],
                              env=self.env, capture_output=True, text=True, check=False)
        self.assertEqual(done.stderr, "", line)
        return words_of(re.sub(r"(?m)\t.*$", "", done.stdout))

    def check(self, complete):
        for line, expected in {
                "divvy r": ["record", "resume", "run"],
                "divvy share ": ["create", "list", "rm"],
                "divvy cdi g": ["generate"],
                "divvy run --cl": ["--class"],
                "divvy run --class ": ["batch", "latency", "standard"],
                "divvy run --mem 2GiB --sim t": ["t4"],
                "divvy set w": ["web", "wide"],
                "divvy why --sim h100 we": ["web"],
                "divvy share rm wi": ["wide"],
                "divvy events --tenant we": ["web"],
                "divvy share create w": [],
                "divvy run --mem 2GiB -- divv": ["divvy", "divvy-hook", "divvy-sim-broker", "divvyd"]}.items():
            with self.subTest(line=line):
                found = complete(line)
                if " -- " in line:
                    found = [w for w in found if w in expected]
                self.assertEqual(found, expected)

    def test_bash(self):
        self.check(self.bash)

    def test_bash_has_every_verb_and_option(self):
        for path, verbs, options, _ in completions.nodes(describe("divvy")):
            line = f"divvy {path}".strip()
            if verbs:
                self.assertEqual(self.bash(line + " "), sorted(v["name"] for v in verbs))
            self.assertEqual(self.bash(line + " -"), sorted(n for o in options for n in o["names"]))

    def test_fish(self):
        if shutil.which("fish") is None:
            self.skipTest("fish is not installed")
        self.check(self.fish)

    def test_zsh(self):
        if shutil.which("zsh") is None:
            self.skipTest("zsh is not installed")
        script = pathlib.Path(self.dir) / "zsh_asks.zsh"
        shutil.copy(ROOT / "tests/package/zsh_asks.zsh", script)

        def ask(line):
            done = subprocess.run(["zsh", "-f", script, MADE / "_divvy", line], env=self.env, capture_output=True,
                                  text=True, check=False, timeout=60)
            return words_of(done.stdout.replace("\r", ""))
        self.check(ask)

    def test_words_are_the_programs_own(self):
        """What stands for a value in --help names each word that is offered for it."""
        for program in ("divvy", "divvyd"):
            for path, _, options, _ in completions.nodes(describe(program)):
                for option in options:
                    kind = completions.kind(path, option)
                    if not kind.startswith("words:"):
                        continue
                    said = option["help"] + " " + option["value"]
                    # Said in full where it is the main thing.
                    said += {"PROFILE": " h100 a100 t4 h100x4", "FORMAT": " text json"}.get(option["value"], "")
                    for word in kind[6:].split():
                        with self.subTest(program=program, path=path, option=option["names"][-1], word=word):
                            self.assertIn(word.partition("=")[0], said)


class Manual(unittest.TestCase):
    PAGES = {"divvy": MADE / "divvy.1", "divvyd": MADE / "divvyd.8"}

    def test_has_every_verb_and_option(self):
        for program, page in self.PAGES.items():
            text = page.read_text(encoding="utf-8").replace("\\-", "-")
            for path, _, options, _ in completions.nodes(describe(program)):
                if path:
                    self.assertIn(f".SS {program} {path}\n", text)
                for option in options:
                    for name in option["names"]:
                        if name not in ("-h", "--help"):
                            self.assertIn(f"\\fB{name}\\fR", text)

    def test_mandoc(self):
        if shutil.which("mandoc") is None:
            self.skipTest("mandoc is not installed")
        for page in self.PAGES.values():
            dated = page.read_text(encoding="utf-8").replace(' ""', " 2026-01-01", 1)
            done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning"], input=dated, capture_output=True,
                                  text=True, check=False)
            self.assertEqual(done.stdout + done.stderr, "")

    def test_man(self):
        if shutil.which("man") is None or shutil.which("groff") is None:
            self.skipTest("man and groff are not installed")
        for page in self.PAGES.values():
            done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page],
                                  env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"},
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
            self.assertEqual(done.stderr, "")


if __name__ == "__main__":
    unittest.main(verbosity=2)
