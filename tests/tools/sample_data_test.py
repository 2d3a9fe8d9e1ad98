# SPDX-License-Identifier: Apache-2.0
# Tests tools/sample_data from outside: runs it in a scratch directory and reads what it wrote.
# Shares no code with it, and needs only Python's standard library.
"""Run as `python3 tests/tools/sample_data_test.py`, from any directory."""

from __future__ import annotations

import csv
import datetime
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import unicodedata
import unittest
from collections import Counter
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools" / "sample_data"

# Of `--seed 1 --members 300`: the same on every Python. To be replaced when the generator changes.
GRADUATES_SHA256 = "0bbe057c2110082c6aa346807da48be74c0e9abe3b7010a0cfc68c88f6a77b13"
EVENTS_SHA256 = "54a93ccc77b721e8b192e21180d2b98fed60826f0879913c88e6d32b526d10ce"

E164 = re.compile(r"\+[1-9][0-9]{6,14}")
MAIL = re.compile(r"[a-z][a-z0-9.-]*@example\.(org|com)")
BCP47 = re.compile(r"[a-z]{2}(-[A-Z][a-z]{3})?(-[A-Z]{2})?(-[a-z]{5,8})?")
# How Unicode's names of the letters begin, for each ISO 15924 code.
SCRIPT_LETTERS = {"Latn": "LATIN", "Cyrl": "CYRILLIC", "Hang": "HANGUL", "Hans": "CJK",
                  "Hant": "CJK"}
PUNCTUATION = " ’-"


def run(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    """Runs the tool as a user would, with the order of Python's sets as given."""
    return subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True,
                          encoding="utf-8", check=False,
                          env={**os.environ, "PYTHONHASHSEED": hash_seed})


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; a row that is not as wide as the header fails."""
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, strict=True)
    for row in rows:
        assert len(row) == len(header), row
    return [dict(zip(header, row)) for row in rows]


def digests(directory: Path) -> tuple[str, str]:
    """SHA-256 of both files."""
    graduates, events = (hashlib.sha256((directory / name).read_bytes()).hexdigest()
                         for name in ("graduates.csv", "events.csv"))
    return graduates, events


class ScratchTest(unittest.TestCase):
    """Gives each test a directory of its own."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)

    def generate(self, name: str, *options: str, hash_seed: str = "0") -> Path:
        """Runs the tool and returns where it wrote."""
        result = run(*options, "--out", str(self.scratch / name), hash_seed=hash_seed)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return self.scratch / name


class DeterminismTest(ScratchTest):
    """A seed and a number of members say everything."""

    def test_same_seed_same_bytes(self) -> None:
        one = self.generate("one", "--seed", "7", "--members", "500", hash_seed="1")
        two = self.generate("two", "--seed", "7", "--members", "500", hash_seed="2")
        self.assertEqual(digests(one), digests(two))

    def test_other_seed_other_bytes(self) -> None:
        one = digests(self.generate("one", "--seed", "7", "--members", "500"))
        two = digests(self.generate("two", "--seed", "8", "--members", "500"))
        self.assertNotEqual(one[0], two[0])
        self.assertNotEqual(one[1], two[1])

    def test_number_of_members_leaves_events_alone(self) -> None:
        one = digests(self.generate("one", "--members", "10"))
        two = digests(self.generate("two", "--members", "11"))
        self.assertEqual(one[1], two[1])

    def test_same_bytes_on_every_python(self) -> None:
        written = self.generate("out", "--seed", "1", "--members", "300")
        self.assertEqual(digests(written), (GRADUATES_SHA256, EVENTS_SHA256))


class FilesTest(ScratchTest):
    """The two files, and nothing else."""

    def test_replaces_files_and_leaves_no_others(self) -> None:
        self.generate("out", "--members", "20")
        written = self.generate("out", "--members", "10")
        self.assertEqual(sorted(os.listdir(written)), ["events.csv", "graduates.csv"])
        self.assertEqual(len(read(written / "graduates.csv")), 10)

    def test_rfc_4180_in_utf_8(self) -> None:
        written = self.generate("out", "--members", "300")
        for name in ("graduates.csv", "events.csv"):
            data = (written / name).read_bytes()
            self.assertTrue(data.endswith(b"\r\n"))
            self.assertEqual(data.count(b"\n"), data.count(b"\r\n"))
            self.assertFalse(data.startswith(b"\xef\xbb\xbf"))
            self.assertTrue(unicodedata.is_normalized("NFC", data.decode("utf-8")))

    def test_a_file_that_cannot_be_replaced(self) -> None:
        (self.scratch / "graduates.csv").mkdir()
        result = run("--members", "10", "--out", str(self.scratch))
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"\Asample_data: cannot write to [^\n]+\n\Z")
        self.assertEqual(os.listdir(self.scratch), ["graduates.csv"])


class UsageTest(ScratchTest):
    """Wrong usage: exit code 2, one line that names the option, and nothing written."""

    def test_refuses(self) -> None:
        out = str(self.scratch / "out")
        taken = self.scratch / "taken"
        taken.write_text("a file\n", encoding="utf-8")
        for arguments, named in (
                (("--seed", "1"), "--out"),
                (("--out", out, "--seed", "-1"), "--seed"),
                (("--out", out, "--seed", str(2**64)), "--seed"),
                (("--out", out, "--seed", "9" * 5000), "--seed"),
                (("--out", out, "--seed", "٣"), "--seed"),
                (("--out", out, "--members", "0"), "--members"),
                (("--out", out, "--members", "1000001"), "--members"),
                (("--out", out, "--members", "many"), "--members"),
                (("--out", out, "--members", "1_000"), "--members"),
                (("--out", out, "--memb", "10"), "--memb"),
                (("--out", str(taken)), "--out"),
                (("--out", out, "--colour"), "--colour")):
            with self.subTest(arguments=arguments):
                result = run(*arguments)
                self.assertEqual((result.returncode, result.stdout), (2, ""))
                self.assertEqual(result.stderr.count("\n"), 1)
                self.assertIn(named, result.stderr)
                self.assertFalse(Path(out).exists())


class ContentTest(unittest.TestCase):
    """What 5,000 members and the events look like."""

    scratch: tempfile.TemporaryDirectory[str]
    graduates: list[dict[str, str]]
    events: list[dict[str, str]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.scratch.cleanup)
        run("--seed", "1", "--members", "5000", "--out", cls.scratch.name).check_returncode()
        cls.graduates = read(Path(cls.scratch.name) / "graduates.csv")
        cls.events = read(Path(cls.scratch.name) / "events.csv")

    def column(self, name: str) -> list[str]:
        """One column of graduates.csv."""
        return [row[name] for row in self.graduates]

    def test_counts_and_ids(self) -> None:
        self.assertEqual(len(self.graduates), 5000)
        self.assertEqual(len(set(self.column("id"))), 5000)
        for row in self.graduates:
            self.assertRegex(row["id"], rf"\AG{row['degrees.first.year']}-[0-9]{{5}}\Z")
        self.assertEqual(len(self.events), 40)
        self.assertEqual(len({row["id"] for row in self.events}), 40)

    def test_years(self) -> None:
        self.assertEqual({int(year) for year in self.column("degrees.first.year")},
                         set(range(1978, 2020)))

    def test_chapters(self) -> None:
        chapters = Counter(self.column("chapter"))
        self.assertEqual(set(chapters), {"italy", "toronto", ""})
        for chapter, country in (("italy", "IT"), ("toronto", "CA")):
            self.assertTrue(300 <= chapters[chapter] <= 500, chapters)
            lives_there = [row for row in self.graduates
                           if row["residences.current.country"] == country]
            self.assertEqual({row["chapter"] for row in lives_there}, {chapter, ""})

    def test_phones_and_mail(self) -> None:
        contacts = []
        for row in self.graduates:
            self.assertEqual(row["contacts.email.kind"], "CONTACT_KIND_EMAIL")
            for entry in ("home", "email"):
                kind, value = row[f"contacts.{entry}.kind"], row[f"contacts.{entry}.value"]
                pattern = {"CONTACT_KIND_PHONE": E164, "CONTACT_KIND_EMAIL": MAIL}[kind]
                self.assertTrue(pattern.fullmatch(value), value)
                contacts.append(value)
        self.assertEqual(len(set(contacts)), len(contacts))
        self.assertEqual(set(self.column("contacts.home.kind")),
                         {"CONTACT_KIND_PHONE", "CONTACT_KIND_EMAIL"})

    def test_phones_are_nobodys(self) -> None:
        for number in self.column("contacts.home.value"):
            if number.startswith("+1"):
                self.assertRegex(number, r"\A\+1[2-9][0-9]{2}55501[0-9]{2}\Z")
            elif number.startswith("+39"):
                self.assertRegex(number, r"\A\+390[26]0000[0-9]{4}\Z")

    def test_legal_names(self) -> None:
        for row in self.graduates:
            for part in ("full", "script", "language", "display"):
                self.assertTrue(row[f"names.legal.{part}"].strip(), row)

    def test_chinese_names_are_whole_or_absent(self) -> None:
        present = Counter(
            tuple(bool(row[f"names.chinese.{part}"])
                  for part in ("full", "script", "language", "display"))
            for row in self.graduates)
        self.assertEqual(set(present), {(True,) * 4, (False,) * 4})

    def test_scripts_are_those_of_the_letters(self) -> None:
        seen = set()
        for row in self.graduates:
            for name in ("legal", "chinese"):
                script, language = row[f"names.{name}.script"], row[f"names.{name}.language"]
                if not script:
                    continue
                seen.add((name, script))
                self.assertTrue(BCP47.fullmatch(language), language)
                for form in ("full", "display"):
                    for letter in row[f"names.{name}.{form}"]:
                        self.assertTrue(
                            letter in PUNCTUATION
                            or unicodedata.name(letter).startswith(SCRIPT_LETTERS[script]), row)
        self.assertEqual(seen, {("legal", script) for script in SCRIPT_LETTERS}
                         | {("chinese", "Hans"), ("chinese", "Hant")})

    def test_names_that_are_hard_to_carry(self) -> None:
        words = {word for name in self.column("names.legal.full") for word in name.split()}
        self.assertLessEqual({"Müller", "Søren", "Zoë", "Łukasz", "Nguyễn"}, words)
        written = "".join(self.column("names.legal.full") + self.column("names.chinese.full"))
        self.assertTrue(any(ord(letter) > 0xFFFF for letter in written))
        for letter in "张張刘劉陈陳":
            self.assertIn(letter, written)
        self.assertTrue(any("," in name for name in self.column("employer")))
        self.assertTrue(any('"' in name for name in self.column("employer")))

    def test_codes(self) -> None:
        for row in self.graduates:
            self.assertRegex(row["residences.current.country"], r"\A[A-Z]{2}\Z")
            self.assertTrue(BCP47.fullmatch(row["preferred_locale"]), row)
            for name in ("residences.current.city", "degrees.first.level",
                         "degrees.first.subject", "degrees.first.school"):
                self.assertTrue(row[name], row)

    def test_fits_gb18030(self) -> None:
        for row in self.graduates:
            for cell in row.values():
                self.assertEqual(cell.encode("gb18030").decode("gb18030"), cell)

    def test_events(self) -> None:
        audiences = Counter(row["audience"] for row in self.events)
        self.assertEqual(set(audiences), {"AUDIENCE_EVERYBODY", "AUDIENCE_MEMBERS"})
        self.assertTrue(12 <= audiences["AUDIENCE_EVERYBODY"] <= 15, audiences)
        self.assertEqual({row["status"] for row in self.events},
                         {"EVENT_STATUS_PLANNED", "EVENT_STATUS_CONFIRMED"})
        for row in self.events:
            start, end = (datetime.datetime.strptime(row[name], "%Y-%m-%dT%H:%M:%S")
                          for name in ("start", "end"))
            self.assertLess(start, end)
            self.assertIn(row["time_zone"], ("Europe/Rome", "America/Toronto", "Asia/Shanghai"))
            self.assertTrue(row["titles.en.text"] and row["venue"], row)
            self.assertGreater(int(row["capacity"]), 0)
        for title in ("titles.it.text", "titles.zh.text"):
            self.assertEqual({bool(row[title]) for row in self.events}, {True, False})

    def test_hosts(self) -> None:
        hosts = {}
        for row in self.events:
            roles = {host: row[f"hosts.{host}.role"] for host in ("hq", "italy", "toronto")}
            self.assertLessEqual(set(roles.values()), {"", "HOST_ROLE_HOST"})
            hosts[row["id"]] = {host for host, role in roles.items() if role}
            self.assertTrue(hosts[row["id"]], row)
        self.assertIn({"italy"}, hosts.values())
        self.assertEqual(hosts["EV-GALA"], {"hq", "toronto"})
        gala = next(row for row in self.events if row["id"] == "EV-GALA")
        self.assertEqual(gala["audience"], "AUDIENCE_MEMBERS")


if __name__ == "__main__":
    unittest.main()
