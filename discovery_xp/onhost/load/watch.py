"""Watching VMs: what lists show, at the regions in turn, and who waits for it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from .api import Api, Refusal
from .clock import as_utc
from .regions import Region, Regions

# Of a poll: there is another region to ask.
POLL_ANSWER_S = 60.0
POLL_CONNECT_S = 5.0
# `changes-since` reaches so far behind the last poll: the hosts' clocks differ a bit.
MARGIN_S = 30.0
# Each so many polls one is of all VMs, and of those in ERROR.
FULL_POLL_EVERY = 5
# Of a list: VMs of all projects.
ALL = "all_tenants=1"


class Lost(Exception):
    """All APIs were given up."""


class View:
    """Who waits for what lists show: VMs that boot, by name, and that go, by id.

    By name, as a list may show a VM before its request was answered.
    """

    def __init__(self) -> None:
        self.booting: dict[str, asyncio.Future[tuple[str, float]]] = {}
        self.leaving: dict[str, asyncio.Future[float]] = {}
        self.waited_for = asyncio.Event()
        self.lost = ""
        self.polls = 0
        self.since = 0.0
        self.last_gone_at = 0.0

    def wait_until_active(self, name: str) -> asyncio.Future[tuple[str, float]]:
        """Return what is done, with status and moment, once a VM is seen ACTIVE or in ERROR."""
        return self._wait(self.booting, name)

    def wait_until_gone(self, server_id: str) -> asyncio.Future[float]:
        """Return what is done, with the moment, once a VM is seen to be gone."""
        return self._wait(self.leaving, server_id)

    def _wait(self, waiting: dict[str, asyncio.Future[Any]], key: str) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_retrieved)
        if self.lost:
            future.set_exception(Lost(self.lost))
        else:
            waiting[key] = future
            self.waited_for.set()
            future.add_done_callback(lambda _done: waiting.pop(key, None))
        return future

    def lose(self, reason: str) -> None:
        """End all waiting: there is nobody left to ask."""
        self.lost = reason
        waiting: list[asyncio.Future[Any]] = [*self.booting.values(), *self.leaving.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(Lost(reason))

    def begin_anew(self) -> None:
        """Forget the polls that were made."""
        self.polls, self.since = 0, 0.0


def _retrieved(future: asyncio.Future[Any]) -> None:
    """Keep asyncio from logging what nobody waits for any longer."""
    if not future.cancelled():
        future.exception()


class Watcher:
    """Polls for all VMs that are under way, as long as somebody waits for one."""

    def __init__(self, api: Api, regions: Regions, poll_interval_s: float) -> None:
        self.api = api
        self.regions = regions
        self.poll_interval_s = poll_interval_s
        self.view = View()

    async def run(self) -> None:
        """Poll until this is cancelled."""
        view = self.view
        while True:
            if not (view.booting or view.leaving):
                view.waited_for.clear()
                await view.waited_for.wait()
            await asyncio.sleep(self.poll_interval_s)
            await self.poll()
            if not self.regions.at_hand:
                view.lose(self.regions.lost)

    async def poll(self) -> None:
        """Ask the next region in turn that can be reached: no API has more of it than others."""
        for region in self.regions.in_turn():
            started, failure = time.time(), None
            try:
                if self.view.booting:
                    await self.poll_boots(region, started)
                if self.view.leaving:
                    await self.poll_ends(region)
            except Refusal as refusal:
                failure = refusal
            region.note_poll(started, failure)
            if region.failing_since is None:
                return

    async def poll_boots(self, region: Region, started: float) -> None:
        """List ids and names only: that costs the API least, and asks nothing of Neutron."""
        view = self.view
        is_full = view.polls % FULL_POLL_EVERY == FULL_POLL_EVERY - 1
        since = "" if is_full or not view.since else f"&changes-since={as_utc(view.since)}"
        for status in ("ACTIVE", "ERROR") if is_full else ("ACTIVE",):
            servers = await self.listed(region, f"&status={status}", since)
            seen_at = time.time()
            for server in servers:
                future = view.booting.get(server["name"])
                if future is not None and not future.done():
                    future.set_result((status, seen_at))
        view.polls, view.since = view.polls + 1, started - MARGIN_S

    async def poll_ends(self, region: Region) -> None:
        """List all VMs: those that aren't there are gone."""
        left = await self.listed(region)
        there, seen_at = {server["id"] for server in left}, time.time()
        for server_id, future in [*self.view.leaving.items()]:
            if server_id not in there and not future.done():
                future.set_result(seen_at)
                self.view.last_gone_at = seen_at

    async def listed(self, region: Region, status: str = "", since: str = "") -> list[Any]:
        """Return the VMs of the load that a region lists."""
        query = f"?{ALL}{status}&name={self.regions.names_in_common}{since}"
        return await self.api.servers(
            region.url,
            query,
            limit_s=POLL_ANSWER_S * self.api.time_scale,
            connect_s=POLL_CONNECT_S,
        )
