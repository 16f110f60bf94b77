import itertools
import json

import pytest

from discovery_xp.errors import InvalidInput, Refused
from discovery_xp.inputs.topology import derive_topology, parse_topology
from discovery_xp.planning import databases, layout_checks
from discovery_xp.planning.databases import Node, key_slot, slot_ranges, spread
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.planning.plan_json import plan_from_json

ALL = ["nova", "nova_api", "placement", "keystone", "neutron", "glance", "nova_cell0"]


def plan_of(text: str) -> Plan:
    return make_plan(parse_topology(text), cloud=True)


def plan_with(data: int, rome: str = "", more: str = "") -> Plan:
    """A site with everything, and so many data hosts."""
    return plan_of(
        f"sites: [{{name: a, data: {data}}}]\n"
        f"openstack: {{backend: rome, rome: {{{rome}}}}}\n{more}"
    )


def store_of(plan: Plan) -> databases.Store:
    found = plan.require_cloud().redis
    assert found is not None
    return found


# ---------------------------------------------------------------- what is held by what


def test_mariadb_holds_everything_unless_something_else_is_asked_for() -> None:
    cloud = plan_of("sites: [{name: a, data: 3}]").require_cloud()
    assert {database.backend for database in cloud.databases} == {"mysql"}
    assert (cloud.held_by("rome"), cloud.redis) == ([], None)
    assert make_plan(derive_topology(3)).cloud is None, "hosts alone have no database"


@pytest.mark.parametrize("data", [0, 1, 3])
@pytest.mark.parametrize("layout", ["shared", "cells"])
def test_rome_holds_everything_and_mariadb_is_on_no_host(data: int, layout: str) -> None:
    cloud = plan_of(
        f"sites: [{{name: s, count: 2, data: {data}}}]\n"
        f"openstack: {{backend: rome, layout: {layout}}}"
    ).require_cloud()
    assert cloud.held_by("rome") == list(databases.names_with(cloud.cells))
    assert cloud.held_by("mysql") == []
    assert {store.engine for store in cloud.stores} == {"redis"}
    assert "mariadb" not in {service.component for service in cloud.services}


# ---------------------------------------------------------------- where Redis runs


@pytest.mark.parametrize(("data", "host"), [(0, "a-master-1"), (1, "a-data-1"), (2, "a-data-1")])
def test_fewer_than_three_data_hosts_are_one_server(data: int, host: str) -> None:
    store = store_of(plan_with(data))
    assert (store.kind, store.nodes) == ("server", (Node(host, "redis-server", 6379),))
    assert {store.master_of(name).host for name in ALL} == {host}
    assert store.tags == {}


def test_the_server_is_at_the_masters_site_where_there_is_a_choice() -> None:
    sites = "sites: [{name: a, data: 1}, {name: b, data: 1}]\nopenstack: {backend: rome}\n"
    assert store_of(plan_of(sites)).nodes[0].host == "a-data-1"
    assert store_of(plan_of(f"{sites}master: b")).nodes[0].host == "b-data-1"
    far = "sites: [{name: a}, {name: b, data: 1}]\nopenstack: {backend: rome}"
    assert store_of(plan_of(far)).nodes[0].host == "b-data-1"


def test_a_cluster_has_a_master_on_each_data_host_with_its_share_of_the_slots() -> None:
    store = store_of(
        plan_of("sites: [{name: a, count: 4, data: 1}]\nopenstack: {backend: rome}\nmaster: a3")
    )
    assert store.kind == "cluster"
    assert [node.host for node in store.masters] == [f"a{n}-data-1" for n in (3, 1, 2, 4)]
    assert [node.slots for node in store.masters] == [
        (0, 4095), (4096, 8191), (8192, 12287), (12288, 16383)
    ]  # fmt: skip
    assert store.nodes == store.masters


def test_copies_are_on_other_hosts_than_what_they_copy() -> None:
    store = store_of(plan_with(4, "replicas: 2"))
    replicas = [node for node in store.nodes if node.copies]
    assert len(store.masters) == 4
    assert len(replicas) == 8
    assert all(node.host != node.copies for node in replicas)
    for master in store.masters:
        assert len({node.host for node in replicas if node.copies == master.host}) == 2
    assert len({(node.host, node.port) for node in store.nodes}) == 12
    assert len({(node.host, node.unit) for node in store.nodes}) == 12
    assert {node.unit: node.port for node in store.nodes} == {
        "redis-server": 6379,
        "redis-replica-1": 6380,
        "redis-replica-2": 6381,
    }


def test_one_server_may_be_asked_for_with_many_data_hosts() -> None:
    assert store_of(plan_with(5, "store: server")).kind == "server"


@pytest.mark.parametrize(
    ("data", "rome", "words"),
    [
        (2, "store: cluster", "a Redis Cluster needs 3 data nodes, and there are 2; write"),
        (0, "store: cluster", "and there are 0; write 'data: 1' for more sites, or"),
        (2, "store: cluster", "or 'rome: {store: servers}', a server on each"),
        (2, "store: servers, replicas: 1", "and these are servers; write 'store: cluster'"),
        (2, "replicas: 1", "is for a Redis Cluster, and this is one server, as 2 data nodes are;"),
        (5, "store: server, replicas: 2", "and this is one server; write 'store: cluster'"),
    ],
)
def test_what_the_hosts_are_too_few_for_is_refused_in_a_line(
    data: int, rome: str, words: str
) -> None:
    with pytest.raises(Refused) as caught:
        plan_with(data, rome)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_refused_for_a_cloud_is_no_hindrance_for_its_hosts() -> None:
    text = "sites: [{name: a}]\nopenstack: {backend: rome, rome: {store: cluster}}"
    assert make_plan(parse_topology(text)).cloud is None


def test_the_options_of_redis_say_nothing_with_another_backend() -> None:
    text = "sites: [{name: a}]\nopenstack: {rome: {store: cluster, replicas: 2}}"
    assert plan_of(text).require_cloud().redis is None


# ---------------------------------------------------------------- servers that share out


PAIR = "sites: [{name: a, data: 1}, {name: b, data: 1}]\n"
SERVERS = "openstack: {backend: rome, rome: {store: servers}%s}\n"


def holders(plan: Plan) -> dict[str, list[str]]:
    """The databases of each Redis server, by its host."""
    cloud = plan.require_cloud()
    return {
        store.nodes[0].host: [each.name for each in cloud.databases if each.store == store.name]
        for store in cloud.stores_of("redis")
    }


def test_two_sites_may_have_a_server_each() -> None:
    """As in the experiments of 2016, whose two clusters had a node each."""
    plan = plan_of(PAIR + SERVERS % "")
    by_host = holders(plan)
    assert by_host["b-data-1"] == ["nova", "nova_cell0"]
    assert sorted(by_host["a-data-1"]) == sorted({*ALL} - {"nova", "nova_cell0"})
    cloud = plan.require_cloud()
    assert {store.kind for store in cloud.stores_of("redis")} == {"server"}
    assert list(layout_checks.faults(cloud, plan.hosts)) == []
    assert plan_from_json(json.loads(json.dumps(plan.to_json()))) == plan
    known, urls = addresses(plan), urls_of(plan)
    assert urls["nova"] == f"rome+redis://rome:secret@{known['b-data-1']}:6379/nova?nova_regexp=on"
    assert urls["glance"] == f"rome+redis://rome:secret@{known['a-data-1']}:6379/glance"


def test_servers_take_databases_as_a_clusters_masters_do() -> None:
    sites = "sites: [{name: a, count: 4, data: 1}]\n"
    cluster = store_of(plan_of(f"{sites}openstack: {{backend: rome}}"))
    shared_out = holders(plan_of(sites + SERVERS % ""))
    assert {name: host for host, names in shared_out.items() for name in names} == {
        name: cluster.master_of(name).host for name in cluster.tags
    }


def test_a_host_that_no_database_is_left_for_has_no_server() -> None:
    plan = plan_of("sites: [{name: a, data: 9}]\n" + SERVERS % "")
    assert sorted(name for names in holders(plan).values() for name in names) == sorted(ALL)
    assert len(holders(plan)) == len(ALL)


def test_without_data_hosts_servers_are_one_on_the_master() -> None:
    assert list(holders(plan_of("sites: [{name: a}]\n" + SERVERS % ""))) == ["a-master-1"]


def test_with_cells_the_server_at_a_site_has_the_cells_own_database() -> None:
    plan = plan_of(PAIR + SERVERS % ", layout: cells")
    by_host = holders(plan)
    assert "nova_cell_a" in by_host["a-data-1"]
    assert "nova_cell_b" in by_host["b-data-1"]
    assert list(layout_checks.faults(plan.require_cloud(), plan.hosts)) == []


def test_each_process_is_a_service_of_its_host_before_those_that_ask_it() -> None:
    plan = plan_with(3, "replicas: 1")
    found: dict[str, list[str]] = {}
    for service in plan.require_cloud().services:
        found.setdefault(service.host, []).append(service.unit)
        assert (service.component == "redis") == service.unit.startswith("redis")
    assert found["a-data-2"] == ["redis-server", "redis-replica-1"]
    server = plan_with(0).require_cloud().services
    assert [service.unit for service in server if service.host == "a-master-1"][:3] == [
        "redis-server",
        "rabbitmq-server",
        "memcached",
    ]


def test_each_back_end_needs_memory_of_its_own() -> None:
    needs = {
        backend: plan_of(
            f"sites: [{{name: a, data: 3}}]\nopenstack: {{backend: {backend}}}"
        ).needs.memory_bytes
        for backend in ("mysql", "galera", "rome")
    }
    assert needs["rome"] - needs["mysql"] == (3 * 120 - 250) * 2**20
    # A node at the site, and proxies at its master and its controller.
    assert needs["galera"] - needs["mysql"] == (330 + 2 * 30 - 250) * 2**20


def test_the_order_of_play_names_what_is_started() -> None:
    steps = {name: next(step for step in plan.steps if "schemas" in step) for name, plan in {
        "mysql": plan_of("sites: [{name: a}]"), "server": plan_with(1), "cluster": plan_with(3),
    }.items()}  # fmt: skip
    assert steps == {
        "mysql": "start the database, the message bus and the cache, bring the schemas up to date",
        "server": "start Redis, the message bus and the cache, bring the schemas up to date",
        "cluster": "start the Redis Cluster, the message bus and the cache, "
        "bring the schemas up to date",
    }


@pytest.mark.parametrize("kind", ["server", "servers", "cluster"])
def test_services_are_told_for_how_long_tables_are_leased(kind: str) -> None:
    plan = plan_with(3, f"store: {kind}, table_lease: 2")
    assert {store.table_lease for store in plan.require_cloud().stores} == {2}
    assert list(layout_checks.faults(plan.require_cloud(), plan.hosts)) == []
    assert plan_from_json(json.loads(json.dumps(plan.to_json()))) == plan
    for name, url in urls_of(plan).items():
        options = url.partition("?")[2].split("&")
        assert "table_lease=2" in options, name
        assert ("nova_regexp=on" in options) is name.startswith("nova")
    assert "lease" not in "".join(urls_of(plan_with(3, f"store: {kind}")).values())


def test_a_lease_is_no_longer_than_rome_allows() -> None:
    with pytest.raises(
        InvalidInput, match=r"rome\.table_lease: '6' is out of range; write at most 5"
    ):
        plan_with(1, "table_lease: 6")


# ---------------------------------------------------------------- hash slots and tags


def test_slots_are_computed_as_redis_cluster_documents_it() -> None:
    # The cluster's specification: CRC16 of '123456789' is 0x31C3.
    assert key_slot("123456789") == 0x31C3 % 16384
    # What a server says: CLUSTER KEYSLOT '{nova}:x', CLUSTER KEYSLOT somekey.
    assert key_slot("somekey") == 11058
    assert key_slot("foo") == 12182
    assert key_slot("") == 0


@pytest.mark.parametrize("masters", range(1, 12))
def test_each_slot_has_one_master_and_shares_are_equal(masters: int) -> None:
    ranges = slot_ranges(masters)
    assert (ranges[0][0], ranges[-1][1]) == (0, 16383)
    assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(ranges))
    sizes = [last - first + 1 for first, last in ranges]
    assert max(sizes) - min(sizes) <= 1


def places_of(near: int, far: int) -> dict[str, int]:
    """Which master takes each database: the near ones come first."""
    ranges = slot_ranges(near + far)
    tags = spread(ALL, ranges[:near], ranges[near:])
    assert spread(ALL, ranges[:near], ranges[near:]) == tags
    assert len(set(tags.values())) == len(tags)
    for name, tag in tags.items():
        assert tag.startswith(name)
        assert tag.removeprefix(name).isdigit()
    return {
        name: next(
            place for place, (first, last) in enumerate(ranges) if first <= key_slot(tag) <= last
        )
        for name, tag in tags.items()
    }


@pytest.mark.parametrize(
    ("near", "far", "used"),
    [(3, 0, 3), (4, 0, 4), (2, 2, 4), (0, 3, 3), (1, 2, 3), (1, 7, 4), (25, 0, 7)],
)
def test_databases_are_spread_over_the_masters_by_their_tags(
    near: int, far: int, used: int
) -> None:
    places = places_of(near, far)
    assert len(set(places.values())) == used
    assert len({places[name] for name in ("nova", "nova_api", "nova_cell0")}) == 3
    if not far:
        counts = [list(places.values()).count(place) for place in range(near)]
        assert max(counts) == max(1, len(ALL) // near + (len(ALL) % near > 0))


@pytest.mark.parametrize(("near", "far"), [(1, 2), (1, 7), (2, 2), (3, 1)])
def test_what_is_asked_at_the_masters_site_alone_stays_there(near: int, far: int) -> None:
    places = places_of(near, far)
    assert all(places[name] < near for name in ("placement", "keystone", "neutron", "glance"))
    assert places["nova"] == near, "Nova's is asked from everywhere: the first far one has it"


def test_a_database_is_on_the_master_that_has_its_slot() -> None:
    one_site = store_of(plan_with(3))
    assert {name: one_site.master_of(name).host for name in ALL} == {
        "nova": "a-data-1",
        "nova_api": "a-data-2",
        "nova_cell0": "a-data-3",
        "placement": "a-data-3",
        "keystone": "a-data-2",
        "neutron": "a-data-1",
        "glance": "a-data-3",
    }
    sites = store_of(plan_of("sites: [{name: s, count: 3, data: 1}]\nopenstack: {backend: rome}"))
    assert {name: sites.master_of(name).host for name in ALL} == {
        "nova": "s2-data-1",
        "nova_api": "s3-data-1",
        "nova_cell0": "s1-data-1",
        "placement": "s1-data-1",
        "keystone": "s1-data-1",
        "neutron": "s1-data-1",
        "glance": "s1-data-1",
    }


# ---------------------------------------------------------------- URLs


def addresses(plan: Plan) -> dict[str, str]:
    return {host.name: str(host.address) for host in plan.hosts}


def urls_of(plan: Plan) -> dict[str, str]:
    cloud = plan.require_cloud()
    return databases.urls(cloud.stores, cloud.databases, addresses(plan), "secret")


def test_mariadbs_urls_have_each_service_as_its_own_user() -> None:
    plan = plan_of("sites: [{name: a}]")
    master = addresses(plan)["a-master-1"]
    assert urls_of(plan) == {
        "nova": f"mysql+pymysql://nova:secret@{master}/nova",
        "nova_api": f"mysql+pymysql://nova:secret@{master}/nova_api",
        "nova_cell0": f"mysql+pymysql://nova:secret@{master}/nova_cell0",
        "placement": f"mysql+pymysql://placement:secret@{master}/placement",
        "keystone": f"mysql+pymysql://keystone:secret@{master}/keystone",
        "neutron": f"mysql+pymysql://neutron:secret@{master}/neutron",
        "glance": f"mysql+pymysql://glance:secret@{master}/glance",
    }


def test_a_server_is_named_without_tags() -> None:
    plan = plan_with(1)
    known = addresses(plan)
    urls = urls_of(plan)
    assert urls["glance"] == f"rome+redis://rome:secret@{known['a-data-1']}:6379/glance"
    assert urls["nova_api"] == (
        f"rome+redis://rome:secret@{known['a-data-1']}:6379/nova_api?nova_regexp=on"
    )
    assert urls["neutron"] == f"rome+redis://rome:secret@{known['a-data-1']}:6379/neutron"
    assert databases.cell0_template(plan.require_cloud().redis, known) == (
        f"{{scheme}}://{{username}}:{{password}}@{known['a-data-1']}:6379/nova_cell0?nova_regexp=on"
    )


def test_a_cluster_is_named_by_its_masters_and_each_database_by_its_tag() -> None:
    plan = plan_with(3, "replicas: 1")
    known, store = addresses(plan), store_of(plan)
    seeds = ",".join(known[f"a-data-{n}"] for n in (1, 2, 3))
    urls = urls_of(plan)
    for name in ALL:
        regexp = "&nova_regexp=on" if name.startswith("nova") else ""
        assert urls[name] == (
            f"rome+redis://rome:secret@{seeds}:6379/{name}?tag={store.tags[name]}{regexp}"
        )
    # Braces would be fields of Nova's templates, percent signs ones of configuration files.
    assert not any(set("{}%$") & set(url) for url in urls.values())
    filled = databases.cell0_template(store, known).format(
        scheme="rome+redis", username="rome", password="secret"
    )
    assert filled == urls["nova_cell0"]


def test_nova_derives_cell_0_from_cell_1_on_mariadb_by_itself() -> None:
    assert databases.cell0_template(None, {}) == ""
