#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Bad input, from people, files and peers, against real processes: each gets one
# clear line that says what, which value and what is allowed, the right exit
# code, and nothing is lost or half-written.
"""What happens when somebody gets it wrong."""

import json
import os
import socket
import unittest
from typing import List

from harness import PROGRAMS, FederationTest
from federation import Daemon

USAGE, NOT_FOUND, REFUSED, UNREACHABLE = 2, 3, 4, 5


class BadInputTest(FederationTest):
    """A hub and Italy's node, and everything that can be wrong."""

    nodes: List[str] = ["italy"]

    def refused(self, name: str, code: int, parts: List[str], *arguments: str) -> None:
        """The command exits with `code` and says all of `parts` in one line on standard error."""
        got, _, error = self.federation.ctl(name, *arguments, output="table")
        lines = error.strip().splitlines()
        self.assertEqual(got, code, f"{arguments}: {error}")
        self.assertEqual(len(lines), 1, f"{arguments}: not one line: {error}")
        for part in parts:
            self.assertIn(part, lines[0], f"{arguments}")

    def test_fields_and_values(self) -> None:
        member = self.create("italy", "members", "employer=Globex", "names.legal.full=Zoë Müller")
        before = self.get("italy", "members", member)
        self.refused("italy", REFUSED, ["colour"], "members", "set", member, "colour=blue")
        self.refused("italy", REFUSED, ["status", "MEMBER_STATUS"], "members", "set", member, "status=HAPPY")
        self.refused("italy", REFUSED, ["employer", "4096"], "members", "set", member, "employer=" + "x" * 5000)
        self.refused("italy", REFUSED, ["contacts.home", "12"], "members", "set", member,
                     'contacts.home={"kind":"CONTACT_KIND_PHONE","value":"12"}')
        self.refused("italy", REFUSED, ["preferred_locale", "not a language"], "members", "set", member,
                     "preferred_locale=not a language")
        self.refused("italy", REFUSED, ["degrees"], "members", "set", member, "degrees.first.year=1999")
        event = self.create("italy", "events", "audience=AUDIENCE_EVERYBODY", "hosts.italy.role=HOST_ROLE_HOST")
        self.refused("italy", REFUSED, ["capacity", "many"], "events", "set", event, "capacity=many")
        self.refused("italy", REFUSED, ["capacity", "-1"], "events", "set", event, "capacity=-1")
        self.refused("italy", REFUSED, ["start", "tomorrow"], "events", "set", event, "start=tomorrow")
        self.assertEqual(self.get("italy", "members", member), before, "a refused write changes nothing")

    def test_ids(self) -> None:
        ids = [self.create("italy", "members", f"employer=E{i}") for i in range(3)]
        missing = "00000000-0000-7000-8000-000000000000"
        self.refused("italy", NOT_FOUND, [missing], "members", "get", missing)
        self.refused("italy", NOT_FOUND, [missing], "members", "set", missing, "employer=x")
        common = os.path.commonprefix(ids)
        self.assertGreater(len(common), 0)
        self.refused("italy", REFUSED, [common, ids[0]], "members", "get", common)
        self.assertEqual(self.federation.ctl("italy", "members", "get", "zzz")[0], NOT_FOUND)
        self.assertEqual(self.federation.ctl("italy", "conflicts", "show", "ffffffff")[0], NOT_FOUND)
        self.assertEqual(self.federation.ctl("italy", "refused", "show", "99")[0], NOT_FOUND)
        code, _, error = self.federation.ctl("italy", "members", "get", missing)
        self.assertEqual(json.loads(error)["error"]["code"], "NOT_FOUND")
        self.assertEqual(code, NOT_FOUND)

    def test_usage(self) -> None:
        for arguments in (["members", "frobnicate"], ["unicorns", "list"], ["members", "list", "--limit", "many"],
                          ["members", "set"], ["sync", "now", "--timeout", "soon"]):
            code, _, error = self.federation.ctl("italy", *arguments)
            self.assertEqual(code, USAGE, f"{arguments}: {error}")
            self.assertTrue(error.strip(), f"{arguments} says nothing")

    def write(self, name: str, content: bytes) -> str:
        """A file in the test's folder."""
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def test_imports(self) -> None:
        before = self.federation.row("italy", "status")["records"].get("members", 0)
        path = self.write("columns.csv", ("id," + ",".join(f"c{i}" for i in range(1000)) + "\n").encode())
        self.refused("italy", REFUSED, ["c0", "99"], "members", "import", path)
        path = self.write("rows.csv", "\n".join([
            "id,employer,preferred_locale",
            "a,Globex,it",
            "b,Acme,it,too,many",
            "c,\"Acme, \"\"the\"\" one\",en",
            "d,Acme,not a language",
            "e,\"two\nlines\",en",
            "f,City Council,fr"]).encode() + b"\ng,\xff\xfe,en\nh,Last,en\n")
        code, out, error = self.federation.ctl("italy", "members", "import", path)
        self.assertEqual(code, REFUSED, error)
        rows = [json.loads(line) for line in (out + error).splitlines() if line.startswith("{")]
        summary = next(row for row in rows if "new" in row)
        self.assertEqual((summary["new"], summary["refused"]), (5, 3), rows)
        lines = sorted(row["line"] for row in rows if "line" in row)
        self.assertEqual(lines, [3, 5, 9], rows)
        after = self.federation.row("italy", "status")["records"]["members"]
        self.assertEqual(after, before + 5, "a row is in, or it is in the list of refused rows")
        path = self.write("open_quote.csv", b"id,employer\nx,\"never closed\ny,z\n")
        code, _, error = self.federation.ctl("italy", "members", "import", path, output="table")
        self.assertEqual(code, REFUSED)
        self.assertIn("2", error)
        self.refused("italy", 1, ["nowhere.csv"], "members", "import", os.path.join(self.folder, "nowhere.csv"))

    def program(self, code: int, parts: List[str], name: str, *arguments: str, stdin: str = "") -> None:
        """A daemon's program exits with `code` and says all of `parts` in its last line."""
        got, _, error = self.federation.run([os.path.join(PROGRAMS, name), *arguments], stdin=stdin, seconds=60)
        self.assertEqual(got, code, f"{name} {arguments}: {error}")
        last = error.strip().splitlines()[-1]
        for part in parts:
            self.assertIn(part, last, f"{name} {arguments}")

    def test_folders_and_ports(self) -> None:
        hq, italy = self.federation.data("hq"), self.federation.data("italy")
        self.program(1, [italy], "chapter-node", "serve", "--data", italy)
        self.program(1, [hq, "in use"], "chapter-hub", "serve", "--data", hq, "--listen", "127.0.0.1:0")
        empty = os.path.join(self.folder, "empty")
        os.mkdir(empty)
        self.program(1, [empty], "chapter-node", "serve", "--data", empty)
        self.program(1, [hq], "chapter-hub", "init", "--data", hq, "--name", "again")
        second = os.path.join(self.folder, "second")
        code, _, error = self.federation.run([os.path.join(PROGRAMS, "chapter-hub"), "init", "--data", second, "--name", "Second"])
        self.assertEqual(code, 0, error)
        self.program(1, ["hub"], "chapter-node", "serve", "--data", second)
        taken = self.federation.endpoints("hq")["sync"]
        self.program(1, [taken], "chapter-hub", "serve", "--data", second, "--listen", taken)
        self.program(1, ["192.0.2.1"], "chapter-hub", "serve", "--data", second, "--listen", "192.0.2.1:7443")
        self.program(2, ["nonsense"], "chapter-hub", "serve", "--data", second, "--listen", "nonsense")
        self.assertTrue(self.federation.daemons["hq"].running())
        self.assertTrue(self.federation.daemons["italy"].running())
        code, _, error = self.federation.run([os.path.join(PROGRAMS, "chapterctl"), "--data", empty, "status"])
        self.assertEqual(code, UNREACHABLE, error)

    def test_a_database_that_is_gone(self) -> None:
        """A hub whose database was missing began an empty one, and said nothing."""
        data = os.path.join(self.folder, "gone")
        code, _, error = self.federation.run([os.path.join(PROGRAMS, "chapter-hub"), "init", "--data", data, "--name", "Gone"])
        self.assertEqual(code, 0, error)
        command = [os.path.join(PROGRAMS, "chapter-hub"), "serve", "--data", data, "--listen", "127.0.0.1:0"]
        daemon = Daemon(command, data, os.path.join(self.folder, "gone.log"))
        daemon.start()
        self.assertEqual(daemon.stop(), 0)
        daemon.start()
        self.assertEqual(daemon.stop(), 0)
        os.rename(os.path.join(data, "db"), os.path.join(self.folder, "gone.db"))
        self.program(1, [os.path.join(data, "db"), "is gone"], "chapter-hub", *command[1:])
        os.mkdir(os.path.join(data, "db"))
        self.program(1, [os.path.join(data, "db"), "is gone"], "chapter-hub", *command[1:])

    def test_invitations(self) -> None:
        invitation = self.federation.must("hq", "chapters", "invite", "italy", output="table")
        first, second = (os.path.join(self.folder, name) for name in ("first", "second"))
        code, _, error = self.federation.run(
            [os.path.join(PROGRAMS, "chapter-node"), "join", "--data", first, "--invitation", "-"], stdin=invitation)
        self.assertEqual(code, 0, error)
        self.program(4, ["used"], "chapter-node", "join", "--data", second, "--invitation", "-", stdin=invitation)
        self.assertFalse(os.path.exists(os.path.join(second, "chaptersync.json")), "nothing half-made stays")
        self.program(2, ["invitation"], "chapter-node", "join", "--data", second, "--invitation", "-", stdin="hello")
        self.refused("hq", NOT_FOUND, ["atlantis"], "chapters", "invite", "atlantis")

    def test_garbage_at_the_hubs_port(self) -> None:
        host, port = self.federation.endpoints("hq")["sync"].rsplit(":", 1)
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(512)):
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.settimeout(10)
                try:
                    connection.sendall(garbage)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(4096):
                        pass
                except (ConnectionError, socket.timeout):
                    pass  # to be cut off is the right answer
        self.federation.must("italy", "sync", "now", "--timeout", "30s")

    def test_a_clock_two_years_ahead(self) -> None:
        event = self.create("hq", "events", "audience=AUDIENCE_EVERYBODY", "hosts.italy.role=HOST_ROLE_HOST", "venue=Hall")
        self.federation.sync_all(self.nodes)
        daemon = self.federation.daemons["italy"]
        daemon.stop()
        self.federation.daemons["hq"].stop()
        # The node's clock is two years ahead while it has no line.
        daemon.environment = {"CHAPTER_TEST_CLOCK_OFFSET_MS": str(2 * 365 * 86_400_000)}
        daemon.start()
        self.federation.must("italy", "events", "set", event, "venue=Future")
        offline = self.create("italy", "members", "employer=Tomorrow Ltd")
        self.federation.daemons["hq"].start()
        self.federation.must("italy", "sync", "now", "--timeout", "60s")
        self.assertEqual(self.get("hq", "events", event)["venue"], "Future")
        self.assertEqual(self.get("hq", "members", offline)["employer"], "Tomorrow Ltd")
        self.assertIn("clock was 63", daemon.log_end(), "the officer's log says so, in seconds")
        self.federation.must("hq", "events", "set", event, "venue=Now")
        self.federation.must("italy", "sync", "now", "--timeout", "60s")
        self.assertEqual(self.get("italy", "events", event)["venue"], "Now", "nothing wins for ever")
        self.assertEqual(self.federation.rows("hq", "conflicts", "list", "--state", "all"), [])


if __name__ == "__main__":
    unittest.main()
