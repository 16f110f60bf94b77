"""Links between hosts that aren't there: a file in the place of tc's queues."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence

from discovery_xp.files import read_json, write_atomically
from discovery_xp.planning.plan import PlannedLink
from discovery_xp.planning.plan_json import links_from_json
from discovery_xp.testbeds.hosts import Reading
from discovery_xp.testbeds.testbed import Testbed

# What a fault adds to the delay that is read back, and to the round trips that are measured.
OFF_MS = 100.0


class CannedWan:
    """Keeps what was imposed; see `hosts.Wan` for the contract."""

    kind = "canned"

    def __init__(self, testbed: Testbed, faults: Collection[str]) -> None:
        self.file = testbed.folder / "canned_links.json"
        self.faults = faults

    def links(self) -> list[PlannedLink]:
        """Return the links that were imposed; none before, and after a reset."""
        return list(links_from_json(read_json(self.file))) if self.file.exists() else []

    def impose(self, links: Sequence[PlannedLink]) -> None:
        """Keep exactly these links."""
        fields = [dataclasses.asdict(link) for link in links]
        write_atomically(self.file, json.dumps(fields, indent=1) + "\n")

    def read_back(self) -> list[Reading]:
        """Return what was kept; with the fault 'links' the first one is slower."""
        readings = [
            Reading(link.source, link.source, link.target, link.link) for link in self.links()
        ]
        if readings and "links" in self.faults:
            slow = readings[0].link.delay_ms + OFF_MS
            readings[0] = dataclasses.replace(
                readings[0], link=dataclasses.replace(readings[0].link, delay_ms=slow)
            )
        return readings

    def reset(self) -> None:
        """Forget all links."""
        self.file.unlink(missing_ok=True)
