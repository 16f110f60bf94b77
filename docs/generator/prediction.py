"""Tables of what the model predicts, from `benchmarks/results/prediction.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from discovery_xp.analysis import paper
from docs.generator.benchmarks import read
from docs.generator.blocks import table

_NAMES = {"rome": "ROME", "mysql": "MariaDB", "galera": "Galera"}
_SHOWN = ("duration_s", "boot_median_s", "boot_p90_s")
_FIGURES = {
    "duration_s": "to create all VMs",
    "boot_median_s": "a boot, median",
    "boot_p90_s": "a boot, P90",
    "crossings": "crossings per VM",
    "cpu_ms": "CPU per VM",
}
MANY = 100


def held_out() -> str:
    """Return each run beside its prediction from others."""
    return table(
        [
            "run", "back end", "sites", "delay, ms", "VMs", "K", "to create, s", "off by",
            "boot, median, s", "off by", "boot, P90, s", "off by",
        ],
        [
            [
                row["run"].rpartition("/")[2].partition("-")[0],
                _NAMES[row["backend"]],
                str(row["sites"]),
                f"{row['latency_ms']:g}",
                str(row["vms"]),
                f"{row['time_scale']:g}",
                *(cell for name in _SHOWN for cell in _beside(row, name)),
            ]
            for row in read("prediction")["held_out"]
        ],
    )  # fmt: skip


def _beside(row: Mapping[str, Any], name: str) -> list[str]:
    predicted, measured = row["predicted"][name][0], row["measured"][name]
    return [f"{predicted:.0f} / {measured:.0f}", f"{row['error'][name]:+.0%}"]


def errors() -> str:
    """Return the median and the largest error of each figure."""
    rows = read("prediction")["held_out"]
    lines = []
    for name, words in _FIGURES.items():
        errors = sorted(abs(row["error"][name]) for row in rows if row["error"][name] is not None)
        if errors:
            within = sum(error <= 0.15 for error in errors)
            middle = read("prediction")["median_error"][name]
            lines.append(
                [words, str(len(errors)), f"{middle:.0%}", f"{errors[-1]:.0%}",
                 f"{within} of {len(errors)}"]
            )  # fmt: skip
    return table(["figure", "runs", "median error", "largest", "within 15 %"], lines)


def paper_tables() -> str:
    """Return the paper's tables 3 and 4 on machines like its own, the published values beside."""
    rows = _paper_rows()
    sites = sorted({key[0] for key in rows if key[0] != MANY})
    lines = []
    for latency_ms in sorted({key[1] for key in rows}):
        for backend, name in _NAMES.items():
            for number in sites:
                row = rows.get((number, latency_ms, backend))
                if row is not None:
                    lines.append(_paper_line(row, latency_ms, name, number))
    return table(
        [
            "delay, ms", "back end", "sites", "published, s", "predicted, s",
            "boot, median, s", "busiest process",
        ],
        lines,
    )  # fmt: skip


def _paper_rows() -> dict[tuple[int, int, str], Mapping[str, Any]]:
    return {
        (row["sites"], row["latency_ms"], row["backend"]): row
        for row in read("prediction")["paper"]
    }


def _paper_line(row: Mapping[str, Any], latency_ms: int, name: str, sites: int) -> list[str]:
    service, _host, busy = row["busiest"]
    published = _published(row["backend"], sites, latency_ms)
    return [
        str(latency_ms), name, str(sites), published, f"{row['duration_s'][0]:.0f}",
        f"{row['boot_median_s'][0]:.0f}", f"{service}, {busy:.0%}",
    ]  # fmt: skip


def _published(backend: str, sites: int, latency_ms: int) -> str:
    for each in paper.PUBLISHED:
        if (
            each.table in (3, 4)
            and (each.backend, each.clusters) == (paper.column(backend), sites)
            and each.latency_ms == latency_ms
        ):
            return f"{each.value:g}"
    return "-"


def many_sites() -> str:
    """Return what is predicted of 100 sites."""
    lines = []
    for (sites, latency_ms, backend), row in _paper_rows().items():
        if sites == MANY:
            lines.append(
                [str(latency_ms), _NAMES[backend], f"{row['duration_s'][0]:.0f}",
                 f"{row['boot_median_s'][0]:.0f}", f"{row['boot_p90_s'][0]:.0f}",
                 f"{row['crossings'][0]:.0f}", row["bound"]]
            )  # fmt: skip
    return table(
        [
            "delay, ms", "back end", "to create, s", "boot, median, s", "P90, s",
            "crossings per VM", "bound by",
        ],
        lines,
    )  # fmt: skip


def sources() -> str:
    """Return the runs that the model was calibrated from."""
    from discovery_xp.model import calibration

    return table(
        ["run", "back end", "layout", "sites", "delay, ms", "K", "boots", "CPU-ms per VM"],
        [
            [each.run, _NAMES[each.backend], each.layout, str(each.sites),
             f"{each.latency_ms:g}", f"{each.time_scale:g}", str(each.boots),
             f"{each.cpu_ms(each.vms / (6 * each.sites) - 1):.0f}"]
            for each in calibration.shipped()
        ],
    )  # fmt: skip
