"""A run whose every number is known: what tests of store, analysis and reports read.

With the defaults, 20 VMs of which 18 get ACTIVE, one each second from the second second on:

* calls of the database API: 10, 20, 30 and 40 ms (the last one raises), a lazy load of 20 ms,
  and a call of 1000 ms before the load, which doesn't count;
* 90 SELECT and 36 INSERT statements, 3 round trips each, 1000 bytes each way for each of both;
* 3 MB to MySQL (1 MB of it between sites where there are several), 1 MB to Keystone,
  5 MB that a host said to itself, and 7 MB to somebody who isn't of the testbed;
* each 5 s a sample: 10 commits of MariaDB and 0.5 + 0.25 cores of conductors at two hosts, a
  quarter of the first's periods throttled, a queue that grows by 1 a sample until the half;
* 54 messages published; 3.6 s of CPU by conductors, 1.8 s by the database;
* the first VM's boot as spans, see `span_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from discovery_xp.store import PROBES, Harness, Load, Machine, Run, RunRecord, Vms, Window, new_run
from tests.unit.span_rows import boot_rows

START = 1_795_449_601.0  # s since 1970: 2026-11-23T16:00:01Z
STARTED = "2026-11-23T16:00:00Z"
CALLS_MS = (10.0, 20.0, 30.0, 40.0)


def make_run(
    root: Path,
    *,
    experiment: str = "synthetic",
    started: str = STARTED,
    plan: str = "1f2e3d4c5b6a",
    backend: str = "mysql",
    sites: int = 1,
    data: int = 0,
    latency_ms: float | None = None,
    placement: str = "shared",
    replicas: int | None = None,
    more_options: Mapping[str, Any] | None = None,
    asked: int = 20,
    failed: int = 2,
    s_per_vm: float = 1.0,
    calls_ms: Sequence[float] = CALLS_MS,
    probes: Sequence[str] = PROBES,
    status: Literal["running", "complete", "partial"] = "complete",
    reason: str | None = None,
    more_record: Mapping[str, Any] | None = None,
) -> Run:
    """Write a run of the given kind; returns it.  `more_record` are further keys of run.json."""
    active = asked - failed
    options: dict[str, Any] = {"backend": backend, "placement": placement, "nics": 0}
    if replicas is not None:
        options["replicas"] = replicas
    options |= more_options or {}
    run = new_run(
        root,
        RunRecord(
            experiment=experiment,
            plan=plan,
            started=started,
            ended=None if status == "running" else "2026-11-23T16:10:00Z",
            status=status,
            reason=reason,
            commit="0123456789ab",
            versions={"discovery-xp": "0.1.0", "nova": "34.0.0", "python": "3.11.2"},
            machine=Machine(2, "Some CPU", 24 * 2**30, "6.1.0", "local"),
            backend=backend,
            options=options,
            sites=sites,
            controllers=sites,
            computes=6 * sites,
            data=data,
            latency_ms=latency_ms,
            rtt_ms=None if latency_ms is None else 2 * latency_ms + 0.5,
            imposed_by=None if latency_ms is None else "vde",
            scenario={"name": "boot", "vms": asked},
            vms=Vms(asked, active, failed, 0),
            duration_s=active * s_per_vm + 1 if active else None,
            probes=tuple(probes),
            stages_s={"deploy": 60.0, "load": active * s_per_vm + 1},
            window=Window(START, START + 100),
            load=Load(cpu_s=5.0, cores=0.05, polls=40, host="machine"),
            harness=Harness(150.0, 120.0, 5.0, 25.0, 100.0),
            **(more_record or {}),
        ),
    )
    run.write_text("scenario.yaml", "name: boot\n")
    if sites > 1:
        run.write_json("links.json", _links(sites, latency_ms or 0.0))
    run.write_table("vms", [_vm(i, sites, active, s_per_vm) for i in range(asked)])
    run.write_table("actions", [_action(i, sites, active, s_per_vm) for i in range(asked)])
    tables = {
        "calls": _calls(calls_ms),
        "requests": _requests(),
        "statements": _statements(),
        "traffic": _traffic(sites),
        "messages": _messages(),
        "usage": _usage(),
        "spans": boot_rows() if failed < asked else [],
        "series": _series(),
    }
    for probe in probes:
        run.write_table(probe, tables[probe])
    return run


def _vm(i: int, sites: int, active: int, s_per_vm: float) -> dict[str, Any]:
    site = f"site{i % sites + 1}"
    requested = START + 0.01 * i
    ok = i < active
    refused = not ok and i % 2 == 1
    ended = START + 1 + (i + 1) * s_per_vm
    return {
        "name": f"vm-{i}",
        "server_id": None if refused else f"id-{i}",
        "region": site,
        "site": site,
        "requested_at": requested,
        "accepted_at": None if refused else requested + 0.2,
        "active_at": ended if ok else None,
        "seen_at": ended if ok else requested + 5,
        "status": "ACTIVE" if ok else "REFUSED" if refused else "ERROR",
        # One in four of those asked for at the last site lands at the first.
        "host": "host" if ok else None,
        "host_site": ("site1" if i % 4 == 3 else site) if ok else None,
        "deleted_at": None,
        "error": None if ok else "HTTP 500" if refused else "No valid host was found.",
        "boot_duration_s": ended - requested if ok else None,
    }


def _action(i: int, sites: int, active: int, s_per_vm: float) -> dict[str, Any]:
    vm = _vm(i, sites, active, s_per_vm)
    return {
        "action": "boot",
        "iteration": i,
        "region": vm["region"],
        "site": vm["site"],
        "started_at": vm["requested_at"],
        "duration_s": vm["seen_at"] - vm["requested_at"],
        "error": vm["error"],
    }


PLACE = {"service": "nova-conductor", "host": "site1-controller-1", "site": "site1"}


def call(at: float, duration_ms: float, **more: Any) -> dict[str, Any]:
    """A row of calls.parquet."""
    row = {"at": at, **PLACE, "function": "instance_get_by_uuid", "api": "main",
           "duration_ms": duration_ms, "lazy": False, "error": None}  # fmt: skip
    return {**row, **more}


def _calls(calls_ms: Sequence[float]) -> list[dict[str, Any]]:
    rows = [call(START + 1 + 0.001 * i, ms) for i, ms in enumerate(calls_ms)]
    rows[-1] |= {"function": "instance_update", "error": "InstanceNotFound"}
    return [
        call(START - 5, 1000.0),
        *rows,
        call(START + 2, 20.0, function="Instance.info_cache", lazy=True),
    ]


def _requests() -> list[dict[str, Any]]:
    place = {"service": "nova-api", "host": "site1-controller-1", "site": "site1"}
    return [
        {"at": START + i, **place, "method": "POST", "path": "/v2.1/servers",
         "status": 202 if i else 500, "duration_ms": 100.0 + 100 * i}
        for i in range(3)
    ]  # fmt: skip


def _statements() -> list[dict[str, Any]]:
    return [
        {**PLACE, "pid": 100, "kind": kind, "count": count, "round_trips": 3 * count,
         "bytes_sent": 1000 * count, "bytes_received": 1000 * count, "duration_ms": 2.0 * count}
        for kind, count in (("SELECT", 90), ("INSERT", 36))
    ]  # fmt: skip


def _traffic(sites: int) -> list[dict[str, Any]]:
    def row(peer: str, peer_site: str, port: int, service: str, sent: int) -> dict[str, Any]:
        return {"host": "site1-controller-1", "site": "site1", "peer": peer,
                "peer_site": peer_site, "direction": "out", "port": port, "service": service,
                "bytes": sent, "packets": sent // 1000}  # fmt: skip

    other = "site2" if sites > 1 else "site1"
    return [
        row("site1-master-1", "site1", 3306, "mysql", 2_000_000),
        row("other-master-1", other, 3306, "mysql", 1_000_000),
        row("site1-master-1", "site1", 5000, "keystone", 1_000_000),
        row("site1-controller-1", "site1", 11211, "memcached", 5_000_000),
        row("10.64.0.253", "", 0, "other", 7_000_000),
    ]


def _messages() -> list[dict[str, Any]]:
    return [
        {"queue": queue, "published": count, "delivered": count, "acknowledged": count}
        for queue, count in (("conductor", 36), ("scheduler", 18))
    ]


def _usage() -> list[dict[str, Any]]:
    def row(service: str, host: str, cpu_s: float) -> dict[str, Any]:
        return {"service": service, "host": host, "site": "site1", "cpu_s": cpu_s,
                "memory_bytes": 300_000_000, "memory_start_bytes": 200_000_000}  # fmt: skip

    return [
        row("nova-conductor", "site1-controller-1", 2.0),
        row("nova-conductor", "site1-controller-2", 1.6),
        row("mariadb", "site1-master-1", 1.8),
    ]


def _series() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    def add(at: float, host: str, service: str, **values: float) -> None:
        rows.extend(
            {"at": at, "host": host, "site": "site1", "service": service, "metric": metric,
             "value": float(value)} for metric, value in values.items()
        )  # fmt: skip

    for number in range(-1, 22):
        at = START + 5 * number
        waiting = max(0, number if number <= 10 else 0)
        add(at, "site1-master-1", "mariadb", db_commits=1000 + 50 * number, db_deadlocks=0)
        add(at, "site1-master-1", "conductor", queue_ready=waiting, queue_unacknowledged=1)
        add(at, "site1-master-1", "mysql", connections=12)
        add(at, "site1-master-1", "host", load_1min=1.5)
        add(at, "site1-controller-1", "nova-conductor", cpu_s=100 + 2.5 * number,
            memory_bytes=2**28, cpu_periods=100 * (number + 1),
            throttled_periods=25 * (number + 1), throttled_s=0.5 * (number + 1))  # fmt: skip
        add(at, "site1-controller-2", "nova-conductor", cpu_s=1.25 * (number + 1))
        add(at, "site1-controller-1", "sampler", cpu_s=0.01 * (number + 1))
    return rows


def _links(sites: int, delay_ms: float) -> dict[str, Any]:
    pairs = [
        {"source": f"site{a}", "target": f"site{b}", "requested_ms": 2 * delay_ms,
         "observed_ms": 2 * delay_ms + 0.5, "least_ms": 2 * delay_ms, "most_ms": 2 * delay_ms + 1,
         "samples": 20, "lost": 0, "allowed_ms": 2.0, "rounds": 1, "is_off": False}
        for a in range(1, sites + 1) for b in range(a + 1, sites + 1)
    ]  # fmt: skip
    return {"before": pairs, "after": pairs}
