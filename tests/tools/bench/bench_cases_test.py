#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Runs every case of chapter-bench with the real programs at sizes so small that
# it takes seconds. What it printed is checked for the fields that scripts rely
# on, and for what must hold between them on a machine of any speed.
"""Checks chapter-bench's cases, wrong usage, and that nothing is left behind."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any, Dict, List

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = Path(os.environ.get("CHAPTERSYNC_PROGRAMS", ROOT / "build" / "release" / "bin"))
BENCH = PROGRAMS / "chapter-bench"
SECONDS = 120.0

Figures = Dict[str, Any]


class BenchTest(unittest.TestCase):
    """Gives each test a folder, which must be empty in the end."""

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="chaptersync-")
        self.addCleanup(shutil.rmtree, self.folder, True)

    def run_bench(self, *words: str, program: Path = BENCH) -> "subprocess.CompletedProcess[str]":
        """Runs it as a user would."""
        return subprocess.run([program, *words], capture_output=True, text=True, timeout=SECONDS, check=False)

    def measure(self, case: str, *words: str) -> List[Figures]:
        """The objects that a case printed."""
        done = self.run_bench(case, *words, "--folder", self.folder)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(os.listdir(self.folder), [], "nothing is left behind")
        objects = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual({figures["case"] for figures in objects}, {case})
        return objects

    def measure_one(self, case: str, *words: str) -> Figures:
        """The one object of a case."""
        objects = self.measure(case, *words)
        self.assertEqual(len(objects), 1)
        return objects[0]

    def check_rising(self, figures: Figures, *names: str) -> None:
        """Each is above 0 and not below the one before."""
        values = [figures[name] for name in names]
        self.assertGreater(values[0], 0, names)
        self.assertEqual(values, sorted(values), names)

    def check_pair(self, figures: Figures, changes: int) -> None:
        """What the cases of a hub and a node have in common."""
        for process in ("hub", "node"):
            self.assertGreaterEqual(figures["cpu_s"][process], 0)
            self.assertGreater(figures["rss_mb"][process], 1)
            self.assertGreaterEqual(figures["rss_peak_mb"][process], figures["rss_mb"][process] * 0.9)
        self.assertGreater(figures["bytes_to_hub"], 0)
        self.assertGreater(figures["bytes_from_hub"], 0)
        if changes:
            moved = figures["bytes_to_hub"] + figures["bytes_from_hub"]
            self.assertAlmostEqual(figures["bytes_per_change"], moved / changes, places=3)

    def test_bootstrap(self) -> None:
        figures = self.measure_one("bootstrap", "--records", "150")
        self.assertEqual(figures["records"], 150)
        self.check_rising(figures, "seconds")
        self.assertAlmostEqual(figures["records_per_s"] * figures["seconds"], 150, places=3)
        self.check_pair(figures, 0)
        # Names and notes of each member went from the hub to the node.
        self.assertGreater(figures["bytes_from_hub"], 150 * 50)
        self.assertGreater(figures["bytes_from_hub"], figures["bytes_to_hub"])

    def test_updates(self) -> None:
        figures = self.measure_one("updates", "--records", "150", "--changes", "200")
        self.assertEqual(figures["changes"], 150, "no more than there are")
        self.check_rising(figures, "written_s", "seconds")
        self.assertAlmostEqual(figures["records_per_s"] * figures["seconds"], 150, places=3)
        self.check_pair(figures, 150)
        self.assertGreater(figures["bytes_from_hub"], 150 * 8)

    def test_latency(self) -> None:
        figures = self.measure_one("latency", "--records", "20", "--samples", "5")
        self.assertEqual(figures["samples"], 5)
        self.check_rising(figures, "p50_ms", "p99_ms")
        self.check_rising(figures, "two_hops_p50_ms", "two_hops_p99_ms")
        self.assertGreater(figures["seconds"] * 1000, 5 * 30 + figures["p50_ms"], "it pauses between edits")
        self.check_pair(figures, 5)

    def test_conflicts(self) -> None:
        figures = self.measure_one("conflicts", "--records", "150", "--changes", "100")
        self.assertEqual(figures["changes"], 100)
        self.check_rising(figures, "seconds")
        self.check_pair(figures, 100)

    def test_idle(self) -> None:
        figures = self.measure_one("idle", "--nodes", "5", "--seconds", "1")
        self.assertEqual((figures["nodes"], figures["chapters"], figures["records"]), (5, 2, 0))
        self.assertGreaterEqual(figures["seconds"], 1)
        self.assertAlmostEqual(figures["cpu_share"] * figures["seconds"], figures["cpu_s"]["hub"])
        self.assertLess(figures["rss_added_mb"], figures["rss_mb"]["hub"])
        self.assertAlmostEqual(figures["rss_per_node_kb"] * 5, figures["rss_added_mb"] * 1000, places=3)

    def test_fanout(self) -> None:
        figures = self.measure_one("fanout", "--nodes", "5", "--samples", "3", "--records", "10")
        self.assertEqual((figures["nodes"], figures["samples"], figures["records"]), (5, 3, 10))
        self.check_rising(figures, "p50_ms", "p99_ms")
        self.check_rising(figures, "p50_ms", "last_p50_ms", "last_p99_ms")
        moved = figures["bytes_to_hub"] + figures["bytes_from_hub"]
        self.assertAlmostEqual(figures["bytes_per_change"], moved / 15, places=3)

    def test_scale(self) -> None:
        objects = self.measure("scale", "--sizes", "10,60", "--samples", "3")
        self.assertEqual([figures["records"] for figures in objects], [10, 60])
        for figures in objects:
            for name in ("sync_ten_s", "hub_start_s", "return_s", "bootstrap_s", "load_s"):
                self.assertGreater(figures[name], 0, name)
            for of in ("", "get_", "list_"):
                self.check_rising(figures, f"{of}p50_ms", f"{of}p99_ms")
            self.assertGreater(figures["rss_mb"]["hub"], 1)

    def test_wrong_usage_exits_2_with_a_line(self) -> None:
        for words in ([], ["nothing"], ["updates", "--records", "0"], ["bootstrap", "--nodes", "3"],
                      ["idle", "--folder", os.path.join(self.folder, "missing")]):
            done = self.run_bench(*words)
            self.assertEqual((done.returncode, done.stdout), (2, ""), words)
            self.assertRegex(done.stderr, r"\Achapter-bench: [^\n]+\n\Z")

    def test_what_fails_exits_1_with_a_line(self) -> None:
        alone = Path(shutil.copy(BENCH, self.folder))  # without the programs that it measures
        done = self.run_bench("bootstrap", "--records", "1", "--folder", self.folder, program=alone)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"\Achapter-bench: bootstrap: [^\n]*chapter-hub: No such file[^\n]*\n\Z")
        self.assertEqual(os.listdir(self.folder), [alone.name])


if __name__ == "__main__":
    unittest.main()
