"""What Galera's variants cost: the same VMs on the same hosts, with reads that wait and without.

Two sites, 50 ms apart, with a controller and three computes each.  `wait` is the default: each
transaction's first read waits until its node has what was committed before, anywhere.  `no-wait`
reads what the node has; `one-writer` has all services ask one node, and needs no waiting; `flat`
has no segments; `one-server` is one MariaDB, without replication.  Nothing is asserted.

Each row is a bench of its own, by the command line, on new hosts, with a home and results of its
own; the file is written after each, and rows that it has of other variants stay.  A row takes about
ten minutes: run it as root on a machine that does nothing else.

    ./.venv/bin/python benchmarks/galera.py [--variants wait,no-wait,one-writer,flat,one-server]
        [--vms 60] [--at-once 4] [--folder FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import provenance

from discovery_xp.analysis.measurements import Measurements, measured
from discovery_xp.errors import UserError
from discovery_xp.onhost.wire.probes import DEADLOCK
from discovery_xp.store import find_runs

TOPOLOGY = """name: galera
description: two sites of a controller and three computes, for one load on variants of Galera
sites:
  - {{name: site, count: 2, controllers: 1, computes: 3, data: 1}}
network: {{delay: 50ms}}
openstack: {{{openstack}}}
"""
SCENARIO = "name: boot\nkind: boot\nvms: {vms}\nconcurrency: {at_once}\n"
VARIANTS: Mapping[str, str] = {
    "wait": "backend: galera, galera: {sync_wait: 3}",
    "reads-wait": "backend: galera, galera: {sync_wait: 1}",
    "no-wait": "backend: galera, galera: {sync_wait: 0}",
    "one-writer": "backend: galera, galera: {writers: one, sync_wait: 0}",
    "gap-locks": "backend: galera, galera: {isolation: repeatable-read}",
    "flat": "backend: galera, galera: {segments: false}",
    "one-server": "backend: mysql",
}
# A host builds its VMs one after the other: all rows have the same hosts.
PLACEMENT_SEED = "1"
RESULT = provenance.RESULTS / "galera.json"


def bench(variant: str, vms: int, at_once: int, folder: Path) -> dict[str, Any]:
    """Make one run and return its row; one that ended early has what was measured."""
    place = folder / variant
    place.mkdir(parents=True, exist_ok=True)
    (place / "topology.yaml").write_text(TOPOLOGY.format(openstack=VARIANTS[variant]))
    (place / "scenario.yaml").write_text(SCENARIO.format(vms=vms, at_once=at_once))
    arguments = ["bench", "topology.yaml", "--name", f"galera-{variant}", "--scenario",
                 "scenario.yaml", "--placement-seed", PLACEMENT_SEED,
                 "--results", "results"]  # fmt: skip
    paths = [str(provenance.ROOT), str(provenance.ROOT / "rome/src")]
    environment = {
        **os.environ,
        "DISCOVERY_XP_HOME": str(place / "home"),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "discovery_xp.cli", *arguments],
        cwd=place, env=environment, check=False,
    )  # fmt: skip
    row: dict[str, Any] = {
        "variant": variant,
        "options": VARIANTS[variant],
        "vms": vms,
        "at_once": at_once,
        "exit_code": done.returncode,
        "wall_s": round(time.monotonic() - started, 1),
    }
    try:
        return row | figures(measured(find_runs([place / "results"]))[-1])
    except UserError:  # it came to no run
        return row


def figures(run: Measurements) -> dict[str, Any]:
    """Return what a row says of a run.

    Milliseconds of a statement are those that its service waits, by kind and site.
    """
    found = run.figures
    statements = run.statements
    totals = statements.groupby(["kind", "site"])[["count", "duration_ms"]].sum()
    waited: dict[str, dict[str, float]] = {}
    for row in totals.reset_index().to_dict("records"):
        if row["count"] and row["kind"] != DEADLOCK:
            mean_ms = round(float(row["duration_ms"]) / float(row["count"]), 2)
            waited.setdefault(str(row["kind"]), {})[str(row["site"])] = mean_ms
    replicated = run.traffic[run.traffic["service"] == "galera"]
    crosses = replicated["site"] != replicated["peer_site"]
    return {
        "run": run.run.name,
        "status": run.record.status,
        "verdict": None if run.record.validity is None else run.record.validity.verdict,
        "active": run.record.vms.active,
        "failed": run.record.vms.failed,
        "given_up": int(statements.loc[statements["kind"] == DEADLOCK, "count"].sum()),
        "statement_ms": waited,
        "replication_mb": round(float(replicated["bytes"].sum()) / 1e6, 2),
        "replication_between_sites_mb": round(
            float(replicated.loc[crosses, "bytes"].sum()) / 1e6, 2
        ),
        **{
            name: _rounded(found.get(name))
            for name in ("duration_s", "boot_median_s", "boot_p90_s", "round_trips_per_vm",
                         "inter_mb", "cpu_ms_per_vm")
        },
    }  # fmt: skip


def _rounded(value: float | None) -> float | None:
    # Of no boots the median is not a number, which JSON hasn't got.
    return None if value is None or value != value else round(float(value), 3)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows that a file has already."""
    return list(json.loads(path.read_text()).get("rows", [])) if path.exists() else []


def with_row(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return rows with another one, in the place of that of the same variant; sorted."""
    order = list(VARIANTS)
    kept = [each for each in rows if each["variant"] != row["variant"]]
    return sorted([*kept, row], key=lambda each: order.index(each["variant"]))


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield lines that show the rows."""
    yield "variant     ACTIVE    median    P90   load  SELECT, ms by site  given up  verdict"
    for row in rows:
        if "statement_ms" not in row:
            yield f"{row['variant']:11} no run (code {row['exit_code']})"
            continue
        selects = " ".join(f"{ms:6.1f}" for ms in row["statement_ms"].get("SELECT", {}).values())
        numbers = [f"{row[key] or 0:6.1f}" for key in ("boot_median_s", "boot_p90_s", "duration_s")]
        yield (
            f"{row['variant']:11} {row['active']:3}/{row['vms']:<3} {' '.join(numbers)}  "
            f"{selects:>18} {row['given_up']:9}  {row['verdict']}"
        )


def main() -> None:
    """Run the rows that are asked for, and write them."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--variants", default=",".join(VARIANTS), help="some of %(default)s")
    parser.add_argument("--vms", type=int, default=60)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where homes and results are kept")
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args()
    variants = options.variants.split(",")
    if unknown := [name for name in variants if name not in VARIANTS]:
        parser.error(f"no variant '{unknown[0]}'; write some of {', '.join(VARIANTS)}")
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="galera-"))).absolute()
    rows = rows_of(options.json)
    for variant in variants:
        rows = with_row(rows, bench(variant, options.vms, options.at_once, folder))
        command = f"benchmarks/galera.py --variants {options.variants} --vms {options.vms}"
        provenance.write(options.json, command, {"rows": rows})
        print("\n".join(table(rows)), flush=True)


if __name__ == "__main__":
    main()
