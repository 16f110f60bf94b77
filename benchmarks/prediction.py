"""What the model of the control plane predicts, and how far it is from runs it doesn't know.

`calibrate` writes `discovery_xp/model/calibration.json` from runs with spans.  `predict` writes
`benchmarks/results/prediction.json`: each run of the given folders beside its prediction from
others, the paper's tables 3 and 4 on machines like the paper's, and 100 sites.  Both take some
minutes; nothing is asserted.

    ./.venv/bin/python benchmarks/prediction.py calibrate RUN...
    ./.venv/bin/python benchmarks/prediction.py predict [--seeds N] [--json FILE] FOLDER...
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import provenance

from discovery_xp.analysis import paper
from discovery_xp.analysis.measurements import Measurements, loads, measured
from discovery_xp.analysis.summaries import cpu_shares
from discovery_xp.errors import UserError
from discovery_xp.inputs.scenario import parse_scenario
from discovery_xp.inputs.topology import Topology, derive_topology, parse_topology
from discovery_xp.model import calibration, errors, validation
from discovery_xp.model.machines import PAPER
from discovery_xp.model.prediction import Figure, Prediction, load_of, predict
from discovery_xp.model.simulation import Load
from discovery_xp.model.validation import FIGURES, Held, Point
from discovery_xp.planning.plan import make_plan
from discovery_xp.recipes import recipe_of, replaced
from discovery_xp.store import find_runs

RESULT = provenance.RESULTS / "prediction.json"
SITES = (2, 4, 6, 8)
LATENCIES_MS = (10, 50)
BACKENDS = ("rome", "mysql", "galera")
MANY_SITES = 100


# ---------------------------------------------------------------- runs


def point_of(run: Measurements) -> Point:
    """Return a run as the model is held against it."""
    record, folder = run.record, run.run.folder
    place = str(folder)
    topology = replaced(
        parse_topology((folder / "topology.yaml").read_text(), place), recipe_of(record)
    )
    scenario = parse_scenario((folder / "scenario.yaml").read_text(), place)
    boots = run.vms.loc[run.vms["status"] == "ACTIVE", "boot_duration_s"]
    spans = run.measured("spans")
    crossings = run.figures["all_crossings_per_vm"] if spans else None
    share = cpu_shares(record)["openstack_share"]
    cpu_s = float(run.usage["cpu_s"].sum())
    return Point(
        run.run.name,
        make_plan(topology, cloud=True),
        load_of(scenario),
        (record.machine.cpu_model, f"{record.time_scale:g}", ",".join(sorted(record.probes))),
        record.machine.cpus,
        float(run.duration_s or 0.0),
        float(boots.median()),
        float(boots.quantile(0.9)),
        None if crossings is None else float(crossings),
        1000 * cpu_s / run.done if cpu_s else None,
        None if share is None else float(share),
    )


def _whole(run: Measurements) -> bool:
    """Tell whether a run ended, and nearly all of its VMs became ACTIVE."""
    return bool(run.duration_s) and run.done >= 0.95 * run.asked


# ---------------------------------------------------------------- rows


def held_row(row: Held) -> dict[str, Any]:
    """Return a run beside its prediction."""
    point, options = row.point, row.point.plan.require_cloud().options
    return {
        "run": point.run,
        "backend": options.backend,
        "layout": options.layout,
        "sites": len(point.plan.sites),
        "latency_ms": max((link.link.delay_ms for link in point.plan.links), default=0.0),
        "vms": point.load.vms,
        "time_scale": point.plan.time_scale,
        "speed": round(row.machines.speed, 3),
        "kept": round(row.machines.kept, 3),
        "sources": row.sources,
        "measured": {name: _rounded(getattr(point, name)) for name in FIGURES},
        "predicted": {name: figure(getattr(row.prediction, name)) for name in FIGURES},
        "error": {name: _rounded(row.error(name)) for name in FIGURES},
        "bound": row.prediction.bound,
    }


def held_out_of(row: Held) -> errors.HeldOut:
    """Return what the command says of a run that was predicted from others."""
    numbers = [float(_rounded(row.error(name)) or 0.0) for name in FIGURES[:3]]
    return errors.HeldOut(row.point.run, *row.point.kind, *numbers)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def figure(value: Figure) -> list[float]:
    """Return a figure as [median, least, most] of the seeds."""
    return [round(number, 3) for number in (value.value, value.low, value.high)]


def predicted_row(prediction: Prediction, **what: Any) -> dict[str, Any]:
    """Return a prediction of a cloud that nobody has run."""
    names = ("duration_s", "boot_median_s", "boot_p90_s", "round_trips", "crossings", "cpu_ms")
    host, service = next(iter(prediction.busy))
    return {
        **what,
        **{name: figure(getattr(prediction, name)) for name in names},
        "busiest": [service, host, round(prediction.busy[host, service], 3)],
        "waits": {word: round(seconds, 2) for word, seconds in prediction.waits.items()},
        "bound": prediction.bound,
    }


def paper_rows(
    calibrations: Sequence[calibration.Calibration], seeds: int
) -> Iterator[dict[str, Any]]:
    """Yield the paper's tables 3 and 4 on machines like its own, and 100 sites."""
    load = Load(paper.VMS)
    for sites in (*SITES, MANY_SITES):
        for latency_ms in LATENCIES_MS:
            for backend in BACKENDS:
                if sites == MANY_SITES and backend == "galera":
                    continue  # nobody runs 100 nodes of Galera
                topology = with_backend(derive_topology(sites, f"{latency_ms}ms"), backend)
                prediction = predict(
                    make_plan(topology, cloud=True), load, PAPER, calibrations, seeds
                )
                yield predicted_row(prediction, sites=sites, latency_ms=latency_ms, backend=backend)
                print(f"{sites} sites, {latency_ms} ms, {backend}: "
                      f"{prediction.duration_s.value:.0f} s, {prediction.bound}")  # fmt: skip


def with_backend(topology: Topology, backend: str) -> Topology:
    """Return a topology with another back end; ROME has a Redis at each site, as the paper's."""
    cloud = dataclasses.replace(topology.openstack, backend=backend)
    return dataclasses.replace(topology, openstack=cloud)


# ---------------------------------------------------------------- the command


def _calibrate(paths: Sequence[Path]) -> None:
    found = [calibration.calibrate(run) for run in measured(find_runs(paths))]
    calibration.SHIPPED.write_text(calibration.dumps(found))
    print(f"{calibration.SHIPPED}: {len(found)} runs")


def _predict(paths: Sequence[Path], target: Path, seeds: int) -> None:
    runs = [run for run in loads(measured(find_runs(paths))) if _whole(run)]
    write([point_of(run) for run in runs], target, seeds)


def write(points: Sequence[Point], target: Path, seeds: int) -> None:
    """Write the errors that ship, and the file that documents show."""
    calibrations = calibration.shipped()
    rows = validation.held_out(points, calibrations, seeds)
    for row in rows:
        print(row.point.run, {name: row.error(name) for name in FIGURES[:3]}, flush=True)
    errors.SHIPPED.write_text(errors.dumps([held_out_of(row) for row in rows]))
    figures = {
        "seeds": seeds,
        "paper_cores": PAPER.host_cores,
        "paper_speed": PAPER.speed,
        "held_out": [held_row(row) for row in rows],
        "median_error": {name: _rounded(validation.median_error(rows, name)) for name in FIGURES},
        "paper": list(paper_rows(calibrations, seeds)),
    }
    provenance.write(target, f"benchmarks/prediction.py predict --seeds {seeds}", figures)


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("calibrate", "predict"):
        command = commands.add_parser(name)
        command.add_argument("paths", nargs="+", type=Path)
        if name == "predict":
            command.add_argument("--json", type=Path, default=RESULT)
            command.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    try:
        if options.command == "calibrate":
            _calibrate(options.paths)
        else:
            _predict(options.paths, options.json, options.seeds)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
