#!/usr/bin/env python3
"""Tests of the generator: a table that leaves something undecided must stop it, and say where.

Each case copies the tables, changes one cell and runs gen.py as a person would.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Generator(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.dir.name)
        shutil.copytree(ROOT / "api", self.root / "api")

    def tearDown(self):
        self.dir.cleanup()

    def run_gen(self, *args):
        return subprocess.run([sys.executable, ROOT / "codegen/gen.py", "--root", self.root, *args],
                              capture_output=True, text=True)

    def change(self, file, symbol, column, value):
        path = self.root / "api" / file
        lines = path.read_text().splitlines()
        at = lines[0].split("\t").index(column)
        for number, line in enumerate(lines):
            cells = line.split("\t")
            if cells[0] == symbol:
                cells[at] = value
                lines[number] = "\t".join(cells)
                path.write_text("\n".join(lines) + "\n")
                return number + 1
        self.fail(f"{symbol} is not in {file}")

    def refused(self, file, symbol, column, value, says):
        number = self.change(file, symbol, column, value)
        result = self.run_gen()
        self.assertEqual(result.returncode, 1)
        self.assertIn(f"{file}:{number}:", result.stderr)
        self.assertIn(says, result.stderr)
        self.assertFalse((self.root / "src").exists(), "nothing may be written from a wrong table")

    def test_a_good_table_is_written_and_then_verifies(self):
        self.assertEqual(self.run_gen().returncode, 0)
        self.assertEqual(self.run_gen("--verify").returncode, 0)

    def test_the_same_tables_give_the_committed_bytes(self):
        self.assertEqual(self.run_gen().returncode, 0)
        made = sorted((self.root / "src").glob("*/generated/*"))
        self.assertGreater(len(made), 10)
        for path in made:
            committed = ROOT / path.relative_to(self.root)
            self.assertEqual(path.read_bytes(), committed.read_bytes(), committed)

    def test_verify_sees_one_changed_byte_and_a_file_too_many(self):
        self.run_gen()
        path = self.root / "src/abi/generated/driver_symbols.inc"
        path.write_text(path.read_text().replace("HOOK", "PASS", 1))
        self.assertEqual(self.run_gen("--verify").returncode, 1)
        self.run_gen()
        stray = self.root / "src/sim/generated/old.inc"
        stray.write_text("left over\n")
        self.assertEqual(self.run_gen("--verify").returncode, 1)
        self.assertTrue(stray.exists(), "verify must not write")

    def test_no_decision(self):
        self.refused("cuda/driver.tsv", "cuMemAlloc_v2", "decision", "", "no decision")

    def test_unknown_decision(self):
        self.refused("cuda/driver.tsv", "cuMemAlloc_v2", "decision", "maybe", "no decision")

    def test_no_decision_in_nvml(self):
        self.refused("nvml/nvml.tsv", "nvmlDeviceGetMemoryInfo", "decision", "", "no decision")

    def test_hook_without_a_body(self):
        self.refused("cuda/driver.tsv", "cuMemAlloc_v2", "body", "-", "body")

    def test_pass_with_a_body(self):
        self.refused("cuda/driver.tsv", "cuDriverGetVersion", "body", "hand", "body")

    def test_deny_without_a_code(self):
        self.refused("cuda/driver.tsv", "cuMemAlloc_v2", "decision", "deny", "deny")

    def test_unknown_class(self):
        self.refused("cuda/driver.tsv", "cuMemAlloc_v2", "class", "memory", "class")

    def test_a_device_rule_that_names_no_parameter(self):
        self.refused("cuda/driver.tsv", "cuDeviceGetName", "device", "arg:device", "no parameter")

    def test_a_bytes_rule_that_names_no_parameter(self):
        self.refused("cuda/driver.tsv", "cuMemAlloc_v2", "bytes", "size", "bytes rule")

    def test_a_counter_without_total(self):
        self.refused("metrics/divvy.tsv", "divvy_tenant_waits_total", "type", "gauge", "_total")

    def test_a_metric_without_its_unit(self):
        self.refused("metrics/divvy.tsv", "divvy_device_memory_bytes", "unit", "seconds", "unit")

    def test_the_same_symbol_twice(self):
        path = self.root / "api/cuda/driver.tsv"
        lines = path.read_text().splitlines()
        path.write_text("\n".join(lines + [lines[-1]]) + "\n")
        result = self.run_gen()
        self.assertEqual(result.returncode, 1)
        self.assertIn("twice", result.stderr)


if __name__ == "__main__":
    unittest.main()
