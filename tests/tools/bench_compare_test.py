#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Tests tools/bench_compare from outside, with a bench and a peer that print figures which the test
# has written down, and note that they were called. Shares no code with it.
"""Run as `python3 tests/tools/bench_compare_test.py`, from any directory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

TOOL = Path(__file__).resolve().parents[2] / "tools" / "bench_compare"

# Prints the figures of its n-th call with a case; `exit` among them ends it with that code.
FAKE = r'''#!/usr/bin/python3
import json, pathlib, sys
here = pathlib.Path(__file__).resolve().parent
side = "SIDE"
if "--help" in sys.argv:
    sys.exit(0)
calls = here / "calls"
with calls.open("a") as log:
    log.write(json.dumps([side, *sys.argv[1:]]) + "\n")
figures = json.loads((here / f"{side}.json").read_text())
cases = [sys.argv[1]] if side == "bench" else sys.argv[sys.argv.index("--cases") + 1].split(",")
for case in cases:
    count = here / f"{side}.{case}.count"
    done = int(count.read_text()) if count.exists() else 0
    count.write_text(str(done + 1))
    one = figures[case][done]
    if "exit" in one:
        print("a line before", "the disk is full", sep="\n", file=sys.stderr)
        sys.exit(one["exit"])
    print(one["text"] if "text" in one else json.dumps({"case": case, **one}))
'''

OURS: dict[str, list[dict[str, Any]]] = {
    "bootstrap": [{"seconds": s, "bytes_to_hub": 1e6, "bytes_from_hub": 99e6} for s in (5.0, 9.0, 6.0)],
    "updates": [{"seconds": s, "bytes_per_change": b} for s, b in ((2.0, 61.0), (2.5, 60.0), (7.0, 59.0))],
    "latency": [{"p50_ms": 1.0, "two_hops_p50_ms": 2.6}] * 3,
    "conflicts": [{"seconds": 1.2}, {"seconds": 1.6}, {"seconds": 1.7}],
}
PEER: dict[str, list[dict[str, Any]]] = {
    "bootstrap": [{"seconds": s, "bytes": 300e6} for s in (10.0, 12.0, 8.0)],
    "updates": [{"seconds": 4.0, "bytes_per_change": 200.0}] * 3,
    "latency": [{"p50_ms": 2.0}] * 3,
}


class CompareTest(unittest.TestCase):
    """Gives each test a folder with both fakes."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chaptersync-"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        for side, name in (("bench", "chapter-bench"), ("peer", "peer.py")):
            program = self.folder / name
            program.write_text(FAKE.replace("SIDE", side), encoding="utf-8")
            program.chmod(0o755)
        self.figures("bench", OURS)
        self.figures("peer", PEER)

    def figures(self, side: str, figures: dict[str, list[dict[str, Any]]]) -> None:
        """What a fake is to print."""
        (self.folder / f"{side}.json").write_text(json.dumps(figures), encoding="utf-8")

    def compare(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs the tool as a user would."""
        return subprocess.run([sys.executable, "-B", str(TOOL), "--programs", str(self.folder), "--peer",
                               str(self.folder / "peer.py"), *words], capture_output=True, text=True, check=False)

    def rows(self, *words: str) -> dict[tuple[str, str], list[str]]:
        """The table's rows by case and figure: ours, the peer's, ratio, to be reached, reached."""
        done = self.compare(*words)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
        self.assertEqual(lines[1].replace("-", ""), "|" * 8)
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
        self.assertTrue(all(len(row) == 7 for row in cells), cells)
        return {(row[0], row[1]): row[2:] for row in cells}

    def calls(self) -> list[list[str]]:
        """Who was called, with which words, in order."""
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    def fails(self, what: str, *words: str) -> None:
        """It says what, in one line after what it has shown, and exits 1."""
        done = self.compare(*words)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn(what, done.stderr.splitlines()[-1])
        self.assertTrue(done.stderr.splitlines()[-1].startswith("tools/bench_compare: "))

    def test_medians_ratios_and_bounds(self) -> None:
        rows = self.rows()
        self.assertEqual(rows, {
            ("bootstrap", "time"): ["6 s", "10 s", "0.60", "ratio 0.6", "yes"],
            ("bootstrap", "bytes moved"): ["100 MB", "300 MB", "0.33", "160 MB", "yes"],
            ("updates", "time"): ["2.5 s", "4 s", "0.62", "ratio 0.6", "no"],
            ("updates", "bytes a change"): ["60 bytes", "200 bytes", "0.30", "60 bytes", "yes"],
            ("latency", "p50"): ["1 ms", "2 ms", "0.50", "ratio 0.8", "yes"],
            ("latency", "p50, two hops to the peer's one"): ["2.6 ms", "2 ms", "1.30", "ratio 1.3", "yes"],
        })

    def test_the_peer_cannot_do_conflicts(self) -> None:
        rows = self.rows("--cases", "conflicts", "--peer", "there is none")
        self.assertEqual(rows, {("conflicts", "time"): ["1.6 s", "cannot", "", "1.5 s", "no"]})
        self.assertEqual({call[0] for call in self.calls()}, {"bench"})

    def test_bytes_of_a_bootstrap_are_in_proportion(self) -> None:
        rows = self.rows("--cases", "bootstrap", "--records", "500000")
        self.assertEqual(rows[("bootstrap", "bytes moved")][3:], ["80 MB", "no"])

    def test_both_run_in_turn(self) -> None:
        self.rows("--runs", "2", "--cases", "updates,latency", "--records", "50", "--changes", "7", "--samples", "3")
        peer = ["peer", "--records", "50", "--changes", "7", "--samples", "3", "--runs", "1", "--cases",
                "updates,latency"]
        turn = [["bench", "updates", "--records", "50", "--changes", "7"],
                ["bench", "latency", "--records", "50", "--samples", "3"], peer]
        self.assertEqual(self.calls(), turn * 2)

    def test_a_run_of_ours_that_fails_is_said(self) -> None:
        self.figures("bench", {**OURS, "updates": [OURS["updates"][0], {"exit": 3}]})
        self.fails("chapter-bench updates, run 2: exit 3: the disk is full")

    def test_a_run_of_the_peer_that_fails_is_said(self) -> None:
        self.figures("peer", {**PEER, "latency": [{"exit": 1}]})
        self.fails("the peer, run 1: exit 1: the disk is full")

    def test_what_is_no_figure_is_said(self) -> None:
        self.figures("bench", {**OURS, "bootstrap": [{"text": "nonsense"}]})
        self.fails("chapter-bench bootstrap, run 1: it printed what is no JSON")
        self.figures("bench", {**OURS, "bootstrap": [{"text": "[]"}] * 9})
        self.fails("chapter-bench bootstrap, run 1: it printed an object that names no case")
        self.figures("bench", {**OURS, "bootstrap": [{"case": "updates"}] * 9})
        self.fails("chapter-bench bootstrap, run 1: it has not printed the one object of its case")
        self.figures("bench", {**OURS, "bootstrap": [{"seconds": 1}] * 9})
        self.fails("bootstrap: a run has no 'bytes_to_hub'", "--cases", "bootstrap")

    def test_what_is_missing_is_said(self) -> None:
        self.fails("say where the peer's script is", "--peer", str(self.folder / "none.py"))
        self.fails("has no chapter-bench", "--programs", str(self.folder / "none"))

    def test_a_peer_that_does_not_start_is_told_first(self) -> None:
        (self.folder / "peer.py").write_text("import no_such_module_as_this\n", encoding="utf-8")
        self.fails("tools/setup --peer")
        self.assertFalse((self.folder / "calls").exists())

    def test_wrong_usage_exits_2_with_a_line(self) -> None:
        for words in (["--cases", "bootstrap,nothing"], ["--runs", "0"], ["--records", "many"], ["more"]):
            done = self.compare(*words)
            self.assertEqual((done.returncode, done.stdout), (2, ""), words)
            self.assertRegex(done.stderr, r"\Atools/bench_compare: [^\n]+\n\Z")


if __name__ == "__main__":
    unittest.main()
