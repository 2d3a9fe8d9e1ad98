# SPDX-License-Identifier: Apache-2.0
#
# Each defect of storage/core/planted.h must be found by random federations, from seeds in which
# the product without it does nothing wrong; prints after how many. Without a defect the program
# that has them must run just as the product does.
"""What the simulation finds, one planted defect after another."""

import os
import re
import subprocess
import sys
import unittest
from typing import List, Set, Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAMS = os.environ.get("CHAPTERSYNC_PROGRAMS", os.path.join(ROOT, "build", "release", "bin"))
STEPS = "2000"
SEEDS_MAX = int(os.environ.get("CHAPTERSYNC_SEEDS_MAX", "2000"))
SEEDS_GOOD = 100  # most are expected within so many
SEEDS_CLEAN = 300  # simulation_seeds runs these: without a defect none of them fails


def run(program: str, *arguments: str) -> Tuple[int, str]:
    """Runs a program: exit code, and all it prints."""
    done = subprocess.run(
        [os.path.join(PROGRAMS, program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    return done.returncode, done.stdout


def defects() -> List[str]:
    """The names that chapter-sim-planted knows."""
    code, text = run("chapter-sim-planted", "--list-defects")
    if code != 0:
        raise RuntimeError(text)
    return [line.partition(":")[0] for line in text.splitlines()]


def search(name: str) -> Tuple[int, str, List[int]]:
    """The least seed that fails with the defect and not without it (0: none), what it reports,
    and the seeds before it that fail without the defect, too."""
    innocent: List[int] = []
    first = 1
    while first <= SEEDS_MAX:
        seeds = f"{first}-{SEEDS_MAX}"
        code, text = run("chapter-sim-planted", "--defect", name, "--seeds", seeds, "--steps", STEPS, "--until-found")
        found = re.search(r"^found at seed (\d+) after \d+ seeds: (.*)", text, re.MULTILINE)
        if code == 0 and found is None:
            break
        if code != 1 or found is None:
            raise RuntimeError(f"{name}: exit code {code}:\n{text[-4000:]}")
        seed = int(found.group(1))
        code, text = run("chapter-sim", "--seed", str(seed), "--steps", STEPS)
        if code == 0:
            return seed, found.group(2), innocent
        if code != 1:
            raise RuntimeError(f"seed {seed}: exit code {code}:\n{text[-4000:]}")
        innocent.append(seed)
        first = seed + 1
    return 0, "", innocent


class DefectsTest(unittest.TestCase):
    """With chapter-sim and chapter-sim-planted of this build."""

    def test_runs_like_the_product_without_a_defect(self) -> None:
        """The programs differ in the defect alone."""
        for seed in ("1", "2", "3"):
            plain = run("chapter-sim", "--seed", seed, "--steps", STEPS)[1].splitlines()[0]
            self.assertRegex(plain, r"^seed \d+: \d+ steps, hash [0-9a-f]{16}$")
            self.assertEqual(run("chapter-sim-planted", "--seed", seed, "--steps", STEPS)[1].splitlines()[0], plain)

    def test_finds_every_defect(self) -> None:
        """A line for each, then the sum."""
        names = defects()
        self.assertGreaterEqual(len(names), 28)
        missed: List[str] = []
        innocents: Set[int] = set()
        within = 0
        print()
        for name in names:
            seed, failure, innocent = search(name)
            innocents.update(innocent)
            if seed == 0:
                missed.append(name)
                print(f"planted {name}: not found in {SEEDS_MAX} seeds", flush=True)
                continue
            within += seed <= SEEDS_GOOD
            # Records in full are in the run itself.
            short = failure if len(failure) <= 160 else failure[:157] + "..."
            print(f"planted {name}: found after {seed} seeds: {short}", flush=True)
        print(
            f"planted defects: {len(names) - len(missed)} of {len(names)} found, {within} of them"
            f" within {SEEDS_GOOD} seeds; {len(innocents)} seeds did not count, as they fail without a defect",
            flush=True,
        )
        self.assertEqual(missed, [])
        self.assertEqual([seed for seed in sorted(innocents) if seed <= SEEDS_CLEAN], [])


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    unittest.main()
