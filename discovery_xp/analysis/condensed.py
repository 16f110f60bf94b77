"""Boots of a run as few rows, and back: what a condensed run keeps of its spans.

Spans are half of a run's bytes and most of the time that reading one takes.  Kept are sums for each
boot, from which all figures and tables of boots follow, the steps of all boots together, and the
spans of the boots that are drawn: the shortest, the median, a slow and the slowest one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from discovery_xp.analysis.anatomy import Boot, Pair, Part
from discovery_xp.analysis.span_trees import Node
from discovery_xp.onhost.wire import spans as wire

Row = Mapping[str, Any]
Step = tuple[str, str, str]

SLOW = 0.9  # of the boots are quicker than a slow one


def drawn(boots: Sequence[Boot]) -> list[Boot]:
    """Return the boots that are drawn, of all, the shortest first."""
    last = len(boots) - 1
    return [boots[at] for at in sorted({0, last // 2, min(last, int(SLOW * len(boots))), last})]


def steps_of(boots: Iterable[Boot]) -> dict[Step, tuple[float, int]]:
    """Return seconds and crossings of all boots together by service, kind and name of the step."""
    sums: dict[Step, tuple[float, int]] = {}
    for boot in boots:
        for stretch in boot.stretches:
            step = stretch.node.service, stretch.node.kind, stretch.node.name
            seconds, crossings = sums.get(step, (0.0, 0))
            sums[step] = (
                seconds + stretch.end - stretch.start,
                crossings + sum(part.crossings for part in stretch.parts),
            )
    return sums


# ---------------------------------------------------------------- to rows


def rows_of(boots: Sequence[Boot]) -> dict[str, list[dict[str, Any]]]:
    """Return the tables of the boots of a run, by name; `spans` has those of a few alone."""
    if not boots:
        return {}
    return {
        "boots": [_boot_row(boot) for boot in boots],
        "boot_parts": [row for boot in boots for row in _part_rows(boot)],
        "boot_steps": [
            {"service": service, "kind": kind, "step": name, "spent_s": seconds,
             "crossings": crossings}
            for (service, kind, name), (seconds, crossings) in sorted(steps_of(boots).items())
        ],
        "spans": [dict(row) for boot in drawn(boots) for row in _span_rows(boot.root)],
    }  # fmt: skip


def _boot_row(boot: Boot) -> dict[str, Any]:
    return {
        "vm": boot.vm,
        "server_id": boot.server_id,
        "site": boot.root.site,
        "host_site": boot.host_site,
        "path_s": boot.seconds,
        "wan_wait_s": boot.wan_wait_s,
        "all_crossings": boot.all_crossings,
    }


def _part_rows(boot: Boot) -> Iterator[dict[str, Any]]:
    sums: dict[tuple[str, Pair | None], tuple[float, int]] = {}
    for part in boot.parts():
        seconds, crossings = sums.get((part.activity, part.pair), (0.0, 0))
        sums[part.activity, part.pair] = seconds + part.seconds, crossings + part.crossings
    for (activity, pair), (seconds, crossings) in sums.items():
        one, other = pair or (None, None)
        yield {
            "vm": boot.vm,
            "activity": activity,
            "one_site": one,
            "other_site": other,
            "spent_s": seconds,
            "crossings": crossings,
        }


def _span_rows(root: Node) -> Iterator[Row]:
    for node in root.walk():
        for each in (node, *node.sums):
            if each.row is not None:
                yield each.row


# ---------------------------------------------------------------- and back


def boots_of(boots: Iterable[Row], parts: Iterable[Row], whole: Iterable[Boot]) -> list[Boot]:
    """Return the boots that tables say, the shortest first; `whole` are those with stretches."""
    sums: dict[str, list[Part]] = {}
    for row in parts:
        one, other = row["one_site"], row["other_site"]
        pair = None if one is None or other is None else (one, other)
        part = Part(row["activity"], row["spent_s"], pair, row["crossings"])
        sums.setdefault(row["vm"], []).append(part)
    with_stretches = {boot.vm: boot for boot in whole}
    found = [
        with_stretches.get(row["vm"]) or _summed(row, tuple(sums.get(row["vm"], ())))
        for row in boots
    ]
    return sorted(found, key=lambda boot: (boot.seconds, boot.vm))


def _summed(row: Row, sums: tuple[Part, ...]) -> Boot:
    root = Node(
        wire.SERVER, "", "nova-api", "", row["site"], None, None, 0.0, row["path_s"], 0.0, 0.0, 0,
        None,
    )  # fmt: skip
    return Boot(
        row["vm"], row["server_id"], root, row["host_site"], row["path_s"],
        all_crossings=row["all_crossings"], wan_wait_s=row["wan_wait_s"], sums=sums,
    )  # fmt: skip


def steps_in(rows: Iterable[Row]) -> dict[Step, tuple[float, int]]:
    """Return what `steps_of` did, from the table's rows."""
    return {
        (row["service"], row["kind"], row["step"]): (row["spent_s"], row["crossings"])
        for row in rows
    }
