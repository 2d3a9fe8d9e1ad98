#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# How long an edit takes from the call at one replica until another shows it,
# without anybody asking, over TCP on this computer with fsync on. The figures
# are printed; only that the edits arrive is asserted.
"""Prints latencies from Italy to the hub, from the hub to Italy, and from Italy to Toronto."""

import json
import os
import unittest

from harness import PROGRAMS, FederationTest

SAMPLES = 200


class LatencyTest(FederationTest):
    """Edits become visible by themselves."""

    def test_edits_arrive_by_themselves(self) -> None:
        hosts = [f"hosts.{name}.role=HOST_ROLE_HOST" for name in self.nodes]
        event = self.create("hq", "events", "audience=AUDIENCE_EVERYBODY", "titles.en.text=Reunion", *hosts)
        self.federation.sync_all(self.nodes)
        for source, target in (("italy", "hq"), ("hq", "italy"), ("italy", "toronto")):
            code, out, error = self.federation.run([
                os.path.join(PROGRAMS, "latency_probe"), self.federation.endpoints(source)["socket"],
                self.federation.endpoints(target)["socket"], f"events/{event}", str(SAMPLES)])
            self.assertEqual(code, 0, error)
            figures = json.loads(out)
            print(f"{source} -> {target}: median {figures['p50_ms']:.2f} ms, p99 {figures['p99_ms']:.2f} ms", flush=True)
            self.assertEqual(figures["samples"], SAMPLES)


if __name__ == "__main__":
    unittest.main()
