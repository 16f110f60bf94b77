import json
from typing import Any

import jsonschema
import pytest
import yaml

from discovery_xp.errors import InvalidInput
from discovery_xp.inputs.topology import (
    OpenStack,
    Rome,
    parse_topology,
)
from discovery_xp.inputs.topology_file import WORKER_SERVICES, topology_schema

SITES = "sites: [{name: a}]\n"


def cloud_of(text: str) -> OpenStack:
    return parse_topology(SITES + text).openstack


def schema() -> Any:
    return json.loads(json.dumps(topology_schema()))


def test_a_topology_that_says_nothing_gets_the_defaults() -> None:
    assert cloud_of("") == cloud_of("openstack: {}") == OpenStack()
    assert OpenStack() == OpenStack(
        backend="mysql",
        rome=Rome(store="auto", persistence="everysec", replicas=0),
        placement="shared",
        periodic_tasks="quiet",
        virt_driver="fake",
        nics=0,
        workers={
            "keystone": 1,
            "glance": 1,
            "placement": 1,
            "neutron": 1,
            "nova-api": 1,
            "nova-conductor": 1,
            "nova-scheduler": 1,
        },
        config={},
    )


EVERY_OPTION = """openstack:
  backend: rome
  rome: {store: cluster, persistence: always, replicas: 1}
  placement: availability-zones
  periodic_tasks: default
  virt_driver: fake
  nics: 1
  workers: {keystone: 4, nova-conductor: 2}
  config:
    nova:
      DEFAULT: {debug: true, ram_allocation_ratio: 1.5}
      scheduler: {max_attempts: 7}
    keystone:
      token: {expiration: '7200'}
"""


def test_every_option_is_kept_as_it_was_written() -> None:
    cloud = cloud_of(EVERY_OPTION)
    assert (cloud.backend, cloud.rome) == ("rome", Rome("cluster", "always", 1))
    assert (cloud.placement, cloud.periodic_tasks, cloud.nics) == (
        "availability-zones",
        "default",
        1,
    )
    assert cloud.config == {
        "nova": {
            "DEFAULT": {"debug": True, "ram_allocation_ratio": 1.5},
            "scheduler": {"max_attempts": 7},
        },
        "keystone": {"token": {"expiration": "7200"}},
    }


def test_workers_are_by_service_and_one_where_nothing_is_said() -> None:
    workers = cloud_of(EVERY_OPTION).workers
    assert tuple(workers) == WORKER_SERVICES
    assert (workers["keystone"], workers["nova-conductor"], workers["glance"]) == (4, 2, 1)


def test_a_number_of_workers_is_short_for_all_services() -> None:
    assert cloud_of("openstack: {workers: 2}").workers == dict.fromkeys(WORKER_SERVICES, 2)
    assert cloud_of("openstack: {workers: 2}") == cloud_of("openstack: {workers: {default: 2}}")


def test_a_services_own_number_goes_before_the_default() -> None:
    workers = cloud_of("openstack: {workers: {default: 3, nova-api: 1}}").workers
    assert workers == {**dict.fromkeys(WORKER_SERVICES, 3), "nova-api": 1}


BAD = [
    # (text after a first line of sites, all that is said: line, key, value and remedy)
    (
        "openstack: mysql",
        "2: openstack: 'mysql' is not a mapping; write 'key: value' pairs, see docs/topologies.md",
    ),
    (
        "openstack: [mysql]",
        "2: openstack: '['mysql']' is not a mapping; "
        "write 'key: value' pairs, see docs/topologies.md",
    ),
    ("openstack:\n  nic: 1", "3: openstack.nic: unknown key; did you mean 'nics'?"),
    (
        "openstack:\n  region: a",
        "3: openstack.region: unknown key; known here: backend, config, galera, layout, nics, "
        "periodic_tasks, placement, rome, virt_driver, workers",
    ),
    (
        "openstack:\n  backend: etcd",
        "3: openstack.backend: 'etcd' is unknown; write one of 'mysql', 'galera' or 'rome'",
    ),
    (
        "openstack:\n  layout: region",
        "3: openstack.layout: 'region' is unknown; write one of 'shared' or 'cells'",
    ),
    (
        "openstack:\n  layout: sites",
        "3: openstack.layout: 'sites', all services at every site, can't be deployed yet; "
        "write 'shared' or 'cells'",
    ),
    (
        "openstack:\n  rome: cluster",
        "3: openstack.rome: 'cluster' is not a mapping; "
        "write 'key: value' pairs, see docs/topologies.md",
    ),
    (
        "openstack:\n  rome:\n    kind: x",
        "4: openstack.rome.kind: unknown key; "
        "known here: persistence, replicas, store, table_lease",
    ),
    (
        "openstack:\n  rome:\n    store: shards",
        "4: openstack.rome.store: 'shards' is unknown; "
        "write one of 'auto', 'server', 'servers' or 'cluster'",
    ),
    (
        "openstack:\n  rome:\n    persistence: rdb",
        "4: openstack.rome.persistence: 'rdb' is unknown; "
        "write one of 'everysec', 'always' or 'none'",
    ),
    (
        "openstack:\n  rome:\n    replicas: 3",
        "4: openstack.rome.replicas: '3' is out of range; write at most 2",
    ),
    (
        "openstack:\n  placement: zones",
        "3: openstack.placement: 'zones' is unknown; write one of 'shared' or 'availability-zones'",
    ),
    (
        "openstack:\n  periodic_tasks: loud",
        "3: openstack.periodic_tasks: 'loud' is unknown; write one of 'quiet' or 'default'",
    ),
    (
        "openstack:\n  virt_driver: libvirt",
        "3: openstack.virt_driver: 'libvirt' is unknown; write one of 'fake'",
    ),
    ("openstack:\n\n  nics: 2", "4: openstack.nics: '2' is out of range; write at most 1"),
    ("openstack:\n  nics: -1", "3: openstack.nics: '-1' is out of range; write at least 0"),
    ("openstack:\n  nics: one", "3: openstack.nics: 'one' is not a whole number; write e.g. 3"),
    ("openstack:\n  workers: 0", "3: openstack.workers: '0' is out of range; write at least 1"),
    ("openstack:\n  workers: 65", "3: openstack.workers: '65' is out of range; write at most 64"),
    (
        "openstack:\n  workers: two",
        "3: openstack.workers: 'two' is not a whole number; write e.g. 3",
    ),
    (
        "openstack:\n  workers:\n    glance: 0",
        "4: openstack.workers.glance: '0' is out of range; write at least 1",
    ),
    (
        "openstack:\n  workers:\n    glance: two",
        "4: openstack.workers.glance: 'two' is not a whole number; write e.g. 3",
    ),
    (
        "openstack:\n  workers:\n    cinder: 2",
        "4: openstack.workers.cinder: unknown key; known here: 'default', 'keystone', 'glance', "
        "'placement', 'neutron', 'nova-api', 'nova-conductor' or 'nova-scheduler'",
    ),
    (
        "openstack:\n  workers: [2]",
        "3: openstack.workers: '[2]' is not a whole number; write e.g. 3",
    ),
    (
        "openstack:\n  config: debug",
        "3: openstack.config: 'debug' is not a mapping; "
        "write 'key: value' pairs, see docs/topologies.md",
    ),
    (
        "openstack:\n  config:\n    cinder: {}",
        "4: openstack.config.cinder: unknown key; "
        "known here: 'keystone', 'glance', 'placement', 'neutron' or 'nova'",
    ),
    (
        "openstack:\n  config:\n    nova: debug",
        "4: openstack.config.nova: 'debug' is not a mapping; "
        "write 'key: value' pairs, see docs/topologies.md",
    ),
    (
        "openstack:\n  config:\n    nova:\n      DEFAULT: debug",
        "5: openstack.config.nova.DEFAULT: 'debug' is not a mapping; "
        "write 'key: value' pairs, see docs/topologies.md",
    ),
    (
        "openstack:\n  config:\n    nova:\n      DEFAULT:\n        debug: [1, 2]",
        "6: openstack.config.nova.DEFAULT.debug: '[1, 2]' is not a value; write a text or a number",
    ),
    (
        "openstack:\n  config:\n    nova:\n      DEFAULT:\n        debug:",
        "6: openstack.config.nova.DEFAULT.debug: 'None' is not a value; write a text or a number",
    ),
]


@pytest.mark.parametrize(("text", "problem"), BAD, ids=[problem[:48] for _, problem in BAD])
def test_a_bad_value_is_one_problem_with_line_key_and_remedy(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_topology(SITES + text, "t.yaml")
    assert [str(found) for found in caught.value.problems] == [f"t.yaml:{problem}"]


def test_bad_values_are_found_together() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_topology(SITES + "openstack:\n  nics: 2\n  workers: 0\n  backend: etcd\n  nic: 1")
    assert [problem.line for problem in caught.value.problems] == [3, 4, 5, 6]


GOOD = [
    "",
    "openstack: {}",
    EVERY_OPTION,
    "openstack: {backend: rome}",
    "openstack: {rome: {}}",
    "openstack: {workers: 2}",
    "openstack: {workers: {default: 3, nova-api: 1}}",
    "openstack: {config: {glance: {}, neutron: {DEFAULT: {}}}}",
]


@pytest.mark.parametrize("text", GOOD)
def test_the_schema_accepts_what_the_reader_accepts(text: str) -> None:
    parse_topology(SITES + text)
    jsonschema.validate(yaml.safe_load(SITES + text), schema())


@pytest.mark.parametrize("text", [text for text, _ in BAD])
def test_the_schema_refuses_what_the_reader_refuses(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(SITES + text), schema())
