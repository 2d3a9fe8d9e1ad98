# SPDX-License-Identifier: Apache-2.0
#
# What is in a data folder's files: each as it is and, where it is RocksDB's, decoded with RocksDB's own
# tools (rocksdb-tools). A tool that fails is an error, unless its file is gone meanwhile: a search that finds
# nothing, as nothing was read, would prove nothing.
"""Every byte of a data folder, raw and decoded."""

import os
import re
import shutil
import subprocess
import time
from typing import Iterator, Tuple

from harness import Failure

WRITTEN_SECONDS = 20.0
# How a file was read.
RAW, SST, WAL, MANIFEST = "raw", "sst_dump", "dump_wal", "manifest_dump"


def need_tools(*others: str) -> None:
    """Raises Failure where RocksDB's tools, or others that are named, are missing."""
    for program in ("sst_dump", "ldb", *others):
        if shutil.which(program) is None:
            raise Failure(f"this test needs the program {program}")


def tool_output(path: str, *command: str) -> bytes:
    """What one of RocksDB's tools printed of a file; nothing where the file is gone meanwhile. One that a daemon is
    still writing is looked at again until it can be read."""
    end = time.monotonic() + WRITTEN_SECONDS
    while os.path.exists(path):
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        # Some failures are told with an exit code of 0.
        if done.returncode == 0 and not done.stderr.strip():
            return done.stdout
        if time.monotonic() > end and os.path.exists(path):
            said = (done.stdout + done.stderr)[-400:].decode(errors="replace")
            raise Failure(f"{' '.join(command)}: exit {done.returncode}: {said}")
        time.sleep(0.1)
    return b""


def unhexed(printed: bytes) -> bytes:
    """The bytes that a tool printed in hexadecimal."""
    return b"\n".join(bytes.fromhex(word.decode()) for word in re.findall(rb"(?:0x)?((?:[0-9A-Fa-f]{2}){4,})", printed))


def scan(path: str) -> bytes:
    """The keys and values of a sorted file as sst_dump prints them, in hexadecimal."""
    return tool_output(path, "sst_dump", f"--file={path}", "--command=scan", "--output_hex")


def contents(folder: str) -> Iterator[Tuple[str, str, bytes]]:
    """Every file below a folder: its path, how it was read, and its bytes."""
    for root, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(root, name)
            try:
                with open(path, "rb") as file:
                    data = file.read()
            except OSError:
                continue  # a socket, or gone meanwhile
            yield path, RAW, data
            if name.endswith(".sst"):
                yield path, SST, unhexed(scan(path))
            elif name.endswith(".log") and os.path.basename(root) == "db" and data:
                yield path, WAL, unhexed(tool_output(path, "ldb", "dump_wal", f"--walfile={path}", "--print_value"))
            elif name.startswith("MANIFEST"):
                yield path, MANIFEST, unhexed(
                    tool_output(path, "ldb", "manifest_dump", f"--path={path}", "--hex", "--verbose"))
