"""Nova's cells: where each runs, what its services are told, how its bus and database are seen."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from discovery_xp import probes, recipes
from discovery_xp.analysis import measurements, paper_tables
from discovery_xp.cli.bench import as_file
from discovery_xp.cli.plan import _cells_in_words
from discovery_xp.deployment import deploy, schemas, variables
from discovery_xp.deployment.status import read_status
from discovery_xp.deployment.variables import PlayVariables, RomeVariables, play_variables
from discovery_xp.errors import Refused
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.onhost.cloud.schemas import of_cells
from discovery_xp.planning import cells, databases, layout_checks
from discovery_xp.planning.cells import Cell
from discovery_xp.planning.layout import CloudLayout
from discovery_xp.planning.plan import Plan, make_plan
from discovery_xp.planning.plan_json import plan_from_json
from discovery_xp.planning.shares import unit_cores
from discovery_xp.providers import static
from discovery_xp.store import Recipe
from discovery_xp.testbeds.hosts import Hosts
from discovery_xp.testbeds.testbed import Testbed
from tests.unit.synthetic_run import make_run

TWO = "sites: [{name: a, data: 1}, {name: b, data: 1}]\n"
THREE = "sites: [{name: a, data: 1}, {name: b, data: 1}, {name: c, data: 1}]\n"
PLAYBOOKS = Path(__file__).parents[2] / "playbooks"


def plan_of(
    sites: str = TWO, backend: str = "mysql", more: str = "", layout: str = "cells"
) -> Plan:
    options = f"openstack: {{layout: {layout}, backend: {backend}{more}}}\n"
    return make_plan(parse_topology(f"name: mine\n{sites}{options}"), cloud=True)


def layout_of(sites: str = TWO, backend: str = "mysql", more: str = "") -> CloudLayout:
    return plan_of(sites, backend, more).require_cloud()


# ---------------------------------------------------------------- where it runs


def test_each_site_is_a_cell_with_a_bus_and_a_database_on_its_data_host() -> None:
    cloud = layout_of()
    assert cloud.cells == (
        Cell("a", "a-data-1", "nova_cell_a"),
        Cell("b", "b-data-1", "nova_cell_b"),
    )
    assert {cell.name: cloud.bus(cell.name).host for cell in cloud.cells} == {
        "a": "a-data-1",
        "b": "b-data-1",
    }
    assert cloud.bus().host == cloud.master == "a-master-1"
    held = {each.name: cloud.store_of(each).nodes[0].host for each in cloud.databases}
    assert (held["nova_cell_a"], held["nova_cell_b"]) == ("a-data-1", "b-data-1")
    assert {host for name, host in held.items() if "cell_" not in name} == {"a-master-1"}
    assert "nova" not in held


def test_computes_and_conductors_are_in_their_cell_and_all_else_above() -> None:
    cloud = layout_of()
    by_unit = {(each.unit, each.host): each.cell for each in cloud.services}
    assert by_unit["nova-compute", "b-compute-1"] == "b"
    assert by_unit["nova-conductor", "b-controller-1"] == "b"
    for unit in ("nova-super-conductor", "nova-scheduler", "nova-api"):
        assert by_unit[unit, "b-controller-1"] is None
    assert by_unit["rabbitmq-server", "a-master-1"] is None
    assert cloud.service_for("rabbitmq", "b").host == "a-master-1", "that of the APIs"


def test_two_conductors_on_one_host_are_two_to_nova_and_to_a_bus() -> None:
    own, above = (
        next(each for each in layout_of().services if each.unit == unit)
        for unit in ("nova-conductor", "nova-super-conductor")
    )
    assert own.known_to_nova_as == ("nova-conductor", "a-controller-1")
    assert above.known_to_nova_as == ("nova-conductor", "a-controller-1-super")
    assert (own.queue, above.queue) == (
        "conductor.a-controller-1",
        "conductor.a-controller-1-super",
    )


def test_without_data_hosts_a_controller_has_the_bus_and_the_database() -> None:
    cloud = layout_of("sites: [{name: a}, {name: b, controllers: 2}]\n")
    assert [cell.host for cell in cloud.cells] == ["a-controller-1", "b-controller-1"]
    without_master = layout_of("sites: [{name: a, controllers: 2}, {name: b}]\nmaster: none\n")
    assert [cell.host for cell in without_master.cells] == ["a-controller-2", "b-controller-1"]


def test_a_site_without_computes_is_no_cell_and_has_a_controller_above_them() -> None:
    sites = "sites: [{name: hub, computes: 0}, {name: a}, {name: b}]\n"
    cloud = layout_of(sites)
    assert [cell.name for cell in cloud.cells] == ["a", "b"]
    assert [each.unit for each in cloud.services_on("hub-controller-1")] == [
        "nova-super-conductor",
        "nova-scheduler",
        "nova-api",
    ]
    assert list(layout_checks.faults(cloud, plan_of(sites).hosts)) == []


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        ("sites: [{name: a}]\n", "and there is one; write 'layout: shared', or 'computes: 1'"),
        ("sites: [{name: a}, {name: b, computes: 0}]\n", "and there is one; write"),
        (
            "sites: [{name: a}, {name: b, controllers: 0}]\n",
            "site 'b' has computes and no controller",
        ),
        (
            "sites: [{name: a}, {name: b}]\nmaster: none\n",
            "write 'data: 1' for 'a', or 'master: a'",
        ),
    ],
)
def test_what_can_be_no_cells_is_refused_in_a_line(sites: str, words: str) -> None:
    with pytest.raises(Refused) as caught:
        plan_of(sites)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert plan_of(sites, layout="shared").require_cloud().cells == ()


@pytest.mark.parametrize("name", ["api", "cell0", "a-b", "nova"])
def test_the_database_of_a_cell_is_nobody_elses(name: str) -> None:
    database = cells.database_of(name)
    assert cells.is_database_of_cell(database)
    assert database not in databases.OWNERS
    assert not any(cells.is_database_of_cell(other) for other in databases.OWNERS)


@pytest.mark.parametrize("backend", ["mysql", "galera", "rome"])
@pytest.mark.parametrize("sites", [TWO, THREE, "sites: [{name: a}, {name: b}]\n"])
def test_a_plan_with_cells_survives_json(backend: str, sites: str) -> None:
    plan = plan_of(sites, backend)
    assert plan_from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_plan_whose_cells_were_tampered_with_is_none() -> None:
    plan = plan_of()
    cloud = plan.require_cloud()
    first, second = cloud.cells

    def with_service(unit: str, cell: str | None) -> dict[str, Any]:
        changed = [
            dataclasses.replace(each, cell=cell) if each.unit == unit else each
            for each in cloud.services
        ]
        return {"services": tuple(changed)}

    changes: list[dict[str, Any]] = [
        {"cells": ()},
        {"cells": (first,)},
        {"cells": (first, first)},
        {"cells": (first, dataclasses.replace(second, host="a-data-1"))},
        {"cells": (first, dataclasses.replace(second, database="nova_cell_a"))},
        {"cells": (first, dataclasses.replace(second, database="x`; DROP DATABASE nova"))},
        {"options": dataclasses.replace(cloud.options, layout="shared")},
        with_service("nova-compute", "a"),
        with_service("nova-conductor", None),
        with_service("nova-api", "a"),
        with_service("rabbitmq-server", None),
    ]
    for change in changes:
        bad = dataclasses.replace(cloud, **change)
        assert list(layout_checks.faults(bad, plan.hosts)), change


def test_cells_need_memory_of_their_own_and_the_plan_says_where_they_are() -> None:
    needs = {layout: plan_of(layout=layout).needs.memory_bytes for layout in ("shared", "cells")}
    assert needs["cells"] - needs["shared"] == 2 * (290 + 250) * 2**20
    assert _cells_in_words(layout_of()) == [
        "2 cells of Nova, one for each site with computes",
        "  a: message bus on a-data-1, database there, too",
        "  b: message bus on b-data-1, database there, too",
    ]
    assert _cells_in_words(plan_of(layout="shared").require_cloud()) == []


def test_both_conductors_have_the_cores_of_a_conductor() -> None:
    options = layout_of(more=", workers: {nova-conductor: 3}").options
    assert unit_cores("nova-super-conductor", 8.0, options) == 3
    assert unit_cores("nova-conductor", 8.0, options) == 3


# ---------------------------------------------------------------- back ends


def urls_of(plan: Plan) -> dict[str, str]:
    addresses = {host.name: host.name for host in plan.hosts}
    cloud = plan.require_cloud()
    return databases.urls(cloud.stores, cloud.databases, addresses, "secret")


def test_on_galera_each_cell_has_a_schema_that_its_own_sites_node_is_asked_for() -> None:
    urls = urls_of(plan_of(backend="galera"))
    for site in ("a", "b"):
        assert urls[f"nova_cell_{site}"] == (
            f"mysql+pymysql://nova:secret@127.0.0.1:3307/nova_cell_{site}"
        )
    assert [store.kind for store in layout_of(backend="galera").stores] == ["galera"]


def test_on_a_redis_cluster_each_cells_database_is_on_the_master_at_its_site() -> None:
    cloud = layout_of(THREE, "rome")
    (store,) = cloud.stores_of("redis")
    assert store.kind == "cluster"
    for cell in cloud.cells:
        assert store.master_of(cell.database).host == cell.host
    assert len({*store.tags.values()}) == len(store.tags)
    assert "nova_cell_b?tag=nova_cell_b_" in urls_of(plan_of(THREE, "rome"))["nova_cell_b"]


def test_on_redis_servers_each_cell_has_one_at_its_site() -> None:
    cloud = layout_of(backend="rome")
    assert [(store.name, store.nodes[0].host) for store in cloud.stores_of("redis")] == [
        ("redis", "a-data-1"),  # of what is above the cells, and of the cell that is there
        ("redis-b", "b-data-1"),
    ]
    urls = urls_of(plan_of(backend="rome"))
    assert urls["nova_cell_b"] == (
        "rome+redis://rome:secret@b-data-1:6379/nova_cell_b?nova_regexp=on"
    )
    assert urls["nova_cell_a"].split("@")[1].startswith("a-data-1:6379/")
    assert urls["nova_api"].split("@")[1].startswith("a-data-1:6379/")


# Names of sites may end in digits, and so do tags.
@pytest.mark.parametrize("names", [("s", "s1", "s10"), ("s-1", "s", "s-1-1")])
def test_no_two_cells_have_the_same_hash_tag(names: tuple[str, ...]) -> None:
    ranges = [databases.slot_ranges(20)[0]] * len(names)
    tags = [
        databases.tag_within(cells.database_of(name), slots)
        for name, slots in zip(names, ranges, strict=True)
    ]
    assert len({*tags}) == len(names)
    for name, tag in zip(names, tags, strict=True):
        stem = f"{cells.database_of(name)}_"
        assert tag.startswith(stem)
        assert tag.removeprefix(stem).isdigit()


# ---------------------------------------------------------------- what the playbooks are told

STATIC = """provider:
  type: static
  hosts:
    a: [192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4]
    b: [192.0.2.11, 192.0.2.12, 192.0.2.13]
"""


@pytest.fixture
def testbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Testbed:
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path))
    monkeypatch.setattr(variables, "_rome", lambda: RomeVariables("0123", "/x/y.whl"))
    made = Testbed("mine")
    made.folder.mkdir(parents=True)
    made.write_ssh_config({}, check_keys="no")
    return made


@pytest.fixture
def told(testbed: Testbed) -> Callable[..., PlayVariables]:
    def tell(layout: str = "cells", backend: str = "mysql") -> PlayVariables:
        plan = plan_of(f"{TWO}{STATIC}", backend, layout=layout)
        return play_variables(static.hosts(plan, testbed), testbed)

    return tell


def test_a_compute_is_on_its_cells_bus_and_a_controller_on_that_above(
    told: Callable[..., PlayVariables],
) -> None:
    hosts = told().cloud.hosts
    assert hosts["b-compute-1"].bus == "192.0.2.13:5672"
    assert hosts["a-compute-1"].bus == "192.0.2.4:5672"
    assert hosts["b-controller-1"].bus == hosts["a-master-1"].bus == "192.0.2.1:5672"
    assert (hosts["b-controller-1"].cell, hosts["b-data-1"].cell) == ("b", "b")
    shared = told("shared").cloud.hosts
    assert {host.bus for host in shared.values()} == {"192.0.2.1:5672"}
    assert {host.cell for host in shared.values()} == {""}


def test_a_cells_file_has_its_bus_and_its_database_and_nothing_above_it(
    told: Callable[..., PlayVariables],
) -> None:
    known = told()
    secrets = known.secrets.passwords
    assert set(known.secrets.cell_files) == {
        "/etc/nova/nova-cell-a.conf",
        "/etc/nova/nova-cell-b.conf",
    }
    assert known.secrets.cell_files["/etc/nova/nova-cell-b.conf"] == (
        "[DEFAULT]\n"
        f"transport_url = rabbit://openstack:{secrets['rabbitmq']}@192.0.2.13:5672/\n\n"
        "[database]\n"
        f"connection = mysql+pymysql://nova:{secrets['database']}@192.0.2.13/nova_cell_b\n"
    )
    assert known.cloud.nova_mappings == (
        "a=/etc/nova/nova-cell-a.conf",
        "b=/etc/nova/nova-cell-b.conf",
    )
    assert known.cloud.nova_database == "nova_cell0"
    printed = json.dumps(known.cloud.to_json()) + repr(known)
    assert not any(secret in printed for secret in secrets.values())


def test_one_cell_for_all_is_told_as_it_always_was(told: Callable[..., PlayVariables]) -> None:
    known = told("shared")
    assert (known.cloud.cells, known.secrets.cell_files) == ({}, {})
    assert known.cloud.nova_mappings == ("cell1=",)
    assert (known.cloud.nova_database, known.cloud.cell0_template) == ("nova", "")
    assert set(known.cloud.nova_queues) == {"a-master-1"}
    assert "layout" not in known.cloud.options


def test_each_bus_has_its_own_readers(told: Callable[..., PlayVariables]) -> None:
    cloud = told().cloud
    assert {host: sorted(queues) for host, queues in cloud.nova_queues.items()} == {
        "a-master-1": [
            "conductor.a-controller-1-super", "conductor.b-controller-1-super",
            "scheduler.a-controller-1", "scheduler.b-controller-1",
        ],
        "a-data-1": ["compute.a-compute-1", "conductor.a-controller-1"],
        "b-data-1": ["compute.b-compute-1", "conductor.b-controller-1"],
    }  # fmt: skip
    assert cloud.nova_services["nova-conductor"] == (
        "a-controller-1-super", "a-controller-1", "b-controller-1-super", "b-controller-1",
    )  # fmt: skip
    assert (cloud.options["layout"], cloud.options["cells"]) == ("cells", 2)
    assert set(cloud.options["databases"]) >= {"nova_cell_a", "nova_cell_b", "nova_cell0"}
    nodes = {"mysql": 3, "galera": 2, "rome": 2}
    for backend, count in nodes.items():
        assert told(backend=backend).cloud.options["nodes"] == count


def test_each_mariadb_has_the_databases_of_its_host_alone(
    told: Callable[..., PlayVariables],
) -> None:
    by_host = told().cloud.mariadb_by_host
    assert by_host["b-data-1"] == {"nova": ("nova_cell_b",)}
    assert by_host["a-master-1"]["nova"] == ("nova_api", "nova_cell0")
    galera = told(backend="galera").cloud.mariadb_by_host
    assert galera["a-data-1"] == galera["b-data-1"]
    assert galera["a-data-1"]["nova"] == ("nova_api", "nova_cell0", "nova_cell_a", "nova_cell_b")


@pytest.mark.parametrize(
    ("backend", "place"),
    [("mysql", "192.0.2.1/"), ("galera", "127.0.0.1:3307/"), ("rome", "192.0.2.4:6379/")],
)
def test_cell_0_is_mapped_to_where_it_is(
    backend: str, place: str, told: Callable[..., PlayVariables]
) -> None:
    known = told(backend=backend)
    login = {"scheme": "mysql+pymysql", "username": "nova"}
    if backend == "rome":
        login = {"scheme": "rome+redis", "username": "rome"}
    filled = known.cloud.cell0_template.format(
        **login, password=known.secrets.passwords["database"]
    )
    assert filled == known.secrets.database_urls["nova_cell0"]
    assert f"@{place}nova_cell0" in filled


def test_servers_of_cells_are_installed_at_their_sites(
    told: Callable[..., PlayVariables],
) -> None:
    packages = {name: set(host.packages) for name, host in told().cloud.hosts.items()}
    servers = {"mariadb-server", "rabbitmq-server"}
    for name, own in packages.items():
        has_them = name.endswith(("-data-1", "-master-1"))
        assert own & servers == (servers if has_them else set()), name


def test_another_layout_takes_the_cloud_off_its_hosts_first(
    testbed: Testbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []

    def remove(hosts: Hosts, own: Testbed, _progress: object) -> None:
        removed.append(hosts.plan.require_cloud().options.layout)
        deploy.databases_file(own).unlink()

    monkeypatch.setattr(deploy, "remove", remove)
    for layout in ("shared", "shared", "cells", "cells", "shared"):
        hosts = static.hosts(plan_of(f"{TWO}{STATIC}", layout=layout), testbed)
        deploy.remove_other_databases(hosts, testbed, lambda *_: None)
    assert removed == ["cells", "shared"]


# ---------------------------------------------------------------- schemas and mappings

SCHEMAS = [
    {"name": "glance", "user": "glance", "migrations": [["glance-manage", "db_sync"]]},
    {"name": "nova", "user": "nova",
     "migrations": [["nova-manage", "--config-file", "x", "db", "sync", "--local_cell"]]},
]  # fmt: skip


def test_each_cells_database_gets_novas_schema_by_its_own_file() -> None:
    assert of_cells(SCHEMAS, {}) == SCHEMAS
    glance, first, second = of_cells(SCHEMAS, {"nova_cell_a": "/a", "nova_cell_b": "/b"})
    assert glance == SCHEMAS[0]
    assert (first["name"], second["name"]) == ("nova_cell_a", "nova_cell_b")
    assert first["dump"] == second["dump"] == "nova"
    assert second["migrations"] == [
        ["nova-manage", "--config-file", "x", "--config-file", "/b", "db", "sync", "--local_cell"]
    ]


def test_no_dumps_are_made_of_cells_which_are_on_other_hosts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # This machine may have the dumps: none are made again.
    monkeypatch.setenv("DISCOVERY_XP_CACHE", str(tmp_path))
    kept = [
        schemas.kept_for(Hosts(plan_of(layout=layout), {}, {}, is_prepared=True), is_new=True).keep
        for layout in ("shared", "cells")
    ]
    assert kept == [True, False]


STUB = """
import os, sys
def main():
    with open(os.environ["SAID"], "a") as file:
        print(*sys.argv, file=file)
    return int(os.environ.get(sys.argv[-1], 0))
"""


def mapped(folder: Path, words: list[str], codes: Mapping[str, str]) -> tuple[int, list[str]]:
    """What our call of nova-manage ends with and runs, with a Nova that says so only."""
    text = (PLAYBOOKS / "roles/schemas/defaults/main.yml").read_text()
    script = yaml.safe_load(text)["schemas_cells"]
    (folder / "nova/cmd").mkdir(parents=True)
    (folder / "nova/cmd/manage.py").write_text(STUB)
    said = folder / "said"
    done = subprocess.run(
        [sys.executable, "-c", script, *words], check=False,
        env={"PYTHONPATH": str(folder), "SAID": str(said), **codes},
    )  # fmt: skip
    return done.returncode, said.read_text().splitlines()


@pytest.mark.parametrize(
    ("codes", "code", "runs"), [({}, 0, 3), ({"a": "2"}, 0, 3), ({"a": "1"}, 1, 2)]
)
def test_cells_are_mapped_one_after_the_other_and_those_that_are_there_stay(
    tmp_path: Path, codes: dict[str, str], code: int, runs: int
) -> None:
    words = ["--config-file", "x", "--", "--database_connection", "URL", "--", "a=/a", "b=/b"]
    expected = [
        "nova-manage --config-file x cell_v2 map_cell0 --database_connection URL",
        "nova-manage --config-file x --config-file /a cell_v2 create_cell --name a",
        "nova-manage --config-file x --config-file /b cell_v2 create_cell --name b",
    ]
    assert mapped(tmp_path, words, codes) == (code, expected[:runs])


def test_the_one_cell_is_mapped_by_novas_own_configuration(tmp_path: Path) -> None:
    assert mapped(tmp_path, ["--config-file", "x", "--", "--", "cell1="], {}) == (
        0,
        [
            "nova-manage --config-file x cell_v2 map_cell0",
            "nova-manage --config-file x cell_v2 create_cell --name cell1",
        ],
    )


# ---------------------------------------------------------------- seen from outside


def test_a_service_has_to_be_on_the_bus_of_its_own_cell() -> None:
    cloud = layout_of()
    by_host = {host.name: cloud.services_on(host.name) for host in plan_of().hosts}

    def queues(*names: str) -> str:
        listed = json.dumps([{"name": name, "consumers": 1} for name in names])
        return f"queues {listed}"

    said = {host: "\n".join(f"unit {each.unit} ActiveState=active" for each in own)
            for host, own in by_host.items()}  # fmt: skip
    listed = [
        {"Binary": "nova-conductor", "Host": "a-controller-1-super", "State": "down"},
        {"Binary": "nova-conductor", "Host": "a-controller-1", "State": "up"},
    ]
    said["a-master-1"] += (
        f"\n{queues('conductor.a-controller-1-super', 'compute.b-compute-1')}"
        f"\nnova {json.dumps(listed)}"
    )
    said["a-data-1"] += f"\n{queues('conductor.a-controller-1', 'compute.a-compute-1')}"
    said["b-data-1"] += f"\n{queues('conductor.b-controller-1', 'compute.a-compute-1')}"
    found = {(each.unit, each.host): each for each in read_status(by_host, said)}
    assert found["nova-compute", "a-compute-1"].listens is True
    assert found["nova-compute", "b-compute-1"].listens is False, "it is on another one's"
    assert found["nova-conductor", "b-controller-1"].listens is True
    assert found["nova-super-conductor", "a-controller-1"].nova == "down"
    assert found["nova-conductor", "a-controller-1"].nova == "up"
    # A bus that doesn't answer says nothing of who reads it.
    silent = {**said, "b-data-1": "unit rabbitmq-server ActiveState=failed"}
    found = {(each.unit, each.host): each for each in read_status(by_host, silent)}
    assert found["nova-compute", "b-compute-1"].listens is None


def test_queues_of_several_buses_are_told_apart() -> None:
    hosts = {name: {"address": name, "site": name[0]} for name in ("a-data-1", "b-data-1")}
    counted = {"conductor": [5, 4, 3]}

    def rows(results: Mapping[str, Any]) -> list[tuple[str, int]]:
        found = probes.to_rows(hosts, ["messages"], results, pytest.fail)["messages"]
        return [(row["queue"], row["published"]) for row in found]

    both = {name: {"messages": counted} for name in hosts}
    assert rows(both) == [("conductor on a-data-1", 5), ("conductor on b-data-1", 5)]
    assert rows({"a-data-1": {"messages": counted}}) == [("conductor", 5)]


def test_the_conductor_above_the_cells_has_the_probes_of_a_conductor() -> None:
    told = probes._variables(plan_of(), ["calls", "statements", "spans"])["xp_probes"]["units"]
    units = told["b-controller-1"]
    assert units["nova-super-conductor"] == units["nova-conductor"]
    assert units["nova-conductor"]["probes"] == ["calls", "statements", "spans"]
    assert set(told["b-data-1"]) == {"mariadb", "rabbitmq-server"}


# ---------------------------------------------------------------- runs


def test_a_layout_of_the_command_line_goes_before_the_topologys() -> None:
    said = as_file(None, 2, "10ms", None, None, None, layout="cells")
    assert parse_topology(said).openstack.layout == "cells"
    kept = as_file("name: x\n", None, None, None, None, None, layout="cells")
    assert kept == "name: x\n# On the command line: layout: cells\n"
    topology = parse_topology(TWO)
    for layout, used in ((None, "shared"), ("shared", "shared"), ("cells", "cells")):
        assert recipes.replaced(topology, Recipe(layout=layout)).openstack.layout == used


def test_runs_with_cells_are_called_so_and_stand_in_no_table_beside_the_published(
    tmp_path: Path,
) -> None:
    own = {"layout": "cells", "cells": 2, "nodes": 3}
    run = make_run(tmp_path, sites=2, latency_ms=10, data=2, more_options=own, probes=())
    record = run.load()
    assert measurements.label(record) == "mysql, 2 sites, 10 ms, cells"
    assert measurements.nodes(record) == 3
    frame = measurements.summary(measurements.measured([run]))
    assert list(frame["placement"]) == ["shared, cells"]
    assert not paper_tables._shared(frame).any()
