"""Traced boots to steps: what a typical boot of a run did, averaged over its VMs.

Spans of the same name below the same parent are the same step; one that fewer than half of the
boots have is left out, and the processor time of what is left out is made up for by the factors
of `calibration`.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from discovery_xp.analysis.span_trees import Node
from discovery_xp.model.steps import (
    ABOVE,
    CALL,
    CAST,
    CELL,
    CLAIM,
    HTTP,
    THREAD,
    Activity,
    Lock,
    Send,
    Step,
    Work,
)
from discovery_xp.onhost.wire import spans as wire

_USUAL = 0.5  # of the boots that have a step, at least
# What a compute does for a VM under one lock: the claim begins when it saves the VM a second
# time, and ends when it has saved itself; in between it asks for the allocations of each VM that
# the scheduler gave it.
BUILD = "_locked_do_build_and_run_instance"
_CLAIM_BEGINS, _CLAIM_ENDS = ("Instance.save", 2), ("ComputeNode.save", 1)
_EACH_VM = "GET /allocations/{id}"
_LISTS_VMS = "GET /resource_providers/{id}/allocations"

_COUNTED = {"SELECT": "selects", "COMMIT": "commits"}
_WAYS = {wire.CLIENT: HTTP, wire.CALL: CALL, wire.CAST: CAST, wire.THREAD: THREAD}


@dataclass(frozen=True)
class Traced:
    """A boot's root, and the sites that tell its stores apart.

    `cell_site` is where the store of its cell is, None where there are no cells.
    """

    root: Node
    cell_site: str | None = None


@dataclass
class _Gap:
    """What a span did itself between two steps, in each boot."""

    cpu_s: list[float] = field(default_factory=list)
    sums: list[Counter[str]] = field(default_factory=list)


_Key = tuple[str, str, int]
_Sample = tuple[Node, str | None]


def typical(boots: Sequence[Traced]) -> Activity:
    """Return the steps of a boot, averaged over boots; there is at least one."""
    return _activity([(boot.root, boot.cell_site) for boot in boots])


def _activity(samples: Sequence[_Sample]) -> Activity:
    """Return what samples of the same span have in common; their `Node`s are no sends."""
    keyed = [_children(node) for node, _cell in samples]
    usual = [
        key
        for key, count in Counter(key for children in keyed for key in children).items()
        if count >= _USUAL * len(samples)
    ]
    ranks = {
        key: statistics.fmean(list(children).index(key) for children in keyed if key in children)
        for key in usual
    }
    order = sorted(usual, key=lambda key: (ranks[key], key))
    is_build = samples[0][0].name == BUILD
    once = [not _is_for_each(key, is_build) for key in order]
    gaps = [
        _gaps(node, [children.get(key) for key in order], once, cell)
        for (node, cell), children in zip(samples, keyed, strict=True)
    ]
    steps: list[Step] = []
    for index, key in enumerate(order):
        if is_build and key[1:] == _CLAIM_BEGINS:
            steps.append(Lock(CLAIM, takes=True))
        steps.append(_work([gap[index] for gap in gaps]))
        present = [
            (children[key], cell)
            for (_node, cell), children in zip(samples, keyed, strict=True)
            if key in children
        ]
        send = _send(key, present, is_build)
        if send is not None:
            steps.append(send)
        if is_build and key[1:] == _CLAIM_ENDS:
            steps.append(Lock(CLAIM, takes=False))
    steps.append(_work([gap[-1] for gap in gaps]))
    node = samples[0][0]
    return Activity(node.service, node.name, tuple(step for step in steps if step != Work()))


def _children(node: Node) -> dict[_Key, Node]:
    """Return what is below a node, by kind, name and which of that name it is, by its start.

    Of requests that are the same for each VM of a compute, one stands for all: a median one.
    """
    seen: Counter[tuple[str, str]] = Counter()
    children: dict[_Key, Node] = {}
    each: list[Node] = []
    lists_vms = False
    for below in sorted(node.below, key=lambda child: child.start):
        if node.name == BUILD and below.kind == wire.CLIENT:
            lists_vms = lists_vms or below.name == _LISTS_VMS
            if lists_vms and below.name == _EACH_VM:
                each.append(below)
                if len(each) > 1:
                    continue
        seen[below.kind, below.name] += 1
        children[below.kind, below.name, seen[below.kind, below.name]] = below
    if each:
        stands = sorted(each, key=lambda child: child.seconds)[len(each) // 2]
        children = {key: stands if below is each[0] else below for key, below in children.items()}
    return children


def _send(key: _Key, samples: Sequence[_Sample], is_build: bool) -> Send | None:
    kind, name, _number = key
    if kind == wire.THREAD:
        beside = sum(_is_beside(node) for node, _cell in samples) > len(samples) / 2
        return Send(THREAD, _activity(samples), beside)
    received = [(node.receiver, cell) for node, cell in samples if node.receiver is not None]
    asked = [(node, cell) for node, cell in received if node is not None]
    if len(asked) < _USUAL * len(samples):
        if kind != wire.CLIENT:
            return None
        # Who answered kept no spans (Glance): the round trip is all that is known.
        return Send(HTTP, Activity("", name))
    if not _is_for_each(key, is_build):
        return Send(_WAYS[kind], _activity(asked))
    cpu_ms = 1000 * statistics.fmean(node.cpu_s for node, _cell in samples)
    return Send(_WAYS[kind], _activity(asked), for_each_vm=True, cpu_ms=round(cpu_ms, 2))


def _is_for_each(key: _Key, is_build: bool) -> bool:
    """Tell whether a step is done for each VM of the compute; the first of its name is not."""
    return is_build and key[1] == _EACH_VM and key[2] > 1


def _is_beside(node: Node) -> bool:
    """Tell whether a thread ran while another one of the same parent did."""
    if node.up is None:
        return False
    return any(
        other.kind == wire.THREAD and other.start < node.start < other.end
        for other in node.up.below
        if other is not node
    )


def _gaps(
    node: Node, steps: Sequence[Node | None], once: Sequence[bool], cell: str | None
) -> list[_Gap]:
    """Return what a node did itself before each step, and after the last one.

    Processor time isn't known by gap: a gap gets a part by its round trips and one more.  That
    of sending a request is in the gap before it, if it is sent `once`.
    """
    gaps: list[_Gap] = []
    since = node.start
    for step in [*steps, None]:
        is_last = len(gaps) == len(steps)
        until = float("inf") if is_last else (step.start if step is not None else since)
        gaps.append(_Gap(sums=[_counted(node, since, until, cell)]))
        since = max(since, until)
    weights = [1 + gap.sums[0].total() for gap in gaps]
    for gap, weight, step, is_once in zip(
        gaps, weights, [*steps, None], [*once, False], strict=True
    ):
        sends = step is not None and step.kind != wire.THREAD and is_once
        sending = step.cpu_s if sends and step is not None else 0.0
        gap.cpu_s.append(node.cpu_s * weight / sum(weights) + sending)
    return gaps


def _counted(node: Node, since: float, until: float, cell: str | None) -> Counter[str]:
    """Return the round trips that began in a part of a node's time, by what they went to."""
    counts: Counter[str] = Counter()
    for each in node.asked(since, until):
        if each.kind == wire.CACHE:
            counts["cached"] += each.trips
            continue
        counts[CELL if cell is not None and each.peer_site == cell else ABOVE] += each.trips
        if each.name in _COUNTED:
            counts[_COUNTED[each.name]] += each.trips
    return counts


def _work(gaps: Sequence[_Gap]) -> Work:
    count = len(gaps)
    total: Counter[str] = Counter()
    for gap in gaps:
        total.update(gap.sums[0])
    means = {key: value / count for key, value in total.items()}
    trips = {store: means[store] for store in (ABOVE, CELL) if means.get(store, 0) >= 0.01}
    cpu_ms = 1000 * sum(gap.cpu_s[0] for gap in gaps) / count
    return Work(
        round(cpu_ms, 2),
        {store: round(value, 2) for store, value in trips.items()},
        *(round(means.get(name, 0.0), 2) for name in ("selects", "commits", "cached")),
    )
