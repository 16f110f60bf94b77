"""Series of a window: what a sampler reads on a host, what it writes, and what becomes of it."""

from __future__ import annotations

import base64
import gzip
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery_xp import probes, store
from discovery_xp.inputs.topology import derive_topology, parse_topology
from discovery_xp.onhost import catalogue, checks, systemd
from discovery_xp.onhost.probes import places, window
from discovery_xp.onhost.probes.inside import series as inside
from discovery_xp.onhost.probes.series import control, sampler, servers, sockets, units
from discovery_xp.onhost.wire import probes as lines
from discovery_xp.onhost.wire import series as wire
from discovery_xp.planning.plan import make_plan

PLACE = {"host": "site1-master-1", "site": "site1"}
HOSTS = {"site1-master-1": {"address": "10.0.0.1", "site": "site1"}}


def packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode())).decode()


# ---------------------------------------------------------------- lines


@given(
    st.floats(0, 2e9, allow_nan=False),
    st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=1, max_size=50),
    st.sampled_from(sorted(wire.METRICS)),
    st.floats(0, 2**50, allow_nan=False),
)
def test_a_sample_is_read_as_it_was_written(
    at: float, subject: str, metric: str, value: float
) -> None:
    (row,) = wire.parse(wire.line(at, subject, metric, value), PLACE)
    assert row["at"] == pytest.approx(at, abs=0.001)
    assert row["value"] == pytest.approx(value, abs=1e-6)
    assert (row["metric"], row["host"], row["site"]) == (metric, *PLACE.values())
    assert row["service"] == checks.name(subject.replace("\t", " "))


def test_a_line_that_was_not_written_to_its_end_is_left_out() -> None:
    text = wire.line(1.0, "mariadb", "cpu_s", 2.5)
    assert [row["value"] for row in wire.parse(text + "2.0\tmaria", PLACE)] == [2.5]
    assert list(wire.parse("", PLACE)) == []


@pytest.mark.parametrize(
    "line",
    ["x", "1\tmariadb\tcpu_s", "x\tmariadb\tcpu_s\t1", "1\tmariadb\tmood\t1",
     "1\tmariadb\tcpu_s\tnan", "1\tmariadb\tcpu_s\t1e999", "1\tmariadb\tcpu_s\t-1",
     "1e99\tmariadb\tcpu_s\t1", "1\tm\tcpu_s\t1\t2"],
)  # fmt: skip
def test_samples_that_nobody_writes_are_a_complaint_about_their_host(line: str) -> None:
    said: list[str] = []
    results = {"site1-master-1": {"series": packed(f"{line}\n")}}
    assert probes.to_rows(HOSTS, ["series"], results, said.append) == {"series": []}
    assert len(said) == 1
    assert said[0].startswith("site1-master-1: what it measured can't be used: ")


def test_more_samples_than_a_table_has_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MOST_SAMPLES", 10)
    text = "".join(wire.line(at, "mariadb", "cpu_s", at) for at in range(25))
    said: list[str] = []
    results = {"site1-master-1": {"series": packed(text)}}
    rows = probes.to_rows(HOSTS, ["series"], results, said.append)["series"]
    assert [row["at"] for row in rows] == list(range(0, 25, 3))
    assert said == ["25 samples of the series, more than 10: one in 3 is kept"]


def test_rows_fit_the_table() -> None:
    text = "".join(wire.line(5.0, "x", metric, 1.5) for metric in wire.METRICS)
    rows = probes.to_rows(
        HOSTS, ["series"], {"site1-master-1": {"series": packed(text)}}, pytest.fail
    )["series"]
    assert len(rows) == len(wire.METRICS)
    assert [list(row) for row in rows] == [[c.name for c in store.TABLES["series"]]] * len(rows)
    store.tables.checked("series", rows)


# ---------------------------------------------------------------- what services count


def test_what_rome_counts_is_recorded_summed_up_and_becomes_counters() -> None:
    records: list[tuple[Any, ...]] = []

    class Kept:
        record = records.append

    driver: Any = ModuleType("rome.driver")
    driver.commit_observers = []
    (patch,) = inside.patches(Kept()).values()  # type: ignore[arg-type]
    patch(driver)
    (observer,) = driver.commit_observers
    for outcome in ((1, 0, 0), (1, 0, 2), (0, 1, 3)):
        observer(*outcome)
    text = lines.encode(records, 100.0, 101.0)
    assert text.count("\n") == 3, "summed up by metric"
    later = lines.encode([(lines.COUNT, "rome_commits", 5)], 103.0, 104.0)
    other = lines.encode([(lines.COUNT, "rome_commits", 10)], 103.0, 104.0)
    said = {
        "site1-master-1": {
            "records": packed(f"@\tnova-api\t7\n{text}{later}@\tnova-api\t8\n{other}")
        }
    }
    rows = probes.to_rows(HOSTS, ["series"], said, pytest.fail, (100.0, 105.0), 2.0)["series"]
    commits = [(row["at"], row["value"]) for row in rows if row["metric"] == "rome_commits"]
    assert commits == [(100.0, 0), (102.0, 2), (104.0, 17), (105.0, 17)]
    assert {row["service"] for row in rows} == {"nova-api"}
    last = {row["metric"]: row["value"] for row in rows}
    assert last == {"rome_commits": 17, "rome_conflicts": 1, "rome_retries": 5}


def test_what_was_counted_beyond_the_window_is_in_its_ends() -> None:
    def increment(at: float) -> wire.Row:
        return wire.row(PLACE, at, "nova-api", "rome_commits", 1.0)

    rows = list(wire.added([increment(at) for at in (-1e15, 99.0, 1e15)], 100.0, 104.0, 2.0))
    assert [(row["at"], row["value"]) for row in rows] == [(100.0, 0), (102.0, 2), (104.0, 3)]
    assert list(wire.added([], 100.0, 104.0, 2.0)) == []


@pytest.mark.parametrize(
    "line", ["v\t1\t2\tcpu_s\t1", "v\t1\t2\trome_commits\t-1", "v\t1\tx\trome_commits\t1",
             "v\t1\t2\trome_commits"],
)  # fmt: skip
def test_counts_that_no_probe_writes_are_a_complaint(line: str) -> None:
    said: list[str] = []
    results = {"site1-master-1": {"records": packed(f"@\tnova-api\t7\n{line}\n")}}
    assert probes.to_rows(HOSTS, ["series"], results, said.append) == {"series": []}
    assert len(said) == 1


def test_only_services_with_rome_have_a_probe_of_it_inside() -> None:
    mysql = make_plan(derive_topology(2, "10ms"), "two", cloud=True)
    told = probes._variables(mysql, ["series"])["xp_probes"]
    assert not [each for units_ in told["units"].values() for each in units_.values()
                if each["probes"]]  # fmt: skip
    rome = make_plan(parse_topology("sites: [{name: a}]\nopenstack: {backend: rome}"), cloud=True)
    told = probes._variables(rome, ["series"])["xp_probes"]
    assert {unit for units_ in told["units"].values() for unit, each in units_.items()
            if each["probes"]} >= {"neutron-api", "keystone-api", "nova-conductor"}  # fmt: skip


# ---------------------------------------------------------------- control groups

V1 = """\
228 227 0:33 / /sys/fs/cgroup/devices ro,nosuid shared:54 - cgroup cgroup rw,devices
229 227 0:29 / /sys/fs/cgroup/cpu,cpuacct ro,nosuid shared:55 - cgroup cgroup rw,cpu,cpuacct
236 227 0:38 / /sys/fs/cgroup/unified rw,nosuid shared:62 - cgroup2 cgroup rw
237 227 0:37 / /sys/fs/cgroup/systemd rw,nosuid shared:63 - cgroup cgroup rw,name=systemd
"""
V2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_trees_of_control_groups_are_found_under_either_version() -> None:
    first = units.mounts(V1)
    assert first.unified == "/sys/fs/cgroup/unified"
    assert first.controllers["cpu"] == first.controllers["cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert first.controllers["name=systemd"] == "/sys/fs/cgroup/systemd"
    assert units.mounts(V2) == units.Mounts("/sys/fs/cgroup")
    assert units.mounts("") == units.Mounts()


def test_groups_of_a_process_are_read_by_controller() -> None:
    text = "9:name=systemd:/system.slice/a.service\n1:cpu,cpuacct:/x\n0::/system.slice/a.service\n"
    assert units.groups_of(text) == {
        "name=systemd": "/system.slice/a.service", "cpu": "/x", "cpuacct": "/x",
        "": "/system.slice/a.service",
    }  # fmt: skip


def test_throttling_is_in_seconds_under_either_version() -> None:
    first = "nr_periods 40\nnr_throttled 10\nthrottled_time 2500000000\nnr_bursts 0\n"
    assert units.cpu_stat(first) == {
        "cpu_periods": 40, "throttled_periods": 10, "throttled_s": 2.5
    }  # fmt: skip
    second = "usage_usec 1500000\nuser_usec 1\nnr_periods 4\nnr_throttled 1\nthrottled_usec 250000"
    assert units.cpu_stat(second) == {
        "cpu_s": 1.5, "cpu_periods": 4, "throttled_periods": 1, "throttled_s": 0.25
    }  # fmt: skip
    assert units.cpu_stat("nonsense\n") == {}


def a_group(tree: Path, unit: str, pids: list[int], stat: str) -> str:
    folder = tree / "system.slice" / f"{unit}.service"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    (folder / "cpu.stat").write_text(stat)
    return f"/system.slice/{unit}.service"


def test_units_are_read_from_their_groups(tmp_path: Path) -> None:
    group = a_group(tmp_path, "mariadb", [os.getpid()], "usage_usec 2500000\n")
    there = units.Units({"mariadb": group, "stopped": ""}, units.Mounts(str(tmp_path)))
    found = {(unit, metric): value for unit, metric, value in there.readings()}
    assert found.keys() == {("mariadb", "cpu_s"), ("mariadb", "memory_bytes")}
    assert found["mariadb", "cpu_s"] == 2.5
    assert 2**20 < found["mariadb", "memory_bytes"] < 2**36


def test_a_limit_of_cpu_time_is_read_where_the_unit_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = "usage_usec 1\nnr_periods 8\nnr_throttled 2\nthrottled_usec 1000\n"
    group = a_group(tmp_path, "nova-api", [7], stat)
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.stat").write_text("nr_periods 9\nnr_throttled 3\nthrottled_time 0\n")
    read = units.read
    of_process = "0::/system.slice/nova-api.service\n"
    monkeypatch.setattr(
        units, "read", lambda path: of_process if path == "/proc/7/cgroup" else read(path)
    )
    own = units.Units({"nova-api": group}, units.Mounts(str(tmp_path)))
    assert ("nova-api", "throttled_periods", 2.0) in list(own.readings())
    # In version 1's tree the process is in the host's group: the host is throttled.
    of_process = f"1:cpu:/\n{of_process}"
    first = units.Mounts(str(tmp_path), {"cpu": str(tmp_path / "cpu")})
    whole = list(units.Units({"nova-api": group}, first).readings())
    assert ("host", "throttled_periods", 3.0) in whole
    assert not [each for each in whole if each[:2] == ("nova-api", "throttled_periods")]


def test_without_version_2_cpu_time_is_that_of_the_processes(tmp_path: Path) -> None:
    group = a_group(tmp_path, "x", [os.getpid(), 2**30], "")
    there = units.Units({"x": group}, units.Mounts("", {"name=systemd": str(tmp_path)}))
    ((_, metric, cpu_s), _) = there.readings()
    assert metric == "cpu_s"
    assert 0 < cpu_s <= time.process_time() + sum(os.times()[2:4]) + 1


# ---------------------------------------------------------------- sockets

TCP = b"""  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 0100000A:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   102        0 1
   1: 0100000A:0CEA 0200000A:D4F8 01 00000000:00000000 00:00000000 00000000   102        0 2
   2: 0100000A:0CEA 0300000A:D4F9 01 00000000:00000000 00:00000000 00000000   102        0 3
   3: 0100000A:0CEA 0300000A:D4FA 06 00000000:00000000 00:00000000 00000000   102        0 3
   4: 0100000A:D000 0300000A:0CEA 01 00000000:00000000 00:00000000 00000000   102        0 4
nonsense
"""
TCP6 = b"""  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:1628 00000000000000000000000000000000:0000 0A 0:0 0
   1: 0000000000000000FFFF00000100000A:1628 0000000000000000FFFF00000200000A:A000 01 0:0 0
"""


def test_connections_are_those_that_are_open_at_the_ports_of_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = {3306: "mysql", 5672: "amqp", 8774: "nova"}
    assert sockets.count(TCP, services) == {"mysql": 2, "amqp": 0, "nova": 0}
    (tmp_path / "tcp").write_bytes(TCP)
    (tmp_path / "tcp6").write_bytes(TCP6)
    paths = tuple(str(tmp_path / name) for name in ("tcp", "tcp6", "none"))
    monkeypatch.setattr(sockets, "FILES", paths)
    found = list(sockets.Connections(services).readings())
    assert found == [
        ("mysql", "connections", 2.0), ("amqp", "connections", 1.0), ("nova", "connections", 0.0)
    ]  # fmt: skip
    only_mysql = sockets.Connections({3306: "mysql"})
    assert only_mysql.files == [paths[0]], "nobody listens by IPv6"
    assert sockets.Connections({}).files == []


# ---------------------------------------------------------------- servers

STATUS = """Com_commit\t12
Com_rollback\t3
Innodb_deadlocks\t1
Innodb_row_lock_time\t2500
Innodb_row_lock_waits\t4
Questions\t99
Threads_connected\t7
Threads_running\t2
wsrep_cluster_size\t{size}
wsrep_local_cert_failures\t5
wsrep_flow_control_paused_ns\t1500000000"""


def test_mariadbs_status_is_read_and_galeras_where_it_runs() -> None:
    plain = servers.parse_status(STATUS.replace("{size}", "0").splitlines())
    assert plain == {
        "db_commits": 12, "db_rollbacks": 3, "db_deadlocks": 1, "db_row_lock_wait_s": 2.5,
        "db_row_lock_waits": 4, "db_questions": 99, "db_connections": 7, "db_threads_running": 2,
    }  # fmt: skip
    galera = servers.parse_status(STATUS.replace("{size}", "3").splitlines())
    assert galera["db_certification_failures"] == 5
    assert galera["db_flow_control_paused_s"] == 1.5
    with pytest.raises(ValueError, match="could not"):
        servers.parse_status(["Questions\tmany"])


def test_mariadbs_client_stays_and_is_started_anew_when_it_ended() -> None:
    there = servers.MariaDB("mariadb")
    program = (
        "import sys\n"
        "for number, _ in enumerate(sys.stdin):\n"
        "    print(f'Questions\\t{number}\\nend of status', flush=True)\n"
    )
    there.client.words = [sys.executable, "-c", program]
    try:
        assert list(there.readings()) == [("mariadb", "db_questions", 0.0)]
        assert list(there.readings()) == [("mariadb", "db_questions", 1.0)]
        assert there.client.process is not None
        there.client.process.kill()
        there.client.process.wait()
        assert list(there.readings()) == [("mariadb", "db_questions", 0.0)]
    finally:
        there.stop()
    there.client.words = ["false"]
    with pytest.raises(OSError, match=r"ended|Broken pipe"):
        list(there.readings())
    there.stop()


INFO = """# Clients\r
connected_clients:33\r
# Memory\r
used_memory:2537920\r
used_memory_human:2.42M\r
# Stats\r
total_commands_processed:15301\r
keyspace_hits:7498\r
keyspace_misses:2314\r
# Keyspace\r
db0:keys=467,expires=0,avg_ttl=0\r
db3:keys=3,expires=0,avg_ttl=0\r
"""


def test_redis_info_is_read() -> None:
    assert servers.parse_info(INFO) == {
        "redis_connections": 33, "redis_memory_bytes": 2537920, "redis_commands": 15301,
        "redis_hits": 7498, "redis_misses": 2314, "redis_keys": 470,
    }  # fmt: skip
    assert servers.parse_info("") == {}


def test_redis_port_and_password_are_in_its_configuration(tmp_path: Path) -> None:
    text = 'bind 10.0.0.1\nport 6380\nmasterauth "abc"\n'
    assert servers.login(text) == (6380, "abc")
    with pytest.raises(ValueError, match="no port and password"):
        servers.login("port 6379\n")
    with pytest.raises(OSError, match="redis-server"):
        list(servers.Redis("redis-server", str(tmp_path / "absent.conf")).readings())


def queue(name: str, ready: int, unacknowledged: int) -> str:
    return f"q {base64.b64encode(name.encode()).decode()} {ready} {unacknowledged}"


def test_queues_are_told_while_something_is_in_them() -> None:
    there = servers.RabbitMQ(5.0, 60.0)
    looks = [[("a", 0, 0), ("b", 2, 1)], [("a", 0, 0), ("b", 0, 0)], [("a", 0, 0), ("b", 0, 0)],
             [("a", 3, 0)]]  # fmt: skip
    printed = ["\n".join([*(queue(*each) for each in look), "end"]) for look in looks]
    printed[3] += "\n" + queue("a", 1, 1)  # of one that isn't through

    class Fake:
        def lines(self, _within_s: float) -> Iterator[str]:
            return iter(printed.pop(0).splitlines() if printed else [])

    there.client = Fake()  # type: ignore[assignment]
    every = list(there.readings())
    assert every[:4] == [("a", "queue_ready", 0.0), ("a", "queue_unacknowledged", 0.0),
                         ("b", "queue_ready", 2.0), ("b", "queue_unacknowledged", 1.0)]  # fmt: skip
    assert every[4:] == [(wire.ALL_QUEUES, "queue_ready", 2.0),
                         (wire.ALL_QUEUES, "queue_unacknowledged", 1.0)]  # fmt: skip
    assert [each[0] for each in there.readings()] == ["b", "b", *[wire.ALL_QUEUES] * 2]
    assert [each[0] for each in there.readings()] == [wire.ALL_QUEUES] * 2
    assert ("a", "queue_ready", 3.0) in list(there.readings())
    assert list(there.readings()) == [], "nothing was printed since"
    with pytest.raises(ValueError, match="is no queue"):
        servers.parse_queues(["Error: down"])


def test_the_broker_is_asked_for_a_bounded_time() -> None:
    words = servers.RabbitMQ(2.5, 100.0).client.words
    assert words[:3] == ["rabbitmqctl", "--quiet", "eval"]
    assert "timer:sleep(2500)" in words[3] and "Look(Look, 42)" in words[3]


# ---------------------------------------------------------------- the process


def test_counters_never_go_back() -> None:
    growing = sampler.Growing()
    values = [growing.value("x", "cpu_s", value) for value in (5.0, 7.0, 1.0, 2.0, 0.0)]
    assert values == [5.0, 7.0, 8.0, 9.0, 9.0]
    assert [growing.value("x", "connections", value) for value in (5.0, 1.0)] == [5.0, 1.0]


class Fixed:
    """A source that says this, or fails."""

    def __init__(self, *said: tuple[str, str, float] | Exception) -> None:
        self.said = said

    def readings(self) -> Iterator[tuple[str, str, float]]:
        for each in self.said:
            if isinstance(each, Exception):
                raise each
            yield each


def test_what_cant_be_read_is_left_out_and_noted(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "samples", os.O_WRONLY | os.O_CREAT)
    there = [Fixed(("a", "connections", 1.0), OSError("gone")), Fixed(("b", "load_1min", 0.25))]
    one = sampler.Sampler(there, descriptor)
    over = threading.Event()
    over.set()
    one.run(1.0, 60.0, over)
    rows = list(wire.parse((tmp_path / "samples").read_text(), PLACE))
    assert [(row["service"], row["value"]) for row in rows] == [("a", 1.0), ("b", 0.25)]
    assert one.problems == {"Fixed": "gone"}
    os.close(descriptor)


def test_sampling_is_bounded_in_time_and_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = os.open(tmp_path / "samples", os.O_WRONLY | os.O_CREAT)
    source = Fixed(("a", "connections", 1.0))
    sampler.Sampler([source], descriptor).run(0.001, 0.004, threading.Event())
    text = (tmp_path / "samples").read_text()
    assert text.count("\n") == 6, "five in its time, and one at its end"
    monkeypatch.setattr(sampler, "FILE_LIMIT", 50)
    full = sampler.Sampler([source], descriptor)
    full.run(0.001, 1e9, threading.Event())
    assert full.written <= 50
    os.close(descriptor)


def test_a_host_samples_what_its_units_are() -> None:
    spec = sampler.Spec(
        5.0, 60.0, dict.fromkeys(("mariadb", "rabbitmq-server", "redis-server", "nova-api"), "/x"),
        {"redis-server": "/etc/redis.conf"}, "/nowhere",
    )  # fmt: skip
    assert sampler.Spec.from_json(json.loads(json.dumps(vars(spec)))) == spec
    kinds = {type(source).__name__ for source in sampler.sources(spec)}
    assert kinds == {"Units", "Connections", "Load", "MariaDB", "RabbitMQ", "Redis", "OwnCost"}
    compute = sampler.sources(sampler.Spec(5.0, 60.0, {"nova-compute": "/x"}, {}, "/nowhere"))
    assert [type(source).__name__ for source in compute] == [
        "Units", "Connections", "Load", "OwnCost"
    ]  # fmt: skip
    assert compute[1].files == [], "no port, no table of sockets"  # type: ignore[attr-defined]


def test_what_the_sampler_imports_is_laid_down() -> None:
    package = Path(catalogue.__file__).parent
    own = {
        f"discovery_xp/onhost/{path.relative_to(package)}"
        for path in (package / "probes/series").glob("*.py")
    }
    code = probes._code()
    assert own <= code.keys()


# ---------------------------------------------------------------- a window


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What systemd was asked."""
    said: list[str] = []
    monkeypatch.setattr(places, "RECORDS", str(tmp_path))
    monkeypatch.setattr(control, "FOLDER", str(tmp_path / "series"))
    monkeypatch.setattr(control, "SAMPLES", str(tmp_path / "series/samples"))
    monkeypatch.setattr(systemd, "show", lambda names: {
        name: {"ControlGroup": f"/system.slice/{name}.service"} for name in names})  # fmt: skip

    def run(words: list[str]) -> str:
        said.append(" ".join(words))
        return ""

    monkeypatch.setattr(control, "run", run)
    monkeypatch.setattr(control, "succeeds", lambda words: run(words) == "")
    return said


ARGS = {"wanted": ["series"], "units": {"mariadb": {"probes": [], "port": None}},
        "since": 0.0, "until": 1.0, "every_s": 5.0, "longest_s": 3600.0}  # fmt: skip


def test_a_window_starts_the_sampler_and_stops_it(asked: list[str], tmp_path: Path) -> None:
    assert window.start(ARGS) == {}
    (started,) = [line for line in asked if line.startswith("systemd-run")]
    assert f"--unit={control.UNIT}" in started and "RuntimeMaxSec=3660" in started
    spec = sampler.Spec.from_json(json.loads((tmp_path / "series/spec.json").read_text()))
    assert (spec.every_s, spec.groups) == (5.0, {"mariadb": "/system.slice/mariadb.service"})
    asked.clear()
    (tmp_path / "series/samples").write_text(wire.line(1.0, "mariadb", "cpu_s", 2.0))
    (tmp_path / "series/samples.problems").write_text("MariaDB: it is down\n")
    window.stop(ARGS)
    assert asked[0] == f"systemctl stop {control.UNIT}"
    said = window.collect(ARGS)
    text = gzip.decompress(base64.b64decode(said["series"])).decode()
    assert text == wire.line(1.0, "mariadb", "cpu_s", 2.0)
    assert said["problems"] == ["series: MariaDB: it is down"]


def test_a_window_without_samples_says_so(asked: list[str]) -> None:
    assert window.collect(ARGS)["problems"] == ["the series weren't sampled here"]
    other = {**ARGS, "wanted": ["usage"], "units": {}}
    window.start(other)
    assert not [line for line in asked if line.startswith("systemd-run")]
    assert asked[0] == f"systemctl stop {control.UNIT}", "an earlier one's doesn't go on"
