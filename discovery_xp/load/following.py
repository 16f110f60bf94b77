"""Listening to all load hosts while they work, and telling what they say."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable, Sequence

from discovery_xp.boundary.answers import Unfit
from discovery_xp.load.ledger import Ledger, Pace, Row
from discovery_xp.load.rally_hosts import READ_EVERY_S, LoadHost, Said
from discovery_xp.onhost.wire import load as wire
from discovery_xp.testbeds.hosts import Progress

# The load's own process says something every other second.
SILENT_S = 240.0
UNREACHABLE_S = 60.0

# Gets each VM's row once, when it ended, and each action's.
OnRows = Callable[[list[Row], list[Row]], None]


class Following:
    """Listens to all load hosts, and tells what they say."""

    def __init__(
        self,
        ledger: Ledger,
        hosts: Sequence[LoadHost],
        said: Said,
        on_rows: OnRows,
        progress: Progress,
        on_pace: Callable[[Pace], None],
    ) -> None:
        self.ledger = ledger
        self.hosts = {host.name: host for host in hosts}
        self.said = said
        self.on_rows = on_rows
        self.progress = progress
        self.on_pace = on_pace
        self.told_at = 0.0
        self.told: tuple[str, int, int] | None = None
        self.was_loading = False
        self.unfit: set[str] = set()

    def until(self, is_reached: Callable[[], bool]) -> None:
        """Take what comes until it is so."""
        while not is_reached():
            try:
                name, follower, line = self.said.get(timeout=READ_EVERY_S / 2)
            except queue.Empty:
                pass
            else:
                if follower is self.hosts[name].follower:
                    self.take(self.hosts[name], line)
            self.look_after()
            if time.monotonic() - self.told_at >= READ_EVERY_S / 2:
                self.tell()
        self.tell()

    def take(self, host: LoadHost, line: bytes) -> None:
        state = self.ledger.hosts[host.name]
        if not line:  # the connection ended
            host.hang_up()
            host.lost_at = host.lost_at or time.monotonic()
            return
        host.heard, host.lost_at = time.monotonic(), None
        host.offset += len(line)
        if host.offset > wire.MOST_BYTES or len(line) > wire.LONGEST_LINE:
            state.ended = "said more than a load says"
            host.hang_up()
            host.stop()
            return
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):  # a host that died may leave half a line
            return
        try:
            self.ledger.take(host.name, message)
        except Unfit as error:
            if host.name not in self.unfit:  # once for each host
                self.unfit.add(host.name)
                self.ledger.note(f"{host.name} wrote lines that no load writes: {error}")
        if state.ended:
            host.hang_up()

    def look_after(self) -> None:
        """Connect again where the connection was lost; give up on hosts that say nothing."""
        now = time.monotonic()
        for host in self.hosts.values():
            state = self.ledger.hosts[host.name]
            if state.ended:
                continue
            if now - host.heard > SILENT_S:
                state.ended = f"said nothing for {SILENT_S:g} s"
                host.stop()
            elif host.follower is None:
                if host.lost_at is not None and now - host.lost_at > UNREACHABLE_S:
                    state.ended = f"couldn't be reached for {UNREACHABLE_S:g} s"
                elif now - self.told_at >= READ_EVERY_S / 2:
                    host.follow()

    def tell(self) -> None:
        """Report rows and progress, and the pace while the load goes on."""
        self.told_at = time.monotonic()
        self.hand_on_rows()
        # Its last word is told, too.
        if self.ledger.is_loading or self.was_loading:
            self.was_loading = self.ledger.is_loading
            pace = self.ledger.pace(time.time())
            self.on_pace(pace)
            stage: tuple[str, int, int] | None = (
                f"load: {self.ledger.scenario.name}",
                pace.done,
                pace.total,
            )
        else:
            stage = self.ledger.stage()
        if stage is not None and stage != self.told:
            self.told = stage
            self.progress(*stage)

    def hand_on_rows(self) -> None:
        vms, actions = self.ledger.new_rows()
        if vms or actions:
            self.on_rows(vms, actions)
