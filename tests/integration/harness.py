# SPDX-License-Identifier: Apache-2.0
#
# What the integration tests share: a federation in a temporary folder, made of
# the programs that this build made, with two chapters and a few records.
"""Base class of the integration tests."""

import os
import shutil
import sys
import tempfile
import unittest
from typing import Any, Dict, List

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools"))
from federation import Failure, Federation, wait_until  # noqa: E402,F401

PROGRAMS = os.environ.get("CHAPTERSYNC_PROGRAMS", os.path.join(ROOT, "build", "release", "bin"))


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
