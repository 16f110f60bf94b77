"""Whether scaled time is right: the same load at several scales, and boots' seconds of each.

Two sites, 50 ms apart, with a controller and three computes each, on ROME.  `light` and `spare`
leave processors free with any scale: their seconds, divided by the scale, should agree.  `full`
asks for all VMs at once, which saturates a small machine without a scale: with a scale at which it
is no longer full, seconds are those of the cloud.  Nothing is asserted.

Each row is a bench of its own, by the command line, with a home and a results' folder of its own;
the file is written after each, and rows that it has of other loads and scales stay.  A row takes
minutes times its scale: run it as root on a machine that does nothing else.

    ./.venv/bin/python benchmarks/time_scale.py [--loads light,spare,full] [--scales 1,2,4]
        [--folder FOLDER] [--json FILE]
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import provenance

from discovery_xp.analysis.measurements import Measurements, measured
from discovery_xp.errors import UserError
from discovery_xp.store import find_runs

TOPOLOGY = """name: time-scale
description: two sites of a controller and three computes, for one load at several time scales
sites:
  - {name: site, count: 2, controllers: 1, computes: 3, data: 1}
network: {delay: 50ms}
openstack: {backend: rome}
"""
# A host builds its VMs one after the other: where they land decides how long boots take, so that
# all rows of a load have the same hosts.
PLACEMENT_SEED = "1"
# What doesn't depend on the scale, if the same is done; what a VM takes of the processor may.
PER_VM = ("cpu_ms", "round_trips", "messages", "crossings")
RESULT = provenance.RESULTS / "time-scale.json"


@dataclass(frozen=True)
class Load:
    """So many VMs, so many at a time; None for all at once."""

    vms: int
    at_once: int | None

    def scenario(self, name: str) -> str:
        """Return the file of a scenario that asks for it."""
        at_once = "all" if self.at_once is None else self.at_once
        return f"name: {name}\nkind: boot\nvms: {self.vms}\nconcurrency: {at_once}\n"


LOADS: Mapping[str, Load] = {"light": Load(24, 2), "spare": Load(60, 8), "full": Load(100, None)}


def bench(load: str, scale: float, folder: Path) -> dict[str, Any]:
    """Make one run and return its row; one that ended early has what was measured."""
    place = folder / f"{load}-{scale:g}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "topology.yaml").write_text(TOPOLOGY)
    (place / "scenario.yaml").write_text(LOADS[load].scenario(load))
    arguments = ["bench", "topology.yaml", "--time-scale", f"{scale:g}", "--name",
                 f"ts-{load}-{scale:g}".replace(".", "-"), "--scenario", "scenario.yaml",
                 "--placement-seed", PLACEMENT_SEED, "--results", "results"]  # fmt: skip
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
    wall_s = round(time.monotonic() - started, 1)
    row: dict[str, Any] = {
        "load": load,
        "time_scale": scale,
        "vms": LOADS[load].vms,
        "at_once": LOADS[load].at_once,
        "exit_code": done.returncode,
        "wall_s": wall_s,
    }
    try:
        run = measured(find_runs([place / "results"]))[-1]
    except UserError:  # it came to no run
        return row
    return row | figures(run)


def figures(run: Measurements) -> dict[str, Any]:
    """Return what a row says of a run: boots' seconds by a clock and divided by the scale."""
    record, found = run.record, run.record.validity
    boots = run.vms.loc[run.vms["status"] == "ACTIVE", "boot_duration_s"].dropna()
    scaled = {
        "median_s": boots.median(),
        "p90_s": boots.quantile(0.9),
        "max_s": boots.max(),
        "load_s": run.duration_s,
    }
    return {
        "run": run.run.name,
        "status": record.status,
        "active": record.vms.active,
        "failed": record.vms.failed,
        "natural": {key: _rounded(value, run.time_scale) for key, value in scaled.items()},
        "scaled": {key: _rounded(value, 1) for key, value in scaled.items()},
        "verdict": None if found is None else found.verdict,
        "busy": None if found is None else found.busy,
        "saturated": None if found is None else found.saturated,
        "busiest_second": None if found is None else found.busiest_second,
        "throttled": None
        if found is None or found.throttled_unit is None
        else {"unit": found.throttled_unit.name, "share": found.throttled_unit.share},
        "per_vm": {name: _rounded(run.figures.get(f"{name}_per_vm"), 1) for name in PER_VM},
        "window_s": None if run.window_s is None else _rounded(run.window_s, run.time_scale),
    }


def _rounded(value: float | None, factor: float) -> float | None:
    # Of no boots the median is not a number, which JSON hasn't got.
    return None if value is None or value != value else round(float(value) * factor, 3)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows that a file has already."""
    return list(json.loads(path.read_text()).get("rows", [])) if path.exists() else []


def with_row(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return rows with another one, in the place of that of the same load and scale; sorted."""
    key = (row["load"], row["time_scale"])
    kept = [each for each in rows if (each["load"], each["time_scale"]) != key]
    order = list(LOADS)
    return sorted([*kept, row], key=lambda each: (order.index(each["load"]), each["time_scale"]))


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield lines that show the rows."""
    yield "load   scale  ACTIVE  median    P90    max  by a clock  busy  full  verdict  bench"
    for row in rows:
        if "scaled" not in row:
            yield f"{row['load']:6} {row['time_scale']:5g}  no run (code {row['exit_code']})"
            continue
        numbers = [f"{row['scaled'][key] or 0:6.1f}" for key in ("median_s", "p90_s", "max_s")]
        yield (
            f"{row['load']:6} {row['time_scale']:5g} {row['active']:4}/{row['vms']:<4} "
            f"{' '.join(numbers)} {row['natural']['median_s'] or 0:11.1f} "
            f"{row['busy'] or 0:5.0%} {row['saturated'] or 0:5.0%}  {row['verdict']:7} "
            f"{row['wall_s'] / 60:4.0f} min"
        )


def main() -> None:
    """Run the rows that are asked for, and write them."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--loads", default=",".join(LOADS), help="some of %(default)s")
    parser.add_argument("--scales", default="1,2,4", help="numbers from 1 on")
    parser.add_argument("--folder", type=Path, help="where homes and results are kept")
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args()
    loads = options.loads.split(",")
    if unknown := [name for name in loads if name not in LOADS]:
        parser.error(f"no load '{unknown[0]}'; write some of {', '.join(LOADS)}")
    scales = [float(word) for word in options.scales.split(",")]
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="time-scale-"))).absolute()
    rows = rows_of(options.json)
    for load in loads:
        for scale in scales:
            rows = with_row(rows, bench(load, scale, folder))
            command = f"benchmarks/time_scale.py --loads {options.loads} --scales {options.scales}"
            provenance.write(options.json, command, {"rows": rows})
            print("\n".join(table(rows)), flush=True)


if __name__ == "__main__":
    main()
