"""The model of the control plane: against answers worked out by hand, and closed forms."""

from __future__ import annotations

import random
import statistics
from collections.abc import Generator
from typing import Any

import pytest
import simpy

from discovery_xp.analysis.span_trees import trees
from discovery_xp.errors import Refused
from discovery_xp.inputs.topology import derive_topology
from discovery_xp.model import machines
from discovery_xp.model.calibration import Calibration, dumps, loads
from discovery_xp.model.cloud import Cloud
from discovery_xp.model.machines import Machines
from discovery_xp.model.prediction import predict
from discovery_xp.model.queues import Places
from discovery_xp.model.simulation import LOCAL_RTT_S, Load, Outcome, simulate
from discovery_xp.model.steps import (
    ABOVE,
    CALL,
    CAST,
    CLAIM,
    THREAD,
    Activity,
    Lock,
    Send,
    Work,
    from_json,
    to_json,
)
from discovery_xp.model.tracing import BUILD, Traced, typical
from discovery_xp.planning.plan import Plan, make_plan
from tests.unit.span_rows import SERVER_ID, boot_rows

LARGE = Machines("large", 64.0)


def plan_of(sites: int, latency: str | None = None) -> Plan:
    return make_plan(derive_topology(sites, latency), cloud=True)


def calibration_of(*steps: Work | Lock | Send, service: str = "nova-api") -> Calibration:
    """Return a calibration whose boots do these steps, in a thread of their API."""
    save = Send(THREAD, Activity(service, "Instance.save"))
    build = Send(THREAD, Activity(service, BUILD, (*steps, save)))
    root = Activity("nova-api", "POST /v2.1/servers", (build,))
    if service != "nova-api":
        build = Send(THREAD, Activity(service, BUILD, (*steps, save)))
        root = Activity(
            "nova-api", "POST /v2.1/servers", (Send(CAST, Activity(service, "build", (build,))),)
        )
    return Calibration(
        "run", "mysql", "shared", root, 1, {}, 0.0, 0.0, 0.0, 0.0, 1.0, 2, 10.0, 10, 2, "processor"
    )  # fmt: skip


def outcome_of(
    *steps: Work | Lock | Send, sites: int = 1, latency: str | None = None, vms: int = 1,
    on: Machines = LARGE, service: str = "nova-api",
) -> Outcome:  # fmt: skip
    calibration = calibration_of(*steps, service=service)
    return simulate(Cloud(plan_of(sites, latency)), Load(vms, poll_s=0), on, [calibration])


# ---------------------------------------------------------------- by hand


def test_round_trips_cost_the_link_where_the_store_is_elsewhere() -> None:
    outcome = outcome_of(Work(0, {ABOVE: 10}), sites=2, latency="50ms", vms=2)
    at_master, elsewhere = sorted(outcome.boots_s)
    assert at_master == pytest.approx(10 * LOCAL_RTT_S)
    # The request's way to the API at the other site, and ten round trips.
    assert elsewhere == pytest.approx(0.05 + 10 * 0.1)
    assert outcome.round_trips == 20
    # The request's and its answer's, and two for each round trip.
    assert outcome.crossings == 2 + 20


def test_a_process_runs_one_thread_at_a_time() -> None:
    outcome = outcome_of(Work(100), vms=8)
    assert outcome.duration_s == pytest.approx(0.8)
    assert outcome.cpu_s == pytest.approx(0.8)
    assert statistics.fmean(outcome.boots_s) == pytest.approx(0.45)


def test_processes_of_two_hosts_run_side_by_side() -> None:
    assert outcome_of(Work(100), sites=2, vms=8).duration_s == pytest.approx(0.4)


def test_hosts_on_one_core_take_turns() -> None:
    shared = machines.emulated(1, kept=1.0)
    outcome = outcome_of(Work(100), sites=2, vms=8, on=shared)
    # What idle processes take makes it slower by some percent.
    assert 0.8 < outcome.duration_s < 0.9


def test_a_faster_core_takes_less_time() -> None:
    assert outcome_of(Work(100), on=Machines("fast", 64.0, 2.0)).duration_s == pytest.approx(0.05)


def test_a_compute_claims_for_one_vm_at_a_time() -> None:
    ask = Send(CALL, Activity("nova-conductor", "ComputeNode.save"))
    steps = (Lock(CLAIM, True), ask, Lock(CLAIM, False))
    alone = outcome_of(*steps, sites=2, latency="50ms", service="nova-compute", vms=1)
    together = outcome_of(*steps, sites=2, latency="50ms", service="nova-compute", vms=60)
    assert alone.waits["waiting for the compute's claim"] == 0
    assert together.waits["waiting for the compute's claim"] > 1


def test_equal_seeds_give_equal_runs() -> None:
    once, again = (outcome_of(Work(10), sites=2, vms=20) for _ in range(2))
    assert once == again


# ---------------------------------------------------------------- closed forms


def test_mean_wait_is_that_of_an_m_d_1_queue() -> None:
    """Pollaczek and Khinchine: with a load of r, services wait r / (2 (1 - r)) of their time."""
    env, load, count, drawn = simpy.Environment(), 0.7, 40_000, random.Random(1)
    places = Places(env, 1)
    waits: list[float] = []

    def customer() -> Generator[simpy.Event, Any, None]:
        since = env.now
        if (wait := places.take()) is not None:
            yield wait
        waits.append(env.now - since)
        yield env.timeout(1)
        places.give_back()

    def arrivals() -> Generator[simpy.Event, Any, None]:
        for _ in range(count):
            yield env.timeout(drawn.expovariate(load))
            env.process(customer())

    env.process(arrivals())
    env.run()
    assert statistics.fmean(waits) == pytest.approx(load / (2 * (1 - load)), rel=0.05)


# ---------------------------------------------------------------- from traces


def test_steps_of_a_traced_boot() -> None:
    root = trees(boot_rows())[SERVER_ID]
    steps = typical([Traced(root)])
    names = [(each.service, each.name) for each in steps.walk()]
    assert names[0] == ("nova-api", "POST /v2.1/servers")
    assert ("placement-api", "GET /allocation_candidates") in names
    assert ("nova-compute", BUILD) in names or ("nova-conductor", "Instance.save") in names
    totals = steps.totals()
    assert totals.cpu_ms["nova-api"] == pytest.approx(100, abs=1)
    assert totals.cpu_ms["nova-conductor"] == pytest.approx(200, abs=1)
    assert totals.round_trips == 3
    assert from_json(to_json(steps)) == steps


def test_a_step_that_few_boots_have_is_left_out() -> None:
    whole = trees(boot_rows())[SERVER_ID]
    rows = [row for row in boot_rows() if row["name"] != "Instance.refresh"]
    others = [Traced(trees(rows)[SERVER_ID]) for _ in range(3)]
    names = [each.name for each in typical([Traced(whole), *others]).walk()]
    assert "Instance.refresh" not in names
    assert "Instance.save" in names


# ---------------------------------------------------------------- files and refusals


def test_calibrations_survive_their_file() -> None:
    one = calibration_of(Work(12.5, {ABOVE: 2}, 1, 1, 1), Lock(CLAIM, True), Lock(CLAIM, False))
    assert loads(dumps([one]), "file") == [one]


@pytest.mark.parametrize("text", ["", "[]", '{"format": 99}', '{"format": 1, "calibrations": [1]}'])
def test_a_file_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="file"):
        loads(text, "file")


def test_what_was_never_traced_is_refused() -> None:
    with pytest.raises(Refused, match="no run of back end 'mysql'"):
        predict(plan_of(2), Load(1), LARGE, [])


def test_a_prediction_names_what_is_beyond_its_runs() -> None:
    prediction = predict(plan_of(3, "80ms"), Load(20), LARGE, [calibration_of(Work(10))], seeds=2)
    assert prediction.duration_s.low <= prediction.duration_s.value <= prediction.duration_s.high
    words = "; ".join(prediction.extrapolations)
    for each in ("3 sites", "80 to 80 ms", "64 cores", "20 VMs"):
        assert each in words
