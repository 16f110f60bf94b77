"""What the probes cost: microseconds a record, and CPU a boot with them and without.

First the probes' own code is timed in a process without a cloud, the thread that writes
included: what a service pays for each call, statement and request.  Then, on a testbed with
a cloud that is up, VMs are booted with the probes inside the services off and on, in turn,
and the services' CPU is compared (read from outside: that costs them nothing).  Nothing is
asserted.

    ./.venv/bin/python benchmarks/probes.py [--testbed NAME [--boots 40] [--rounds 3]]
        [--run FOLDER] [--json FILE]
    ./.venv/bin/python benchmarks/probes.py --series RUN... [--json FILE]

`--run` is a run with spans, in which those of a boot are counted.  The second form says what a
sample of the probe `series` costs, as runs have it of themselves.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import provenance

from discovery_xp import experiment, probes
from discovery_xp.analysis.measurements import read_runs
from discovery_xp.deployment.variables import FLAVOR, IMAGE
from discovery_xp.onhost.probes.inside import calls, current, requests, statements
from discovery_xp.onhost.probes.inside.recorder import Recorder
from discovery_xp.onhost.wire import spans
from discovery_xp.store import open_run
from discovery_xp.testbeds.hosts import Hosts
from discovery_xp.testbeds.testbed import Testbed

REPEATS = 20_000
SETTLE_S = 20
WARM_UP = 6
AT_ONCE = 4
OUTSIDE = ("usage",)
INSIDE = ("calls", "statements", "requests", "spans", "usage")


# ---------------------------------------------------------------- the probes' own code


def cpu_us(work: Callable[[], Any], plain: Callable[[], Any], recorder: Any) -> float:
    """Return CPU microseconds that probed `work` takes beyond the plain one, writing included."""

    def spent(function: Callable[[], Any]) -> float:
        started = time.process_time()
        for _ in range(REPEATS):
            function()
        recorder.flush()
        return (time.process_time() - started) / REPEATS * 1e6

    differences = [spent(work) - spent(plain) for _ in range(7)]
    return round(statistics.median(differences), 2)


class Plain:
    """A connection like PyMySQL's that has its answers at once."""

    _rfile = None

    def query(self, sql: bytes) -> None:
        """Do what PyMySQL's does."""
        self._execute_command(3, sql)
        self._read_query_result()

    def _execute_command(self, command: int, sql: bytes) -> None:
        self._write_bytes(sql)

    def _read_query_result(self) -> None:
        pass

    def _write_bytes(self, data: bytes) -> None:
        pass

    connect = _get_server_information = _request_authentication = _read_ok_packet = (
        _read_query_result
    )


def code() -> dict[str, float]:
    """Return microseconds by what is recorded."""
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(folder)

        def function(context: Any) -> None:
            """Ask no database."""

        timed = calls.timed(recorder, "main", "instance_get_by_uuid", function)
        nested = calls.timed(
            recorder, "main", "outer", lambda context: [timed(1) for _ in range(9)]
        )

        def plain_nested(context: Any) -> None:
            for _ in range(9):
                function(1)

        driver: Any = ModuleType("pymysql.connections")
        driver.Connection = type("Connection", (Plain,), {})
        statements.patches(recorder)["pymysql.connections"](driver)
        watched, unwatched = driver.Connection(), Plain()

        class Logger:
            """As gunicorn's."""

            def access(self, *_: Any) -> None:
                """Write no log."""

        plain_log = type("PlainLogger", (), {"access": Logger.access})()
        gunicorn: Any = ModuleType("gunicorn.glogging")
        gunicorn.Logger = Logger
        requests.patches(recorder)["gunicorn.glogging"](gunicorn)
        path = "/v2.1/servers/0b3c2f9e-52f1-4f6c-9d2e-0123456789ab"
        answered: tuple[Any, ...] = (
            SimpleNamespace(status="200 OK"),
            SimpleNamespace(method="GET", path=path),
            {},
            timedelta(milliseconds=5),
        )
        log = Logger()
        sql = b"SELECT instances.id FROM instances WHERE instances.uuid = 'x'"
        per_call = cpu_us(lambda: timed(1), lambda: function(1), recorder)
        outer = current.Span(recorder, spans.SERVER, "POST /v2.1/servers", trace="req-1")

        def in_span() -> None:
            current.Span(recorder, spans.CALL, "Instance.save", "10.0.0.1", parent=outer).end()

        def summed_up() -> None:
            outer.asked(spans.DATABASE, "SELECT", "10.0.0.1", 1, 0.001)

        def nothing() -> None:
            """Do no work."""

        per_span = cpu_us(in_span, nothing, recorder)
        per_trip = cpu_us(summed_up, nothing, recorder)
        outer.end()
        return {
            "a span": per_span,
            "a statement in a span": per_trip,
            "a call of the database API": per_call,
            "a call inside a call": round(
                (cpu_us(lambda: nested(1), lambda: plain_nested(1), recorder) - per_call) / 9, 2
            ),
            "a statement": cpu_us(
                lambda: watched.query(sql), lambda: unwatched.query(sql), recorder
            ),
            "a request": cpu_us(
                lambda: log.access(*answered), lambda: plain_log.access(*answered), recorder
            ),
        }


# ---------------------------------------------------------------- samples of hosts

# What a host is, by a unit that tells it: the first that it has.
KINDS = {"rabbitmq-server": "master", "nova-api": "controller", "redis-server": "data node",
         "nova-compute": "compute"}  # fmt: skip


def samples(folder: Path) -> dict[str, Any]:
    """Return CPU milliseconds of a sample by kind of host, from a run with the probe `series`.

    What the sampler took until its third sample, its start and that of the clients, is apart.
    """
    run = open_run(folder)
    rows = run.table("series").to_pylist()
    units: dict[str, set[str]] = {}
    for row in rows:
        units.setdefault(row["host"], set()).add(row["service"])
    ms: dict[str, list[float]] = {}
    start_ms: dict[str, list[float]] = {}
    for host, services in units.items():
        spent = [row["value"] for row in rows if row["host"] == host
                 and (row["service"], row["metric"]) == ("sampler", "cpu_s")]  # fmt: skip
        kind = next((KINDS[unit] for unit in KINDS if unit in services), None)
        if kind is not None and len(spent) > 3:
            ms.setdefault(kind, []).append((spent[-1] - spent[2]) / (len(spent) - 3) * 1000)
            start_ms.setdefault(kind, []).append(spent[2] * 1000)
    return {
        "backend": run.load().backend,
        "every_s": run.load().sample_every_s,
        "ms": {kind: round(statistics.mean(values), 2) for kind, values in ms.items()},
        "start_ms": {kind: round(statistics.mean(values)) for kind, values in start_ms.items()},
    }


# ---------------------------------------------------------------- a cloud with and without

BOOT = """
import concurrent.futures, sys, time, openstack
count, at_once, regions = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(",")
clouds = [openstack.connect(cloud="discovery", region_name=region) for region in regions]
image = clouds[0].image.find_image("IMAGE").id
flavor = clouds[0].compute.find_flavor("FLAVOR").id
def boot(number):
    compute = clouds[number % len(clouds)].compute
    server = compute.create_server(
        name=f"probe-{number}", image_id=image, flavor_id=flavor, networks="none")
    for _ in range(100):
        time.sleep(1)
        server = compute.get_server(server.id)
        if server.status != "BUILD":
            break
    return server
with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
    servers = list(pool.map(boot, range(count)))
print(sum(server.status == "ACTIVE" for server in servers))
for number, server in enumerate(servers):
    clouds[number % len(clouds)].compute.delete_server(server.id)
"""


def boot(hosts: Hosts, count: int) -> int:
    """Boot VMs from the master, a few at a time, and delete them; return how many got ACTIVE."""
    script = BOOT.replace("IMAGE", IMAGE).replace("FLAVOR", FLAVOR)
    cloud = hosts.plan.require_cloud()
    names = ",".join(region.name for region in cloud.regions)
    done = subprocess.run(
        ["ssh", "-F", str(Testbed(hosts.plan.name).ssh_config), cloud.master,
         "/opt/openstack/bin/python", "-", str(count), str(AT_ONCE), names],
        input=script, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return int(done.stdout.split()[-1])


def window(hosts: Hosts, wanted: tuple[str, ...], boots: int) -> Any:
    """Return the tables of one window with so many boots."""
    probes.install(hosts, wanted, quiet)
    time.sleep(SETTLE_S)
    boot(hosts, WARM_UP)
    probes.start(hosts, wanted, quiet)
    since = time.time()
    active = boot(hosts, boots)
    time.sleep(5)  # the deletions
    tables = probes.collect(hosts, wanted, (since, time.time()), quiet)
    if active != boots:
        raise SystemExit(f"only {active} of {boots} VMs got ACTIVE")
    return tables


def quiet(_stage: str, _done: int, _total: int) -> None:
    """Print no progress."""


def on_testbed(name: str, boots: int, rounds: int) -> dict[str, Any]:
    """Return CPU milliseconds per boot by service, with the probes inside services off and on."""
    testbed = Testbed(name)
    with testbed.locked():
        hosts = experiment.hosts_of(testbed)
        cpu: dict[str, dict[str, list[float]]] = {"off": {}, "on": {}}
        memory: dict[str, list[float]] = {"off": [], "on": []}
        counts: dict[str, float] = {}
        for number in range(rounds):
            # In the other order each time: what grows with time is on both sides.
            for mode in ("off", "on") if number % 2 == 0 else ("on", "off"):
                wanted = INSIDE if mode == "on" else OUTSIDE
                tables = window(hosts, wanted, boots)
                spent: dict[str, float] = {}
                for row in tables["usage"]:
                    ms = row["cpu_s"] * 1000 / boots
                    spent[row["service"]] = spent.get(row["service"], 0.0) + ms
                memory[mode].append(sum(row["memory_bytes"] for row in tables["usage"]) / 1e6)
                for service, ms in spent.items():
                    cpu[mode].setdefault(service, []).append(ms)
                print(f"# {mode}: {sum(spent.values()):.0f} CPU-ms a boot", file=sys.stderr)
                if mode == "on":
                    counts = {
                        "calls": len(tables["calls"]) / boots,
                        "requests": len(tables["requests"]) / boots,
                        "spans": len(tables["spans"]) / boots,
                        "statements": sum(r["count"] for r in tables["statements"]) / boots,
                    }
        probes.install(hosts, (), quiet)
    return {
        "boots": boots,
        "rounds": rounds,
        "cpu_ms_a_boot": cpu,
        "memory_mb": memory,
        "a_boot": counts,
    }


def spans_of(folder: Path) -> dict[str, float]:
    """Return how many spans, and statements summed up in them, a boot of a stored run has."""
    (run,) = read_runs([folder])
    rows = run.run.table("spans").to_pandas()
    summed = rows["kind"].isin([spans.DATABASE, spans.CACHE])
    return {
        "a span": round(len(rows) / run.done, 1),
        "a statement in a span": round(float(rows.loc[summed, "count"].sum()) / run.done, 1),
    }


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--testbed")
    parser.add_argument("--boots", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--series", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.series:
        sampled = [samples(folder) for folder in arguments.series]
        for each in sampled:
            print(each)
        if arguments.json:
            provenance.write(arguments.json, "benchmarks/probes.py --series", {"runs": sampled})
        return
    figures: dict[str, Any] = {"us": code()}
    if arguments.run:
        figures["per_vm"] = spans_of(arguments.run)
    print("| recorded | CPU, us |\n|---|---|")
    for what, us in figures["us"].items():
        print(f"| {what} | {us:.2f} |")
    if arguments.testbed:
        measured = on_testbed(arguments.testbed, arguments.boots, arguments.rounds)
        figures["testbed"] = measured
        off, on = (measured["cpu_ms_a_boot"][mode] for mode in ("off", "on"))
        print("\n| CPU-ms a boot | off | on | |\n|---|---|---|---|")
        lines = {name: (off[name], on[name]) for name in sorted(off)}
        off_in_all, on_in_all = (
            [sum(values) for values in zip(*mode.values(), strict=True)] for mode in (off, on)
        )
        lines["in all"] = (off_in_all, on_in_all)
        for name, (without, with_) in lines.items():
            before, after = statistics.mean(without), statistics.mean(with_)
            print(f"| {name} | {before:.1f} | {after:.1f} | {after - before:+.1f} |")
        for mode, sizes in measured["memory_mb"].items():
            print(f"\nmemory of all services, {mode}: {statistics.mean(sizes):.0f} MB")
        print("\n| a boot | |\n|---|---|")
        for what, count in measured["a_boot"].items():
            print(f"| {what} | {count:.0f} |")
    if arguments.json:
        provenance.write(arguments.json, "benchmarks/probes.py", figures)


if __name__ == "__main__":
    main()
