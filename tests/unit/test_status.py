"""What hosts say of their services, read into a verdict on each."""

import json

import pytest

from discovery_xp.deployment.status import ServiceStatus, read_status
from discovery_xp.inputs.topology import parse_topology
from discovery_xp.planning.plan import make_plan

PLAN = make_plan(parse_topology("sites: [{name: a}]"), cloud=True)
BY_HOST = {
    host.name: [each for each in PLAN.require_cloud().services if each.host == host.name]
    for host in PLAN.hosts
}
NOVA = [
    {"Binary": "nova-compute", "Host": "a-compute-1", "State": "down"},
    {"Binary": "nova-conductor", "Host": "a-controller-1", "State": "up"},
]
QUEUES = [
    {"name": "conductor.a-controller-1", "consumers": 1},
    {"name": "conductor", "consumers": 2},
    {"name": "scheduler.a-controller-1", "consumers": 0},
    {"name": "compute.a-compute-1", "consumers": 1},
]
SAID = {
    "a-master-1": "\n".join(
        [
            "unit mariadb ActiveState=active NRestarts=2",
            "unit keystone-api NRestarts=0 ActiveState=active",
            "port keystone-api HTTP/1.1 300 MULTIPLE CHOICES",
            "unit glance-api ActiveState=failed NRestarts=5",
            "port glance-api bash: connect: Connection refused",
            f"nova {json.dumps(NOVA)}",
            f"queues {json.dumps(QUEUES)}",
        ]
    ),
    "a-controller-1": "unit nova-conductor ActiveState=active NRestarts=0\n"
    "unit nova-scheduler ActiveState=active NRestarts=0\n"
    "unit nova-api ActiveState=active NRestarts=0\nport nova-api",
    "a-compute-1": "unit nova-compute ActiveState=active NRestarts=0",
}


def seen(said: dict[str, str]) -> dict[str, ServiceStatus]:
    return {each.unit: each for each in read_status(BY_HOST, said)}


@pytest.mark.parametrize(
    ("unit", "complaint"),
    [
        ("mariadb", ""),
        ("keystone-api", ""),
        ("glance-api", "failed"),
        ("nova-api", "active, but its port doesn't answer"),
        ("nova-compute", "active, but Nova calls it down"),
        ("nova-conductor", ""),
        ("nova-scheduler", "active, but not on the message bus"),
    ],
)
def test_a_service_is_up_when_nothing_speaks_against_it(unit: str, complaint: str) -> None:
    service = seen(SAID)[unit]
    assert service.complaint == complaint
    assert service.is_up == (complaint == "")


def test_restarts_are_counted() -> None:
    assert seen(SAID)["mariadb"].restarts == 2


def test_services_of_a_host_that_does_not_answer_are_unknown() -> None:
    said = {host: text for host, text in SAID.items() if host != "a-compute-1"}
    service = seen(said)["nova-compute"]
    assert (service.state, service.is_up) == ("unknown", False)
    assert service.complaint == "its host doesn't answer"


@pytest.mark.parametrize("words", ["nova ", "nova", "nova [{", "nova null garbage"])
def test_without_nova_s_own_word_systemd_s_counts(words: str) -> None:
    said = {host: text.partition("\nnova ")[0] for host, text in SAID.items()}
    said["a-master-1"] += f"\n{words}"
    service = seen(said)["nova-compute"]
    assert (service.nova, service.is_up) == (None, True)


@pytest.mark.parametrize(
    ("words", "lists"), [("nova ", False), ("nova [{", False), (f"nova {json.dumps(NOVA)}", True)]
)
def test_an_api_that_answers_and_cannot_list_services_is_not_up(words: str, lists: bool) -> None:
    """As one does whose database refuses its password."""
    said = {host: text.partition("\nnova ")[0] for host, text in SAID.items()}
    said["a-master-1"] += f"\n{words}"
    said["a-controller-1"] += " HTTP/1.1 200 OK"
    service = seen(said)["nova-api"]
    assert (service.answers, service.lists, service.is_up) == (True, lists, lists)
    assert ("it doesn't list Nova's services" in service.complaint) is not lists
    said["a-master-1"] = said["a-master-1"].rpartition("\n")[0]
    assert seen(said)["nova-api"].lists is None, "nobody asked it"
