#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Strangers, thieves and guessers against real processes: who has no certificate, or not
# the right one, gets nothing and disturbs nobody, and who was revoked is out at once.
# Needs the openssl program, and rocksdb-tools.
"""Who may come to a hub, and what happens to who may not."""

import base64
import fcntl
import hashlib
import itertools
import json
import os
import re
import resource
import select
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import unittest
import uuid
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Set, Tuple

from files import SST, contents, need_tools
from harness import NOT_FOUND, PROGRAMS, REFUSED, UNREACHABLE, Failure, StrangerTest, wait_until

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 24 * 3_600_000
REVOKED = "headquarters has revoked this computer"
# The promise is a second; a machine may be busy.
REVOKED_MS_MAX = 10_000
BESIEGERS = 1200
# Whether the programs are built with a sanitizer, which needs memory of its own.
with open(os.path.join(PROGRAMS, "chapter-hub"), "rb") as program:
    SANITIZED = b"__asan_init" in program.read()
OK, CANCELLED, DENIED, EXHAUSTED, PRECONDITION, UNAVAILABLE, UNAUTHENTICATED = 0, 1, 7, 8, 9, 14, 16
USAGE = 2


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def pour(line: ssl.SSLSocket, path: str, size: int, message: bytes = b"") -> int:
    """Calls a method over HTTP/2 with a message that is said to be of `size` bytes, and sends as much of it as is taken,
    until the peer ends the stream or the line; how many bytes went. With `message`: that one, which is compressed, and
    waits for the peer to end the stream, and nothing else."""
    data, settings, window_update, headers, ping, goaway, reset = 0, 4, 8, 1, 6, 7, 3

    def header(name: str, value: str) -> bytes:  # literal, not indexed
        return bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    fields = ((":method", "POST"), (":scheme", "https"), (":path", path), (":authority", "hub"),
              ("content-type", "application/grpc"), ("te", "trailers"), *([("grpc-encoding", "gzip")] if message else []))
    windows, initial, sent, inbox = {0: 65535, 1: 65535}, 65535, 0, b""
    line.settimeout(90)
    try:
        line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(settings, 0, 0, b""))
        line.sendall(frame(headers, 4, 1, b"".join(header(name, value) for name, value in fields)))
        body = bytes([bool(message)]) + struct.pack(">I", size) + (message or b"x" * 11000)
        chunk = body[:16000]
        while sent < size or message:
            while chunk and min(windows.values()) >= len(chunk):
                line.sendall(frame(data, 0, 1, chunk))
                for stream in windows:
                    windows[stream] -= len(chunk)
                sent += len(chunk)
                chunk = body[sent:sent + 16000] if message else b"x" * 16000
                if sent >= size and not message:
                    return sent
            got = line.recv(1 << 16)
            if not got:
                if message:
                    raise Failure(f"{path}: the line ended after {sent} bytes")
                return sent
            inbox += got
            while len(inbox) >= 9 and len(inbox) >= 9 + int.from_bytes(inbox[:3], "big"):
                length = int.from_bytes(inbox[:3], "big")
                kind, flags, stream = inbox[3], inbox[4], int.from_bytes(inbox[5:9], "big")
                payload, inbox = inbox[9:9 + length], inbox[9 + length:]
                if kind == settings and flags & 1 == 0:
                    for i in range(0, length, 6):
                        name, value = struct.unpack(">HI", payload[i:i + 6])
                        if name == 4:
                            windows[1] += value - initial
                            initial = value
                    line.sendall(frame(settings, 1, 0, b""))
                elif kind == ping and flags & 1 == 0:
                    line.sendall(frame(ping, 1, 0, payload))
                elif kind == window_update and stream in windows:
                    windows[stream] += int.from_bytes(payload, "big")
                elif kind == goaway or (stream == 1 and (kind == reset or (kind == headers and flags & 1))):
                    return sent
        return sent
    except (ConnectionResetError, BrokenPipeError, ssl.SSLError) as error:
        if message:
            raise Failure(f"{path}: the line ended after {sent} bytes") from error
        return sent


def address_of(text: str) -> Tuple[str, int]:
    """HOST:PORT in two."""
    host, port = text.rsplit(":", 1)
    return host, int(port)


class SecurityTest(StrangerTest):
    """A hub and Italy's node; Toronto's folder is the thief's."""

    nodes: List[str] = ["italy"]

    # --- Certificates. ---

    def test_no_certificate_and_anothers(self) -> None:
        self.federation.make_node("toronto", "toronto", serve=False)
        italy, toronto = self.node_id("italy"), self.node_id("toronto")
        thief = self.file("toronto", "identity.pem")
        self.assertEqual(self.stranger("-", "hello", italy)["code"], UNAUTHENTICATED)
        self.assertEqual(self.stranger("-", "renew")["code"], UNAUTHENTICATED)
        denied = self.stranger(thief, "hello", italy)
        self.assertEqual(denied["code"], DENIED)
        self.assertIn(f"certificate of node {toronto}", denied["message"])
        self.assertEqual(self.stranger(thief, "hub", toronto)["code"], DENIED)
        # What it is it may: its own scopes, and no others.
        welcome = self.stranger(thief, "hello", toronto)
        self.assertEqual(welcome["code"], OK)
        self.assertEqual(sorted(welcome["scopes"]), ["chapter/toronto", "global"])
        self.works_on()

    # --- What a node pushes with its own certificate. ---

    def push(self, name: str, **what: Any) -> Dict[str, Any]:
        """What a session with a node's certificate was answered that pushed a member."""
        identity = self.file(name, "identity.pem")
        return self.stranger(identity, "push", json.dumps({"node": self.node_id(name), "member": str(uuid.uuid4()), **what}))

    def test_pushes_that_are_not_a_nodes_to_make(self) -> None:
        italy = self.federation.row("italy", "status")["replica"]
        self.federation.make_node("toronto", "toronto")
        self.federation.must("toronto", "sync", "now", "--timeout", "30s")
        toronto = self.federation.row("toronto", "status")["replica"]
        self.federation.daemons["toronto"].stop()
        mine = "00000000" + toronto[:8]
        chapter, degree, employer = "6", "2/first", "7"
        # What is its own is taken, so that the test shows something.
        member = str(uuid.uuid4())
        good = self.push("toronto", replica=mine, member=member, fields={chapter: "toronto", employer: "Own Ltd"})
        self.assertEqual((good["code"], good["refused"], good["stored"]), (OK, [], 1), good)
        self.assertEqual(self.get("hq", "members", member)["employer"], "Own Ltd")
        # Another node's replica id.
        stolen = self.push("toronto", replica=italy, fields={chapter: "toronto"})
        self.assertEqual(stolen["code"], DENIED, stolen)
        self.assertIn("another node's", stolen["message"])
        # A field that only headquarters writes, of its own member.
        refused = self.push("toronto", replica=mine, member=member, fields={degree: "PhD"})
        self.assertEqual([one["reason"] for one in refused["refused"]], ["REFUSAL_REASON_RIGHTS"], refused)
        self.assertIn("headquarters only", refused["refused"][0]["message"])
        self.assertNotIn("first", self.get("hq", "members", member).get("degrees", {}))
        # What nobody could read: a text under a key, in a field that is no map.
        broken = str(uuid.uuid4())
        refused = self.push("toronto", replica=mine, member=broken, fields={chapter: "toronto", employer + "/x": "?"})
        self.assertEqual([one["reason"] for one in refused["refused"]], ["REFUSAL_REASON_MALFORMED"], refused)
        self.assertNotEqual(self.federation.ctl("hq", "members", "get", broken)[0], 0)
        # A record of another chapter, one of headquarters', and an erasure wait for headquarters' word. The node is told
        # so, and nothing of them is anywhere until then.
        theirs = self.federation.row("italy", "members", "create", "chapter=italy", "employer=Theirs Ltd")["id"]
        self.federation.must("italy", "sync", "now", "--timeout", "30s")
        nobodys = self.federation.row("hq", "members", "create", "employer=Nobodys Ltd")["id"]
        for one, told in ((theirs, "was never in this computer's chapter"), (nobodys, "was never in this computer's chapter")):
            waits = self.push("toronto", replica=mine, member=one, fields={employer: "Stolen Ltd"})
            self.assertEqual([one["reason"] for one in waits["refused"]], ["REFUSAL_REASON_WAITS"], waits)
            self.assertIn(told, waits["refused"][0]["message"])
            moved = self.push("toronto", replica=mine, member=one, fields={chapter: "toronto"})
            self.assertEqual([one["reason"] for one in moved["refused"]], ["REFUSAL_REASON_WAITS"], moved)
        erased = self.push("toronto", replica=mine, member=member, fields={}, erased=True)
        self.assertEqual([one["reason"] for one in erased["refused"]], ["REFUSAL_REASON_WAITS"], erased)
        self.assertEqual(self.get("hq", "members", theirs)["employer"], "Theirs Ltd")
        self.assertEqual(self.get("hq", "members", nobodys)["employer"], "Nobodys Ltd")
        self.assertEqual(self.get("hq", "members", member)["employer"], "Own Ltd")
        # In another's name: what is left out of a record nobody vouches for, and what headquarters writes waits.
        part = self.push("toronto", replica=mine, member=member, fields={employer: "Forged Ltd"}, partial=True, **{"as": italy})
        self.assertTrue(part["whole"], part)
        self.assertEqual(self.get("hq", "members", member)["employer"], "Own Ltd")
        hub_replica = self.federation.row("hq", "status")["replica"]
        forged = self.push("toronto", replica=mine, member=str(uuid.uuid4()), fields={chapter: "toronto", degree: "PhD"},
                           **{"as": hub_replica})
        self.assertEqual([one["reason"] for one in forged["refused"]], ["REFUSAL_REASON_WAITS"], forged)
        # Headquarters looks, and says its word.
        waiting = self.federation.rows("hq", "approvals", "list")
        self.assertEqual({one["record"] for one in waiting} >= {theirs, nobodys, member}, True, waiting)
        self.assertEqual({one["from"].split("/")[0] for one in waiting}, {"toronto"}, waiting)
        self.assertEqual({one["noun"] for one in waiting}, {"members"}, waiting)
        shown = [self.federation.row("hq", "approvals", "show", str(one["number"])) for one in waiting]
        self.assertEqual([(value["field"], value["value"], value["current"]) for one in shown
                          if one["record"] == nobodys for value in one["values"]], [("chapter", "toronto", None)])
        self.assertEqual([one["erasure"] for one in shown if one["record"] == member], [True])
        for one in waiting:
            self.federation.must("hq", "approvals", "reject", str(one["number"]))
        self.assertEqual(self.federation.rows("hq", "approvals", "list"), [])
        # The same once more is refused, and does not wait again.
        again = self.push("toronto", replica=mine, member=member, fields={}, erased=True)
        self.assertEqual([one["reason"] for one in again["refused"]], ["REFUSAL_REASON_REJECTED"], again)
        self.assertEqual(self.get("hq", "members", member)["employer"], "Own Ltd")
        # An id of another computer's lineage would make its writes one's own.
        near = self.push("toronto", replica=italy[:8] + "00000007", fields={chapter: "toronto"})
        self.assertEqual(near["code"], DENIED, near)
        self.assertIn("ids of another computer", near["message"])
        # A stamp of two days ahead wins nothing: nothing of it is taken.
        late = str(uuid.uuid4())
        for one in (late, member):
            ahead = self.push("toronto", replica=mine, member=one, ahead_ms=2 * DAY_MS,
                              fields={chapter: "toronto", employer: "Ahead"})
            self.assertEqual(ahead, {
                "code": PRECONDITION, "message": f"record {one} is stamped more than 60 s ahead of the hub's clock"})
        code, _, error = self.federation.ctl("hq", "members", "get", late)
        self.assertEqual(code, NOT_FOUND, error)
        self.assertEqual(self.get("hq", "members", member)["employer"], "Own Ltd")
        self.assertNotIn("Ahead", json.dumps(self.federation.rows("hq", "members", "list")))
        # So it is the stamp that is refused.
        near = self.push("toronto", replica=mine, member=late, ahead_ms=1000,
                         fields={chapter: "toronto", employer: "Now"})
        self.assertEqual((near["code"], near["refused"]), (OK, []), near)
        self.assertEqual(self.get("hq", "members", late)["employer"], "Now")
        self.works_on()

    def test_a_record_in_another_replicas_name(self) -> None:
        # A whole record that the hub has not got is taken on the word of who brings it, and the log says whose it was.
        italy = self.federation.row("italy", "status")["replica"]
        self.federation.make_node("toronto", "toronto", serve=False)
        toronto, member = self.node_id("toronto"), str(uuid.uuid4())
        told = rf"took 2 values .*\b1 records?\b.* on the word of node {toronto}.*"
        self.assertNotRegex(self.log_of("hq"), told)
        brought = self.push("toronto", replica=self.raw_replica("toronto"), member=member,
                            fields={"6": "toronto", "7": "Vouched Ltd"}, **{"as": italy})
        self.assertEqual((brought["code"], brought["refused"], brought["whole"]), (OK, [], False), brought)
        shown = self.get("hq", "members", member)
        self.assertEqual((shown["employer"], shown["scopes"]), ("Vouched Ltd", ["chapter/toronto"]))
        write = self.federation.row("hq", "members", "why", member, "employer")["write"]
        self.assertEqual((write["replica"], write["actor"]), (italy, "stranger"))
        found = re.search(told, self.log_of("hq"))
        assert found is not None, self.log_of("hq")
        # A record that is named is this one.
        self.assertLessEqual(set(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", found[0])), {member})
        self.assertEqual(self.federation.ctl("italy", "members", "get", member)[0], NOT_FOUND)
        # With Italy as its chapter it ends outside of Toronto's scopes: taken as well, as something that Toronto let go
        # before it had a line, and Italy gets it.
        given = str(uuid.uuid4())
        brought = self.push("toronto", replica=self.raw_replica("toronto"), member=given,
                            fields={"6": "italy", "7": "Given Ltd"}, **{"as": italy})
        self.assertEqual((brought["code"], brought["refused"]), (OK, []), brought)
        wait_until(lambda: self.federation.ctl("italy", "members", "get", given)[0] == 0, "what was given to Italy")
        self.works_on()

    def test_another_authority(self) -> None:
        # A federation of the thief's own, with the same names.
        self.federation.make_hub("other")
        subject = self.openssl("x509", "-noout", "-ext", "subjectAltName", "-in", self.file("italy", "identity.pem"))
        uri = re.search(r"URI:(\S+)", subject)
        assert uri is not None, subject
        folder = self.federation.folder
        key, request, chain = (os.path.join(folder, name) for name in ("key", "request", "chain"))
        extensions = os.path.join(folder, "extensions")
        with open(extensions, "w", encoding="utf-8") as file:
            file.write(f"subjectAltName=URI:{uri[1]}\n")
        self.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
                     "-subj", "/CN=thief", "-out", request)
        self.openssl("x509", "-req", "-in", request, "-CA", self.file("other", "authority.pem"), "-CAkey",
                     self.file("other", "authority.key"), "-days", "30", "-extfile", extensions, "-out", chain)
        identity = os.path.join(folder, "identity")
        with open(identity, "w", encoding="utf-8") as out:
            for part in (key, chain):
                with open(part, encoding="utf-8") as file:
                    out.write(file.read())
        self.assertEqual(self.stranger(identity, "hello", self.node_id("italy"))["code"], UNAVAILABLE)
        # Made by the hub's own authority it gets into the handshake, so that the test shows something; but the hub knows
        # the node by another key.
        self.openssl("x509", "-req", "-in", request, "-CA", self.authority, "-CAkey", self.file("hq", "authority.key"),
                     "-days", "30", "-extfile", extensions, "-out", chain)
        with open(identity, "w", encoding="utf-8") as out:
            for part in (key, chain):
                with open(part, encoding="utf-8") as file:
                    out.write(file.read())
        denied = self.stranger(identity, "hello", self.node_id("italy"))
        self.assertEqual(denied["code"], DENIED)
        self.assertIn("another certificate", denied["message"])
        self.works_on()

    def test_only_tls_13(self) -> None:
        old = self.openssl("s_client", "-connect", self.hub, "-tls1_2", "-alpn", "h2")
        self.assertIn("Cipher is (NONE)", old)
        new = self.openssl("s_client", "-connect", self.hub, "-tls1_3", "-alpn", "h2", "-CAfile", self.authority)
        self.assertIn("TLSv1.3", new)
        self.assertIn("Verify return code: 0", new)
        with socket.create_connection(address_of(self.hub), 10) as line:
            line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")  # in the clear
            line.settimeout(30)
            try:
                answer = line.recv(4096)
            except ConnectionResetError:
                answer = b""
            self.assertNotEqual(answer[3:4], b"\x04", "no HTTP/2 without TLS")

    def test_whose_keys_are_where(self) -> None:
        for name, file in (("hq", "authority.key"), ("hq", "identity.pem"), ("italy", "identity.pem")):
            self.assertEqual(os.stat(self.file(name, file)).st_mode & 0o777, 0o600)
            self.assertEqual(os.stat(self.federation.data(name)).st_mode & 0o777, 0o700)
        self.assertFalse(os.path.exists(self.file("italy", "authority.key")))

    # --- Invitations. ---

    def test_invitations(self) -> None:
        invitation = self.invite("toronto")
        self.federation.make_hub("other", "Another Association")
        misdirected = {**invitation, "hub": self.federation.endpoints("other")["sync"]}
        wrong = [({**invitation, "chapter": "italy"}, "altered"),
                 ({**invitation, "authority": "0" * 64}, "another federation"),
                 (misdirected, "another federation")]
        for altered, why in wrong:
            code, _, error = self.join("toronto", altered)
            self.assertEqual(code, REFUSED, error)
            self.assertIn(why, error)
            self.assertEqual(len(error.strip().splitlines()), 1, error)
        code, _, error = self.join("toronto", invitation)
        self.assertEqual(code, 0, error)
        code, _, error = self.join("second", invitation)
        self.assertEqual(code, REFUSED)
        self.assertIn("used already", error)
        # Revoked with its chapter.
        open_one = self.invite("toronto")
        revoked = self.federation.row("hq", "chapters", "revoke", "toronto", "--yes")
        self.assertEqual(revoked["invitations"], 1)
        self.assertEqual(revoked["revoked"], [self.node_id("toronto")])
        code, _, error = self.join("second", open_one)
        self.assertEqual(code, REFUSED)
        self.assertIn("was revoked", error)

    def works_while(self, *command: str) -> Dict[str, Any]:
        """What the stranger was answered to what it does without a certificate, while Italy works on in one session.
        Once more where that was over before Italy had worked."""
        sessions = self.sessions("italy")
        for _ in range(5):
            done = 0
            with ThreadPoolExecutor(1) as other:
                answer = other.submit(self.stranger, "-", *command)
                while not answer.done():
                    self.works_on()
                    done += not answer.done()
            print(f"Italy wrote and synced {done} times meanwhile", flush=True)
            self.assertEqual(self.sessions("italy"), sessions)
            if done > 0:
                return answer.result()
        raise Failure(f"{command} is always over before Italy has worked")

    def test_ten_thousand_wrong_invitations(self) -> None:
        good = self.invite("toronto")
        self.works_on()
        size = os.path.getsize(self.federation.daemons["hq"].log)
        codes = self.works_while("guess", "10000")["codes"]
        self.assertEqual(sum(codes.values()), 10000)
        self.assertEqual(set(codes), {str(DENIED), str(EXHAUSTED)})
        self.assertLess(codes[str(DENIED)], 20, "looked at, and told that they are wrong")
        self.assertLess(os.path.getsize(self.federation.daemons["hq"].log) - size, 100_000, "the log is not filled")
        self.works_on()
        # Who shares the guesser's address waits as well, a minute at most.
        said: List[str] = []

        def joins() -> bool:
            code, _, error = self.join("toronto", good)
            if code != 0:
                said.append(error)
            return code == 0

        wait_until(joins, "a place in the queue", 90)
        for error in said:
            self.assertRegex(error, r"too many wrong invitations .* in \d+ s")

    # --- Revocation and the end of certificates. ---

    def revoked_in_time(self, ended: Dict[str, Any], issued_ms: float) -> None:
        """A session ended as it was revoked, soon after the command was given."""
        self.assertEqual((ended["code"], ended["message"]), (DENIED, REVOKED))
        after_ms = ended["at_ms"] - issued_ms
        print(f"the session ended {after_ms:.0f} ms after the command to revoke was given", flush=True)
        self.assertLess(after_ms, REVOKED_MS_MAX)

    def test_a_stolen_laptop(self) -> None:
        self.federation.make_node("laptop", "italy")
        wait_until(lambda: self.connected("laptop"), "the laptop's session")
        self.federation.must("italy", "sync", "now")
        laptop = self.node_id("laptop")
        # A raw session as well, of another such computer, to see when it ends.
        self.federation.make_node("spare", "italy", serve=False)
        held = self.talk("spare")
        issued_ms = time.time() * 1000
        self.federation.row("hq", "nodes", "revoke", self.node_id("spare"))
        ended = held.until_end()
        self.revoked_in_time(ended, issued_ms)
        self.assertTrue(self.connected("laptop"))
        open_one = self.invite("italy")
        revoked = self.federation.row("hq", "nodes", "revoke", laptop[:12])
        self.assertEqual(revoked, {"revoked": laptop, "invitations": 1})
        wait_until(lambda: not self.connected("laptop"), "the end of the laptop's session", 10)
        code, _, error = self.join("elsewhere", open_one)
        self.assertEqual(code, REFUSED, error)
        self.assertIn("was revoked", error)
        self.sync_fails("laptop", "revoked")
        self.assertEqual(self.stranger(self.file("laptop", "identity.pem"), "hello", laptop)["code"], DENIED)
        self.assertEqual(self.stranger(self.file("laptop", "identity.pem"), "renew")["code"], DENIED)
        # The chapter works on, and the laptop hears nothing of it, also after restarts.
        self.works_on()
        for name in ("hq", "laptop"):
            self.federation.daemons[name].stop()
            self.federation.daemons[name].start()
        self.sync_fails("laptop", "revoked")
        shown = {row["id"]: row for row in self.federation.rows("hq", "nodes", "list")}
        self.assertIsNotNone(shown[laptop]["revoked"])
        self.assertIsNone(shown[self.node_id("italy")]["revoked"])
        self.assertNotEqual(self.federation.ctl("hq", "nodes", "revoke", "nobody")[0], 0)

    def test_a_revoked_chapter(self) -> None:
        self.federation.make_node("laptop", "italy")
        self.federation.make_node("toronto", "toronto")
        self.federation.make_node("spare", "italy", serve=False)
        self.federation.make_node("third", "toronto", serve=False)
        held, theirs = self.talk("spare"), self.talk("third")
        italian = {self.node_id(name) for name in ("italy", "laptop", "spare")}
        for name in ("italy", "laptop", "toronto"):
            self.federation.must(name, "sync", "now", "--timeout", "60s")
            self.assertEqual(len(self.sessions(name)), 1)
        sessions = self.sessions("toronto")
        issued_ms = time.time() * 1000
        revoked = self.federation.row("hq", "chapters", "revoke", "italy", "--yes")
        self.assertEqual(set(revoked["revoked"]), italian)
        ended = held.until_end()
        self.revoked_in_time(ended, issued_ms)
        for name in ("italy", "laptop"):
            first = rf"session {self.sessions(name)[0]} .*: ended: PERMISSION_DENIED: {REVOKED}"
            wait_until(lambda which=name, told=first: re.search(told, self.log_of(which)) is not None,
                       f"the end of {name}'s session")
            self.sync_fails(name, REVOKED)
            self.assertEqual(self.stranger(self.file(name, "identity.pem"), "hello", self.node_id(name)),
                             {"code": DENIED, "message": REVOKED})
        # Toronto's go on: not one of them began anew.
        self.works_on("toronto")
        theirs.pulse()
        self.assertEqual(self.sessions("toronto"), sessions)
        self.assertNotIn("ended:", self.log_of("toronto"))
        shown = {row["id"]: (row["revoked"] is not None, row["connected"])
                 for row in self.federation.rows("hq", "nodes", "list")}
        self.assertEqual(shown, {**{node: (True, False) for node in italian},
                                 **{self.node_id(name): (False, True) for name in ("toronto", "third")}})
        # A restart of the hub forgets nothing of it.
        self.federation.daemons["hq"].stop()
        self.federation.daemons["hq"].start()
        self.sync_fails("laptop", REVOKED)
        self.works_on("toronto")
        # What they wrote meanwhile is theirs until they are invited once more.
        member = self.create("italy", "members", "employer=Unsent Ltd")
        self.federation.daemons["italy"].stop()
        code, _, error = self.join("italy", self.invite("italy"))
        self.assertEqual(code, 0, error)
        self.federation.daemons["italy"].start()
        self.federation.must("italy", "sync", "now", "--timeout", "60s")
        self.assertEqual(self.get("hq", "members", member)["employer"], "Unsent Ltd")
        self.sync_fails("laptop", REVOKED)

    # --- Floods. ---

    def memory_peak_kb(self, name: str, since_now: bool = False) -> int:
        """The most that was resident of a daemon since it began, or since it was asked for `since_now`."""
        process = self.federation.daemons[name].process
        assert process is not None
        if since_now:
            with open(f"/proc/{process.pid}/clear_refs", "w", encoding="ascii") as file:
                file.write("5")
        with open(f"/proc/{process.pid}/status", encoding="utf-8") as file:
            found = re.search(r"VmHWM:\s+(\d+)", file.read())
        assert found is not None
        return int(found[1])

    def line_to_hub(self, identity: str = "") -> ssl.SSLSocket:
        """A TLS connection, with the certificate of a folder or none."""
        return self.tls_over(socket.create_connection(address_of(self.hub), 10), identity)

    def tls_over(self, line: socket.socket, identity: str = "") -> ssl.SSLSocket:
        """The same, over a connection."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.authority)
        context.set_alpn_protocols(["h2"])
        if identity:
            context.load_cert_chain(self.file(identity, "identity.pem"))
        return context.wrap_socket(line)

    def open_at_hub(self) -> int:
        """How many connections the hub has taken that are open."""
        process = self.federation.daemons["hq"].process
        assert process is not None
        port = f":{address_of(self.hub)[1]:04X}"
        rows: List[List[str]] = []
        for table in ("tcp", "tcp6"):
            with open(f"/proc/{process.pid}/net/{table}", encoding="ascii") as file:
                rows += [line.split() for line in file.readlines()[1:]]
        # Established, and of a process: one that still waits to be accepted has no inode.
        return sum(row[1].endswith(port) and row[3] == "01" and row[9] != "0" for row in rows)

    def dial(self, flavour: int) -> socket.socket:
        """A connection that goes so far and no further: nothing sent, the beginning of a ClientHello, all of it and
        something heard, or all of TLS and no HTTP/2."""
        with socket.create_connection(address_of(self.hub), 10) as low:
            # Low numbers are for those who wait by select.
            line = socket.socket(fileno=fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 2048))
        line.settimeout(60)
        if flavour == 3:
            return self.tls_over(line)
        if flavour == 1:
            line.sendall(bytes([22, 3, 1, 2, 0, 1]))
        elif flavour == 2:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.set_alpn_protocols(["h2"])
            heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
            try:
                context.wrap_bio(heard, said).do_handshake()
            except ssl.SSLWantReadError:
                line.sendall(said.read())
            self.assertEqual(line.recv(6)[5:], b"\x02", "no ServerHello")
        return line

    def test_a_thousand_handshakes_that_never_end(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
        self.works_on()
        sessions = self.sessions("italy")
        before = self.open_at_hub()
        self.assertIn(before, range(1, 10), "Italy's")
        lines: Dict[int, Tuple[int, socket.socket]] = {}  # by file descriptor: its flavour, and the connection
        hung_up = {flavour: 0 for flavour in range(4)}
        stop = threading.Event()
        readable = select.poll()

        def sweep(seconds: float) -> None:
            """Closes what the hub has ended, after waiting for it."""
            for number, _ in readable.poll(seconds * 1000):
                flavour, line = lines[number]
                line.settimeout(1)
                try:
                    if line.recv(4096):
                        continue
                except (TimeoutError, ssl.SSLWantReadError):
                    continue
                except (ConnectionResetError, ssl.SSLError):
                    pass
                readable.unregister(number)
                del lines[number]
                line.close()
                hung_up[flavour] += 1

        def besiege() -> None:
            """Opens some more than a thousand, and another for each that the hub ends."""
            for count in itertools.count():
                if stop.is_set():
                    return
                sweep(0.05 if len(lines) >= BESIEGERS else 0)
                if len(lines) < BESIEGERS:
                    line = self.dial(count % 4)
                    lines[line.fileno()] = (count % 4, line)
                    readable.register(line, select.POLLIN)

        with ThreadPoolExecutor(1) as besieger:
            siege = besieger.submit(besiege)
            try:
                # Whatever the hub ends meanwhile: it had a thousand both before and after Italy worked.
                held: List[int] = []
                rounds = 0

                def besieged() -> bool:
                    self.assertFalse(siege.done(), siege)
                    held.append(self.open_at_hub() - before)
                    return held[-1] >= 1000

                while rounds < 3:
                    wait_until(besieged, "a thousand open connections", 120)
                    self.works_on()
                    rounds += besieged()
                self.federation.make_node("toronto", "toronto")
                self.federation.must("toronto", "sync", "now", "--timeout", "60s")
                self.works_on()
            finally:
                stop.set()
            siege.result()
        print(f"{max(held)} open at once", flush=True)
        # The hub hangs up, whatever it is that does not go on.
        end = time.monotonic() + 90
        while lines and time.monotonic() < end:
            sweep(1)
        self.assertEqual([flavour for flavour, _ in lines.values()], [])
        self.assertGreater(min(hung_up.values()), 200, hung_up)
        self.works_on()
        self.assertEqual(self.sessions("italy"), sessions, "one session all the time")
        wait_until(lambda: self.open_at_hub() <= before + 2, "the end of them at the hub")

    def test_calls_in_which_nothing_is_sent(self) -> None:
        self.works_on()
        self.assertEqual(self.works_while("hold", "64")["codes"], {str(CANCELLED): 64})
        self.works_on()

    def test_connection_after_connection_of_one_certificate(self) -> None:
        self.federation.make_node("toronto", "toronto", serve=False)
        taken = 0
        for _ in range(200):
            with self.line_to_hub("toronto") as line:
                line.settimeout(30)
                try:
                    line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
                    taken += len(line.recv(1)) > 0
                except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
                    pass
        print(f"{taken} of 200 connections taken", flush=True)
        self.assertGreaterEqual(taken, 50)
        self.assertLess(taken, 200)
        self.works_on()

    def test_a_message_of_two_gigabytes(self) -> None:
        self.federation.make_node("toronto", "toronto")
        self.works_on()
        sessions = self.sessions("italy")
        before = self.memory_peak_kb("hq", since_now=True)
        for path, identity in (("EnrolmentService/Enrol", ""), ("ReplicationService/Session", "italy")):
            # Italy works while it comes. Where the limit of all is reached, gRPC may end any stream: then anew.
            with self.line_to_hub(identity) as line, ThreadPoolExecutor(1) as pourer:
                poured = pourer.submit(pour, line, f"/chaptersync.v1.{path}", 2 << 30)
                worked = 0
                while not poured.done() or worked == 0:
                    for name in ("italy", "toronto"):
                        self.works_on(name)
                    worked += 1
                sent = poured.result()
            grown = self.memory_peak_kb("hq") - before
            anew = len(self.sessions("italy")) - len(sessions)
            print(f"{path}: the hub hung up after {sent >> 20} MiB, and had grown by {grown >> 10} MiB; both chapters "
                  f"worked {worked} times meanwhile, Italy in {anew} more sessions", flush=True)
            self.assertLess(sent, 1 << 30, "it is not taken as a whole")
            # A sanitizer keeps for a while what was freed.
            self.assertLess(grown, 1_000_000 if SANITIZED else 600_000)
            self.works_on()

    def test_a_message_that_would_inflate(self) -> None:
        packer = zlib.compressobj(level=1, wbits=31)
        packed = b"".join([packer.compress(bytes(1 << 20)) for _ in range(512)] + [packer.flush()])
        self.assertLess(len(packed), 4 << 20, "small enough to be taken")
        before = self.memory_peak_kb("hq", since_now=True)
        for path, identity in (("EnrolmentService/Enrol", ""), ("ReplicationService/Session", "italy")):
            with self.line_to_hub(identity) as line:
                self.assertGreater(pour(line, f"/chaptersync.v1.{path}", len(packed), packed), 0)
            grown = self.memory_peak_kb("hq") - before
            print(f"{path}: the hub had grown by {grown >> 10} MiB", flush=True)
            self.assertLess(grown, 256_000, "512 MiB were packed")
            self.works_on()


class SecretsTest(StrangerTest):
    """Where codes and keys must not be: in whatever programs print, log, or were started with."""

    nodes: List[str] = []

    def setUp(self) -> None:
        super().setUp()
        self.said: List[Tuple[str, bytes]] = []  # what each command that was run printed
        run = self.federation.run

        def kept(command: List[str], *arguments: Any, **others: Any) -> Tuple[int, str, str]:
            code, out, error = run(command, *arguments, **others)
            told = error if "invite" in command else out + error  # an invitation is printed there, and nowhere else
            self.said.append((" ".join(command)[:400], told.encode()))
            return code, out, error

        # The federation's own calls are kept as well.
        self.federation.run = kept  # type: ignore[method-assign]

    def found(self, *forms: bytes) -> Set[str]:
        """Where one of these is: in which command's words, or in which daemon's log, arguments or environment."""
        sources = list(self.said)
        for name, daemon in self.federation.daemons.items():
            with open(daemon.log, "rb") as file:
                sources.append((f"{name}'s log", file.read()))
            if daemon.process is not None:
                for part in ("cmdline", "environ"):
                    with open(f"/proc/{daemon.process.pid}/{part}", "rb") as file:
                        sources.append((f"{name}'s {part}", file.read()))
        return {where for where, text in sources if any(form in text for form in forms)}

    @staticmethod
    def forms_of(code: str) -> List[bytes]:
        """An invitation's code in every form that somebody might print."""
        raw = bytes.fromhex(code)
        forms = [code.encode(), code.upper().encode(), raw, code.encode().hex().encode()]
        for octets in (raw, code.encode()):
            forms += [encode(octets).rstrip(b"=") for encode in (base64.b64encode, base64.urlsafe_b64encode)]
        return forms

    @staticmethod
    def forms_of_key(file: str) -> List[bytes]:
        """A private key of a PEM file: the lines of its text, and the number itself."""
        with open(file, encoding="utf-8") as opened:
            text = opened.read()
        key = re.search(r"-----BEGIN PRIVATE KEY-----\n(.*?)-----END PRIVATE KEY-----", text, re.S)
        assert key is not None, file
        der = base64.b64decode(key[1])
        at = der.index(b"\x02\x01\x01\x04\x20") + 5  # of an EC key: version 1, then 32 octets
        number = der[at:at + 32]
        digits = number.hex()
        return [line.encode() for line in key[1].splitlines()] + [number, digits.encode(), digits.upper().encode()]

    def fails(self, invitation: Dict[str, Any], exit_code: int, why: str, name: str = "second", *options: str) -> None:
        """Joining fails, with this in one line."""
        code, out, error = self.federation.run([self.federation.program("chapter-node"), "join", "--data",
                                                self.federation.data(name), "--invitation", "-", *options],
                                               stdin=json.dumps(invitation))
        self.assertEqual((code, out), (exit_code, ""), error)
        self.assertIn(why, error)
        self.assertEqual(len(error.strip().splitlines()), 1, error)

    def test_no_secret_is_printed_or_logged(self) -> None:
        # Without digits of a code, as what may be one is not shown.
        letters = str.maketrans("0123456789abcdef", "ghijklmnopqrstuv")
        marker = f"zq{uuid.uuid4().hex.translate(letters)}qz"
        codes: List[str] = []

        def invite(chapter: str) -> Dict[str, Any]:
            invitation = self.invite(chapter)
            codes.append(invitation["code"])
            return invitation

        os.environ["CHAPTERSYNC_MARKER"] = marker
        self.addCleanup(os.environ.pop, "CHAPTERSYNC_MARKER", None)
        self.federation.make_hub("other", marker)  # with its init
        used = invite("toronto")
        code, _, error = self.join("toronto", used)
        self.assertEqual(code, 0, error)
        self.federation.daemons["toronto"] = self.daemon_of("toronto")
        self.federation.daemons["toronto"].start()
        self.federation.must("toronto", "sync", "now", "--timeout", "60s")
        # All that may go wrong with the right code. Five wrong ones may come from one address.
        late, good = invite("toronto"), invite("italy")
        self.fails({**good, "hub": self.federation.endpoints("other")["sync"]}, REFUSED, "another federation")
        self.fails({**good, "authority": "0" * 64}, REFUSED, "another federation")
        self.fails(good, UNREACHABLE, "nobody answers", "second", "--hub", "127.0.0.1:1")
        self.fails({**good, "version": 2}, 1, "of version 2")
        self.fails({**good, "hub": ""}, USAGE, "no invitation")
        self.fails({**good, "hub": "nowhere"}, USAGE, "nowhere")
        self.fails(good, 1, "in use by process", "toronto")
        self.federation.daemons["toronto"].stop()
        self.fails(good, REFUSED, "join with another folder", "toronto")
        self.federation.daemons["toronto"].start()
        self.fails({**good, "chapter": "toronto"}, REFUSED, "altered")
        self.fails(used, REFUSED, "used already")
        revoked = invite("italy")
        self.federation.row("hq", "chapters", "revoke", "italy", "--yes")
        self.fails(revoked, REFUSED, "was revoked")
        file = os.path.join(self.federation.folder, "invitation")
        with open(file, "w", encoding="utf-8") as out:
            out.write(json.dumps(good)[:-1])  # not all of it
        for given in (file, f"{file}.{marker}"):
            code, _, error = self.federation.run([self.federation.program("chapter-node"), "join", "--data",
                                                  self.federation.data("second"), "--invitation", given])
            self.assertNotEqual(code, 0)
            self.assertIn(given, error)
        # The hub's clock goes on to where one has ended, and then too many wrong ones come.
        daemon = self.federation.daemons["hq"]
        daemon.stop()
        daemon.environment["CHAPTER_TEST_CLOCK_OFFSET_MS"] = str(8 * DAY_MS)
        daemon.start()
        self.fails(late, REFUSED, "past its end")
        self.stranger("-", "guess", "50")
        self.fails(good, UNREACHABLE, "too many wrong invitations")
        self.federation.must("hq", "nodes", "list", output="table")
        self.federation.must("hq", "status", output="table")
        # The search finds what is there: in words, logs, arguments and the environment.
        self.assertLessEqual({"other's log", "other's environ", "toronto's environ"}, self.found(marker.encode()))
        self.assertTrue(any(" join " in where for where in self.found(marker.encode())))
        self.assertLessEqual({"hq's cmdline", "toronto's cmdline"}, self.found(self.federation.folder.encode()))
        self.assertLessEqual({"hq's log", "toronto's log"}, self.found(b"serving"))
        self.assertGreater(len(self.said), 20)
        self.said.append(("planted", b"is " + codes[0].encode()))
        self.assertEqual(self.found(*self.forms_of(codes[0])), {"planted"})
        self.said.pop()
        for code in codes:
            self.assertEqual(self.found(*self.forms_of(code)), set(), code)
        keys = [("hq", "authority.key"), ("hq", "identity.pem"), ("other", "identity.pem"), ("toronto", "identity.pem")]
        for name, key in keys:
            self.assertEqual(self.found(*self.forms_of_key(self.file(name, key))), set(), f"the {key} of {name}")
        # And in the hub's database only its hash, wherever it is: the log, and what was sorted with a restart.
        daemon.stop()
        ways: Dict[str, Set[str]] = {}
        hashed = hashlib.sha256(codes[0].encode()).hexdigest().encode()
        for _, how, data in contents(self.federation.data("hq")):
            for what, forms in (("hash", [hashed]), *((code, self.forms_of(code)) for code in codes)):
                if any(form in data for form in forms):
                    ways.setdefault(what, set()).add(how)
        self.assertEqual(set(ways), {"hash"}, ways)
        self.assertIn(SST, ways["hash"])

    def test_an_invitation_in_place_of_its_file(self) -> None:
        # The arguments are the user's doing; what the program says of it is not.
        good = self.invite("italy")
        pasted = json.dumps(good)
        for given in (pasted, pasted + "\n", json.dumps(good, indent=2)):
            code, out, error = self.federation.run([self.federation.program("chapter-node"), "join", "--data",
                                                    self.federation.data("second"), "--invitation", given])
            self.assertNotEqual(code, 0)
            self.assertEqual(out, "")
            self.assertEqual(len(error.strip().splitlines()), 1, "one line")
            for form in self.forms_of(good["code"]):
                self.assertFalse(form in error.encode(), "the code is in the error")
            self.assertIn("file", error)
        code, _, error = self.join("second", good)
        self.assertEqual(code, 0, error)


class ClockTest(StrangerTest):
    """A hub that was made a hundred days ago, by the clock that the test gives to the programs."""

    nodes: List[str] = []

    def setUp(self) -> None:
        os.environ["CHAPTER_TEST_CLOCK_OFFSET_MS"] = str(-100 * DAY_MS)
        try:
            super().setUp()
        finally:
            del os.environ["CHAPTER_TEST_CLOCK_OFFSET_MS"]

    def restart(self, name: str, offset_ms: int) -> None:
        """Starts a daemon again, with its clock moved."""
        daemon = self.federation.daemons[name]
        if daemon.running():
            daemon.stop()
        daemon.environment["CHAPTER_TEST_CLOCK_OFFSET_MS"] = str(offset_ms)
        daemon.start()

    def end_of(self, name: str) -> str:
        """When the certificate in a folder ends."""
        return self.openssl("x509", "-noout", "-enddate", "-in", self.file(name, "identity.pem"))

    def join_in_the_past(self, days: int) -> None:
        """A node of Toronto that joined so many days ago: its invitation is of that time."""
        self.restart("hq", -days * DAY_MS)
        invitation = self.invite("toronto")
        code, _, error = self.join("toronto", invitation)
        self.assertEqual(code, 0, error)

    def test_renewal_on_the_open_connection(self) -> None:
        self.join_in_the_past(60)
        self.restart("hq", 0)
        before = self.end_of("toronto")
        self.federation.daemons["toronto"] = self.daemon_of("toronto")
        self.restart("toronto", 0)
        wait_until(lambda: self.end_of("toronto") != before, "a new certificate")
        self.federation.must("toronto", "sync", "now", "--timeout", "30s")
        with open(self.federation.daemons["toronto"].log, encoding="utf-8") as file:
            log = file.read()
        self.assertIn("this computer has a new certificate", log)
        self.assertEqual(log.count("ended:"), 0, "the stream goes on")
        # And the new one opens the next connection, also long after the first one's end. The hub has a new one as well:
        # it was made a hundred days ago.
        self.restart("toronto", 0)
        wait_until(lambda: self.connected("toronto"), "a session with the new certificate")

    def test_a_laptop_whose_clock_is_years_off(self) -> None:
        self.restart("hq", 0)
        for name, years in (("toronto", 2), ("italy", -2)):
            offset_ms = years * 365 * DAY_MS
            invitation = self.invite(name)
            code, _, error = self.join(name, invitation)
            self.assertEqual(code, 0, error)
            self.federation.daemons[name] = self.daemon_of(name)
            self.restart(name, offset_ms)
            self.federation.must(name, "sync", "now", "--timeout", "30s")
            before = self.end_of(name)
            # From one start to the next: what it has learnt of the hub's clock, it knows then.
            self.restart(name, offset_ms)
            self.federation.must(name, "sync", "now", "--timeout", "30s")
            member = self.create(name, "members", "employer=Tomorrow Ltd")
            self.federation.must(name, "sync", "now", "--timeout", "30s")
            self.assertEqual(self.get("hq", "members", member)["employer"], "Tomorrow Ltd")
            self.assertEqual(self.end_of(name), before)
            for log in (name, "hq"):
                with open(self.federation.daemons[log].log, encoding="utf-8") as file:
                    self.assertNotRegex(file.read(), "not renewed|renewal from", "nothing to renew, by the hub's clock")

    def test_away_too_long(self) -> None:
        self.join_in_the_past(91)
        self.restart("hq", 0)
        identity = self.file("toronto", "identity.pem")
        for command in (["hello", self.node_id("toronto")], ["renew"]):
            expired = self.stranger(identity, *command)
            self.assertEqual(expired["code"], DENIED)
            self.assertIn("certificate ended on", expired["message"])
        self.federation.daemons["toronto"] = self.daemon_of("toronto")
        self.federation.daemons["toronto"].start()
        member = self.create("toronto", "members", "employer=Unsent")
        self.assertIn("chapter-node join", self.sync_fails("toronto", "certificate ended on"))
        # A new invitation, on the same folder; what was written meanwhile is not lost.
        invitation = self.invite("toronto")
        code, _, error = self.join("toronto", invitation)
        self.assertNotEqual(code, 0)
        self.assertIn("in use by process", error)
        self.federation.daemons["toronto"].stop()
        elsewhere = self.invite("italy")
        code, _, error = self.join("toronto", elsewhere)
        self.assertEqual(code, REFUSED, error)
        code, out, error = self.join("toronto", invitation)
        self.assertEqual(code, 0, error)
        self.assertIn("again", out)
        self.federation.daemons["toronto"].start()
        self.federation.must("toronto", "sync", "now", "--timeout", "30s")
        self.assertEqual(self.get("hq", "members", member)["employer"], "Unsent")
        self.assertEqual(len([n for n in self.federation.rows("hq", "nodes", "list") if n["chapter"] == "toronto"]), 1)


class MovedClockTest(StrangerTest):
    """All programs read one clock, which the test moves while they run."""

    nodes: List[str] = ["italy"]

    def setUp(self) -> None:
        folder = tempfile.mkdtemp(prefix="chaptersync-clock-")
        self.addCleanup(shutil.rmtree, folder, True)
        self.clock = os.path.join(folder, "offset_ms")
        self.move(0)
        os.environ["CHAPTER_TEST_CLOCK_OFFSET_FILE"] = self.clock
        self.addCleanup(os.environ.pop, "CHAPTER_TEST_CLOCK_OFFSET_FILE", None)
        super().setUp()

    def move(self, offset_ms: int) -> None:
        """Sets how far ahead of the machine's the clock of all programs is."""
        with open(self.clock + ".new", "w", encoding="ascii") as file:
            file.write(str(offset_ms))
        os.rename(self.clock + ".new", self.clock)

    def restart_at(self, seconds: float) -> None:
        """Starts hub and Italy again, at a time in seconds since 1970."""
        for name in ("italy", "hq"):
            self.federation.daemons[name].stop()
        self.move(int((seconds - time.time()) * 1000))
        for name in ("hq", "italy"):
            self.federation.daemons[name].start()
        self.federation.must("italy", "sync", "now", "--timeout", "60s")

    def end_of(self, pem: str) -> int:
        """When a certificate ends, in seconds since 1970."""
        return ssl.cert_time_to_seconds(self.openssl("x509", "-noout", "-enddate", "-in", pem).split("=")[1].strip())

    def shown(self) -> str:
        """The certificate that the hub shows to a new connection: a file with it."""
        text = self.openssl("s_client", "-connect", self.hub, "-tls1_3", "-alpn", "h2", "-CAfile", self.authority)
        found = re.search("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", text, re.S)
        assert found is not None, text
        file = os.path.join(self.federation.folder, "shown")
        with open(file, "w", encoding="ascii") as out:
            out.write(found[0])
        return file

    def test_certificates_are_renewed_and_end_while_all_serve(self) -> None:
        self.federation.make_node("spare", "italy", serve=False)
        identity, hubs, spare = (self.file(name, "identity.pem") for name in ("italy", "hq", "spare"))
        keys = [SecretsTest.forms_of_key(file) for file in (hubs, identity)]
        ends = {file: self.end_of(file) for file in (identity, hubs, spare)}
        for end in ends.values():
            self.assertAlmostEqual(end, time.time() + 90 * DAY_MS / 1000, delta=HOUR_MS / 1000)
        # A minute before two thirds of their lives are over, and two minutes later, which no session takes for silence:
        # each makes a new key and has it certified, and no stream ends.
        due = min(ends.values()) - 30 * DAY_MS / 1000
        self.restart_at(due - 60)
        sessions = self.sessions("italy")
        self.move(int((due + 60 - time.time()) * 1000))
        wait_until(lambda: self.end_of(identity) != ends[identity], "a new certificate of Italy's", 90)
        wait_until(lambda: self.end_of(self.shown()) != ends[hubs], "a new certificate of the hub's", 90)
        for file in (identity, self.shown()):
            self.assertAlmostEqual(self.end_of(file), due + 90 * DAY_MS / 1000, delta=HOUR_MS / 1000)
        self.assertIn("this computer has a new certificate", self.log_of("italy"))
        self.works_on()
        self.assertEqual(self.sessions("italy"), sessions)
        # Where it is not renewed a stream goes as far as its certificate does, and others go on.
        self.restart_at(ends[spare] - 60)
        held, sessions = self.talk("spare"), self.sessions("italy")
        held.pulse()
        self.move(int((ends[spare] + 60 - time.time()) * 1000))
        ended = held.until_end()
        told = time.strftime("^this computer's certificate ended on %Y-%m-%d[T ]%H:%M", time.gmtime(ends[spare]))
        self.assertEqual(ended["code"], DENIED, ended)
        self.assertRegex(ended["message"], told)
        again = self.stranger(spare, "hello", self.node_id("spare"))
        self.assertEqual((again["code"], again["message"]), (ended["code"], ended["message"]))
        self.works_on()
        self.assertEqual(self.sessions("italy"), sessions)
        keys += [SecretsTest.forms_of_key(file) for file in (hubs, identity)]
        self.assertEqual(len({key[0] + key[1] for key in keys}), 4, "each has had two keys")
        for name in ("hq", "italy"):
            log = self.log_of(name).encode()
            self.assertIn(b"has a new certificate", log)
            self.assertFalse(any(form in log for key in keys for form in key), f"a key is in {name}'s log")

    def test_an_invitation_past_its_end(self) -> None:
        for valid, hours in (((), 7 * 24), (("--valid", "1h"), 1)):
            self.move(0)
            first, second = (self.invite("toronto", *valid) for _ in range(2))
            self.move(hours * HOUR_MS - MINUTE_MS)
            code, out, error = self.join(f"in-{hours}", first)
            self.assertEqual(code, 0, error)
            self.move(hours * HOUR_MS + MINUTE_MS)
            for late in (second, first):
                self.assertEqual(self.join(f"after-{hours}", late),
                                 (REFUSED, "", "chapter-node: the invitation is past its end\n"))
        joined = [node for node in self.federation.rows("hq", "nodes", "list") if node["chapter"] == "toronto"]
        self.assertEqual(len(joined), 2)
        # Nor was it used up by that: its end is all that was wrong with it.
        self.move(0)
        code, out, error = self.join("after-1", second)
        self.assertEqual(code, 0, error)


if __name__ == "__main__":
    need_tools("openssl")
    unittest.main()
