"""What a stored run says about the model's parameters, and all of it in one file.

A calibration is of one run: the steps of its typical boot, and what processors did besides what
was traced.  Those of several runs are in a file with a version of its format, with where each
came from.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discovery_xp.analysis.measurements import Measurements, has_cells
from discovery_xp.analysis.span_trees import Node, trees
from discovery_xp.errors import Refused
from discovery_xp.model.steps import Activity, Send, Work, from_json, to_json
from discovery_xp.model.tracing import Traced, typical

FORMAT = 1
SHIPPED = Path(__file__).with_name("calibration.json")

# Cores that a process of Nova's takes while nothing is asked of it: threads that wake up each
# second.  From 48 computes over 2218 s, of which this is all that wasn't traced.
IDLE_CORES = 0.0025
_NOVA = ("nova-compute", "nova-conductor", "nova-scheduler", "nova-super-conductor", "nova-api")
_STORES = ("mariadb", "redis-server", "haproxy", "galera-check", "garb")
_UNTRACED = "glance-api"
# Below these a run's factor is that of rounding and of what was left out.
_LEAST_FACTOR = 1.0


@dataclass(frozen=True)
class Calibration:
    """The parameters that one run yields.

    `factors` are by service what its processes take over what was traced of them.  `store_ms`,
    `message_ms` are processor time of a round trip at the store, and of a message at the broker.
    `select_rtts` and `commit_rtts` are round trips to the farthest other node that Galera makes a
    read and a commit wait for.  The rest is what the run was: its one-way delay, its machine.
    """

    run: str
    backend: str
    layout: str
    steps: Activity
    boots: int
    factors: Mapping[str, float]
    store_ms: float
    message_ms: float
    select_rtts: float
    commit_rtts: float
    time_scale: float
    sites: int
    latency_ms: float
    vms: int
    cores: int
    processor: str

    @property
    def kind(self) -> tuple[str, str]:
        """Return back end and layout, what a prediction needs a calibration of."""
        return self.backend, self.layout

    def cpu_ms(self, others: float) -> float:
        """Return what a VM takes of processors, with so many other VMs on its compute."""
        totals = self.steps.totals(others)
        services = sum(
            value * self.factors.get(service, 1.0) for service, value in totals.cpu_ms.items()
        )
        return services + totals.round_trips * self.store_ms + totals.messages * self.message_ms


# ---------------------------------------------------------------- from a run


def calibrate(run: Measurements) -> Calibration:
    """Return what a run yields; raises Refused where its spans or counters are missing."""
    for table in ("spans", "usage", "statements", "messages"):
        if not run.measured(table):
            raise Refused(
                f"run {run.run.name} has no {table}, so that no model can be calibrated from it",
                "name a run that was made with '--probes all'",
            )
    record = run.record
    roots = _roots(run)
    vms = len(roots)
    steps = typical(_chosen(run, roots))
    hosts = max(1, run.vms["host"].nunique())
    usage = {
        str(name): float(cpu_s) * 1000 / vms
        for name, cpu_s in run.usage.groupby("service")["cpu_s"].sum().items()
    }
    steps = _with_untraced(steps, usage.get(_UNTRACED, 0.0))
    others = max(0.0, run.done / hosts - 1)
    return Calibration(
        run=run.run.name,
        backend=record.backend,
        layout="cells" if has_cells(record) else "shared",
        steps=steps,
        boots=vms,
        factors=_factors(run, usage, steps.totals(others).cpu_ms, vms),
        store_ms=_per(sum(usage.get(name, 0.0) for name in _STORES),
                      float(run.statements["round_trips"].sum()) / vms),
        message_ms=_per(usage.get("rabbitmq-server", 0.0),
                        float(run.messages["published"].sum()) / vms),
        **_waits(run, roots),
        time_scale=run.time_scale,
        sites=record.sites,
        latency_ms=float(record.latency_ms or 0.0),
        vms=record.vms.asked,
        cores=record.machine.cpus,
        processor=record.machine.cpu_model,
    )  # fmt: skip


def _per(total: float, count: float) -> float:
    return round(total / count, 4) if count > 0 else 0.0


def _roots(run: Measurements) -> dict[str, Node]:
    """Return the roots of the run's boots that became ACTIVE, by the VM's id in Nova."""
    active = set(run.vms.loc[run.vms["status"] == "ACTIVE", "server_id"].dropna())
    roots = trees(run.run.table("spans").to_pylist())
    chosen = {server: root for server, root in roots.items() if server in active}
    if not chosen:
        raise Refused(
            f"run {run.run.name} has spans of no boot", "name a run whose VMs became ACTIVE"
        )
    return chosen


def _chosen(run: Measurements, roots: Mapping[str, Node]) -> list[Traced]:
    """Return the boots that tell where round trips go to.

    With cells a boot tells it only where its cell is at another site than its API's stores.
    """
    if not has_cells(run.record):
        return [Traced(root) for root in roots.values()]
    usage = run.usage
    master = str(usage.loc[usage["service"] == "placement-api", "site"].iloc[0])
    site_of = dict(run.vms[["server_id", "host_site"]].dropna().itertuples(index=False, name=None))
    chosen = [
        Traced(root, site_of[server])
        for server, root in roots.items()
        if root.site == master and site_of.get(server, master) != master
    ]
    return chosen or [Traced(root) for root in roots.values()]


def _with_untraced(activity: Activity, cpu_ms: float) -> Activity:
    """Return the steps with the processor time of whoever answers requests without spans."""
    sends = sum(not each.service for each in activity.walk())
    work = (Work(round(cpu_ms / sends, 2)),) if sends else ()

    def mend(each: Activity) -> Activity:
        if not each.service:
            return Activity(_UNTRACED, each.name, work)
        steps = tuple(
            dataclasses.replace(step, activity=mend(step.activity))
            if isinstance(step, Send)
            else step
            for step in each.steps
        )
        return dataclasses.replace(each, steps=steps)

    return mend(activity)


def _factors(
    run: Measurements, usage: Mapping[str, float], traced: Mapping[str, float], vms: int
) -> dict[str, float]:
    """Return by service what its processes took over what the steps say, idling left out."""
    clock_s = run.natural_s or 0.0
    factors = {}
    for service, traced_ms in sorted(traced.items()):
        processes = len(run.usage[run.usage["service"] == service]) if service in _NOVA else 0
        idle_ms = 1000 * IDLE_CORES * processes * clock_s / vms
        used_ms = usage.get(service, traced_ms) - idle_ms
        factors[service] = round(max(_LEAST_FACTOR, used_ms / traced_ms), 3)
    return factors


def _waits(run: Measurements, roots: Mapping[str, Node]) -> dict[str, float]:
    """Return what Galera makes a read and a commit wait for, in round trips between sites."""
    rtt_s = max(run.rtt_s.values(), default=0.0)
    if run.record.backend != "galera" or rtt_s <= 0:
        return {"select_rtts": 0.0, "commit_rtts": 0.0}
    seconds: dict[str, float] = {}
    trips: dict[str, int] = {}
    for root in roots.values():
        for node in root.walk():
            for each in node.sums:
                if each.kind == "database":
                    seconds[each.name] = seconds.get(each.name, 0.0) + each.seconds
                    trips[each.name] = trips.get(each.name, 0) + each.trips

    def mean_s(name: str) -> float:
        return seconds.get(name, 0.0) / max(1, trips.get(name, 0)) / run.time_scale

    plain_s = mean_s("OTHER")
    return {
        "select_rtts": round(max(0.0, mean_s("SELECT") - plain_s) / rtt_s, 3),
        "commit_rtts": round(max(0.0, mean_s("COMMIT") - plain_s) / rtt_s, 3),
    }


# ---------------------------------------------------------------- the file


def dumps(calibrations: Sequence[Calibration]) -> str:
    """Return the text of a file of calibrations, in the order of their runs."""
    listed = []
    for each in sorted(calibrations, key=lambda one: one.run):
        values = {
            item.name: getattr(each, item.name)
            for item in dataclasses.fields(each)
            if item.name != "steps"
        }
        listed.append({**values, "steps": to_json(each.steps)})
    return json.dumps({"format": FORMAT, "calibrations": listed}, indent=1) + "\n"


def loads(text: str, name: str) -> list[Calibration]:
    """Return the calibrations of a file's text; raises Refused, naming the file."""
    remedy = "write it anew: 'benchmarks/prediction.py calibrate'"
    try:
        values = json.loads(text)
        if values["format"] != FORMAT:
            raise Refused(f"{name}: format {values['format']}, not {FORMAT}", remedy)
        return [_calibration(each) for each in values["calibrations"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Refused(f"{name}: {type(error).__name__}: {error}", remedy) from None


def _calibration(values: Mapping[str, Any]) -> Calibration:
    return Calibration(**{**values, "steps": from_json(values["steps"])})


def shipped() -> list[Calibration]:
    """Return the calibrations that come with the toolkit."""
    return loads(SHIPPED.read_text(), SHIPPED.name)


def of_kind(calibrations: Iterable[Calibration], backend: str, layout: str) -> list[Calibration]:
    """Return those of a back end and layout; raises Refused where there are none."""
    listed = list(calibrations)
    chosen = [each for each in listed if each.kind == (backend, layout)]
    if not chosen:
        kinds = sorted({" with ".join(each.kind) for each in listed})
        raise Refused(
            f"no run of back end '{backend}' with layout '{layout}' was traced for the model",
            f"name one of those that were: {', '.join(kinds)}",
        )
    return chosen
