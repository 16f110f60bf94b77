"""Tables of the reference runs, from `results/reference`."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from discovery_xp.analysis.measurements import Measurements, read_runs
from discovery_xp.analysis.tables import digits
from docs.generator.blocks import ROOT, table

REFERENCE = ROOT / "results/reference"
Row = tuple[str, Callable[[Measurements], str]]


@functools.cache
def runs(experiment: str) -> tuple[Measurements, ...]:
    """Return the runs of an experiment, by latency, then the oldest first."""
    found = read_runs([REFERENCE / experiment])
    return tuple(sorted(found, key=lambda run: (run.record.latency_ms or 0, run.record.started)))


def _figure(key: str) -> Callable[[Measurements], str]:
    return lambda run: digits(float(run.figures[key]))


def _figures(*keys: str) -> Callable[[Measurements], str]:
    return lambda run: " / ".join(digits(float(run.figures[key])) for key in keys)


def _percent(value: float, places: int = 0) -> str:
    return f"{value * 100:.{places}f}"


def _active(run: Measurements) -> str:
    return f"{run.done} of {run.asked}"


def _shares(run: Measurements) -> str:
    figures = run.figures
    shares = (figures[f"{who}_share"] for who in ("openstack", "load", "other"))
    return " / ".join(_percent(share, 1) for share in shares) + " %"


def _by_site(run: Measurements) -> str:
    shares = run.vms.loc[run.vms["status"] == "ACTIVE", "host_site"].value_counts(normalize=True)
    return f"{_percent(shares.min())} to {_percent(shares.max())} %"


def _delete_s(run: Measurements) -> str:
    return f"{run.record.stages_s['deleting the VMs']:.0f}"


_SHORT: tuple[Row, ...] = (
    ("VMs ACTIVE", _active),
    ("to create them, s", _figure("duration_s")),
    ("call of Nova's database API, mean / median, ms", _figures("call_mean_ms", "call_median_ms")),
    ("database round trips per VM", _figure("round_trips_per_vm")),
    ("CPU-ms per VM, probes included", _figure("cpu_ms_per_vm")),
    ("MB over the network / of it between sites", _figures("network_mb", "inter_mb")),
    ("of the machine busy", lambda run: f"{_percent(run.figures['machine_busy'])} %"),
)
_WHOLE: tuple[Row, ...] = (
    ("VMs ACTIVE", _active),
    ("to create them, s", _figure("duration_s")),
    ("boots per second", _figure("vms_per_s")),
    ("a boot, median / P90, s", _figures("boot_median_s", "boot_p90_s")),
    ("call of the database API, mean / median / P90, ms",
     _figures("call_mean_ms", "call_median_ms", "call_p90_ms")),
    ("CPU-ms per VM", _figure("cpu_ms_per_vm")),
    ("statements / database round trips per VM",
     _figures("statements_per_vm", "round_trips_per_vm")),
    ("kB to and from the database per VM", _figure("db_kb_per_vm")),
    ("messages of the bus per VM", _figure("messages_per_vm")),
    ("MB over the network / of it between sites", _figures("network_mb", "inter_mb")),
    ("share of VMs by site, least to most", _by_site),
    ("of the machine busy", lambda run: f"{_percent(run.figures['machine_busy'])} %"),
    ("of that OpenStack / load generator / all else", _shares),
    ("to delete them, s", _delete_s),
)  # fmt: skip


def _by_latency(first: str, rows: Iterable[Row], shown: Sequence[Measurements]) -> str:
    head = [first, *(f"{run.record.latency_ms:g} ms" for run in shown)]
    return table(head, [[words, *(value(run) for run in shown)] for words, value in rows])


def eight_sites() -> str:
    """Return the README's table of the published layout."""
    from discovery_xp.analysis import paper

    shown = runs("sites-8")
    published = {
        value.latency_ms: f"{value.value:g}"
        for number in (3, 4)
        for value in paper.published(number)
        if value.backend == paper.MYSQL and value.clusters == 8
    }
    extra: Row = (
        "published, on Grid'5000, to create them, s",
        lambda run: published.get(run.record.latency_ms, ""),
    )
    return _by_latency("one-way delay", [*_SHORT[:2], extra, *_SHORT[2:]], shown)


def eight_sites_whole() -> str:
    """Return the table of the published layout with all figures."""
    return _by_latency("one-way delay", _WHOLE, runs("sites-8"))


def _machines(shown: Sequence[Measurements]) -> str:
    found = []
    for run in shown:
        machine = run.record.machine
        memory = f"{machine.memory_bytes / 2**30:.0f} GiB"
        found.append(f"{machine.cpus} processors of {machine.cpu_model}, {memory}")
    return "; ".join(dict.fromkeys(found))


def provenance(experiment: str) -> str:
    """Return when, on what and with which versions an experiment's runs were made."""
    return provenance_of(runs(experiment))


def provenance_of(shown: Sequence[Measurements]) -> str:
    """Return when, on what and with which versions some runs were made."""
    days = sorted({run.record.started[:10] for run in shown})
    commits = sorted({str(run.record.commit)[:12] for run in shown})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    count = "1 run" if len(shown) == 1 else f"{len(shown)} runs"
    return f"{count} of {when}, on {_machines(shown)}; commit {', '.join(commits)}.\n"


# ---------------------------------------------------------------- eight sites, time scaled

SCALED = "sites-8-scaled"


def eight_sites_scaled(is_short: bool = False) -> str:
    """Return the runs of eight sites with scaled time, and of two back ends their ratio.

    The short table has what back ends are compared by first.
    """
    from discovery_xp.analysis import comparison, figures

    names = {"mysql": "MariaDB", "rome": "ROME"}
    found = {run.record.backend: run for run in runs(SCALED)}
    shown = [found[backend] for backend in names if backend in found]
    rows = [[words, *(value(run) for run in shown)] for words, value in _SCALED]
    rows += [
        [figure.words, *(digits(float(run.figures[figure.key])) for run in shown)]
        for figure in figures.FIGURES
    ]
    head = [
        f"500 VMs at once, {shown[0].record.latency_ms:g} ms, K = {shown[0].record.time_scale:g}",
        *(names[run.record.backend] for run in shown),
    ]
    if len(shown) == 2:
        a, b = (comparison.side(run.record.backend, [run.run]) for run in shown)
        ratios = {each.figure.key: each for each in comparison.compare(a, b).figures}
        head.append(f"{head[2]} / {head[1]}")
        keys = [*("" for _ in _SCALED), *(figure.key for figure in figures.FIGURES)]
        for row, key in zip(rows, keys, strict=True):
            row.append(_ratio(ratios[key]) if key in ratios else "")
    return table(head, [row for row in rows if not is_short or row[0] in _SCALED_SHORT])


def _ratio(compared: Any) -> str:
    if compared.ratio is None:
        return ""
    words = f"{compared.ratio:.2f}"
    if compared.interval is not None:
        words += f" ({compared.interval.low:.2f} to {compared.interval.high:.2f})"
    return words


def _of_validity(key: str) -> Callable[[Measurements], str]:
    return lambda run: f"{_percent(getattr(run.record.validity, key))} %"


_SCALED: tuple[Row, ...] = (
    ("VMs ACTIVE", _active),
    ("verdict", lambda run: str(run.record.validity.verdict) if run.record.validity else "-"),
    ("of the machine busy", _of_validity("busy")),
    ("of the time saturated", _of_validity("saturated")),
    ("the load by a clock, s", lambda run: digits((run.duration_s or 0) * run.record.time_scale)),
)

_SCALED_SHORT = (
    "VMs ACTIVE",
    "verdict",
    "boot, median, s",
    "load, s",
    "database round trips per VM",
    "crossings between sites per VM",
    "WAN wait, s per VM",
)


# ---------------------------------------------------------------- MariaDB beside ROME

_PAIRS = (
    ("to create 100 VMs, s", "duration_s"),
    ("a boot, median, s", "boot_median_s"),
    ("a boot, P90, s", "boot_p90_s"),
    ("call of the database API, mean, ms", "call_mean_ms"),
    ("the same, P90, ms", "call_p90_ms"),
    ("database round trips per VM", "round_trips_per_vm"),
    ("kB to and from the database per VM", "db_kb_per_vm"),
    ("CPU-ms per VM", "cpu_ms_per_vm"),
)
_PAIRS_SHORT = ("duration_s", "boot_median_s", "call_mean_ms", "round_trips_per_vm")


def _grouped() -> dict[float, dict[str, list[Measurements]]]:
    """Return the runs of two sites by latency and back end."""
    found: dict[float, dict[str, list[Measurements]]] = {}
    for run in runs("sites-2"):
        by_backend = found.setdefault(float(run.record.latency_ms or 0), {})
        by_backend.setdefault(run.record.backend, []).append(run)
    return found


def _pair(by_backend: dict[str, list[Measurements]], key: str) -> str:
    means = (
        statistics.mean(float(run.figures[key]) for run in by_backend[backend])
        for backend in ("mysql", "rome")
    )
    return " / ".join(digits(mean) for mean in means)


def _pairs(keys: Iterable[str]) -> str:
    words = {key: text for text, key in _PAIRS}
    grouped = _grouped()
    head = ["MariaDB / ROME, one-way delay", *(f"{latency:g} ms" for latency in grouped)]
    rows = [
        [words[key], *(_pair(by_backend, key) for by_backend in grouped.values())] for key in keys
    ]
    return table(head, rows)


def two_sites() -> str:
    """Return the short table of both back ends."""
    return _pairs(_PAIRS_SHORT)


def two_sites_whole() -> str:
    """Return the table of both back ends with all figures."""
    return _pairs(key for _words, key in _PAIRS)


def two_sites_by_latency() -> str:
    """Return the table of both back ends with a row for each latency."""
    keys = [*_PAIRS_SHORT, "db_kb_per_vm"]
    words = {key: text for text, key in _PAIRS}
    rows = [
        [f"{latency:g} ms", *(_pair(by_backend, key) for key in keys)]
        for latency, by_backend in _grouped().items()
    ]
    return table(["one-way delay; MariaDB / ROME", *(words[key] for key in keys)], rows)


def repeats() -> str:
    """Return each run at 50 ms: its time, and what decides it."""
    rows = [
        [
            backend,
            digits(float(run.figures["duration_s"])),
            f"{run.figures['fullest_host_vms']:g}",
            digits(float(run.figures["boot_median_s"])),
        ]
        for backend, words in (("mysql", "MariaDB"), ("rome", "ROME"))
        for run in _grouped()[50.0][backend]
        for backend in [words]
    ]
    head = ["at 50 ms", "to create 100 VMs, s", "VMs on the fullest host", "a boot, median, s"]
    return table(head, rows)


def load_cost() -> str:
    """Return what the load generator itself took in the runs of eight sites."""
    rows: list[Any] = [
        (
            f"{run.record.latency_ms:g} ms",
            digits(run.record.load.cpu_s),
            f"{run.window_s:.0f}",
            f"{_percent(run.figures['load_share'], 1)} %",
            str(run.record.load.polls),
        )
        for run in runs("sites-8")
        if run.record.load is not None and run.window_s is not None
    ]
    head = ["one-way delay", "CPU, s", "window, s", "of all CPU used", "lists"]
    return table(head, rows)
