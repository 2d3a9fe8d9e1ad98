#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# What is on a chapter's disk: nothing of another chapter, nothing of headquarters, and
# nothing of a member that has moved away. Each text has a marker that is nowhere else, and every
# file is searched as it is and, with RocksDB's own tools, decoded. That the search finds what is
# there is shown first, in the same folder. Needs sst_dump and ldb (rocksdb-tools).
"""No byte of others' data in a chapter's files."""

import base64
import glob
import itertools
import json
import os
import re
import shutil
import subprocess
import unittest
from typing import Dict, Iterator, List, Set, Tuple

from files import MANIFEST, RAW, SST, WAL, contents, need_tools, scan
from harness import Failure, FederationTest, wait_until

MOVE_SECONDS = 60.0


class PrivacyTest(FederationTest):
    """Records with markers in all their texts, and the files of three replicas."""

    def setUp(self) -> None:
        super().setUp()
        self.numbers = itertools.count(1)
        self.markers: Dict[str, Set[str]] = {}

    def marker(self, owner: str) -> str:
        """A text that is nowhere else, in one of `owner`'s fields."""
        text = f"zq{next(self.numbers):04d}{owner}qz"
        self.markers.setdefault(owner, set()).add(text)
        return text

    def value(self, owner: str, *fields: str, **others: object) -> str:
        """A message as JSON, with a marker in each of these fields."""
        return json.dumps({**{field: self.marker(owner) for field in fields}, **others})

    def member(self, owner: str) -> List[str]:
        """A member's fields, with a marker in each that holds free text, and in each key of a map."""
        def key() -> str:
            return self.marker(owner)

        photo = base64.b64encode(self.marker(owner).encode()).decode()
        return [f"names.{key()}={self.value(owner, 'full', 'display')}",
                f"contacts.{key()}={self.value(owner, 'value', 'label', kind='CONTACT_KIND_POST')}",
                f"residences.{key()}={self.value(owner, 'region', 'city')}",
                f"affiliations.{key()}={self.value(owner, 'organization', 'role')}",
                f"employer={self.marker(owner)}", f"notes={self.marker(owner)}", f"photo={photo}"]

    def event(self, owner: str, host: str) -> List[str]:
        """An event's fields, the same."""
        return [f"titles.en={self.value(owner, 'text')}", f"venue={self.marker(owner)}",
                f"hosts.{host}={self.value(owner, 'contact')}",
                f"programme.{self.marker(owner)}={self.value(owner, 'text')}"]

    def registration(self, owner: str, event: str) -> List[str]:
        """A registration's fields, the same."""
        return [f"event={event}", f"guest={self.marker(owner)}", f"answers.{self.marker(owner)}={self.marker(owner)}"]

    def found(self, place: str, owner: str) -> Dict[str, Set[str]]:
        """Of an owner's markers those that are in a replica's folder or its daemon's log, with where."""
        found: Dict[str, Set[str]] = {}
        with open(self.federation.daemons[place].log, "rb") as file:
            log = file.read()
        for path, how, data in itertools.chain(contents(self.federation.data(place)), [("its log", "raw", log)]):
            for marker in self.markers[owner]:
                if marker.encode() in data:
                    found.setdefault(marker, set()).add(f"{os.path.basename(path)} ({how})")
        return found

    def must_find_all(self, place: str, owner: str) -> Set[str]:
        """The search finds what is there; in which ways it did."""
        found = self.found(place, owner)
        self.assertEqual(set(found), self.markers[owner], f"of {owner} at {place}")
        return {where.rsplit("(", 1)[1].rstrip(")") for places in found.values() for where in places}

    def must_find_none(self, place: str, *owners: str) -> None:
        """Nothing of these is in a replica's files."""
        for owner in owners:
            self.assertEqual(self.found(place, owner), {}, f"of {owner} at {place}")

    def test_what_is_on_a_chapters_disk(self) -> None:
        sync = self.federation.sync_all
        self.create("italy", "members", *self.member("italys"), "chapter=italy")
        dinner = self.create("italy", "events", *self.event("italys", "italy"))
        self.create("italy", "registrations", *self.registration("italys", dinner))
        hidden = self.create("hq", "members", *self.member("hqs"))
        self.federation.must("hq", "members", "set", hidden, f"degrees.{self.marker('hqs')}={self.value('hqs', 'subject', 'school')}")
        moving = self.create("toronto", "members", *self.member("moves"), "chapter=toronto")
        title = f"job_title={self.marker('titles')}"  # of the same member, and written over several times
        self.federation.must("toronto", "members", "set", moving, title)
        picnic = self.create("toronto", "events", *self.event("moves", "toronto"))
        self.create("toronto", "registrations", *self.registration("moves", picnic))
        stays = self.create("toronto", "members", *self.member("stays"), "chapter=toronto")
        sync(self.nodes)
        self.federation.must("hq", "members", "set", moving,
                             f"degrees.{self.marker('moves')}={self.value('moves', 'level', 'subject', 'school')}")
        # A conflict, and one that was settled: what lost is kept.
        for settled in (False, True):
            self.federation.must("toronto", "sync", "pause")
            self.federation.must("toronto", "members", "set", moving, f"job_title={self.marker('titles')}")
            self.federation.must("hq", "members", "set", moving, f"job_title={self.marker('titles')}")
            self.federation.must("toronto", "sync", "resume")
            sync(self.nodes)
            if settled:
                for row in self.federation.rows("hq", "conflicts", "list"):
                    self.federation.must("hq", "conflicts", "settle", row["id"], "--value", self.marker("titles"))
        sync(self.nodes)
        self.assertEqual(len(self.federation.rows("toronto", "conflicts", "list", "--state", "all")), 2)
        # It is all there, in the write-ahead log and, after a restart, in sorted files; and nothing of the others' is.
        ways = self.must_find_all("toronto", "moves")
        self.must_find_all("toronto", "stays")
        self.federation.daemons["toronto"].stop()
        self.federation.daemons["toronto"].start()
        ways |= self.must_find_all("toronto", "moves")
        self.assertLessEqual({"raw", "sst_dump", "dump_wal"}, ways)
        # Two lost, one stands: the conflict log goes where the member goes.
        self.assertGreaterEqual(len(self.found("toronto", "titles")), 3)
        for name, owners in (("toronto", ("italys", "hqs")), ("italy", ("moves", "titles", "stays", "hqs"))):
            self.must_find_none(name, *owners)
        for owner in ("italys", "moves", "stays", "hqs"):
            self.must_find_all("hq", owner)

        # The member moves, and so does the event, which its registrations follow.
        self.federation.must("hq", "members", "set", moving, "chapter=italy")
        self.federation.must("hq", "events", "set", picnic, f"hosts.italy={self.value('moves', 'contact')}")
        self.federation.must("hq", "events", "clear", picnic, "hosts.toronto")
        sync(self.nodes)
        self.assertEqual(self.federation.ctl("toronto", "members", "get", moving)[0], 3)
        left: List[Dict[str, Set[str]]] = [{}]

        def gone() -> bool:
            left[0] = {**self.found("toronto", "moves"), **self.found("toronto", "titles")}
            return not left[0]

        try:
            wait_until(gone, "what moved away is in no file of Toronto's", MOVE_SECONDS)
        except Failure as failure:
            raise Failure(f"{failure}: {left[0]}") from failure
        self.must_find_all("toronto", "stays")
        self.must_find_all("italy", "moves")
        self.assertGreaterEqual(len(self.found("italy", "titles")), 3)
        # Nor does it come back with a restart, or with other work.
        self.federation.must("toronto", "members", "set", stays, f"employer={self.marker('stays')}")
        sync(self.nodes)
        self.federation.daemons["toronto"].stop()
        self.must_find_none("toronto", "moves", "titles", "italys", "hqs")
        self.federation.daemons["toronto"].start()
        self.must_find_none("toronto", "moves", "titles", "italys", "hqs")
        self.must_find_none("italy", "stays", "hqs")

    def test_no_key_of_the_database_holds_a_value(self) -> None:
        # Manifest and log keep the first and last keys of files that are gone.
        self.create("toronto", "members", *self.member("stays"), "chapter=toronto")
        picnic = self.create("toronto", "events", *self.event("stays", "toronto"))
        self.create("toronto", "registrations", *self.registration("stays", picnic))
        self.federation.sync_all(self.nodes)
        for name in ("toronto", "hq"):
            for _ in range(2):
                self.federation.daemons[name].stop()
                self.federation.daemons[name].start()
            keys = values = b""
            for path in glob.glob(os.path.join(self.federation.data(name), "db", "*.sst")):
                for line in tool_output("sst_dump", f"--file={path}", "--command=scan", "--output_hex").splitlines():
                    key, arrow, value = line.partition(b"=>")
                    if arrow:
                        keys += unhexed(key) + b"\n"
                        values += unhexed(value) + b"\n"
            for marker in self.markers["stays"]:
                self.assertIn(marker.encode(), values, f"the search finds it at {name}")
                self.assertNotIn(marker.encode(), keys, f"in a key at {name}")


if __name__ == "__main__":
    for program in ("sst_dump", "ldb"):
        if shutil.which(program) is None:
            raise Failure(f"this test needs the program {program} (rocksdb-tools)")
    unittest.main()
