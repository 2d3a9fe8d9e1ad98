# SPDX-License-Identifier: Apache-2.0
#
# What the integration tests share: a federation in a temporary folder, made of the
# programs that this build made, with two chapters, and the stranger that comes to it.
"""Base classes of the integration tests."""

import base64
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from typing import Any, Callable, Dict, List, Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools"))
from federation import Daemon, Failure, Federation, wait_until  # noqa: E402,F401

PROGRAMS = os.environ.get("CHAPTERSYNC_PROGRAMS", os.path.join(ROOT, "build", "release", "bin"))
NOT_FOUND, REFUSED, UNREACHABLE = 3, 4, 5


class Talk:
    """A raw session with somebody's certificate, message by message. Use as a context manager."""

    def __init__(self, command: List[str], seconds: float = 60.0) -> None:
        self.seconds = seconds
        self.messages: List[Dict[str, Any]] = []  # what came, each with the one key that it is
        self.end: Dict[str, Any] = {}  # code, message, at_ms, once it ended
        self.left = b""
        self.asked = 1000
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass

    def send(self, **message: Any) -> None:
        """Sends a message, as it is in protobuf's JSON, or as the stranger's Talk tells of records."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Reads until a condition on what came holds. Raises Failure that names `what`, also where the session ends."""
        end = time.monotonic() + self.seconds
        while not condition():
            if self.end or not self._read(end - time.monotonic()):
                raise Failure(f"{what}: {self.end or 'not in time'}; what came: {self.messages}")

    def until_end(self) -> Dict[str, Any]:
        """Reads until the session ends: its code, message and at_ms."""
        self.until(lambda: bool(self.end), "the end of the session")
        return self.end

    def pulse(self) -> Dict[str, Any]:
        """Asks for a sign of life, and waits for it; those that came of their own are other ones."""
        self.asked += 1
        self.send(pulse={"asks": str(self.asked)})
        asked = str(self.asked)
        answers: List[Dict[str, Any]] = []

        def answered() -> bool:
            answers[:] = [pulse for pulse in self.of("pulse") if pulse.get("answers") == asked]
            return bool(answers)

        self.until(answered, "an answer to a pulse")
        return answers[0]

    def of(self, kind: str) -> List[Dict[str, Any]]:
        """The messages of a kind that came."""
        return [message[kind] for message in self.messages if kind in message]

    def updates(self) -> Dict[str, bytes]:
        """The records that came: of each, by its id, all its bytes."""
        found: Dict[str, bytes] = {}
        for changes in self.of("changes"):
            for record in changes["records"]:
                found[record["id"]] = found.get(record["id"], b"") + base64.b64decode(record["update"])
        return found

    def everything(self) -> bytes:
        """All that came, as text and unpacked: to search for what should not be in it."""
        return json.dumps([self.messages, self.end]).encode() + b"".join(self.updates().values())

    def _read(self, seconds: float) -> bool:
        """Takes what is there, waiting for it; whether something came."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], max(0.0, seconds))[0]:
            return False
        chunk = os.read(self.process.stdout.fileno(), 1 << 16)
        *lines, self.left = (self.left + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "at_ms" in message:
                self.end = message
            else:
                self.messages.append(message)
        return bool(chunk)


class FederationTest(unittest.TestCase):
    """A hub `hq` and nodes `italy` and `toronto`, all serving."""

    nodes: List[str] = ["italy", "toronto"]

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="chaptersync-")
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.federation = Federation(PROGRAMS, self.folder)
        self.addCleanup(self.federation.__exit__)
        self.federation.make_hub()
        for name, country in (("italy", "IT"), ("toronto", "CA")):
            self.federation.must("hq", "chapters", "add", name, "--name", name.capitalize(), "--country", country)
        for name in self.nodes:
            self.federation.make_node(name, name)

    def create(self, name: str, noun: str, *fields: str) -> str:
        """Makes a record; its id."""
        return str(self.federation.row(name, noun, "create", *fields)["id"])

    def get(self, name: str, noun: str, identity: str) -> Dict[str, Any]:
        """A record as a replica has it."""
        return self.federation.row(name, noun, "get", identity)


class StrangerTest(FederationTest):
    """What strangers do at a hub, and how folders stand."""

    def setUp(self) -> None:
        super().setUp()
        self.hub = self.federation.endpoints("hq")["sync"]
        self.authority = self.file("hq", "authority.pem")

    def works_on(self, name: str = "italy") -> None:
        """A node writes, and the hub has it."""
        member = self.create(name, "members", f"employer=E{time.monotonic_ns()}")
        self.federation.must(name, "sync", "now", "--timeout", "60s")
        self.assertEqual(self.get("hq", "members", member)["id"], member)

    def file(self, name: str, file: str) -> str:
        """A file of a data folder."""
        return os.path.join(self.federation.data(name), file)

    def node_id(self, name: str) -> str:
        """The node's id, as its folder has it."""
        with open(self.file(name, "chaptersync.json"), encoding="utf-8") as file:
            return str(json.load(file)["node"])

    def stranger(self, identity: str, *command: str) -> Dict[str, Any]:
        """What the stranger was answered."""
        code, out, error = self.federation.run(
            [os.path.join(PROGRAMS, "stranger"), self.hub, self.authority, identity, *command])
        self.assertEqual(code, 0, error)
        return dict(json.loads(out))

    def talk(self, name: str, hello: bool = True, **others: Any) -> Talk:
        """A raw session with the certificate in a folder, as that node; with `hello` it is open when this returns.
        `others` goes into Hello."""
        session = Talk([os.path.join(PROGRAMS, "stranger"), self.hub, self.authority, self.file(name, "identity.pem"),
                        "talk"])
        self.addCleanup(session.__exit__)
        if hello:
            session.send(hello=self.hello(name, **others))
            session.until(lambda: bool(session.of("welcome")), "a Welcome")
        return session

    def hello(self, name: str, **others: Any) -> Dict[str, Any]:
        """A Hello of a node."""
        node = base64.b64encode(bytes.fromhex(self.node_id(name))).decode()
        replica = str(int(self.raw_replica(name), 16))
        return {"version_min": 1, "version_max": 1, "replica": replica, "epoch": "1", "node": node, **others}

    def raw_replica(self, name: str) -> str:
        """The replica id, in hexadecimal digits, under which a raw session with a node's certificate writes: of a
        lineage that is not that of the node's daemon."""
        return self.node_id(name)[:8] + "00000001"

    def openssl(self, *arguments: str) -> str:
        """Runs openssl; what it printed on both."""
        done = subprocess.run(["openssl", *arguments], input=b"", capture_output=True, timeout=30, check=False)
        return done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")

    def log_of(self, name: str) -> str:
        """All that a daemon has logged."""
        with open(self.federation.daemons[name].log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def sessions(self, name: str) -> List[str]:
        """The names of the sessions that a node has opened, as its log has them."""
        return re.findall(r"session ([0-9a-f]{16}) with hub \S+: open", self.log_of(name))

    def connected(self, name: str) -> bool:
        """Whether a node is in a session."""
        return any(row["connected"] for row in self.federation.rows(name, "sync", "status"))

    def sync_fails(self, name: str, why: str) -> str:
        """Waits until a node says that it is in no session, and `why`; the whole text."""
        said = [""]

        def says() -> bool:
            code, _, said[0] = self.federation.ctl(name, "sync", "now", "--timeout", "1s", output="table")
            return code == UNREACHABLE and why in said[0]

        try:
            wait_until(says, f"'{why}'", 30)
        except Failure as failure:
            raise Failure(f"{failure}; it said: {said[0]}") from failure
        return said[0]

    def daemon_of(self, name: str) -> Daemon:
        """A node's daemon, not started."""
        return Daemon([self.federation.program("chapter-node"), "serve", "--data", self.federation.data(name)],
                      self.federation.data(name), os.path.join(self.federation.folder, f"{name}.log"))

    def invite(self, chapter: str, *options: str) -> Dict[str, Any]:
        """An invitation to a chapter."""
        return dict(json.loads(self.federation.must("hq", "chapters", "invite", chapter, *options, output="table")))

    def join(self, name: str, invitation: Dict[str, Any]) -> Tuple[int, str, str]:
        """Joins with an invitation as it is given."""
        node, data = self.federation.program("chapter-node"), self.federation.data(name)
        return self.federation.run([node, "join", "--data", data, "--invitation", "-"], stdin=json.dumps(invitation))
