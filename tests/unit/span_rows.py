"""Spans of a boot whose critical path is known by hand.

Two sites with a round trip of 0.1 s; API, conductor and compute are at site2, the broker, the
database, the scheduler and Placement at site1.  Times are seconds since the request's arrival:

    0.00 - 1.00  nova-api answers POST /servers: processor 0.10, 3 round trips to the database
                 from 0.10 on, which take 0.30 in all
    0.60 - 0.80    asks Keystone, which answers from 0.65 to 0.75
    0.90 - 1.00    sends schedule_and_build_instances, which is taken at 1.05
    1.10 - 2.40  nova-conductor handles it, after 0.05 in its queue; processor 0.20
    1.20 - 1.70    calls select_destinations, which the scheduler handles from 1.30 to 1.60
    1.40 - 1.50      and asks Placement, which answers from 1.42 to 1.48
    2.00 - 2.40    sends build_and_run_instance
    2.20 - 2.21  nova-compute handles it
    2.30 - 3.50  and builds in a thread, for which it waited 0.09
    2.40 - 2.60    calls Instance.save, handled from 2.45 to 2.55
    3.00 - 3.30    calls Instance.save, handled from 3.10 to 3.20: ACTIVE
    3.40 - 3.45    calls Instance.refresh, which nobody waits for

So a boot takes 3.20 s, and its path crosses 24 times: 6 for the database, 2 for Keystone, 2 with
the first message (to the broker and back), 4 with the call of the scheduler... see test_anatomy.
"""

from __future__ import annotations

from typing import Any

START = 1_795_449_602.0
SERVER_ID = "id-0"

_SITES = {
    "nova-api": "site2", "nova-conductor": "site2", "nova-compute": "site2",
    "nova-scheduler": "site1", "placement-api": "site1", "keystone-api": "site1",
}  # fmt: skip


def span(
    name: str,
    start: float,
    end: float,
    service: str,
    kind: str,
    step: str,
    parent: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A row of spans.parquet; `name` is the span's own."""
    site = _SITES[service]
    row = {
        "at": START + start, "service": service, "host": f"{site}-{service}", "site": site,
        "kind": kind, "name": step, "peer": None, "peer_site": None, "trace": "req-1",
        "span": name, "parent": parent, "link": None, "server_id": None,
        "duration_ms": (end - start) * 1000, "cpu_ms": 0.0, "queued_ms": 0.0, "count": 1,
        "round_trips": 0, "error": None,
    }  # fmt: skip
    return {**row, **more}


def boot_rows(server_id: str = SERVER_ID, prefix: str = "") -> list[dict[str, Any]]:
    """The spans of the boot above, names and links with a prefix; in no order."""
    to_broker = {"peer": "site1-master-1", "peer_site": "site1"}
    api, conductor, compute = "nova-api", "nova-conductor", "nova-compute"
    rows = [
        span("save-2", 3.0, 3.3, compute, "call", "Instance.save", "build", link="m-save-2",
             **to_broker),
        span("h-save-2", 3.1, 3.2, conductor, "handler", "Instance.save", link="m-save-2"),
        span("refresh", 3.4, 3.45, compute, "call", "Instance.refresh", "build", link="m-4",
             **to_broker),
        span("post", 0.0, 1.0, api, "server", "POST /v2.1/servers", link="req-1",
             server_id=server_id, cpu_ms=100.0),
        span("sql", 0.1, 0.4, api, "database", "SELECT", "post", count=3, round_trips=3,
             **to_broker),
        span("get", 0.6, 0.8, api, "client", "GET /v3/auth/tokens", "post", link="req-2",
             **to_broker),
        span("token", 0.65, 0.75, "keystone-api", "server", "GET /v3/auth/tokens", link="req-2",
             trace="req-2"),
        span("cast-1", 0.9, 1.0, api, "cast", "schedule_and_build_instances", "post", link="m-1",
             **to_broker),
        span("schedule", 1.1, 2.4, conductor, "handler", "schedule_and_build_instances",
             link="m-1", cpu_ms=200.0, queued_ms=50.0),
        span("select", 1.2, 1.7, conductor, "call", "select_destinations", "schedule", link="m-2",
             **to_broker),
        span("h-select", 1.3, 1.6, "nova-scheduler", "handler", "select_destinations", link="m-2"),
        span("candidates", 1.4, 1.5, "nova-scheduler", "client", "GET /allocation_candidates",
             "h-select", link="req-3", **to_broker),
        span("answer", 1.42, 1.48, "placement-api", "server", "GET /allocation_candidates",
             link="req-3"),
        span("cast-2", 2.0, 2.4, conductor, "cast", "build_and_run_instance", "schedule",
             link="m-3", **to_broker),
        span("h-build", 2.2, 2.21, compute, "handler", "build_and_run_instance", link="m-3"),
        span("build", 2.3, 3.5, compute, "thread", "_locked_do_build_and_run_instance", "h-build",
             queued_ms=90.0),
        span("save-1", 2.4, 2.6, compute, "call", "Instance.save", "build", link="m-save-1",
             **to_broker),
        span("h-save-1", 2.45, 2.55, conductor, "handler", "Instance.save", link="m-save-1"),
    ]  # fmt: skip
    for row in rows:
        for key in ("span", "parent", "link"):
            row[key] = row[key] and f"{prefix}{row[key]}"
    return rows
