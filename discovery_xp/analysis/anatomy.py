"""The anatomy of boots: each one's critical path, and what its time went to.

The path is walked from the end, the VM's state ACTIVE reaching the database, back to the request's
arrival at Nova's API: before each moment stands what ended last before it, whoever waited for it;
where nobody did, as after a message without an answer, whatever sent it.  Its stretches follow each
other without a gap, so that their seconds add up to the boot's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from discovery_xp.analysis.span_trees import Node, trees
from discovery_xp.onhost.wire import spans as wire

WITHIN = "within a site"

# The last thing that a boot needs: the compute saves the VM as ACTIVE.
_LAST_CALL, _LAST_SERVICE = "Instance.save", "nova-compute"
_BUILD = "build_and_run_instance"

Pair = tuple[str, str]


@dataclass(frozen=True)
class Part:
    """Some of a stretch's time: `pair` is the sites between which it passed, None within one.

    `crossings` are passages of a link between sites, each in one direction.
    """

    activity: str
    seconds: float
    pair: Pair | None = None
    crossings: int = 0

    @property
    def where(self) -> str:
        """Return the sites in words."""
        return WITHIN if self.pair is None else " - ".join(self.pair)


@dataclass(frozen=True)
class Stretch:
    """Time of the critical path in which a span itself was at work or on its way.

    `start` and `end` are seconds since the boot began.
    """

    node: Node
    start: float
    end: float
    parts: tuple[Part, ...]


@dataclass
class Boot:
    """A VM's way to ACTIVE; seconds are divided by the run's time scale.

    `crossings` and `wan_wait_s` are of the critical path: passages of links between sites, and
    half of the link's round trip for each.  `all_crossings` are those beside it, too.
    Of a condensed run most boots have `sums` in the place of stretches: one part for each activity
    and place.
    """

    vm: str
    server_id: str
    root: Node
    host_site: str
    seconds: float
    stretches: list[Stretch] = field(default_factory=list)
    all_crossings: int = 0
    wan_wait_s: float = 0.0
    sums: tuple[Part, ...] = ()

    @property
    def crossings(self) -> int:
        """Return how often the critical path passes from site to site."""
        return sum(part.crossings for part in self.parts())

    def parts(self) -> Iterator[Part]:
        """Yield all parts of its time, which add up to it."""
        yield from self.sums
        for stretch in self.stretches:
            yield from stretch.parts

    def seconds_by(self) -> dict[tuple[str, str], float]:
        """Return its seconds by activity and place."""
        sums: dict[tuple[str, str], float] = {}
        for part in self.parts():
            key = part.activity, part.where
            sums[key] = sums.get(key, 0.0) + part.seconds
        return sums


# ---------------------------------------------------------------- the critical path

# Which way of a request or message a stretch is: to its receiver, from it, both, or none.
_REQUEST, _REPLY, _BOTH, _OWN, _QUEUE = "request", "reply", "both", "own", "queue"


@dataclass(frozen=True)
class _Leg:
    node: Node
    start: float
    end: float
    way: str
    receiver: Node | None = None


def last_of(root: Node) -> Node | None:
    """Return the node whose end makes the VM ACTIVE; None where the boot's records lack it."""
    saves = [
        node
        for node in root.walk()
        if node.kind == wire.CALL and node.name == _LAST_CALL and node.service == _LAST_SERVICE
        and _builds(node)
    ]  # fmt: skip
    if not saves:
        return None
    last = max(saves, key=lambda node: node.end)
    return last.receiver or last


def _builds(node: Node) -> bool:
    """Tell whether a node is a part of a VM's making."""
    up = node.up
    while up is not None:
        if up.name == _BUILD:
            return True
        up = up.up
    return False


def _path(root: Node, last: Node) -> list[_Leg]:
    """Return the critical path from the root's start to the last node's end, in time's order."""
    legs: list[_Leg] = []
    _back(last, last.end, legs)
    node = last
    while node is not root and node.up is not None:
        up, until = node.up, node.start
        if up.kind in wire.SENDING and node is up.receiver:
            legs.append(_Leg(up, up.start, until, _REQUEST, node))
        else:
            if node.kind == wire.THREAD:
                since = max(up.start, until - node.queued_s)
                legs.append(_Leg(node, since, until, _QUEUE))
                until = since
            _back(up, until, legs)
        node = up
    return legs[::-1]


def _back(node: Node, until: float, legs: list[_Leg]) -> None:
    """Add the path through a node up to a moment, the latest first."""
    if node.kind in wire.SENDING:
        receiver = node.receiver
        if receiver is None or receiver.end > until:
            legs.append(_Leg(node, min(node.start, until), until, _BOTH, receiver))
            return
        legs.append(_Leg(node, receiver.end, until, _REPLY, receiver))
        _back(receiver, receiver.end, legs)
        legs.append(_Leg(node, node.start, receiver.start, _REQUEST, receiver))
        return
    for below in sorted(node.below, key=lambda each: each.end, reverse=True):
        if below.end <= until and below.start >= node.start:
            legs.append(_Leg(node, below.end, until, _OWN))
            _back(below, below.end, legs)
            until = below.start
    legs.append(_Leg(node, min(node.start, until), until, _OWN))


# ---------------------------------------------------------------- what its time went to


def _parts(leg: _Leg, scale: float) -> list[Part]:
    """Return what a leg's time went to, in seconds of the run's own clock."""
    node, seconds = leg.node, max(0.0, leg.end - leg.start)
    if leg.way == _QUEUE:
        return [Part("queue", seconds)]
    if leg.way == _OWN:
        return _own_parts(leg, seconds, scale)
    crossed = _crossed(node, leg.way, leg.receiver)
    activity = "http" if node.kind == wire.CLIENT else "bus"
    parts: list[Part] = []
    busy = _processor(node, seconds, node.own_s, scale)
    if leg.way == _REQUEST and leg.receiver is not None:
        queued = min(seconds - busy, leg.receiver.queued_s)
        if queued > 0:
            parts.append(Part("queue", queued))
            seconds -= queued
    if busy > 0:
        parts.append(Part("processor", busy))
        seconds = max(0.0, seconds - busy)
    if not crossed:
        return [*parts, Part(activity, seconds)]
    pairs = sorted(set(crossed))
    return [
        *parts,
        *(
            Part(activity, seconds * crossed.count(pair) / len(crossed), pair, crossed.count(pair))
            for pair in pairs
        ),
    ]


def _own_parts(leg: _Leg, seconds: float, scale: float) -> list[Part]:
    node = leg.node
    asked = node.asked(leg.start, leg.end)
    waited = sum(each.seconds for each in asked)
    # Sums are what was waited on one thread, one after the other: only a stranger's are longer.
    fits = min(1.0, seconds / waited) if waited > 0 else 1.0
    parts = []
    for each in asked:
        pair = _pair(each.site, each.peer_site)
        activity = "cache" if each.kind == wire.CACHE else "database"
        parts.append(
            Part(activity, each.seconds * fits, pair, 2 * each.trips if pair is not None else 0)
        )
    rest = max(0.0, seconds - waited * fits)
    busy = _processor(node, rest, node.own_s, scale)
    return [*parts, Part("processor", busy), Part("waiting", rest - busy)]


def _processor(node: Node, seconds: float, own_s: float, scale: float) -> float:
    """Return the processor's part of some of a node's own time, by its part of all of that.

    In scaled time a processor is as much slower as all else: what it did takes longer.
    """
    if seconds <= 0:
        return 0.0
    return min(seconds, node.cpu_s * scale * seconds / max(own_s, seconds))


def _pair(one: str | None, other: str | None) -> Pair | None:
    """Return two sites in their order; None where they are one, or unknown."""
    if not one or not other or one == other:
        return None
    return (one, other) if one < other else (other, one)


def _crossed(node: Node, way: str, receiver: Node | None) -> list[Pair]:
    """Return the links between sites that a request or message passes, one for each passage.

    `peer_site` is where the API is, or the broker that a message goes by.
    """
    sites: list[Pair | None]
    if node.kind == wire.CLIENT:
        sites = [_pair(node.site, receiver.site if receiver else node.peer_site)]
        if way == _BOTH:
            sites *= 2
    elif way == _BOTH:  # the broker says that it has the message
        sites = [_pair(node.site, node.peer_site)] * 2
    else:
        sites = [_pair(node.site, node.peer_site)]
        if receiver is not None:
            sites.append(_pair(node.peer_site, receiver.site))
    return [pair for pair in sites if pair is not None]


def _all_crossings(root: Node) -> int:
    """Return how often links between sites are passed on behalf of a boot, waited for or not."""
    count = 0
    for node in root.walk():
        count += sum(2 * each.trips for each in node.sums if _pair(each.site, each.peer_site))
        if node.kind in wire.SENDING:
            count += len(_crossed(node, _REQUEST, node.receiver))
            if node.kind != wire.CAST:
                count += len(_crossed(node, _REPLY, node.receiver))
    return count


# ---------------------------------------------------------------- boots


def boots(
    rows: Iterable[Mapping[str, Any]],
    vms: Mapping[str, str],
    rtt_s: Mapping[Pair, float],
    scale: float = 1.0,
) -> list[Boot]:
    """Return the boots whose records are whole, the shortest first.

    `rows` are those of the table `spans`; `vms` names VMs by id, and others are left out; `rtt_s`
    is the round trip between two sites, as measured and divided by `scale`; so is what is returned.
    """
    found = []
    for server_id, root in trees(rows).items():
        last = last_of(root) if server_id in vms else None
        if last is not None:
            found.append(_boot(vms[server_id], server_id, root, last, rtt_s, scale))
    return sorted(found, key=lambda boot: (boot.seconds, boot.vm))


def _boot(
    vm: str, server_id: str, root: Node, last: Node, rtt_s: Mapping[Pair, float], scale: float
) -> Boot:
    build = next((node for node in root.walk() if node.name == _BUILD and
                  node.kind == wire.HANDLER), last)  # fmt: skip
    seconds = max(0.0, last.end - root.start) / scale
    boot = Boot(vm, server_id, root, build.site, seconds)
    for leg in _path(root, last):
        parts = tuple(
            Part(part.activity, part.seconds / scale, part.pair, part.crossings)
            for part in _parts(leg, scale)
            if part.seconds > 0 or part.crossings
        )
        boot.stretches.append(
            Stretch(
                leg.node, (leg.start - root.start) / scale, (leg.end - root.start) / scale, parts
            )
        )
    boot.all_crossings = _all_crossings(root)
    boot.wan_wait_s = sum(
        part.crossings * rtt_s.get(part.pair, 0.0) / 2
        for part in boot.parts()
        if part.pair is not None
    )
    return boot
