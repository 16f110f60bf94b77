"""Tables of back ends and layouts beside each other, from the benchmark's file.

`benchmarks/back_end_rows.py` says what a row holds.  Figures of an arm are means of its runs.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.back_end_rows import ARMS, SITES, Row
from discovery_xp.analysis.summaries import mean_interval
from discovery_xp.analysis.tables import digits
from docs.generator.benchmarks import RESULTS
from docs.generator.blocks import table

FILE = RESULTS / "back-ends.json"
NOT_YET = "There are no figures yet.\n"
ABSENT = "-"

Runs = Sequence[Row]
Cell = Callable[[Runs], str]


def arms() -> str:
    """Return what is compared: each arm, and the data hosts that it needs."""
    return table(
        ["Arm", "`backend`", "`layout`", "", "Data hosts"],
        [
            [f"`{name}`", f"`{arm.backend}`", f"`{arm.layout}`", arm.words, _data_hosts(name)]
            for name, arm in ARMS.items()
        ],
    )


def _data_hosts(name: str) -> str:
    arm = ARMS[name]
    words = f"{arm.data} at each of {SITES} sites"
    return f"{words}, 1 at a third one" if arm.has_third_site else words


def figures() -> str:
    """Return all tables of the benchmark's file; a word where there is none."""
    return page(json.loads(FILE.read_text())) if FILE.exists() else NOT_YET


def page(found: Mapping[str, Any]) -> str:
    """Return the tables of a file's values, each with a line before it."""
    rows: list[Row] = found["rows"]
    by_arm: dict[str, list[Row]] = {}
    for row in rows:
        if row["failure"] is None:
            by_arm.setdefault(row["arm"], []).append(row)
    parts = []
    if by_arm:
        parts += [
            f"{_load(found['settings'])}\n",
            _table(_WHOLE, by_arm),
            "Of one VM:\n",
            _table(_PER_VM, by_arm),
            "Transactions that met others, in the whole load:\n",
            _table(_CONFLICTS, by_arm),
        ]
    if len({row.get("placement") for runs in by_arm.values() for row in runs}) > 1:
        parts.append("Not all of these runs had their VMs on the same computes.\n")
    if failed := [row for row in rows if row["failure"] is not None]:
        parts += ["Runs that failed:\n", failures(failed)]
    if found["verifications"]:
        parts += ["OpenStack's own tests, by Tempest:\n", tests(found["verifications"])]
    if rows:
        parts.append(_provenance(found))
    return "\n".join(parts) if parts else NOT_YET


def _load(settings: Mapping[str, Any]) -> str:
    at_once = settings["at_once"]
    return (
        f"{settings['vms']} VMs, {'all at once' if at_once is None else f'{at_once} at a time'}, "
        f"{settings['computes']} computes at each site, K = {settings['time_scale']:g}:"
    )


def _table(columns: Mapping[str, Cell], by_arm: Mapping[str, Runs]) -> str:
    return table(
        ["Arm", *columns],
        [[f"`{name}`", *(cell(runs) for cell in columns.values())]
         for name, runs in by_arm.items()],
    )  # fmt: skip


# ---------------------------------------------------------------- cells


def _value(row: Row, path: str) -> Any:
    """Return a value of a row, such as 'per_vm.cpu_ms'."""
    value: Any = row
    for key in path.split("."):
        value = None if value is None else value.get(key)
    return value


def _mean(path: str, show: Callable[[float], str] = digits) -> Cell:
    def cell(runs: Runs) -> str:
        values = [value for row in runs if (value := _value(row, path)) is not None]
        return show(statistics.fmean(values)) if values else ABSENT

    return cell


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _number(value: float) -> str:
    """Return a number of events, which as the mean of runs may be none."""
    return f"{value:.0f}" if value == round(value) else digits(value)


def _active(runs: Runs) -> str:
    return f"{sum(row['active'] for row in runs)} of {sum(row['asked'] for row in runs)}"


def _boot(runs: Runs) -> str:
    """Return the median of boots: of one run with the interval over its VMs, else over runs."""
    boots = [row["boot"] for row in runs if row["boot"]["median_s"] is not None]
    if not boots:
        return ABSENT
    if len(boots) == 1:
        low, high = boots[0]["low_s"], boots[0]["high_s"]
    else:
        interval = mean_interval(boot["median_s"] for boot in boots)
        low, high = interval.low, interval.high
    mean = statistics.fmean(boot["median_s"] for boot in boots)
    return f"{digits(mean)} ({digits(low)} to {digits(high)})"


def _verdict(runs: Runs) -> str:
    """Return the verdict on an arm's seconds; how often each, where they differ."""
    verdicts = Counter(row["verdict"] or ABSENT for row in runs)
    if len(verdicts) == 1:
        return next(iter(verdicts))
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))


_WHOLE: Mapping[str, Cell] = {
    "runs": lambda runs: str(len(runs)),
    "deployed in, s": _mean("deploy_s", _whole),
    "memory of the hosts, GiB": _mean("memory_gib"),
    "of it databases, MB": _mean("databases_mb", _whole),
    "VMs ACTIVE": _active,
    "verdict": _verdict,
    "a boot, median, s": _boot,
    "P90, s": _mean("boot.p90_s"),
    "the load, s": _mean("load_s"),
}
_PER_VM: Mapping[str, Cell] = {
    "crossings between sites": _mean("per_vm.crossings", _whole),
    "those beside its path included": _mean("per_vm.all_crossings", _whole),
    "WAN wait, s": _mean("per_vm.wan_wait_s"),
    "database round trips": _mean("per_vm.round_trips"),
    "CPU-ms": _mean("per_vm.cpu_ms", _whole),
    "MB between sites": _mean("per_vm.inter_mb"),
}
_CONFLICTS: Mapping[str, Cell] = {
    "certification failures": _mean("conflicts.certification_failures", _number),
    "aborted for a replicated one": _mean("conflicts.brute_force_aborts", _number),
    "given up by the database, done again": _mean("conflicts.given_up", _number),
    "flow control, s": _mean("conflicts.flow_control_paused_s"),
    "ROME's conflicts": _mean("conflicts.rome_conflicts", _number),
    "ROME's retries": _mean("conflicts.rome_retries", _number),
}


# ---------------------------------------------------------------- failures, tests, provenance


def failures(rows: Iterable[Row]) -> str:
    """Return the runs that failed, each with its reason."""
    return table(
        ["Arm", "Block", "VMs ACTIVE", "Reason"],
        [
            [f"`{row['arm']}`", str(row["block"]),
             _active([row]) if "active" in row else ABSENT, row["failure"]]
            for row in rows
        ],
    )  # fmt: skip


def tests(rows: Iterable[Row]) -> str:
    """Return what became of OpenStack's own tests, by back end and layout."""
    return table(
        ["`backend`", "`layout`", "Sites", "Passed", "Failed", "Skipped", "Excluded", "Run"],
        [
            [f"`{row['backend']}`", f"`{row['layout']}`", str(row["sites"]),
             *(str(row[status]) for status in ("passed", "failed", "skipped", "excluded")),
             row["at"][:10] + (f", PARTIAL: {row['failure']}" if row["failure"] else "")]
            for row in rows
        ],
    )  # fmt: skip


def _provenance(found: Mapping[str, Any]) -> str:
    """Return by what, when and on what the runs were made; they may be of several days."""
    rows = found["rows"]
    days = sorted({row["at"][:10] for row in rows})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    commits = sorted({str(row["commit"])[:12] for row in rows if row.get("commit")})
    return (
        f"`benchmarks/back_ends.py`, {len(rows)} run{'' if len(rows) == 1 else 's'} of {when}, "
        f"order seed {found['order_seed']}, {found['cores']} cores of {found['processor']}, "
        f"{found['memory_gib']} GiB; commit {', '.join(commits) or 'unknown'} "
        f"(`benchmarks/results/{FILE.name}`).\n"
    )
