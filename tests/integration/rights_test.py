#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# What a computer may see and write, against real processes: every message of the session by a
# raw client with a right certificate, what a hub refuses, and what waits for headquarters' word.
"""Rights on every message; refused writes and approvals from one end to the other."""

import base64
import json
import os
import shutil
import unittest
import uuid
from typing import Any, Dict, List

from harness import NOT_FOUND, REFUSED, StrangerTest, Talk

MALFORMED = 3  # INVALID_ARGUMENT
RECORD_BYTES_MAX = 1 << 20
CHAPTER, EMPLOYER, NOTES = "6", "7", "11"


def name(record: str, entity: int = 1) -> Dict[str, Any]:
    """A record's name, as messages have it."""
    return {"entity": entity, "id": base64.b64encode(uuid.UUID(record).bytes).decode()}


class MessagesTest(StrangerTest):
    """Toronto's second computer, by hand, and records that are not Toronto's."""

    nodes: List[str] = ["italy", "toronto"]

    def setUp(self) -> None:
        super().setUp()
        self.markers: List[str] = []

        def marker() -> str:
            self.markers.append(f"zq{uuid.uuid4().hex}qz")
            return self.markers[-1]

        self.italys = self.create("italy", "members", f"employer={marker()}", f"notes={marker()}", "chapter=italy")
        self.dinner = self.create("italy", "events", f"venue={marker()}", "hosts.italy.role=HOST_ROLE_HOST")
        self.guest = self.create("italy", "registrations", f"event={self.dinner}", f"guest={marker()}")
        self.hqs = self.create("hq", "members", f"employer={marker()}")
        self.foreign = [name(self.italys), name(self.hqs), name(self.dinner, 2), name(self.guest, 3)]
        self.own_marker = f"zq{uuid.uuid4().hex}qz"
        self.own = self.create("toronto", "members", f"employer={self.own_marker}", "chapter=toronto")
        self.federation.sync_all(self.nodes)
        self.federation.make_node("spare", "toronto", serve=False)
        self.replica = self.raw_replica("spare")
        self.hub_replica = str(int(self.federation.row("hq", "status")["replica"], 16))
        self.italys_replica = str(int(self.federation.row("italy", "status")["replica"], 16))

    def own_came(self, session: Talk) -> None:
        """What is Toronto's has come: by it one sees that the search finds what is there."""
        session.until(lambda: self.own in session.updates(), "Toronto's own record")
        self.assertIn(self.own_marker.encode(), session.everything())

    def nothing_came(self, session: Talk) -> None:
        """Of what is not Toronto's there is not a byte in all that came."""
        everything = session.everything()
        for marker in self.markers:
            self.assertNotIn(marker.encode(), everything)
        self.assertLessEqual({scope for changes in session.of("changes") for scope in [changes.get("scope", "")]},
                             {"", "global", "chapter/toronto"})

    def untouched(self) -> None:
        """Hub and Italy have what they had, and work on."""
        for where in ("hq", "italy"):
            self.assertEqual([self.get(where, "members", self.italys)[field] for field in ("employer", "notes")],
                             self.markers[:2], where)
            self.assertEqual(self.get(where, "registrations", self.guest)["guest"], self.markers[3], where)
        self.assertEqual(self.get("hq", "members", self.hqs)["employer"], self.markers[4])
        for where in ("italy", "toronto"):
            self.works_on(where)
        self.federation.must("italy", "members", "set", self.italys, "job_title=Works on")
        self.federation.must("italy", "sync", "now", "--timeout", "60s")
        self.assertEqual(self.get("hq", "members", self.italys)["job_title"], "Works on")

    def asked_for_all(self) -> Talk:
        """A session that has asked for whole records: foreign ones, one that never was, and last of all its own."""
        session = self.talk("spare")
        self.own_came(session)
        session.send(whole={"records": [*self.foreign, name(str(uuid.uuid4())), name(self.own)]})
        session.until(lambda: any("scope" not in changes for changes in session.of("changes")), "the own record, whole")
        session.until(lambda: len(session.of("left")) > 0, "what is said of the others")
        session.pulse()
        return session

    def test_whole(self) -> None:
        session = self.asked_for_all()
        outside = [changes for changes in session.of("changes") if "scope" not in changes]
        self.assertEqual([[record["id"] for record in changes["records"]] for changes in outside], [[self.own]])
        left = [one["record"] for message in session.of("left") for one in message.get("records", [])]
        for one in self.foreign:
            self.assertIn(one, left)
        self.nothing_came(session)
        self.assertEqual(session.end, {})
        self.untouched()

    def test_what_is_said_of_a_record_that_was_never_here(self) -> None:
        # Of one that is elsewhere the same as of one that is nowhere: not even who has written it, and when.
        session = self.asked_for_all()
        self.assertEqual([one.get("seen", []) for message in session.of("left") for one in message.get("records", [])],
                         [[]] * (len(self.foreign) + 1))
        self.assertNotIn(self.italys_replica.encode(), session.everything())

    def test_what_ends_a_session(self) -> None:
        changed = [{"member": self.italys, "fields": {EMPLOYER: "Stolen"}}]
        cases: List[Any] = [
            ({"scope": "chapter/italy", "replica": self.replica, "records": changed},
             "Changes of scope 'chapter/italy', which was not agreed on"),
            ({"scope": "hq", "replica": self.replica, "records": changed},
             "Changes of scope 'hq', which was not agreed on"),
            ({"scope": "chapter/toronto", "replica": self.replica, "records": changed},
             "Changes of scope 'chapter/toronto', which was not agreed on"),
            ({"stored": {"scope": "chapter/italy", "through": "1"}},
             "Stored of scope 'chapter/italy', which was not agreed on"),
            ({"welcome": {"version": 1, "scopes": ["*"]}}, "a message of kind 2 is not allowed after the handshake"),
            ({"hello": self.hello("italy")}, "a message of kind 1 is not allowed after the handshake"),
        ]
        for message, told in cases:
            session = self.talk("spare")
            self.own_came(session)
            session.send(**message)
            ended = session.until_end()
            self.assertEqual((ended["code"], ended["message"]), (MALFORMED, told), message)
            self.nothing_came(session)
        self.untouched()

    def test_cursors_of_others_scopes(self) -> None:
        with self.talk("spare") as first:
            epoch = first.of("welcome")[0]["epoch"]
        scopes = ("*", "hq", "chapter/italy", "chapter/toronto", "global")
        session = self.talk("spare", cursors=[
            {"replica": self.hub_replica, "epoch": epoch, "scope": scope, "sequence": "0"} for scope in scopes])
        welcome = session.of("welcome")[0]
        self.assertEqual(sorted(welcome["scopes"]), ["chapter/toronto", "global"])
        self.assertEqual(sorted(cursor["scope"] for cursor in welcome["resume"]), ["chapter/toronto", "global"])
        self.own_came(session)
        ends = session.pulse()["ends"]
        self.assertEqual(sorted(cursor["scope"] for cursor in ends), ["chapter/toronto", "global"])
        self.nothing_came(session)
        self.untouched()

    def test_what_a_node_may_say_to_no_effect(self) -> None:
        # That it dropped, refused or sent away what never was its own; what it says of hubs.
        hub_node = base64.b64encode(bytes.fromhex(self.node_id("hq"))).decode()
        session = self.talk("spare")
        self.own_came(session)
        for message in (
                {"left": {where: [{"record": one, "seen": [{"replica": self.italys_replica, "clock": str(1 << 63)}]}
                                  for one in self.foreign] for where in ("records", "unplaced")}},
                {"stored": {"scope": "global", "through": "0", "dropped": [
                    {"number": str(i + 1), "record": one} for i, one in enumerate(self.foreign)]}},
                {"stored": {"scope": "global", "through": "0", "refused": [
                    {"record": one, "reason": "REFUSAL_REASON_RIGHTS", "message": "no"} for one in self.foreign]}},
                {"pulse": {"hubs": [{"node": hub_node, "epoch": "77", "at_ms": "99999999999999"}]}},
                {"pulse": {"reached": [
                    {"replica": self.hub_replica, "epoch": "1", "scope": "*", "sequence": "999999"}]}}):
            session.send(**message)
            session.pulse()
        self.nothing_came(session)
        self.assertEqual(session.end, {})
        self.untouched()
        # The hub is in its epoch still, and takes what Toronto's other computer writes to what is Toronto's.
        with self.talk("spare") as again:
            self.assertEqual(again.of("welcome")[0]["epoch"], session.of("welcome")[0]["epoch"])
        self.federation.must("toronto", "members", "set", self.own, "job_title=Works on")
        self.federation.must("toronto", "sync", "now", "--timeout", "60s")
        self.assertEqual(self.get("hq", "members", self.own)["job_title"], "Works on")

    def test_a_record_that_is_too_large(self) -> None:
        # Refused by itself: what came with it and after it is taken, and the stream goes on.
        large, small, later = (str(uuid.uuid4()) for _ in range(3))
        session = self.talk("spare")
        self.own_came(session)
        half = "x" * (RECORD_BYTES_MAX * 2 // 3)
        session.send(replica=self.replica, records=[
            {"member": large, "fields": {CHAPTER: "toronto", NOTES: half, "12": half}},
            {"member": small, "fields": {CHAPTER: "toronto", EMPLOYER: "Small Ltd"}}])
        session.until(lambda: any(stored.get("through") == "2" for stored in session.of("stored")), "both")
        refused = [one for stored in session.of("stored") for one in stored.get("refused", [])]
        self.assertEqual([(one["record"], one["reason"], one["sequence"]) for one in refused],
                         [(name(large), "REFUSAL_REASON_MALFORMED", "1")])
        self.assertRegex(refused[0]["message"],
                         rf"^a record of 139\d{{4}} bytes is over the limit of {RECORD_BYTES_MAX}$")
        session.send(replica=self.replica, records=[
            {"member": later, "fields": {CHAPTER: "toronto", EMPLOYER: "Later Ltd"}}])
        session.until(lambda: any(stored.get("through") == "3" for stored in session.of("stored")), "the one after it")
        self.assertEqual(session.end, {})
        self.assertEqual(self.federation.ctl("hq", "members", "get", large)[0], NOT_FOUND)
        for one, employer in ((small, "Small Ltd"), (later, "Later Ltd")):
            self.assertEqual(self.get("hq", "members", one)["employer"], employer)
        self.untouched()


class DecisionsTest(StrangerTest):
    """What a hub does not take from a real node, and who decides about it."""

    nodes: List[str] = ["italy", "toronto"]

    def decide(self, word: str, *waiting: Dict[str, Any]) -> None:
        """Approves or rejects what waits, one by one; an erasure is for ever, and asks whether that is meant."""
        for one in waiting:
            shown = self.federation.row("hq", "approvals", "show", str(one["number"]))
            sure = ["--yes"] if word == "approve" and shown["erasure"] else []
            done = self.federation.row("hq", *sure, "approvals", word, str(one["number"]))
            self.assertEqual((done["number"], done["record"]), (one["number"], one["record"]))

    def fails(self, code: int, why: str, where: str, *command: str) -> None:
        """A command fails, and says why in one line."""
        got, out, error = self.federation.ctl(where, *command, output="table")
        self.assertEqual((got, out), (code, ""), error)
        self.assertIn(why, error)
        self.assertEqual(len(error.strip().splitlines()), 1, error)

    def held_back(self, where: str) -> List[str]:
        """What a node says that it holds back."""
        return [text for row in self.federation.rows(where, "sync", "status") for text in row["held_back"]]

    def refused_events(self, count: int) -> List[str]:
        """Events that Italy hosted: headquarters made Toronto the host while Italy was away and wrote to them."""
        events = [self.create("italy", "events", "audience=AUDIENCE_EVERYBODY", "hosts.italy.role=HOST_ROLE_HOST",
                              f"venue=Before {i}") for i in range(count)]
        self.federation.sync_all(self.nodes)
        self.federation.must("italy", "sync", "pause")
        for i, event in enumerate(events):
            self.federation.must("hq", "events", "set", event, "hosts.toronto.role=HOST_ROLE_HOST")
            self.federation.must("hq", "events", "clear", event, "hosts.italy")
            self.federation.must("italy", "events", "set", event, f"venue=After {i}", "capacity=9")
        self.assertEqual(self.federation.rows("italy", "refused", "list"), [])
        self.federation.must("italy", "sync", "resume")
        self.federation.sync_all(self.nodes)
        return events

    def test_a_refused_write_as_people_see_it(self) -> None:
        event = self.refused_events(1)[0]
        number = str(self.federation.row("italy", "refused", "list")["number"])
        told = self.federation.must("italy", "refused", "show", number, output="table")
        self.assertRegex(told, rf"record +events/{event}\n")
        self.assertRegex(told, r"reason +record .*: this chapter is none\n")
        self.assertRegex(told, r"venue +After 0\n")
        self.assertRegex(told, r"capacity +9\n")

    def test_refused_writes(self) -> None:
        events = self.refused_events(2)
        # It left the record everywhere, and is told at Italy, with why.
        refused = {one["record"]: one for one in self.federation.rows("italy", "refused", "list")}
        self.assertEqual(set(refused), set(events))
        self.assertEqual(self.federation.row("italy", "status")["refused"], 2)
        for i, event in enumerate(events):
            for where in ("hq", "italy", "toronto"):
                shown = self.get(where, "events", event)
                self.assertEqual((shown["venue"], shown.get("capacity")), (f"Before {i}", None), where)
            one = refused[event]
            self.assertEqual((one["noun"], one["fields"]), ("events", {"venue": f"After {i}", "capacity": 9}))
            self.assertEqual(one["reason"], f"record {event} is for everybody, and only its hosts write it: "
                                            "this chapter is none")
            self.assertEqual(self.federation.row("italy", "refused", "show", str(one["number"])), one)
        for where in ("hq", "toronto"):
            self.assertEqual(self.federation.rows(where, "refused", "list"), [])
        # A retry is a write: not Italy's to make, until it hosts again.
        first, second = (str(refused[event]["number"]) for event in events)
        self.fails(REFUSED, "chapter italy is no host of this one", "italy", "refused", "retry", first)
        self.federation.must("hq", "events", "set", events[0], "hosts.italy.role=HOST_ROLE_HOST")
        self.federation.sync_all(self.nodes)
        self.assertEqual(len(self.federation.rows("italy", "refused", "list")), 2)
        self.federation.must("italy", "refused", "retry", first)
        self.federation.sync_all(self.nodes)
        for where in ("hq", "italy", "toronto"):
            shown = self.get(where, "events", events[0])
            self.assertEqual((shown["venue"], shown["capacity"]), ("After 0", 9), where)
        self.federation.must("italy", "refused", "drop", second)
        for gone in (first, second, "99"):
            for command in ("show", "retry", "drop"):
                self.fails(NOT_FOUND, gone, "italy", "refused", command, gone)
        # It does not come back, not with a restart either.
        self.federation.daemons["italy"].stop()
        self.federation.daemons["italy"].start()
        self.federation.sync_all(self.nodes)
        self.assertEqual(self.federation.rows("italy", "refused", "list"), [])
        for where in ("hq", "italy", "toronto"):
            self.assertEqual(self.get(where, "events", events[1])["venue"], "Before 1", where)

    def test_a_hub_that_was_restored(self) -> None:
        members = [self.create("italy", "members", f"employer=Before {i}", "chapter=italy") for i in range(6)]
        approved, rejected, erased, alive, vouched, own = members
        self.federation.sync_all(self.nodes)
        hub = self.federation.daemons["hq"]
        hub.stop()
        backup = os.path.join(self.federation.folder, "backup")
        shutil.copytree(self.federation.data("hq"), backup)
        hub.start()
        self.federation.must("hq", "members", "set", approved, 'degrees.first={"level":"PhD"}')
        self.federation.must("hq", "members", "set", rejected, 'degrees.first={"level":"MA"}')
        for record in (erased, alive):
            self.federation.must("hq", "--yes", "members", "erase", record)
        self.federation.must("hq", "members", "set", vouched, "employer=Of headquarters")
        self.federation.must("italy", "members", "set", own, "employer=Of Italy")
        self.federation.sync_all(self.nodes)
        self.assertEqual(self.get("italy", "members", approved)["degrees"], {"first": {"level": "PhD"}})
        hub.stop()
        shutil.rmtree(self.federation.data("hq"))
        shutil.move(backup, self.federation.data("hq"))
        hub.start()
        self.federation.sync_all(self.nodes)
        # What a chapter may write is back; what only headquarters writes waits, and is nowhere but where it was.
        self.assertEqual(self.get("hq", "members", own)["employer"], "Of Italy")
        self.assertEqual(self.get("hq", "members", vouched)["employer"], "Of headquarters")
        self.assertRegex(self.log_of("hq"), f"took 1 values .* on the word of node {self.node_id('italy')}")
        waiting = {one["record"]: one for one in self.federation.rows("hq", "approvals", "list")}
        self.assertEqual(set(waiting), {approved, rejected, erased, alive})
        for record in (approved, rejected):
            self.assertEqual(waiting[record]["reason"], f"record {record} has values of headquarters that headquarters "
                                                        "has not got: it waits for headquarters' word")
            self.assertNotIn("degrees", self.get("hq", "members", record))
            self.assertIn("degrees", self.get("italy", "members", record))
        for record in (erased, alive):
            self.assertIn("was erased, as this computer says", waiting[record]["reason"])
            self.assertFalse(self.get("hq", "members", record)["erased"])
        self.assertEqual({(one["noun"], one["from"].split("/")[0]) for one in waiting.values()}, {("members", "italy")})
        self.assertEqual(self.held_back("italy"), ["4 records: until headquarters has approved them"])
        self.assertEqual(self.federation.rows("italy", "refused", "list"), [])
        self.assertEqual(self.federation.must("hq", "approvals", "list", output="table").count("italy/"), 4)
        # What it is, before anybody decides.
        shown: Dict[str, Dict[str, Any]] = {}
        for record, one in waiting.items():
            shown[record] = self.federation.row("hq", "approvals", "show", str(one["number"]))
            self.assertEqual({key: shown[record][key] for key in one}, one)
        self.assertEqual({record: ({value["field"]: value["value"] for value in one["values"]}, one["erasure"])
                          for record, one in shown.items()},
                         {approved: ({"degrees.first": {"level": "PhD"}}, False),
                          rejected: ({"degrees.first": {"level": "MA"}}, False), erased: ({}, True), alive: ({}, True)})
        # Only headquarters decides, and only what is there.
        number = str(waiting[approved]["number"])
        for command in (["list"], ["show", number], ["approve", number], ["reject", number]):
            self.fails(REFUSED, "decided at the hub; this is a node", "italy", "approvals", *command)
        for command in ("show", "approve", "reject"):
            self.fails(NOT_FOUND, "99", "hq", "approvals", command, "99")
        # A restart forgets nothing of it.
        hub.stop()
        hub.start()
        self.federation.sync_all(self.nodes)
        self.assertEqual({one["record"]: one for one in self.federation.rows("hq", "approvals", "list")}, waiting)
        # Approved, it stands everywhere; rejected, it leaves Italy, into the list.
        self.decide("approve", waiting[approved], waiting[erased])
        self.decide("reject", waiting[rejected], waiting[alive])
        self.federation.sync_all(self.nodes)
        self.assertEqual(self.federation.rows("hq", "approvals", "list"), [])
        for where in ("hq", "italy"):
            self.assertEqual(self.get(where, "members", approved)["degrees"], {"first": {"level": "PhD"}}, where)
            self.assertNotIn("degrees", self.get(where, "members", rejected), where)
            self.assertTrue(self.get(where, "members", erased)["erased"], where)
        self.assertEqual(self.get("hq", "members", alive)["employer"], "Before 3")
        # Nothing comes back from an erasure.
        self.assertTrue(self.get("italy", "members", alive)["erased"])
        refused = [one for one in self.federation.rows("italy", "refused", "list") if one["record"] == rejected]
        self.assertEqual([one["fields"] for one in refused], [{"degrees.first": {"level": "MA"}}])
        self.assertIn("headquarters has rejected it", refused[0]["reason"])
        self.assertEqual(self.held_back("italy"), [])
        # So it stays, with another session and another writer; and what is in the list is headquarters' to write.
        self.federation.daemons["italy"].stop()
        self.federation.daemons["italy"].start()
        self.federation.must("hq", "members", "set", rejected, "employer=Later")
        self.federation.must("hq", "members", "set", alive, "employer=Later")
        self.federation.sync_all(self.nodes)
        self.assertEqual(self.get("italy", "members", rejected)["employer"], "Later")
        self.assertEqual(self.federation.rows("hq", "approvals", "list"), [])
        self.assertFalse(self.get("hq", "members", alive)["erased"])
        self.fails(REFUSED, "degrees", "italy", "refused", "retry", str(refused[0]["number"]))
        self.federation.must("italy", "refused", "drop", str(refused[0]["number"]))
        self.assertNotIn(rejected, [one["record"] for one in self.federation.rows("italy", "refused", "list")])


if __name__ == "__main__":
    unittest.main()
