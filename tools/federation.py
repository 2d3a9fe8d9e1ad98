# SPDX-License-Identifier: Apache-2.0
#
# Runs a federation of real processes on this computer: a hub, nodes, and the
# command line against them. For the demo and the integration tests. Everything
# lies under one folder; every wait has an end.
"""Start, stop and kill hubs and nodes, and call chapterctl."""

import json
import os
import select
import shutil
import signal
import subprocess
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

READY_SECONDS = 30.0
STOP_SECONDS = 20.0
COMMAND_SECONDS = 120.0


class Failure(Exception):
    """Something that had to happen did not; the text says what."""


class Daemon:
    """A hub or node process that serves one data folder."""

    def __init__(self, command: List[str], data: str, log: str) -> None:
        self.command = command
        self.data = data
        self.log = log
        self.environment: Dict[str, str] = {}  # beyond this process's own
        self.process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> None:
        """Starts it and returns once it says `ready`. Raises Failure with the end of its log."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=log,
                                            env={**os.environ, **self.environment})
        assert self.process.stdout is not None
        end = time.monotonic() + READY_SECONDS
        said = b""
        while b"ready\n" not in said:
            left = end - time.monotonic()
            readable = select.select([self.process.stdout], [], [], max(0.0, left))[0]
            chunk = os.read(self.process.stdout.fileno(), 4096) if readable else b""
            if not chunk:
                code = self.process.poll()
                raise Failure(f"{' '.join(self.command)} did not get ready (exit {code}):\n{self.log_end()}")
            said += chunk

    def log_end(self) -> str:
        """The last lines of its log."""
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-15:])

    def stop(self) -> int:
        """Ends it with SIGTERM; its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it with SIGKILL, as a power failure of the program would."""
        self._end(signal.SIGKILL)

    def running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def _end(self, number: signal.Signals) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as late:
            self.process.kill()
            self.process.wait()
            raise Failure(f"{self.command[0]} did not end within {STOP_SECONDS:.0f} s of {number.name}") from late
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None
        return code


class Federation:
    """A hub and nodes under one folder. Use as a context manager: leaving it ends all processes."""

    def __init__(self, programs: str, folder: str) -> None:
        self.programs = programs
        self.folder = folder
        self.daemons: Dict[str, Daemon] = {}
        os.makedirs(folder, exist_ok=True)

    def __enter__(self) -> "Federation":
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in self.daemons.values():
            if daemon.running():
                daemon.kill()

    def program(self, name: str) -> str:
        """The path of one of our programs."""
        return os.path.join(self.programs, name)

    def data(self, name: str) -> str:
        """The data folder of a replica."""
        return os.path.join(self.folder, name)

    def run(self, command: List[str], stdin: str = "", seconds: float = COMMAND_SECONDS) -> Tuple[int, str, str]:
        """Runs a command: exit code, standard output, standard error."""
        try:
            done = subprocess.run(command, input=stdin.encode(), capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as late:
            raise Failure(f"{' '.join(command)} took more than {seconds:.0f} s") from late
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")

    def make_hub(self, name: str = "hq", title: str = "Alumni Association") -> Daemon:
        """Makes a hub's folder and starts it."""
        code, _, error = self.run([self.program("chapter-hub"), "init", "--data", self.data(name), "--name", title])
        if code != 0:
            raise Failure(f"chapter-hub init: exit {code}: {error}")
        daemon = Daemon([self.program("chapter-hub"), "serve", "--data", self.data(name), "--listen", "127.0.0.1:0"],
                        self.data(name), os.path.join(self.folder, f"{name}.log"))
        self.daemons[name] = daemon
        daemon.start()
        # From now on always the same port, as an office's hub has it.
        daemon.command[-1] = self.endpoints(name)["sync"]
        return daemon

    def endpoints(self, name: str) -> Dict[str, Any]:
        """Where a daemon serves."""
        with open(os.path.join(self.data(name), "endpoints.json"), encoding="utf-8") as file:
            return json.load(file)

    def make_node(self, name: str, chapter: str, hub: str = "hq", serve: bool = True) -> Daemon:
        """Invites a node of a chapter, joins it and starts it."""
        invitation = self.must(hub, "chapters", "invite", chapter, output="table")
        code, _, error = self.run(
            [self.program("chapter-node"), "join", "--data", self.data(name), "--invitation", "-"], stdin=invitation)
        if code != 0:
            raise Failure(f"chapter-node join: exit {code}: {error}")
        daemon = Daemon([self.program("chapter-node"), "serve", "--data", self.data(name)], self.data(name),
                        os.path.join(self.folder, f"{name}.log"))
        self.daemons[name] = daemon
        if serve:
            daemon.start()
        return daemon

    def ctl(self, name: str, *arguments: str, output: str = "json", stdin: str = "",
            seconds: float = COMMAND_SECONDS) -> Tuple[int, str, str]:
        """Calls chapterctl at a replica: exit code, standard output, standard error."""
        command = [self.program("chapterctl"), "--data", self.data(name), "--output", output, *arguments]
        return self.run(command, stdin, seconds)

    def must(self, name: str, *arguments: str, output: str = "json", seconds: float = COMMAND_SECONDS) -> str:
        """As ctl; its standard output. Raises Failure unless it exits 0."""
        code, out, error = self.ctl(name, *arguments, output=output, seconds=seconds)
        if code != 0:
            raise Failure(f"chapterctl {' '.join(arguments)} at {name}: exit {code}: {error.strip()}")
        return out

    def rows(self, name: str, *arguments: str) -> List[Dict[str, Any]]:
        """As must; the objects printed."""
        return [json.loads(line) for line in self.must(name, *arguments).splitlines() if line]

    def row(self, name: str, *arguments: str) -> Dict[str, Any]:
        """As rows, for one object."""
        rows = self.rows(name, *arguments)
        if len(rows) != 1:
            raise Failure(f"chapterctl {' '.join(arguments)} at {name} printed {len(rows)} objects, not 1")
        return rows[0]

    def sync_all(self, nodes: List[str]) -> None:
        """Syncs every node twice, so that what one brings reaches the others."""
        for _ in range(2):
            for node in nodes:
                self.must(node, "sync", "now", "--timeout", "60s")


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Polls until `condition` holds. Raises Failure that names `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.02)


def fresh_folder(path: str) -> str:
    """Makes an empty folder, removing what was there."""
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path
