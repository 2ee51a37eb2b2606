"""The pages in docs/ name every verb, and docs/reference/cli.md every option that --help names."""
import os
import pathlib
import sys
import unittest

import harness
from harness import DIVVY

SOURCE = pathlib.Path(os.environ["DIVVY_SOURCE_DIR"])
sys.path.insert(0, str(SOURCE / "tools"))
import cli_reference  # noqa: E402


class Reference(unittest.TestCase):
    def test_every_option_is_named(self):
        page = cli_reference.PAGE.read_text(encoding="utf-8")
        guide = (SOURCE / "docs" / "cli.md").read_text(encoding="utf-8")
        found = list(cli_reference.verbs(DIVVY))
        self.assertGreater(len(found), 20)
        for words, _, positionals, options in found:
            verb = "divvy " + " ".join(words)
            with self.subTest(verb=verb):
                head = f"\n## {verb}\n"
                self.assertIn(head, page, "run tools/cli_reference.py")
                part = page.split(head)[1].split("\n## ")[0]
                for left, _ in positionals + options:
                    self.assertIn(f"`{cli_reference.cell(left)}`", part, "run tools/cli_reference.py")
                self.assertTrue(verb in guide or f"`divvy {words[0]}`" in guide, "docs/cli.md")


if __name__ == "__main__":
    harness.main()
