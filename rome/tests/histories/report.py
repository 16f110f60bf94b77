"""The figures of runs: as JSON, and as a table made from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

_WORDS = """\
# Histories under faults

Made by `python -m tests.histories --save`. Each line is one run: {clients} client processes of 2
threads with 2 connections each, half of these at SERIALIZABLE, all four workloads mixed, while the
schema changes; in a cluster of 3 masters and 3 replicas with a node timeout of {timeout:g} s, or on
one server with `appendonly yes`. "reuse" is the result cache and prefetching.

- lost: acknowledged, and not there; in brackets, when they were acknowledged, in s after the fault
  began. With `wait=0` a failover may lose them, as Redis replicates asynchronously
  ([isolation](../../../docs/isolation.md#what-a-commit-survives)).
- visible: rolled back, or said not to be done, but there. None may be.
- not known: commits of whose outcome the client was told that it isn't known; those that were done.
- other: anomalies that no stated limit explains. None may be.
- standstill: the longest time in which a thread had no commit, of reading transactions either;
  failover: the longest time from the fault until another master had the database, as the nodes
  say. With `wait=1` writes are refused besides, until a failed master is back as a replica.

"""
_HEAD = (
    "| fault | wait | reuse | times | transactions | committed | lost | visible |"
    " not known (done) | other | standstill, s | failover, s |"
)


def load(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Return the figures that are there."""
    file = folder / "matrix.json"
    return list(json.loads(file.read_text())["runs"]) if file.exists() else []


def merged(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return figures in which those of the same runs are the new ones."""
    fresh = {_key(each): each for each in new}
    return [fresh.pop(_key(each), each) for each in old] + list(fresh.values())


def _key(figures: Mapping[str, Any]) -> str:
    run = figures["run"]
    return json.dumps([run["fault"], run["options"]])


def save(runs: Sequence[dict[str, Any]], folder: Path = RESULTS) -> None:
    """Write figures and their page."""
    folder.mkdir(exist_ok=True)
    text = json.dumps({"runs": list(runs)}, indent=1, ensure_ascii=False)
    (folder / "matrix.json").write_text(text + "\n")
    (folder / "matrix.md").write_text(page(runs))


def page(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the page of figures."""
    first = runs[0]
    words = _WORDS.format(clients=first["run"]["processes"], timeout=first["node_timeout_s"])
    lost = sum(each["lost"] for each in runs)
    sums = (
        f"\nIn all {_number(sum(each['transactions'] for each in runs))} transactions with"
        f" {_number(sum(each['statements'] for each in runs))} statements in"
        f" {sum(each['seconds'] for each in runs) / 60:.0f} minutes, {lost} lost"
        f" ({sum(each['lost'] for each in runs if _option(each, 'wait', '0') != '0')} with"
        f" `wait=1`), {sum(each['aborted_but_visible'] for each in runs)} visible,"
        f" {sum(each['unknown'] for each in runs)} not known.\n"
    )
    return words + table(runs) + sums


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return figures as a table in Markdown."""
    return "\n".join([_HEAD, "|" + "---|" * 12, *map(line, runs)]) + "\n"


def line(figures: Mapping[str, Any]) -> str:
    """Return the line of one run."""
    run = figures["run"]
    lost = str(figures["lost"])
    if figures["lost_s_after_begin"]:
        first, last = figures["lost_s_after_begin"]
        lost += f" ({first:g} to {last:g})"
    others = {
        name: count
        for name, count in figures["anomalies"].items()
        if name in figures["unexplained"]
    }
    others |= {name: 1 for name in figures["unexplained"] if name not in others}
    failover = figures["failover_s"]
    cells = (
        run["fault"],
        _option(figures, "wait", "0") if figures["failover_s"] or _is_cluster(run) else "",
        _option(figures, "prefetch", "on"),
        figures["faults"] or "",
        _number(figures["transactions"]),
        _number(figures["committed"]),
        lost,
        figures["aborted_but_visible"],
        f"{figures['unknown']} ({figures['unknown_done']})" if figures["unknown"] else 0,
        ", ".join(f"{count} {name}" for name, count in others.items()) or "none",
        f"{figures['standstill_s']:.1f}",
        "" if failover is None else f"{failover:.1f}",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _is_cluster(run: Mapping[str, Any]) -> bool:
    return "server" not in run["fault"]


def _option(figures: Mapping[str, Any], name: str, default: str) -> str:
    return str(dict(figures["run"]["options"]).get(name, default))


def _number(value: int) -> str:
    return f"{value:,}"
