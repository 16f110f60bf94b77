"""VMs that loads left, deleted: before a load, after its warm-up, at its end."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Sequence
from typing import Any

from ..wire.request import PREFIX, LoadRequest
from . import clock
from .api import Api, Refusal
from .records import Records
from .regions import Region, Regions
from .watch import ALL

AT_ONCE = 32


class Clearing:
    """Deletes what any load left of the VMs that are ours to clear."""

    def __init__(self, request: LoadRequest, api: Api, regions: Regions, records: Records) -> None:
        self.request = request
        self.api = api
        self.regions = regions
        self.records = records
        self.own = re.compile(f"{PREFIX}({'|'.join(request.clears)})-[0-9]+")

    async def clear(self, stage: str) -> None:
        """Delete them, as a stage of this name; what can't be deleted is a note."""
        try:
            await self.regions.ask_any(lambda region: self._clear_by(region, stage))
        except Refusal as error:
            self.records.write("note", text=f"{stage}: {error}")

    async def _clear_by(self, region: Region, stage: str) -> None:
        """Delete them by way of `region`, until none is left or none goes."""
        left = await self._left(region)
        total, places = len(left), asyncio.Semaphore(AT_ONCE)
        if left:
            self.records.stage(stage, 0, total)
        apis = self.regions.at_hand or [region]
        await asyncio.gather(
            *(self._delete([apis[index % len(apis)], region], server["id"], places)
              for index, server in enumerate(left))
        )  # fmt: skip
        latest = time.monotonic() + clock.STOOD_STILL_S * self.api.time_scale
        while left and time.monotonic() < latest:
            await asyncio.sleep(self.request.poll_interval_s)
            before, left = left, await self._left(region)
            if len(left) < len(before):
                latest = time.monotonic() + clock.STOOD_STILL_S * self.api.time_scale
            self.records.stage(stage, total - len(left), total)
        if left:
            self.records.write("note", text=f"{len(left)} VMs can't be deleted ({stage})")

    async def _left(self, region: Region) -> list[Any]:
        servers = await self.api.servers(region.url, f"?{ALL}&name={PREFIX}")
        return [server for server in servers if self.own.fullmatch(server["name"])]

    async def _delete(
        self, regions: Sequence[Region], server_id: str, places: asyncio.Semaphore
    ) -> None:
        """Delete a VM by way of the first region that takes the request."""
        async with places:
            for region in regions:
                with contextlib.suppress(Refusal):  # what stays is in the next list
                    await self.api.ask("DELETE", f"{region.url}/servers/{server_id}", admin=True)
                    return
