"""A stored run back to what its bench was told, so that it can be run again.

`topology.yaml` and `scenario.yaml` are the files, run.json's `recipe` says what replaced a part
of them.  Runs of earlier versions have no recipe; there `backend` and `options` say as much.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from discovery_xp.bench_request import SAMPLE_EVERY_S, SETTLE_S, BenchRequest, check
from discovery_xp.boundary.names import TestbedName
from discovery_xp.errors import Refused
from discovery_xp.inputs.scenario import parse_scenario
from discovery_xp.inputs.topology import Topology, parse_topology
from discovery_xp.inputs.yamlfile import MAX_BYTES
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.store import Recipe, Run, RunRecord
from discovery_xp.store.files import read_bytes
from discovery_xp.text import printable


def request_of(run: Run, results: Path, keep: bool = False) -> tuple[Plan, BenchRequest]:
    """Return the plan and the request of a stored run, for a run of the same into `results`.

    Raises Refused where the run lacks one of its files, InvalidInput where one isn't valid any
    more, and whatever is known beforehand to stop the bench.
    """
    record = run.load()
    recipe = recipe_of(record)
    text = _text(run, "topology.yaml")
    place = printable(str(run.folder))
    topology = replaced(parse_topology(text, f"{place}/topology.yaml"), recipe)
    scenario = parse_scenario(_text(run, "scenario.yaml"), f"{place}/scenario.yaml")
    plan = make_plan(topology, TestbedName.parse(record.experiment, place), cloud=True)
    request = BenchRequest(
        scenario=scenario,
        topology_text=text,
        results=results,
        probes=record.probes,
        keep=keep,
        settle_s=recipe.settle_s,
        expose=recipe.expose,
        backend=recipe.backend,
        layout=recipe.layout,
        placement=recipe.placement,
        time_scale=recipe.time_scale,
        sample_every_s=record.sample_every_s or SAMPLE_EVERY_S,
    )
    check(plan, request)
    return plan, request


def replaced(topology: Topology, recipe: Recipe) -> Topology:
    """Return a topology with what a recipe puts in its place."""
    cloud = topology.openstack
    if recipe.backend is not None:
        cloud = dataclasses.replace(cloud, backend=recipe.backend)
    if recipe.layout is not None:
        cloud = dataclasses.replace(cloud, layout=recipe.layout)
    if recipe.placement is not None:
        cloud = dataclasses.replace(cloud, placement=recipe.placement)
    topology = dataclasses.replace(topology, openstack=cloud)
    if recipe.time_scale is not None:
        topology = dataclasses.replace(topology, time_scale=recipe.time_scale)
    return topology


def recipe_of(record: RunRecord) -> Recipe:
    """Return what a run's bench was told, as far as the run says it."""
    return record.recipe or _recovered(record)


def _recovered(record: RunRecord) -> Recipe:
    """Return what other keys of run.json say of a bench that stored no recipe."""
    placement = record.options.get("placement")
    return Recipe(
        backend=record.backend,
        placement=placement if isinstance(placement, str) else None,
        settle_s=SETTLE_S,
    )


def _text(run: Run, name: str) -> str:
    try:
        return read_bytes(run.path(name), MAX_BYTES).decode(errors="replace")
    except FileNotFoundError:
        raise Refused(
            f"{printable(str(run.folder))}: no {name}, so it isn't known what was run",
            "run 'discovery-xp bench' with the topology and the scenario that you know",
        ) from None
