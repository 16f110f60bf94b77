"""The regions whose APIs are asked: in turn, and no longer once one is given up."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..wire.request import PREFIX, RegionRequest
from .api import Refusal

T = TypeVar("T")

# A region whose API can't be reached for so long is given up.
GIVE_UP_S = 60.0


@dataclass
class Region:
    """An API that is asked.

    `url` is its compute API's.  `lost` says why it was given up, `unreached` counts requests of
    the load that didn't reach it, `failing_since` is set while polls don't.
    """

    request: RegionRequest
    url: str = ""
    failing_since: float | None = None
    lost: str = ""
    unreached: int = 0
    last_failure: str = ""
    time_scale: float = 1.0

    @property
    def name(self) -> str:
        """Return its name."""
        return self.request.name

    def note(self, refusal: Refusal) -> None:
        """Count a request of the load that failed; an answer that refuses it is an answer."""
        if refusal.is_unreached:
            self.unreached += 1
            self.last_failure = str(refusal)

    def note_poll(self, started: float, failure: Refusal | None) -> None:
        """Note that a poll was answered or not; give up an API that can't be reached for long.

        One that answers by errors, or takes its time, is there: it may be busy.
        """
        if failure is None or not failure.is_unreached:
            self.failing_since = None
            return
        self.failing_since, self.last_failure = self.failing_since or started, str(failure)
        if time.time() - self.failing_since >= GIVE_UP_S * self.time_scale:
            self.lost = f"{self.name}'s API doesn't answer: {failure}"

    def forgive(self) -> None:
        """Forget what failed until now."""
        self.failing_since, self.unreached = None, 0

    @property
    def complaint(self) -> str:
        """Return what is wrong with it; nothing when all is well."""
        if self.lost:
            return self.lost
        if self.unreached:
            requests = "a request" if self.unreached == 1 else f"{self.unreached} requests"
            return f"{self.name}'s API couldn't be reached by {requests}: {self.last_failure}"
        if self.failing_since is not None:
            return f"{self.name}'s API doesn't answer any more: {self.last_failure}"
        return ""


class Regions:
    """All regions of a load, in the order of the request."""

    def __init__(self, requests: Sequence[RegionRequest], time_scale: float = 1.0) -> None:
        self.all = [Region(request, time_scale=time_scale) for request in requests]
        self.turn = 0

    def __iter__(self) -> Iterator[Region]:
        return iter(self.all)

    @property
    def at_hand(self) -> list[Region]:
        """Return those that weren't given up."""
        return [region for region in self.all if not region.lost]

    @property
    def complaints(self) -> dict[str, str]:
        """Return what is wrong, by name of the regions that something is wrong with."""
        return {region.name: region.complaint for region in self.all if region.complaint}

    @property
    def lost(self) -> str:
        """Return why regions were given up."""
        return "; ".join(region.lost for region in self.all if region.lost)

    @property
    def names_in_common(self) -> str:
        """Return what a list asks for: a part that our VMs' names have in common.

        Nova takes it for a regular expression on some databases, and for a part on others.
        """
        return f"{PREFIX}{self.all[0].name}-" if len(self.all) == 1 else PREFIX

    def in_turn(self) -> Iterator[Region]:
        """Yield each region that wasn't given up once, from where the last turn ended."""
        for _ in self.all:
            region = self.all[self.turn % len(self.all)]
            self.turn += 1
            if not region.lost:
                yield region

    async def ask_any(self, request: Callable[[Region], Awaitable[T]]) -> T:
        """Return what comes of a request at the first region that takes it; raises Refusal.

        VMs are one cell's: where a region's own API is gone, another one knows them.
        """
        refusal = Refusal(self.lost or "no region")
        for region in self.at_hand:
            try:
                return await request(region)
            except Refusal as error:
                refusal = error
        raise refusal

    def compute_url(self, region: Region) -> str:
        """Return where a region's VMs are asked about: another API if its own was given up."""
        if region.lost and self.at_hand:
            return self.at_hand[0].url
        return region.url


def interleaved(regions: Regions, count: Callable[[RegionRequest], int]) -> Iterator[Region]:
    """Yield one region after the other, each as often as it is due, for as long as any is."""
    left = [count(region.request) for region in regions]
    while any(left):
        for index, region in enumerate(regions):
            if left[index]:
                left[index] -= 1
                yield region
