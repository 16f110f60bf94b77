"""Series of runs as text for Prometheus: OpenMetrics with timestamps.

`promtool tsdb create-blocks-from openmetrics FILE` makes blocks of it that Prometheus serves and
Grafana draws.  Families are in the order of their names, the samples of each set of labels
together and in the order of time, as the format wants it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from discovery_xp.analysis.measurements import Measurements
from discovery_xp.errors import Refused
from discovery_xp.onhost.wire.series import METRICS
from discovery_xp.store import replace_file
from discovery_xp.text import printable

PREFIX = "discovery_xp_"
_UNITS = ("seconds", "bytes")

Labels = tuple[tuple[str, str], ...]


@dataclass
class Family:
    """A metric family: `name` is without the suffix that a counter's samples have.

    `samples` is by set of labels: pairs of time, s since 1970, and value.
    """

    name: str
    is_counter: bool
    words: str
    samples: dict[Labels, list[tuple[float, float]]] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """Return the unit that the name ends with, nothing where it has none."""
        return next((unit for unit in _UNITS if self.name.endswith(f"_{unit}")), "")


def family_name(metric: str) -> str:
    """Return what Prometheus' conventions call a metric of the table `series`."""
    return PREFIX + re.sub(r"_s$", "_seconds", metric)


def families(runs: Sequence[Measurements]) -> list[Family]:
    """Return what runs sampled, in the experiment's time; raises Refused where a run has none."""
    found = {
        name: Family(family_name(name), metric.is_counter, metric.words)
        for name, metric in METRICS.items()
    }
    found["vms_active"] = Family(f"{PREFIX}vms_active", False, "VMs that got ACTIVE so far.")
    for run in runs:
        if not len(run.series):
            raise Refused(
                f"{printable(run.run.name)}: there are no series in it",
                "name a run of a bench with the probe 'series'",
            )
        for metric, labels, samples in _samples(run):
            found[metric].samples[labels] = samples
    return sorted(
        (family for family in found.values() if family.samples), key=lambda family: family.name
    )


def _samples(run: Measurements) -> Iterator[tuple[str, Labels, list[tuple[float, float]]]]:
    """Yield the samples of a run: metric, labels, pairs of time and value."""
    start = run.window.start if run.window else float(run.series["at"].min())
    grouped = run.series.groupby(["metric", "host", "site", "service"], sort=True)
    for (metric, host, site, service), rows in grouped:
        ordered = rows.sort_values("at", kind="stable")
        pairs = [
            (float(at), float(value))
            for at, value in zip(ordered["at"], ordered["value"], strict=True)
        ]
        yield (
            str(metric),
            _labels(run, host=str(host), site=str(site), service=str(service)),
            _by_time(pairs),
        )
    active = sorted(run.vms["active_at"].dropna())
    counted = [(float(at), float(number)) for number, at in enumerate(active, start=1)]
    yield "vms_active", _labels(run), _by_time([(start, 0.0), *counted])


def _labels(run: Measurements, **more: str) -> Labels:
    return tuple(sorted({"run": run.run.name, **more}.items()))


def _by_time(pairs: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return one value for each millisecond, the last: a time may be there once."""
    last = {round(at, 3): value for at, value in pairs}
    return sorted(last.items())


# ---------------------------------------------------------------- text


def text(runs: Sequence[Measurements]) -> str:
    """Return runs' series in OpenMetrics' text format; raises Refused as `families` does."""
    return "".join(_lines(families(runs)))


def _lines(found: Iterable[Family]) -> Iterator[str]:
    for family in found:
        yield f"# HELP {family.name} {_escaped(family.words)}\n"
        yield f"# TYPE {family.name} {'counter' if family.is_counter else 'gauge'}\n"
        if family.unit:
            yield f"# UNIT {family.name} {family.unit}\n"
        suffix = "_total" if family.is_counter else ""
        for labels, samples in family.samples.items():
            shown = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
            for at, value in samples:
                yield f"{family.name}{suffix}{{{shown}}} {_number(value)} {at:.3f}\n"
    yield "# EOF\n"


def _escaped(words: str) -> str:
    """Return text for a label or a HELP line, whatever isn't printed as it is as an escape."""
    return re.sub(r'[\\"]', lambda match: f"\\{match[0]}", printable(words))


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def write(path: Path, runs: Sequence[Measurements]) -> Path:
    """Write runs' series to a file, and return its path; raises Refused where that can't be."""
    written = text(runs)
    try:
        replace_file(path, written)
    except OSError as error:
        raise Refused(
            f"{printable(str(path))}: can't be written ({error.strerror or error})",
            "name another file with --prometheus",
        ) from None
    return path
