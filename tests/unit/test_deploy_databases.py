"""What the playbooks are told of databases, and what becomes of a cloud whose databases move."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from discovery_xp import software
from discovery_xp.deployment import deploy, variables
from discovery_xp.deployment.variables import PlayVariables, RomeVariables, Secrets, play_variables
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.onhost import catalogue
from discovery_xp.planning import databases
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.providers import static
from discovery_xp.testbeds import passwords
from discovery_xp.testbeds.hosts import Hosts
from discovery_xp.testbeds.testbed import Testbed


def plan_of(openstack: str, data: int = 0, provider: str = "") -> Plan:
    text = f"name: mine\nsites: [{{name: a, data: {data}}}]\nopenstack: {{{openstack}}}\n"
    return make_plan(parse_topology(text + provider), cloud=True)


ROME = RomeVariables("0123", "/x/y.whl")
STATIC = "provider: {type: static, hosts: {a: [%s]}}\n"


def on_static_hosts(openstack: str, data: int = 0) -> Plan:
    addresses = ", ".join(f"192.0.2.{number}" for number in range(1, 4 + data))
    return plan_of(openstack, data, STATIC % addresses)


@pytest.fixture
def testbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Testbed:
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path))
    made = Testbed("mine")
    made.folder.mkdir(parents=True)
    made.write_ssh_config({}, check_keys="no")
    return made


@pytest.fixture
def told(testbed: Testbed, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PlayVariables]:
    monkeypatch.setattr(variables, "_rome", lambda: ROME)

    def tell(openstack: str, data: int = 0) -> PlayVariables:
        plan = on_static_hosts(openstack, data)
        return play_variables(static.hosts(plan, testbed), testbed)

    return tell


def test_with_mariadb_nothing_of_redis_is_told(told: Callable[..., PlayVariables]) -> None:
    cloud = told("backend: mysql").cloud
    assert (cloud.redis, cloud.rome, cloud.cell0_template) == (None, None, "")
    (by_owner,) = cloud.mariadb_by_host.values()
    assert by_owner["nova"] == ("nova", "nova_api", "nova_cell0")
    # Results with other keys than these count as those of another cloud.
    assert set(cloud.options) == {
        "backend", "placement", "periodic_tasks", "virt_driver", "nics", "workers", "config",
        "drawn_from",
    }  # fmt: skip


def test_what_holds_what_is_part_of_the_clouds_description(
    told: Callable[..., PlayVariables],
) -> None:
    options = told("backend: rome, rome: {replicas: 1}", data=4).cloud.options
    told_of_rome = {"store": "cluster", "persistence": "everysec", "replicas": 1, "table_lease": 0}
    assert options["rome"] == told_of_rome
    assert options["databases"] == dict.fromkeys(databases.OWNERS, "rome")
    assert (options["nodes"], options["replicas"]) == (4, 1)
    options = told("backend: rome", data=2).cloud.options
    assert (options["rome"]["store"], options["nodes"], options["replicas"]) == ("server", 1, 0)
    assert told("backend: rome").cloud.mariadb_by_host == {}


def test_redis_gets_its_passwords_as_hashes_and_nodes_by_host(
    told: Callable[..., PlayVariables], testbed: Testbed
) -> None:
    known = told("backend: rome, rome: {replicas: 1, persistence: always}", data=3)
    redis, secrets = known.cloud.redis, passwords.load(testbed)
    assert redis is not None
    assert known.secrets.redis_user_hash == hashlib.sha256(secrets["database"].encode()).hexdigest()
    assert known.secrets.redis_admin_hash == hashlib.sha256(secrets["redis"].encode()).hexdigest()
    assert (redis.kind, redis.persistence, redis.user) == ("cluster", "always", "rome")
    assert list(redis.by_host) == ["a-data-1", "a-data-2", "a-data-3"]
    assert [(node.unit, node.port) for node in redis.by_host["a-data-2"]] == [
        ("redis-server", 6379),
        ("redis-replica-1", 6380),
    ]
    assert redis.by_host["a-data-2"][0].address == "192.0.2.5"


@pytest.mark.parametrize("backend", ["mysql", "rome"])
def test_what_is_printed_and_saved_holds_no_secret(
    backend: str, told: Callable[..., PlayVariables], testbed: Testbed
) -> None:
    known = told(f"backend: {backend}", data=3)
    secrets = passwords.load(testbed)
    assert set(known.to_ansible()) == {"xp", "xp_secrets"}
    for text in (json.dumps(known.cloud.to_json()), repr(known), str(known.secrets)):
        assert not any(secret in text for secret in secrets.values())
    assert all(secret in json.dumps(known.to_ansible()) for secret in secrets.values())


def test_servers_are_installed_where_they_run(told: Callable[..., PlayVariables]) -> None:
    def packages_of(openstack: str) -> dict[str, list[str]]:
        hosts = told(openstack, data=1).cloud.hosts
        return {name: list(host.packages) for name, host in hosts.items()}

    packages = packages_of("backend: rome")
    assert {host: "redis-server" in names for host, names in packages.items()} == {
        "a-master-1": False,
        "a-controller-1": False,
        "a-compute-1": False,
        "a-data-1": True,
    }
    assert not any("mariadb" in package for names in packages.values() for package in names)
    assert packages["a-compute-1"] == ["python3-venv", "nftables"]
    assert packages["a-data-1"] == ["python3-venv", "nftables", "redis-server"]
    packages = packages_of("backend: mysql")
    assert not any("redis-server" in names for names in packages.values())
    assert {"mariadb-server", "rabbitmq-server", "memcached", "python3-venv"} <= set(
        packages["a-master-1"]
    )
    locked = {*software.EVERYWHERE, *catalogue.DEBIAN_PACKAGES.values()}
    assert set(software.debian_packages()) == locked, "each is installed somewhere"


# ---------------------------------------------------------------- databases that move


class Removals:
    """In the place of `deploy.remove`: counts, and forgets the passwords as that does."""

    def __init__(self, testbed: Testbed) -> None:
        self.testbed = testbed
        self.count = 0

    def __call__(self, hosts: Hosts, testbed: Testbed, progress: object) -> None:
        self.count += 1
        deploy.databases_file(testbed).unlink(missing_ok=True)
        passwords.forget(testbed)


@pytest.fixture
def removals(testbed: Testbed, monkeypatch: pytest.MonkeyPatch) -> Removals:
    made = Removals(testbed)
    monkeypatch.setattr(deploy, "remove", made)
    monkeypatch.setattr(variables, "_rome", lambda: ROME)
    return made


def settle(testbed: Testbed, openstack: str, data: int = 3) -> Secrets:
    """Do what `install` does before it installs; returns the secrets that it goes on with."""
    hosts = static.hosts(on_static_hosts(openstack, data), testbed)
    deploy.remove_other_databases(hosts, testbed, lambda *_: None)
    return play_variables(hosts, testbed).secrets


SAME = [
    ("backend: mysql", "backend: mysql, nics: 1, rome: {replicas: 1}"),
    ("backend: rome", "backend: rome, rome: {store: cluster, persistence: always}"),
]
OTHER = [
    ("backend: mysql", "backend: rome"),
    ("backend: rome", "backend: mysql"),
    ("backend: rome", "backend: rome, rome: {store: server}"),
    ("backend: rome", "backend: rome, rome: {replicas: 1}"),
    ("backend: rome, rome: {persistence: none}", "backend: rome"),
    ("backend: rome", "backend: rome, rome: {persistence: none}"),
    ("backend: rome", "backend: rome, rome: {store: servers}"),
    ("backend: rome, rome: {store: server}", "backend: rome, rome: {store: servers}"),
]


def test_neutrons_database_goes_from_where_earlier_versions_had_it(
    testbed: Testbed, removals: Removals
) -> None:
    """With this back end it was on MariaDB: Neutron mustn't start on an empty one beside it."""
    first = settle(testbed, "backend: rome")
    note = json.loads(deploy.databases_file(testbed).read_text())
    note["holders"]["neutron"] = "mysql"
    deploy.databases_file(testbed).write_text(json.dumps(note))
    assert settle(testbed, "backend: rome").passwords != first.passwords
    assert removals.count == 1


@pytest.mark.parametrize(("before", "after"), SAME)
def test_a_cloud_whose_databases_stay_is_left_alone(
    testbed: Testbed, removals: Removals, before: str, after: str
) -> None:
    first = settle(testbed, before)
    assert settle(testbed, after).passwords == first.passwords
    assert removals.count == 0


@pytest.mark.parametrize(("before", "after"), OTHER)
def test_a_cloud_whose_databases_move_goes_first_and_its_passwords_with_it(
    testbed: Testbed, removals: Removals, before: str, after: str
) -> None:
    first = settle(testbed, before)
    secrets = settle(testbed, after)
    assert removals.count == 1
    assert secrets.passwords == passwords.load(testbed) != first.passwords
    settle(testbed, after)
    assert removals.count == 1, "once is enough"


# ---------------------------------------------------------------- every pair of back end and layout

THREE_SITES = """name: mine
sites: [{name: a, data: 1}, {name: b, data: 1}, {name: c, data: 1}]
openstack: {%s}
provider:
  type: static
  hosts:
    a: [192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4]
    b: [192.0.2.5, 192.0.2.6, 192.0.2.7]
    c: [192.0.2.8, 192.0.2.9, 192.0.2.10]
"""
CLOUDS = [
    f"backend: {backend}, layout: {layout}"
    for backend in ("mysql", "galera", "rome")
    for layout in ("shared", "cells")
]
# Where the same processes would hold other databases.
CLOUDS += [
    f"backend: rome, layout: {layout}, rome: {{store: {store}}}"
    for layout in ("shared", "cells")
    for store in ("server", "servers")
]
# Of each back end: what an option changes on a cloud that stays.
OPTIONS = [
    ("backend: mysql", "nics: 1"),
    ("backend: galera", "galera: {writers: one}"),
    ("backend: galera", "galera: {sync_wait: 0}"),
    ("backend: galera", "galera: {segments: false}"),
    ("backend: galera", "galera: {isolation: repeatable-read}"),
    ("backend: rome", "rome: {persistence: always}"),
    ("backend: rome, layout: cells", "placement: availability-zones"),
]


def settle_on_sites(testbed: Testbed, openstack: str) -> None:
    """Do what `install` does first, on three sites with a data host each."""
    plan = make_plan(parse_topology(THREE_SITES % openstack), cloud=True)
    deploy.remove_other_databases(static.hosts(plan, testbed), testbed, lambda *_: None)


@pytest.mark.parametrize("before", CLOUDS)
@pytest.mark.parametrize("after", CLOUDS)
def test_another_back_end_or_layout_takes_the_cloud_off_first(
    testbed: Testbed, removals: Removals, before: str, after: str
) -> None:
    settle_on_sites(testbed, before)
    settle_on_sites(testbed, after)
    assert removals.count == (before != after)
    settle_on_sites(testbed, before)
    assert removals.count == 2 * (before != after), "the way back is one, too"


@pytest.mark.parametrize(("cloud", "option"), OPTIONS)
def test_options_that_leave_databases_where_they_are_change_the_cloud_that_is_there(
    testbed: Testbed, removals: Removals, cloud: str, option: str
) -> None:
    settle_on_sites(testbed, cloud)
    settle_on_sites(testbed, f"{cloud}, {option}")
    assert removals.count == 0


def test_a_run_that_was_killed_while_the_cloud_went_takes_it_off_again(
    testbed: Testbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    settle_on_sites(testbed, "backend: galera")
    monkeypatch.setattr(deploy, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        settle_on_sites(testbed, "backend: mysql")
    again = Removals(testbed)
    monkeypatch.setattr(deploy, "remove", again)
    settle_on_sites(testbed, "backend: mysql")
    assert again.count == 1


def test_a_damaged_note_counts_as_another_one(testbed: Testbed, removals: Removals) -> None:
    settle(testbed, "backend: mysql")
    deploy.databases_file(testbed).write_text("{")
    settle(testbed, "backend: mysql")
    assert removals.count == 1
