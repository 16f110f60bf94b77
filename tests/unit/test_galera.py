"""Galera: where it runs, what its files say, which node starts the cluster, who takes clients."""

import dataclasses
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from discovery_xp import probes
from discovery_xp.deployment import galera as files
from discovery_xp.deployment.status import NodeStatus, read_status
from discovery_xp.errors import InvalidInput
from discovery_xp.inputs.topology import Galera, parse_topology
from discovery_xp.onhost import catalogue, galera_check, galera_data, systemd
from discovery_xp.onhost import galera as node
from discovery_xp.onhost import galera_positions as positions
from discovery_xp.onhost.process import Failure
from discovery_xp.planning import galera, layout_checks
from discovery_xp.planning.galera import GaleraLayout
from discovery_xp.planning.layout import CloudLayout, service
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.planning.plan_json import plan_from_json

TWO = "sites: [{name: a, count: 2, data: 1}]\n"
UNEVEN = """
sites: [{name: a, data: 1}, {name: b, data: 1}, {name: c, data: 1}]
network:
  links: [{between: [a, b], delay: 50ms}, {between: [a, c], delay: 10ms, jitter: 2ms},
          {between: [b, c], delay: 30ms}]
"""


def plan_of(text: str, options: str = "") -> Plan:
    return make_plan(
        parse_topology(f"{text}openstack: {{backend: galera, galera: {{{options}}}}}"), cloud=True
    )


def galera_of(text: str, options: str = "") -> GaleraLayout:
    layout = plan_of(text, options).require_cloud().galera
    assert layout is not None
    return layout


def nodes_of(text: str) -> list[str]:
    return [each.host for each in plan_of(text).require_cloud().stores[0].nodes]


# ---------------------------------------------------------------- where it runs


def test_each_site_has_a_node_on_its_first_data_host() -> None:
    assert nodes_of("sites: [{name: a, count: 3, data: 2}]\n") == [
        "a1-data-1",
        "a2-data-1",
        "a3-data-1",
    ]


def test_a_site_without_data_hosts_has_its_node_on_its_controller_or_none() -> None:
    sites = "sites: [{name: a}, {name: b, data: 1}, {name: c, controllers: 0}]\n"
    assert nodes_of(sites) == ["a-controller-1", "b-data-1"]


def test_the_node_of_the_masters_site_comes_first() -> None:
    assert nodes_of(f"{TWO}master: a2\n") == ["a2-data-1", "a1-data-1"]


def test_each_data_host_may_be_a_node_and_hosts_begin_with_different_ones() -> None:
    sites = "sites: [{name: a, data: 4, controllers: 2}, {name: b}]\n"
    assert nodes_of(sites) == ["a-data-1", "b-controller-1"]
    every = galera_of(sites, "nodes: data")
    nodes = ["a-data-1", "a-data-2", "a-data-3", "a-data-4", "b-controller-1"]
    assert sorted(every.segments) == nodes
    firsts = {host: order[0] for host, order in every.proxies.items()}
    assert firsts == {
        "a-master-1": "a-data-1",
        "a-controller-1": "a-data-2",
        "a-controller-2": "a-data-3",
        "b-controller-1": "b-controller-1",
    }
    assert all(sorted(order) == nodes for order in every.proxies.values())
    one = galera_of(sites, "nodes: data, writers: one")
    assert {order[0] for order in one.proxies.values()} == {"a-data-1"}


@pytest.mark.parametrize(
    ("sites", "arbitrator"),
    [
        ("sites: [{name: a, data: 1}]\n", None),
        (TWO, "a1-master-1"),
        ("sites: [{name: a, count: 3, data: 1}]\n", None),
        (f"{TWO}master: a2\n", "a2-master-1"),
        # The master has a node: another host of its site has the vote.
        ("sites: [{name: a, count: 2}]\nmaster: none\n", "a1-compute-1"),
    ],
)
def test_an_even_number_of_nodes_gets_an_arbitrator_apart_from_them(
    sites: str, arbitrator: str | None
) -> None:
    assert galera_of(sites).arbitrator == arbitrator


def test_services_ask_their_own_sites_node_then_the_nearest() -> None:
    assert galera_of(UNEVEN).proxies == {
        "a-master-1": ("a-data-1", "c-data-1", "b-data-1"),
        "a-controller-1": ("a-data-1", "c-data-1", "b-data-1"),
        "b-controller-1": ("b-data-1", "c-data-1", "a-data-1"),
        "c-controller-1": ("c-data-1", "a-data-1", "b-data-1"),
    }


def test_with_one_writer_all_ask_the_nodes_in_the_same_order() -> None:
    orders = set(galera_of(UNEVEN, "writers: one").proxies.values())
    assert orders == {("a-data-1", "b-data-1", "c-data-1")}
    asked = probes.proxied_nodes(plan_of(UNEVEN, "writers: one"))
    assert asked["c-controller-1"] == "a-data-1", "where its statements cross to"


def test_each_site_is_a_segment_its_arbitrator_included() -> None:
    assert galera_of(TWO).segments == {"a1-data-1": 0, "a2-data-1": 1, "a1-master-1": 0}
    assert {*galera_of(TWO, "segments: false").segments.values()} == {0}


def test_timeouts_follow_the_longest_round_trip_and_the_time_scale() -> None:
    assert galera_of(UNEVEN).longest_rtt_ms == 100.0
    near, far = galera.timeouts(0.0), galera.timeouts(300.0)
    assert (near.suspect_s, far.suspect_s) == (10.0, 30.0)
    for each in (near, far):
        assert each.keepalive_s < each.suspect_s < each.install_s < each.inactive_s
        assert each.retransmit_s > 0
    slow = dataclasses.asdict(galera.timeouts(300.0, 4.0))
    assert slow == {name: 4 * value for name, value in dataclasses.asdict(far).items()}


def test_a_plan_survives_json_and_one_that_was_tampered_with_does_not() -> None:
    plan = plan_of(TWO)
    stored = json.loads(json.dumps(plan.to_json()))
    assert plan_from_json(stored) == plan
    layout = plan.require_cloud()
    assert layout.galera is not None
    changes: list[dict[str, Any]] = [
        {"arbitrator": "a2-master-1"},
        {"arbitrator": None},
        {"segments": {**layout.galera.segments, "a1-data-1": 256}},
        {"proxies": {"a1-master-1": ("a1-data-1",)}},
        {"proxies": {"a1-compute-1": ("a1-data-1", "a2-data-1")}},
        {"timeouts": dataclasses.replace(layout.galera.timeouts, suspect_s=0.0)},
        {"timeouts": dataclasses.replace(layout.galera.timeouts, suspect_s=float("nan"))},
    ]
    for change in changes:
        bad = dataclasses.replace(layout, galera=dataclasses.replace(layout.galera, **change))
        assert list(layout_checks.faults(bad, plan.hosts)), change
    assert list(layout_checks.faults(dataclasses.replace(layout, galera=None), plan.hosts))


# ---------------------------------------------------------------- topologies


def test_reads_wait_for_other_writers_unless_there_is_one() -> None:
    def options(text: str) -> Galera:
        return plan_of(TWO, text).require_cloud().options.galera

    assert options("") == Galera("all", 3, True)
    assert options("writers: one") == Galera("one", 0, True, "repeatable-read")
    assert options("writers: one, sync_wait: 1").sync_wait == 1
    assert options("isolation: repeatable-read") == Galera("all", 3, True, "repeatable-read")
    assert options("writers: one, isolation: read-committed").isolation == "read-committed"
    assert options("sync_wait: 0").sync_wait == 0


@pytest.mark.parametrize(
    ("openstack", "problem"),
    [
        ("{backend: galera, galera: {writers: two}}", "openstack.galera.writers: 'two'"),
        ("{backend: galera, galera: {sync_wait: 16}}", "openstack.galera.sync_wait: '16'"),
        ("{backend: galera, galera: {sync_wait: true}}", "openstack.galera.sync_wait: "),
        ("{backend: galera, galera: {segments: 2}}", "openstack.galera.segments: '2'"),
        ("{backend: galera, galera: {isolation: none}}", "openstack.galera.isolation: 'none'"),
        ("{backend: galera, galera: {nodes: 3}}", "openstack.galera.nodes: "),
        (
            "{galera: {writers: one}}",
            "openstack.galera: options of Galera, but the back end is 'mysql'; "
            "write 'backend: galera', or leave 'galera' out",
        ),
        ("{backend: rome, galera: {writers: one}}", "but the back end is 'rome'"),
    ],
)
def test_bad_options_are_refused_with_a_remedy(openstack: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(problem)):
        parse_topology(f"{TWO}openstack: {openstack}")


def test_options_of_galera_are_written_to_files_of_its_clouds_alone() -> None:
    other = parse_topology(TWO)
    assert "galera" not in other.to_yaml()
    own = parse_topology(f"{TWO}openstack: {{backend: galera, galera: {{sync_wait: 1}}}}")
    assert parse_topology(own.to_yaml()).openstack == own.openstack


# ---------------------------------------------------------------- files


def variables_of(layout: CloudLayout) -> files.GaleraVariables:
    hosts = {each.host for each in layout.services}
    addresses = {name: f"10.0.0.{place}" for place, name in enumerate(sorted(hosts), 1)}
    found = files.galera_variables("mine", layout, addresses)
    assert found is not None
    return found


def test_a_nodes_settings_name_all_nodes_and_its_own_address() -> None:
    found = variables_of(plan_of(TWO, "sync_wait: 1").require_cloud())
    own = found.by_host["a2-data-1"]
    settings = own.settings["mysqld"]
    assert settings["wsrep_node_address"] == own.address
    assert (settings["wsrep_sync_wait"], settings["transaction_isolation"]) == (
        1, "READ-COMMITTED",
    )  # fmt: skip
    assert settings["wsrep_cluster_address"] == "gcomm://" + ",".join(
        f"{each.address}:{catalogue.GALERA_PORT}" for each in found.nodes
    )
    options = str(settings["wsrep_provider_options"]).split("; ")
    assert f"gmcast.listen_addr=tcp://{own.address}:{catalogue.GALERA_PORT}" in options
    assert {"gmcast.segment=1", "evs.suspect_timeout=PT10S"} <= set(options)
    assert own.settings["sst"] == {"sockopt": f",bind={own.address}"}, "it listens nowhere else"
    assert (found.members, found.arbitrator_host) == (3, "a1-master-1")
    assert found.arbitrator is not None
    assert "gcache" not in found.arbitrator


def test_no_password_is_in_what_is_told_and_kept() -> None:
    told = json.dumps(dataclasses.asdict(variables_of(plan_of(TWO).require_cloud())))
    assert re.findall(r'"wsrep_sst_auth": "([^"]*)"', told) == ["mysql:"] * 4


def test_a_proxy_asks_the_first_node_and_the_others_in_its_place() -> None:
    text = files.proxy([("near", "10.0.0.1"), ("far", "10.0.0.2")], galera.timeouts(100.0))
    lines = [line.strip() for line in text.splitlines()]
    nodes, donors = lines.index("backend nodes"), lines.index("backend donors")
    assert lines[nodes + 1 : donors - 1] == [
        "option httpchk GET /",
        "server near 10.0.0.1:3306 check on-marked-up shutdown-backup-sessions",
        "server far 10.0.0.2:3306 check backup",
    ]
    assert lines[donors + 1 :] == [
        "option httpchk GET /donor",
        "server near 10.0.0.1:3306 check",
        "server far 10.0.0.2:3306 check backup",
    ]
    assert f"bind 127.0.0.1:{catalogue.DATABASE_PROXY_PORT}" in lines
    assert "on-marked-down shutdown-sessions" in text


# ---------------------------------------------------------------- who starts the cluster

A, B = "6b8a1c3e-0000-11f1-8000-000000000001", "6b8a1c3e-0000-11f1-8000-000000000002"


def seen(
    host: str, state: str, uuid: str = positions.NOBODY, seqno: int = -1, problem: str = ""
) -> Any:
    return {"host": host, "state": state, "uuid": uuid, "seqno": seqno, "problem": problem}


def doubtful(host: str, seqno: int) -> Any:
    return {**seen(host, STOPPED, A, seqno), "doubtful": True}


STOPPED, PRIMARY = positions.STOPPED, positions.PRIMARY


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ([seen("a", STOPPED), seen("b", STOPPED)], "a"),
        ([seen("a", STOPPED, A, 7), seen("b", STOPPED, A, 9)], "b"),
        ([seen("a", STOPPED, A, 9), seen("b", STOPPED, A, 9)], "a"),
        ([seen("a", STOPPED), seen("b", STOPPED, A, 0)], "b"),  # the first one's disk is new
        ([seen("a", STOPPED, problem="broken"), seen("b", STOPPED, A, 3)], "b"),
        # The first one left as inconsistent; then all failed to start.
        ([doubtful("a", 9), seen("b", STOPPED, A, 7)], "b"),
        ([doubtful("a", 7), doubtful("b", 9)], "b"),
        ([seen("a", STOPPED, A, 99), seen("b", PRIMARY, A, 3)], None),
        ([seen("a", PRIMARY, A, 99), seen("b", PRIMARY, A, 3)], None),
    ],
)
def test_the_most_advanced_node_starts_a_cluster_where_there_is_none(
    nodes: list[Any], host: str | None
) -> None:
    assert positions.starter(nodes) == host


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([seen("a", PRIMARY, A, 1), seen("b", PRIMARY, B, 1)], "a, b are in different clusters"),
        ([seen("a", STOPPED, A, 1), seen("b", STOPPED, B, 1)], "a, b have data of different"),
        ([seen("a", STOPPED, problem="no space")], "a: no space"),
        ([seen("a", STOPPED), seen("b", STOPPED, problem="no space")], "b: no space"),
    ],
)
def test_no_cluster_is_started_where_data_might_be_lost(nodes: list[Any], words: str) -> None:
    with pytest.raises(Failure, match=re.escape(words)):
        positions.starter(nodes)


GRASTATE = f"""# GALERA saved state
version: 2.1
uuid:    {A}
seqno:   -1
safe_to_bootstrap: 0
"""


def test_positions_are_read_as_nodes_write_them() -> None:
    assert positions.read_grastate(GRASTATE) == positions.Position(A, -1)
    assert positions.read_grastate(GRASTATE.replace("   -1", "   41")) == positions.Position(A, 41)
    assert positions.read_grastate("") == positions.Position()
    assert positions.read_grastate("uuid: x\nseqno: many\n") == positions.Position()
    log = f"[Note] WSREP: Recovered position: {A}:12\n[Note] WSREP: Recovered position: {A}:34\n"
    assert positions.read_recovered(log) == positions.Position(A, 34)
    assert positions.read_recovered("[ERROR] InnoDB: no space") is None
    assert "safe_to_bootstrap: 1\n" in positions.made_safe(GRASTATE)


@pytest.mark.parametrize(
    ("noted", "found", "position"),
    [
        (f"uuid: {A}\nseqno: 7\n", None, positions.Position(A, 7)),  # it stopped
        (
            f"uuid: {A}\nseqno: -1\n",
            positions.Position(A, 9),
            positions.Position(A, 9),
        ),  # it was killed
        # It was killed as it first started.
        (f"uuid: {positions.NOBODY}\nseqno: -1\n", positions.Position(), positions.Position()),
    ],
)
def test_a_node_is_as_far_as_it_wrote_down_or_as_its_data_say(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    noted: str,
    found: positions.Position | None,
    position: positions.Position,
) -> None:
    monkeypatch.setattr(galera_data, "DATA", str(tmp_path))
    monkeypatch.setattr(galera_data, "_recover", lambda: found)
    assert galera_data.recovered() == positions.Position(), "an empty folder"
    (tmp_path / "mysql").mkdir()
    assert galera_data.recovered() == positions.Position(), "a server that never was a node"
    (tmp_path / "grastate.dat").write_text(noted)
    assert galera_data.recovered() == position


def test_data_that_galera_does_not_trust_are_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galera_data, "DATA", str(tmp_path))
    monkeypatch.setattr(galera_data, "_recover", lambda: positions.Position(A, 1747))
    (tmp_path / "mysql").mkdir()
    (tmp_path / "grastate.dat").write_text(f"uuid: {positions.NOBODY}\nseqno: -1\n")
    assert galera_data.recovered() == positions.Position(A, 1747, doubtful=True)


class Host:
    """In the place of a host with a node: what systemd and MariaDB say, what is asked of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state: str, status: Mapping[str, str]):
        self.words: list[list[str]] = []
        monkeypatch.setattr(systemd, "show", lambda _units: {"mariadb": {"ActiveState": state}})
        monkeypatch.setattr(node, "status", lambda: dict(status))
        monkeypatch.setattr(node, "run", self.run)
        monkeypatch.setattr(galera_data, "recovered", lambda: positions.Position(A, 5))

    def run(self, words: list[str], **_options: object) -> str:
        self.words.append(words)
        return ""


def test_a_node_without_a_quorum_is_stopped_before_another_cluster_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host(monkeypatch, "active", {"wsrep_cluster_status": "non-Primary"})
    found = node.look({"host": "a"})
    assert found["state"] == positions.APART
    located = node.locate({"host": "a", "seen": [found], "timeout_s": 9})
    assert host.words == [["systemctl", "stop", "mariadb"]]
    assert (located["state"], located["seqno"], located["changed"]) == (STOPPED, 5, True)


def test_no_node_is_stopped_while_another_is_in_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, "activating", {})
    found = node.look({"host": "a"})
    others = [found, seen("b", PRIMARY, A, 9)]
    assert node.locate({"host": "a", "seen": others, "timeout_s": 9})["state"] == positions.APART
    assert host.words == []


def test_a_node_that_sees_the_others_says_how_many_members_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    well = {
        "wsrep_cluster_status": "Primary",
        "wsrep_local_state_comment": "Synced",
        "wsrep_cluster_size": "2",
    }
    Host(monkeypatch, "active", well)
    step = {"step": "agree", "host": "a", "size": 2, "timeout_s": 9}
    assert node.take(step) == {"members": 2}, "the arbitrator isn't among them"
    with pytest.raises(Failure, match="no step 'leave'"):
        node.take({"step": "leave"})


# ---------------------------------------------------------------- who takes clients


@pytest.mark.parametrize(
    ("status", "state", "ready", "takes", "as_donor"),
    [
        ("Primary", "Synced", "ON", True, True),
        ("Primary", "Donor/Desynced", "ON", False, True),
        ("Primary", "Joining", "ON", False, False),
        ("Primary", "Joined", "ON", False, False),
        ("Primary", "Synced", "OFF", False, False),
        ("non-Primary", "Initialized", "OFF", False, False),
        ("Disconnected", "Synced", "ON", False, False),
    ],
)
def test_a_node_takes_clients_once_it_has_all_and_a_quorum(
    status: str, state: str, ready: str, takes: bool, as_donor: bool
) -> None:
    values = {
        "wsrep_cluster_status": status,
        "wsrep_local_state_comment": state,
        "wsrep_ready": ready,
    }
    assert galera_check.takes_clients(values) is takes
    assert galera_check.takes_clients(values, with_donors=True) is as_donor


def test_nothing_is_heard_of_a_node_that_fell_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watch = galera_check.Watch()
    assert watch.values() == {}
    watch.hear({"wsrep_ready": "ON"})
    now = 100.0 + galera_check.VALID_S - 1
    assert watch.values() == {"wsrep_ready": "ON"}
    now += 2
    assert watch.values() == {}


def test_status_has_what_each_node_says_of_itself() -> None:
    unit = service("galera-check", "a", "a")
    values = {"wsrep_cluster_status": "Primary", "wsrep_cluster_size": "3"}
    said = "unit galera-check ActiveState=active NRestarts=0\nport galera-check HTTP/1.0 503\n"
    said += f"node {galera_check.described(values)}"
    (found,) = read_status({"a": [unit]}, {"a": said})
    assert found.node == NodeStatus("Primary", "unknown", 3)
    assert found.complaint == "active, but its node is Primary, unknown, 3 members"
    (silent,) = read_status({"a": [unit]}, {"a": said.split("node")[0] + "node nonsense"})
    assert silent.node is None


def test_a_long_name_of_a_testbed_makes_a_group_that_galera_takes() -> None:
    assert files.group_of("mine") == "discovery-xp-mine"
    assert files.group_of("n" * 19) == f"discovery-xp-{'n' * 19}"
    names = [files.group_of(f"back-ends-galera-{end}") for end in ("cells", "no-wait")]
    assert {len(name) for name in names} == {32}
    assert len(set(names)) == 2
