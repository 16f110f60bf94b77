"""Probes on a real cloud over two sites: what they count is what was asked for."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from discovery_xp.onhost.wire.series import ALL_QUEUES, METRICS
from discovery_xp.probes import PROBES
from discovery_xp.store import TABLES
from tests.real.cloud import on
from tests.real.conftest import Cli
from tests.real.pair.bench import MASTER, NAME

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

UNITS = {
    MASTER: ["mariadb", "rabbitmq-server", "memcached", "keystone-api", "glance-api",
             "placement-api", "neutron-api"],
    "site1-controller-1": ["nova-api", "nova-conductor", "nova-scheduler"],
    "site2-controller-1": ["nova-api", "nova-conductor", "nova-scheduler"],
    "site1-compute-1": ["nova-compute"],
    "site2-compute-1": ["nova-compute"],
}  # fmt: skip
VMS = 2

# The probes are called by the bench, in one process with Ansible: here in one of their own.
DRIVER = """
import json, sys
from discovery_xp import experiment, probes
from discovery_xp.testbeds.testbed import Testbed
testbed = Testbed(sys.argv[1])
hosts = experiment.hosts_of(testbed)
quiet = lambda stage, done, total: None
said = []
step, wanted = sys.argv[2], [name for name in sys.argv[3].split(",") if name]
if step == "install":
    probes.install(hosts, wanted, quiet)
elif step == "start":
    probes.start(hosts, wanted, quiet)
else:
    window = (float(sys.argv[4]), float(sys.argv[5]))
    tables = probes.collect(hosts, wanted, window, quiet, said.append)
    print(json.dumps({"tables": tables, "said": said}))
"""

Table = list[dict[str, Any]]


def call(cli: Cli, step: str, wanted: Sequence[str], *more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, NAME, step, ",".join(wanted), *more],
        capture_output=True, text=True, env=cli.environment, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for_computes(cli: Cli) -> None:
    """Wait until computes that were started anew take messages: systemd isn't told when."""
    queues = {f"compute.{host}" for host, units in UNITS.items() if "nova-compute" in units}
    latest = time.monotonic() + 300
    while True:
        said = on(cli, MASTER, "rabbitmqctl --quiet --formatter json list_queues name consumers")
        if queues <= {each["name"] for each in json.loads(said) if each["consumers"]}:
            return
        assert time.monotonic() < latest, said
        time.sleep(2)


def main_processes(cli: Cli) -> dict[str, list[str]]:
    return {
        host: on(
            cli, host, f"systemctl show --value --property=MainPID {' '.join(units)}"
        ).split()
        for host, units in UNITS.items()
    }  # fmt: skip


def environments(cli: Cli, host: str) -> dict[str, str]:
    """What systemd starts each of a host's services with."""
    said = on(cli, host, f"systemctl show --property=Environment {' '.join(UNITS[host])}")
    lines = [line for line in said.splitlines() if line]
    return dict(zip(UNITS[host], lines, strict=True))


def boot(cli: Cli, region: str, name: str, compute: str) -> None:
    """Ask a site's API for a VM on a compute, and see it ACTIVE."""
    said = cli.run(
        "openstack", "--os-region-name", region, "server", "create", "--flavor", "m1.tiny",
        "--image", "discovery", "--no-network", "--hypervisor-hostname", compute, "--wait",
        "-f", "json", name,
    ).stdout  # fmt: skip
    assert json.loads(said)["status"] == "ACTIVE"


@pytest.fixture(scope="module")
def measured(cli: Cli, cloud: str) -> dict[str, Table]:
    """All probes over two boots, one at each site's API on its own compute."""
    assert json.loads(call(cli, "collect", [], "0", "1"))["tables"] == {}
    call(cli, "install", PROBES)
    wait_for_computes(cli)
    call(cli, "start", PROBES)
    since = time.time()
    for number in range(1, VMS + 1):
        boot(cli, f"site{number}", f"vm{number}", f"site{number}-compute-1")
    said = json.loads(call(cli, "collect", PROBES, str(since), str(time.time())))
    assert said["said"] == [], "nothing was dropped, and no probe failed"
    tables: dict[str, Table] = said["tables"]
    return tables


def sums(rows: Table, *keys: str, of: str) -> dict[tuple[Any, ...], float]:
    found: dict[tuple[Any, ...], float] = {}
    for row in rows:
        key = tuple(row[name] for name in keys)
        found[key] = found.get(key, 0) + row[of]
    return found


def test_every_table_has_rows_of_the_format(measured: Mapping[str, Table]) -> None:
    assert set(measured) == set(PROBES)
    for name, rows in measured.items():
        assert rows, name
        for row in rows:
            assert list(row) == [column.name for column in TABLES[name]], name
            for column in TABLES[name]:
                value = row[column.name]
                assert column.null or value is not None, (name, row)
                assert not column.values or value in column.values, (name, row)


def test_calls_of_the_database_api_are_counted(measured: Mapping[str, Table]) -> None:
    calls = measured["calls"]
    created = [row for row in calls if row["function"] == "instance_create"]
    assert len(created) == VMS
    # What an API keeps of a request is its own; the VM's row is written by any conductor.
    kept = [row for row in calls if row["function"] == "API._create_reqspec_buildreq_instmapping"]
    assert sorted((row["service"], row["site"], row["api"]) for row in kept) == [
        ("nova-api", "site1", "api"), ("nova-api", "site2", "api")
    ]  # fmt: skip
    assert {row["service"] for row in calls} <= {"nova-api", "nova-conductor", "nova-scheduler"}
    assert {row["api"] for row in calls} == {"main", "api"}
    assert all(0 < row["duration_ms"] < 10_000 for row in calls)
    # The master's database is 20 ms away from site 2, and at hand at site 1.
    near, far = (
        sorted(row["duration_ms"] for row in calls if row["site"] == site and not row["lazy"])
        for site in ("site1", "site2")
    )
    assert far[len(far) // 2] > near[len(near) // 2] + 15


def test_statements_are_those_of_the_services_that_have_a_database(
    measured: Mapping[str, Table],
) -> None:
    statements = measured["statements"]
    trips = sums(statements, "service", "host", of="round_trips")
    for host in ("site1-controller-1", "site2-controller-1"):
        for unit in ("nova-api", "nova-conductor", "nova-scheduler"):
            assert trips[unit, host] > 0
    assert trips["placement-api", MASTER] > 0
    assert not [key for key in trips if key[0] == "nova-compute"]
    kinds = sums(statements, "kind", of="count")
    assert kinds["SELECT",] > kinds["INSERT",] > VMS
    assert kinds["COMMIT",] > 0 and kinds["ROLLBACK",] > 0 and kinds["UPDATE",] > 0
    for row in statements:
        assert row["round_trips"] >= row["count"] > 0
        assert row["bytes_sent"] > 0 and row["bytes_received"] > 0
    # A round trip from site 2 takes 20 ms.
    far = [row for row in statements if row["site"] == "site2" and row["kind"] == "SELECT"]
    assert sum(row["duration_ms"] for row in far) > 20 * sum(row["round_trips"] for row in far)


def test_rest_requests_are_those_that_were_asked(measured: Mapping[str, Table]) -> None:
    requests = measured["requests"]
    posts = [row for row in requests if (row["method"], row["path"]) == ("POST", "/v2.1/servers")]
    assert [(row["service"], row["status"]) for row in posts] == [("nova-api", 202)] * VMS
    assert {row["site"] for row in posts} == {"site1", "site2"}
    asked = {(row["service"], row["method"], row["path"]) for row in requests}
    assert ("keystone-api", "POST", "/v3/auth/tokens") in asked
    assert ("placement-api", "GET", "/allocation_candidates") in asked
    assert ("placement-api", "PUT", "/allocations/{id}") in asked
    assert ("nova-api", "GET", "/v2.1/servers/{id}") in asked
    assert {service for service, _, _ in asked} == {
        "keystone-api", "glance-api", "placement-api", "neutron-api", "nova-api"
    }  # fmt: skip
    assert all(row["duration_ms"] > 0 and 200 <= row["status"] < 500 for row in requests)
    assert len(asked) < 60, "identifiers are gone from the paths"


def test_spans_are_those_of_every_service_that_a_boot_comes_to(
    measured: Mapping[str, Table],
) -> None:
    spans = measured["spans"]
    of_boots = [row for row in spans if row["server_id"]]
    assert [(row["service"], row["name"]) for row in of_boots] == [
        ("nova-api", "POST /v2.1/servers")
    ] * VMS
    steps = {(row["service"], row["kind"], row["name"]) for row in spans}
    assert ("nova-conductor", "handler", "schedule_and_build_instances") in steps
    assert ("nova-scheduler", "client", "GET /allocation_candidates") in steps
    assert ("placement-api", "server", "GET /allocation_candidates") in steps
    assert ("nova-compute", "handler", "build_and_run_instance") in steps
    assert ("nova-compute", "call", "Instance.save") in steps
    # The broker and the database are the master's, whoever asks.
    peers = {(row["kind"], row["peer"], row["peer_site"]) for row in spans if row["kind"] in (
        "call", "cast", "database", "cache")}  # fmt: skip
    assert peers == {(kind, MASTER, "site1") for kind in ("call", "cast", "database", "cache")}


def test_traffic_is_counted_by_hosts_and_service(measured: Mapping[str, Table]) -> None:
    traffic = measured["traffic"]
    found = sums(traffic, "host", "peer", "service", of="bytes")
    assert found["site2-controller-1", MASTER, "mysql"] > 0
    assert found[MASTER, "site2-controller-1", "mysql"] > 0
    assert found["site2-compute-1", MASTER, "amqp"] > 0
    assert found["site1-compute-1", MASTER, "placement"] > 0
    # What the probes of statements can't show, since none is in a compute, the wire does.
    assert not [key for key in found if "compute" in key[0] and key[2] == "mysql"]
    assert all(row["host"] != row["peer"] and row["packets"] > 0 for row in traffic)
    between = [row for row in traffic if row["peer_site"] and row["site"] != row["peer_site"]]
    assert sum(row["bytes"] for row in between) > 10_000


def test_what_processes_count_is_what_the_kernel_counts(measured: Mapping[str, Table]) -> None:
    """Of a controller's talk with the database, which is on another host."""
    for host in ("site1-controller-1", "site2-controller-1"):
        mine = [row for row in measured["statements"] if row["host"] == host]
        there, back = (
            [row for row in measured["traffic"]
             if (row["host"], row["peer"], row["service"]) == (*ends, "mysql")]
            for ends in ((host, MASTER), (MASTER, host))
        )  # fmt: skip
        for column, rows in (("bytes_sent", there), ("bytes_received", back)):
            counted = sum(row[column] for row in mine)
            # A packet has up to 60 bytes of headers; acknowledgements have nothing else.
            wire = sum(row["bytes"] for row in rows)
            headers = sum(row["packets"] for row in rows) * 60
            assert counted * 0.95 <= wire <= (counted + headers) * 1.05, (host, column)


def test_messages_are_counted_by_queue(measured: Mapping[str, Table]) -> None:
    messages = {row["queue"]: row for row in measured["messages"]}
    for queue in ("conductor", "scheduler", "compute.site1-compute-1", "compute.site2-compute-1"):
        assert messages[queue]["published"] >= 1, queue
        assert messages[queue]["delivered"] == messages[queue]["published"]
    assert messages["conductor"]["published"] >= 2 * VMS
    for row in messages.values():
        assert row["published"] >= row["delivered"] >= row["acknowledged"] >= 0


def test_usage_is_of_every_service(measured: Mapping[str, Table]) -> None:
    usage = {(row["host"], row["service"]): row for row in measured["usage"]}
    assert set(usage) == {(host, unit) for host, units in UNITS.items() for unit in units}
    for (_, unit), row in usage.items():
        assert 1e6 < row["memory_bytes"] < 1e9, unit
        assert row["memory_start_bytes"] > 1e6
        assert 0 <= row["cpu_s"] < 60
    for unit in ("nova-api", "nova-conductor", "nova-compute"):
        assert sum(row["cpu_s"] for (_, name), row in usage.items() if name == unit) > 0.05


def test_series_are_of_every_service_and_its_servers(measured: Mapping[str, Table]) -> None:
    rows = measured["series"]
    by_metric: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        by_metric.setdefault(row["metric"], set()).add((row["host"], row["service"]))
    every = {(host, unit) for host, units in UNITS.items() for unit in units}
    sampled = {(host, "sampler") for host in UNITS}
    assert by_metric["cpu_s"] == every | sampled
    assert by_metric["memory_bytes"] == every
    assert by_metric["load_1min"] == {(host, "host") for host in UNITS}
    queues = {queue for host, queue in by_metric["queue_ready"] if host == MASTER}
    assert {ALL_QUEUES, "conductor", "scheduler", "compute.site1-compute-1"} <= queues
    assert by_metric["queue_ready"] == by_metric["queue_unacknowledged"]
    for metric in ("db_questions", "db_commits", "db_rollbacks", "db_deadlocks",
                   "db_row_lock_waits", "db_connections"):  # fmt: skip
        assert by_metric[metric] == {(MASTER, "mariadb")}, metric
    assert "db_certification_failures" not in by_metric, "there is no Galera"
    assert {(MASTER, "mysql"), (MASTER, "amqp"), ("site2-controller-1", "nova")} <= by_metric[
        "connections"
    ]
    assert not [host for host, _ in by_metric["connections"] if "compute" in host]


def test_counters_of_series_only_grow(measured: Mapping[str, Table]) -> None:
    curves: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for row in measured["series"]:
        key = row["host"], row["service"], row["metric"]
        curves.setdefault(key, []).append((row["at"], row["value"]))
    grown = {key: points[-1][1] - points[0][1] for key, points in curves.items()}
    for (_, _, metric), points in curves.items():
        assert points == sorted(points) or not METRICS[metric].is_counter
        if METRICS[metric].is_counter:
            assert all(now >= before for (_, before), (_, now) in itertools.pairwise(points))
    assert grown[MASTER, "mariadb", "db_commits"] > VMS
    assert grown[MASTER, "mariadb", "db_questions"] > grown[MASTER, "mariadb", "db_commits"]
    for row in measured["usage"]:
        # `usage` is read just before and after, as clock ticks.
        sampled = grown[row["host"], row["service"], "cpu_s"]
        assert sampled <= row["cpu_s"] + 0.5, row["service"]
    assert curves[MASTER, "mysql", "connections"][-1][1] >= 4, "of both controllers"


def test_nothing_samples_after_a_window(cli: Cli, measured: Mapping[str, Table]) -> None:
    for host in UNITS:
        left = on(
            cli, host,
            "pgrep -af 'series.sample[r]'; pgrep -af 'rabbitmqctl.*eva[l]'; "
            "systemctl list-units --all --no-legend 'discovery-xp-series*'; true",
        )  # fmt: skip
        assert left == "", host
    call(cli, "start", ["series"])
    assert "series.sampler" in on(cli, MASTER, "pgrep -af 'series.sample[r]'")
    call(cli, "start", ["usage"])
    assert on(cli, MASTER, "pgrep -af 'series.sample[r]'; true") == ""


def test_a_window_has_what_was_in_it_only(cli: Cli, measured: Mapping[str, Table]) -> None:
    call(cli, "start", ["calls", "requests"])
    time.sleep(2)
    now = time.time()
    tables = json.loads(call(cli, "collect", ["calls", "requests"], str(now - 0.01), str(now)))
    assert list(tables["tables"]) == ["calls", "requests"]
    for rows in tables["tables"].values():
        assert all(now - 0.01 <= row["at"] < now for row in rows)
        assert "instance_create" not in {row.get("function") for row in rows}


def test_nothing_is_restarted_that_has_its_probes(cli: Cli, measured: Mapping[str, Table]) -> None:
    before = main_processes(cli)
    call(cli, "install", PROBES)
    call(
        cli,
        "install",
        [name for name in PROBES if name not in ("traffic", "messages", "usage", "series")],
    )
    assert main_processes(cli) == before
    # Without those of requests, only the HTTP services change.
    call(cli, "install", ["calls", "statements", "spans"])
    after = main_processes(cli)
    changed = {
        unit
        for host, units in UNITS.items()
        for unit, old, new in zip(units, before[host], after[host], strict=True)
        if old != new
    }
    assert changed == {"keystone-api", "glance-api", "placement-api", "neutron-api", "nova-api"}


def test_a_deployed_cloud_keeps_its_probes(
    cli: Cli, cloud: str, measured: Mapping[str, Table]
) -> None:
    before = main_processes(cli)
    cli.run("deploy", cloud, timeout_s=600)
    assert main_processes(cli) == before
    assert "DISCOVERY_PROBES=statements" in environments(cli, MASTER)["keystone-api"]


def test_probes_that_are_off_leave_no_trace(cli: Cli, measured: Mapping[str, Table]) -> None:
    before = main_processes(cli)
    call(cli, "install", [])
    after = main_processes(cli)
    for host, units in UNITS.items():
        left = on(
            cli, host,
            "ls -d /etc/systemd/system/*.d/probes.conf /etc/discovery-xp-probes "
            "/var/lib/discovery-xp-probes 2>/dev/null; nft list tables; true",
        )  # fmt: skip
        assert left == "", host
        for unit, environment in environments(cli, host).items():
            assert "DISCOVERY" not in environment
            if unit == "neutron-api":
                assert "PYTHONPATH=/etc/neutron/drivers" in environment.split("=", 1)[1].split()
            else:
                assert "PYTHONPATH" not in environment
        changed = [unit for unit, old, new in zip(units, before[host], after[host], strict=True)
                   if old != new]  # fmt: skip
        others = ("mariadb", "rabbitmq-server", "memcached")
        watched = [unit for unit in units if unit not in others]
        assert changed == watched, "what had probes was started anew, nothing else"
    call(cli, "install", [])
    assert main_processes(cli) == after
    wait_for_computes(cli)
    boot(cli, "site2", "without", "site2-compute-1")
    names = [f"vm{number}" for number in range(1, VMS + 1)]
    cli.run("openstack", "server", "delete", "--wait", *names, "without")
