"""Which level of a factor a stored run has: what a claim tells runs apart by.

A run of a campaign says its levels itself.  For any other the words that campaigns have for
topologies and scenarios (`sites`, `latency`, ...) are read from its record.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from discovery_xp.inputs import units
from discovery_xp.store import RunRecord


def _each(total: int, sites: int) -> int | None:
    """Return how many of `total` each site has; None where they aren't shared evenly."""
    return total // sites if sites and total % sites == 0 else None


def _scenario(key: str) -> Callable[[RunRecord], Any]:
    return lambda record: record.scenario.get(key)


BUILT_IN: Mapping[str, Callable[[RunRecord], Any]] = {
    "sites": lambda record: record.sites,
    "controllers": lambda record: _each(record.controllers, record.sites),
    "computes": lambda record: _each(record.computes, record.sites),
    "data": lambda record: _each(record.data, record.sites),
    "latency": lambda record: None if record.latency_ms is None else f"{record.latency_ms}ms",
    "time_scale": lambda record: record.time_scale,
    "backend": lambda record: record.backend,
    "layout": lambda record: record.options.get("layout", "shared"),
    "placement": lambda record: record.options.get("placement", "shared"),
    "vms": lambda record: record.vms.asked,
    "iterations": _scenario("iterations"),
    "concurrency": lambda record: record.scenario.get("concurrency") or "all",
    "placement_seed": lambda record: None if record.drawn is None else record.drawn.seed,
    "spread": _scenario("spread"),
    "warm_up": _scenario("warm_up"),
}


def canonical(factor: str, level: object) -> str:
    """Return a level such that equal ones are equal texts: '0.01s' of a latency is '10ms'."""
    text = str(level)
    if factor == "latency":
        with contextlib.suppress(units.QuantityError):
            return f"{units.parse_duration_ms(text):g}ms"
    if factor == "time_scale":
        with contextlib.suppress(ValueError):
            return f"{float(text):g}"
    return text


def level_of(record: RunRecord, factor: str) -> str | None:
    """Return the level of a factor that a run has, in its canonical form; None for none."""
    place = record.in_campaign
    if place is not None and factor in place.levels:
        return canonical(factor, place.levels[factor])
    if factor not in BUILT_IN or (value := BUILT_IN[factor](record)) is None:
        return None
    return canonical(factor, value)


def has(record: RunRecord, levels: Mapping[str, str]) -> bool:
    """Tell whether a run has all of these levels, each in its canonical form."""
    return all(level_of(record, factor) == level for factor, level in levels.items())


def may_have(own: Mapping[str, str], levels: Mapping[str, str]) -> bool:
    """Tell whether a campaign's point may have all of `levels`, by its `own` ones.

    A word of topologies or scenarios that it doesn't vary may have any level.
    """
    return all(
        canonical(factor, own[factor]) == level if factor in own else factor in BUILT_IN
        for factor, level in levels.items()
    )


def factors_of(records: Iterable[RunRecord]) -> tuple[str, ...]:
    """Return the factors that claims about these runs may name."""
    own = (
        factor
        for record in records
        if record.in_campaign is not None
        for factor in record.in_campaign.levels
    )
    return tuple(dict.fromkeys([*BUILT_IN, *own]))


def in_words(levels: Mapping[str, str]) -> str:
    """Return levels in words: 'backend rome, sites 8'."""
    return ", ".join(f"{factor} {level}" for factor, level in levels.items())
