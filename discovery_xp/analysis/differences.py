"""How runs differ in what was run, before their figures are looked at: it is usually those."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from discovery_xp.analysis.measurements import Measurements
from discovery_xp.store import RunRecord
from discovery_xp.text import shortened

_VALUE = 60  # characters of a value
ABSENT = "-"

# Subjects whose values have to be equal among the runs of one side, which are averaged.
_CONFIGURATION = ("back end", "hosts", "links", "option", "scenario", "time scale", "format")


@dataclass(frozen=True)
class Difference:
    """A setting that isn't the same on both sides, and the different values of each side."""

    setting: str
    a: tuple[str, ...]
    b: tuple[str, ...]


def settings(run: Measurements) -> dict[str, str]:
    """Return everything of a run that could explain another figure, in words, by its name."""
    return dict(_settings(run.record))


def _settings(record: RunRecord) -> Iterator[tuple[str, str]]:
    values = record.to_json()
    yield "status", f"PARTIAL: {record.why_partial}" if record.is_partial else "complete"
    if verdict := verdict_of(record):
        yield "verdict", verdict
    yield "time scale", _shown(record.time_scale)
    yield "format", _shown(record.format)
    yield "back end", record.backend
    hosts = {key: values[key] for key in ("sites", "controllers", "computes", "data")}
    yield "hosts", ", ".join(f"{count} {what}" for what, count in hosts.items())
    if record.sites > 1:
        one_way = "differ" if record.latency_ms is None else f"{record.latency_ms:g} ms"
        yield "links", f"{one_way}, by {record.imposed_by or 'nothing'}"
    yield from _flat("option", {k: v for k, v in record.options.items() if k != "backend"})
    unset = {k: v for k, v in record.scenario.items() if v is not None}
    yield from _flat("scenario", {k: v for k, v in unset.items() if k not in _NAMES})
    yield "placement drawn", ABSENT if record.drawn is None else (
        f"{record.drawn.digest} from seed {record.drawn.seed}"
    )  # fmt: skip
    yield "probes", ", ".join(record.probes) or "none"
    if values.get("sample_every_s") is not None:
        yield "sample interval, s", _shown(values["sample_every_s"])
    yield from _flat("version", record.versions)
    yield "commit", record.commit or "unknown"
    yield from _flat("machine", values["machine"])


# Of a scenario: what it is called says nothing of the load; the seed has a setting of its own.
_NAMES = ("name", "description", "placement_seed")


def verdict_of(record: RunRecord) -> str:
    """Return the word on whether the machine could keep up with the run; empty without any."""
    return "" if record.validity is None else record.validity.verdict


def _flat(name: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(f"{name} {key}", value)
        else:
            yield f"{name} {key}", _shown(value)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return shortened(text, _VALUE)


def differences(a: Sequence[Measurements], b: Sequence[Measurements]) -> list[Difference]:
    """Return the settings whose values aren't the same on both sides, each side's once.

    Digests of plans are named only where nothing else of the cloud explains them.
    """
    of_a, of_b = _collected(a), _collected(b)
    found = [
        Difference(name, of_a.get(name, (ABSENT,)), of_b.get(name, (ABSENT,)))
        for name in dict.fromkeys([*of_a, *of_b])
        if set(of_a.get(name, (ABSENT,))) != set(of_b.get(name, (ABSENT,)))
    ]
    plans = [tuple(dict.fromkeys(run.record.plan for run in side)) for side in (a, b)]
    explained = any(each.setting.startswith(_CONFIGURATION) for each in found)
    if set(plans[0]) != set(plans[1]) and not explained:
        found.append(Difference("plan (see plan.json)", *plans))
    return found


def _collected(runs: Iterable[Measurements]) -> dict[str, tuple[str, ...]]:
    """Return the different values of each setting, in the order of the runs."""
    every = [settings(run) for run in runs]
    names = dict.fromkeys(name for each in every for name in each)
    return {name: tuple(dict.fromkeys(each.get(name, ABSENT) for each in every)) for name in names}


def disagreement(runs: Sequence[Measurements]) -> Difference | None:
    """Return the first setting that keeps runs from being averaged; None where they may be.

    Versions, machines and probes may differ, and are named by `differences`.
    """
    for name, values in _collected(runs).items():
        if len(values) > 1 and name.startswith(_CONFIGURATION):
            return Difference(name, values[:1], values[1:2])
    return None
