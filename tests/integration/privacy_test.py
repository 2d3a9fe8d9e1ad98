#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# What is on a chapter's disk: nothing of another chapter, nothing of headquarters, and
# nothing of a member that has moved away. Each text, writer's name included, has a marker that is
# nowhere else, and every file is searched as it is and, with RocksDB's own tools, decoded. That the
# search finds what is there is shown first, in the same folder. Needs sst_dump and ldb (rocksdb-tools).
"""No byte of others' data in a chapter's files."""

import base64
import glob
import itertools
import json
import os
import re
import unittest
from typing import Dict, List, Set

from files import MANIFEST, RAW, SST, WAL, contents, need_tools, scan, unhexed
from harness import Failure, StrangerTest, wait_until

MOVE_SECONDS = 60.0
KEY_DIGITS_MIN = 16  # of a key in a manifest that the search makes out


class PrivacyTest(StrangerTest):
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

    def event(self, owner: str, host: str = "") -> List[str]:
        """An event's fields, the same, with a host or none; what is said of the host is of an owner of its own, as it
        may be cleared."""
        hosts = [f"hosts.{host}={self.value(f'{owner}host', 'contact')}"] if host else []
        return [f"titles.{self.marker(owner)}={self.value(owner, 'text')}", f"venue={self.marker(owner)}", *hosts,
                f"programme.{self.marker(owner)}={self.value(owner, 'text')}"]

    def registration(self, owner: str, event: str) -> List[str]:
        """A registration's fields, the same."""
        return [f"event={event}", f"guest={self.marker(owner)}", f"answers.{self.marker(owner)}={self.marker(owner)}"]

    def make(self, place: str, owner: str, noun: str, *fields: str) -> str:
        """Makes a record, by somebody whose name is a marker as well; its id."""
        made = self.federation.row(place, "--actor", self.marker(owner), noun, "create", *fields)
        return str(made["id"])

    def change(self, place: str, owner: str, noun: str, record: str, *fields: str) -> None:
        """Sets fields, the same."""
        self.federation.must(place, "--actor", self.marker(owner), noun, "set", record, *fields)

    def conflict(self, place: str, owner: str, member: str) -> None:
        """A conflict about a member's job title between a node and headquarters, with markers on both sides."""
        self.federation.must(place, "sync", "pause")
        for one in (place, "hq"):
            self.change(one, owner, "members", member, f"job_title={self.marker(owner)}")
        self.federation.must(place, "sync", "resume")
        self.federation.sync_all(self.nodes)

    def found(self, place: str, *owners: str) -> Dict[str, Set[str]]:
        """Of these owners' markers those that are in a replica's folder or its daemon's log, with where."""
        found: Dict[str, Set[str]] = {}
        markers = [marker for owner in owners for marker in self.markers[owner]]
        with open(self.federation.daemons[place].log, "rb") as file:
            log = file.read()
        for path, how, data in itertools.chain(contents(self.federation.data(place)), [("its log", RAW, log)]):
            for marker in markers:
                if marker.encode() in data:
                    found.setdefault(marker, set()).add(f"{os.path.basename(path)} ({how})")
        return found

    def must_find_all(self, place: str, *owners: str) -> Set[str]:
        """The search finds what is there; in which ways it did."""
        found = self.found(place, *owners)
        self.assertEqual(set(found), set().union(*(self.markers[owner] for owner in owners)), f"of {owners} at {place}")
        return {where.rsplit("(", 1)[1].rstrip(")") for places in found.values() for where in places}

    def must_find_none(self, place: str, *owners: str) -> None:
        """Nothing of these is in a replica's files."""
        self.assertEqual(self.found(place, *owners), {}, f"of {owners} at {place}")

    def must_go(self, place: str, *owners: str) -> None:
        """Nothing of these is in a replica's files any more, before long."""
        left: List[Dict[str, Set[str]]] = [{}]

        def gone() -> bool:
            left[0] = self.found(place, *owners)
            return not left[0]

        try:
            wait_until(gone, f"what moved away is in no file of {place}'s", MOVE_SECONDS)
        except Failure as failure:
            raise Failure(f"{failure}: {left[0]}") from failure

    def restart(self, *places: str) -> None:
        """Starts daemons again, so that what was in the log is in sorted files."""
        for place in places:
            self.federation.daemons[place].stop()
            self.federation.daemons[place].start()

    def must_read_manifests(self, place: str) -> None:
        """The search reads manifests: a stopped replica's have the first and last keys of its sorted files."""
        found = list(contents(self.federation.data(place)))
        manifests = b"".join(data for _, how, data in found if how == MANIFEST)
        keys: Set[bytes] = set()
        for path in (path for path, how, _ in found if how == SST):
            of_file = re.findall(rb"(?m)^'([0-9A-F]+)' seq:.*=>", scan(path))
            keys |= {bytes.fromhex(key.decode()) for key in (of_file[0], of_file[-1]) if len(key) >= KEY_DIGITS_MIN}
        self.assertGreater(len(keys), 0)
        for key in keys:
            self.assertIn(key, manifests, place)

    def test_what_is_on_a_chapters_disk(self) -> None:
        sync = self.federation.sync_all
        # Italy's, and a conflict about it.
        theirs = self.make("italy", "italys", "members", *self.member("italys"), "chapter=italy")
        dinner = self.make("italy", "italys", "events", *self.event("italys", "italy"))
        self.make("italy", "italys", "registrations", *self.registration("italys", dinner))
        # Headquarters': a member with a degree, an event that nobody hosts, and who comes to it.
        hidden = self.make("hq", "hqs", "members", *self.member("hqs"))
        degree = f"degrees.{self.marker('hqs')}={self.value('hqs', 'subject', 'school')}"
        self.change("hq", "hqs", "members", hidden, degree)
        meeting = self.make("hq", "hqs", "events", *self.event("hqs"))
        self.make("hq", "hqs", "registrations", *self.registration("hqs", meeting))
        # Toronto's: what will move to Italy, what stays, and a member that headquarters will take.
        moving = self.make("toronto", "moves", "members", *self.member("moves"), "chapter=toronto")
        title = f"job_title={self.marker('titles')}"  # of the same member, and written over several times
        self.federation.must("toronto", "members", "set", moving, title)
        picnic = self.make("toronto", "moves", "events", *self.event("moves", "toronto"))
        self.make("toronto", "moves", "registrations", *self.registration("moves", picnic))
        stays = self.make("toronto", "stays", "members", *self.member("stays"), "chapter=toronto")
        taken = self.make("toronto", "taken", "members", *self.member("taken"), "chapter=toronto")
        sync(self.nodes)
        self.change("hq", "moves", "members", moving,
                    f"degrees.{self.marker('moves')}={self.value('moves', 'level', 'subject', 'school')}")
        # Conflicts, and one that was settled: what lost is kept, with who wrote it.
        self.conflict("italy", "italys", theirs)
        self.conflict("toronto", "taken", taken)
        self.conflict("toronto", "titles", moving)
        for row in self.federation.rows("hq", "conflicts", "list"):
            if row["record"] == moving:
                self.federation.must("hq", "--actor", self.marker("titles"), "conflicts", "settle", row["id"],
                                     "--value", self.marker("titles"))
        self.conflict("toronto", "titles", moving)
        self.assertEqual(len(self.federation.rows("toronto", "conflicts", "list", "--state", "all")), 3)
        self.assertEqual(len(self.federation.rows("italy", "conflicts", "list", "--state", "all")), 1)
        # It is all there, in the write-ahead log and, after a restart, in sorted files; and nothing of the others' is.
        here = {"toronto": ["moves", "moveshost", "stays", "taken"], "italy": ["italys", "italyshost"],
                "hq": ["italys", "italyshost", "moves", "moveshost", "stays", "taken", "hqs"]}
        ways = {place: self.must_find_all(place, *owners) for place, owners in here.items()}
        for place in ("toronto", "italy"):
            self.restart(place)
            ways[place] |= self.must_find_all(place, *here[place])
            self.assertLessEqual({RAW, SST, WAL}, ways[place])
            self.federation.daemons[place].stop()
            self.must_read_manifests(place)
            self.federation.daemons[place].start()
        # Two lost, one stands: the conflict log goes where the member goes.
        self.assertGreaterEqual(len(self.found("toronto", "titles")), 3)
        self.must_find_none("toronto", "italys", "italyshost", "hqs")
        self.must_find_none("italy", "moves", "moveshost", "titles", "stays", "taken", "hqs")

        # The member moves, and so does the event, which its registrations follow. Headquarters takes another, with its
        # conflict.
        self.change("hq", "moved", "members", moving, "chapter=italy")
        self.change("hq", "moved", "events", picnic, f"hosts.italy={self.value('moved', 'contact')}")
        self.federation.must("hq", "events", "clear", picnic, "hosts.toronto")
        self.federation.must("hq", "members", "clear", taken, "chapter")
        sync(self.nodes)
        for gone in (moving, taken):
            self.assertEqual(self.federation.ctl("toronto", "members", "get", gone)[0], 3)
        self.assertEqual(self.get("hq", "members", taken)["scopes"], ["hq"])
        self.must_go("toronto", "moves", "moveshost", "titles", "taken")
        self.must_find_all("toronto", "stays")
        self.must_find_all("italy", "moves", "moved")
        self.assertGreaterEqual(len(self.found("italy", "titles")), 3)
        self.must_find_all("hq", "taken")
        # Nor does it come back with a restart, or with other work.
        gone_from_here = ("moves", "moveshost", "titles", "taken", "italys", "italyshost", "hqs")
        self.change("toronto", "stays", "members", stays, f"employer={self.marker('stays')}")
        sync(self.nodes)
        self.federation.daemons["toronto"].stop()
        self.must_find_none("toronto", *gone_from_here)
        self.federation.daemons["toronto"].start()
        self.must_find_none("toronto", *gone_from_here)
        self.must_find_none("italy", "stays", "taken", "hqs")

    def test_what_was_refused_and_what_waits(self) -> None:
        # Refused: an event for everybody that Toronto hosted, and no longer does.
        event = self.make("toronto", "open", "events", *self.event("open"), "hosts.toronto.role=HOST_ROLE_HOST",
                          "audience=AUDIENCE_EVERYBODY")
        member = self.make("toronto", "stays", "members", *self.member("stays"), "chapter=toronto")
        self.make("italy", "italys", "members", *self.member("italys"), "chapter=italy")
        self.federation.sync_all(self.nodes)
        self.federation.must("toronto", "sync", "pause")
        self.federation.must("hq", "events", "clear", event, "hosts.toronto")
        self.change("toronto", "refused", "events", event, f"venue={self.marker('refused')}",
                    f"programme.{self.marker('refused')}={self.value('refused', 'text')}")
        self.federation.must("toronto", "sync", "resume")
        self.federation.sync_all(self.nodes)
        number = str(self.federation.row("toronto", "refused", "list")["number"])
        # Waiting: values of headquarters' that a computer of Toronto's brings, as if the hub had lost them.
        self.federation.make_node("spare", "toronto", serve=False)
        hub = self.federation.row("hq", "status")["replica"]
        session = self.talk("spare")
        session.send(replica=self.raw_replica("spare"), records=[{"member": member, "as": hub, "fields": {
            f"2/{self.marker('waits')}": self.marker("waits")}}])
        session.until(lambda: any(one["reason"] == "REFUSAL_REASON_WAITS" for stored in session.of("stored")
                                  for one in stored.get("refused", [])), "the answer that it waits")
        self.assertEqual([one["record"] for one in self.federation.rows("hq", "approvals", "list")], [member])
        self.federation.sync_all(self.nodes)
        for restarted in (False, True):
            if restarted:
                self.restart("toronto", "italy", "hq")
                self.federation.sync_all(self.nodes)
            self.must_find_all("toronto", "refused", "stays", "open")
            self.must_find_all("hq", "waits", "stays", "open", "italys")
            self.must_find_all("italy", "open", "italys")
            self.must_find_none("italy", "refused", "waits", "stays")
            self.must_find_none("toronto", "waits", "italys")
        # Dropped from the list, it is nowhere.
        self.federation.must("toronto", "refused", "drop", number)
        self.federation.sync_all(self.nodes)
        self.must_find_none("italy", "refused", "waits", "stays")

    def test_no_key_of_the_database_holds_a_value(self) -> None:
        # Manifest and log keep the first and last keys of files that are gone.
        self.make("toronto", "stays", "members", *self.member("stays"), "chapter=toronto")
        picnic = self.make("toronto", "stays", "events", *self.event("stays", "toronto"))
        self.make("toronto", "stays", "registrations", *self.registration("stays", picnic))
        self.federation.sync_all(self.nodes)
        for name in ("toronto", "hq"):
            for _ in range(2):
                self.restart(name)
            keys = values = b""
            for path in glob.glob(os.path.join(self.federation.data(name), "db", "*.sst")):
                for line in scan(path).splitlines():
                    key, arrow, value = line.partition(b"=>")
                    if arrow:
                        keys += unhexed(key) + b"\n"
                        values += unhexed(value) + b"\n"
            for marker in self.markers["stays"]:
                self.assertIn(marker.encode(), values, f"the search finds it at {name}")
                self.assertNotIn(marker.encode(), keys, f"in a key at {name}")


if __name__ == "__main__":
    need_tools()
    unittest.main()
