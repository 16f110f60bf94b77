"""Spans of a run as trees: below each request to boot a VM, all that services did for it.

A request or message and what answers it know each other by an id that OpenStack gives (`link`);
spans of one process by their names.  Spans may be a stranger's: each is in a tree once at most,
and trees have at most MOST_SPANS, and are no deeper than MOST_DEPTH.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from discovery_xp.onhost.wire import spans as wire

MOST_DEPTH = 200
MOST_SPANS = 10_000  # of one boot; usual are some hundred

Row = Mapping[str, Any]


@dataclass
class Node:
    """A span in its tree: times are seconds since 1970, of the clock of the span's host.

    `sums` are its round trips to databases and memcached, each a node without nodes below; `row` is
    the record that it was made of.
    """

    kind: str
    name: str
    service: str
    host: str
    site: str
    peer: str | None
    peer_site: str | None
    start: float
    end: float
    cpu_s: float
    queued_s: float
    trips: int
    error: str | None
    up: Node | None = None
    row: Row | None = None
    below: list[Node] = field(default_factory=list)
    sums: list[Node] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Return how long it took; of sums, how long was waited."""
        return self.end - self.start

    @functools.cached_property
    def receiver(self) -> Node | None:
        """Return what answered a request or handled a message, where that is known."""
        if self.kind not in wire.SENDING:
            return None
        return next((node for node in self.below if node.kind in wire.RECEIVING), None)

    def walk(self) -> Iterator[Node]:
        """Yield it and all nodes below, sums left out."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.below))

    @functools.cached_property
    def own_s(self) -> float:
        """Return its time in which it neither waited for a node below nor for round trips."""
        covered, until = 0.0, self.start
        for node in sorted(self.below, key=lambda each: each.start):
            covered += max(0.0, node.end - max(until, node.start))
            until = max(until, node.end)
        return max(0.0, self.seconds - covered - sum(each.seconds for each in self.sums))

    def asked(self, since: float, until: float) -> list[Node]:
        """Return its round trips that began in a part of its time."""
        first, last = (bisect.bisect_left(self._starts, moment) for moment in (since, until))
        return self._sums[first:last]

    @functools.cached_property
    def _sums(self) -> list[Node]:
        return sorted(self.sums, key=lambda each: each.start)

    @functools.cached_property
    def _starts(self) -> list[float]:
        return [each.start for each in self._sums]


def _node(row: Row, up: Node | None = None) -> Node:
    start, seconds = float(row["at"]), max(0.0, float(row["duration_ms"]) / 1000)
    return Node(
        row["kind"], row["name"], row["service"], row["host"], row["site"], row["peer"],
        row["peer_site"], start, start + seconds, max(0.0, float(row["cpu_ms"]) / 1000),
        max(0.0, float(row["queued_ms"]) / 1000), max(0, int(row["round_trips"])), row["error"], up,
        row,
    )  # fmt: skip


def trees(rows: Iterable[Row]) -> dict[str, Node]:
    """Return the root of each boot's tree, by the VM's id: the request that made the VM."""
    listed = list(rows)
    below: dict[str, list[Row]] = {}
    receivers: dict[str, Row] = {}
    for row in listed:
        if row["parent"]:
            below.setdefault(row["parent"], []).append(row)
        if row["link"] and row["kind"] in wire.RECEIVING:
            receivers.setdefault(row["link"], row)
    roots: dict[str, Node] = {}
    taken: set[int] = set()
    for row in listed:
        server_id = row["server_id"]
        if server_id and row["kind"] == wire.SERVER and id(row) not in taken:
            taken.add(id(row))
            roots.setdefault(server_id, _grown(row, below, receivers, taken))
    return roots


def _grown(
    root_row: Row, below: Mapping[str, list[Row]], receivers: Mapping[str, Row], taken: set[int]
) -> Node:
    """Return a root with all that is below; rows go into `taken` and into no other tree."""
    root, count = _node(root_row), 1
    waiting = [(root, root_row, 1)]
    while waiting:
        node, row, depth = waiting.pop()
        found = list(below.get(row["span"], ()))
        if node.kind in wire.SENDING and row["link"] in receivers:
            found.append(receivers[row["link"]])
        for each in found:
            if id(each) in taken or depth >= MOST_DEPTH or count >= MOST_SPANS:
                continue
            taken.add(id(each))
            count += 1
            own = _node(each, node)
            if own.kind in (wire.DATABASE, wire.CACHE):
                node.sums.append(own)
                continue
            _fit(own, node)
            node.below.append(own)
            waiting.append((own, each, depth + 1))
    return root


def _fit(node: Node, up: Node) -> None:
    """Let nothing begin before its cause, nor an answer's making end after its arrival.

    Clocks of hosts that aren't emulated differ by some milliseconds.
    """
    latest = up.end if up.kind in (wire.CLIENT, wire.CALL) else node.end
    node.start = max(node.start, up.start)
    if node.kind in wire.RECEIVING:
        node.start = min(node.start, max(latest, up.start))
        node.end = min(node.end, latest)
    node.end = max(node.end, node.start)
