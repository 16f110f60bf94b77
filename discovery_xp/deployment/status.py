"""How the services of a cloud are: what systemd, their ports, Nova and RabbitMQ say of each."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from discovery_xp import software
from discovery_xp.boundary import answers
from discovery_xp.planning.layout import Service
from discovery_xp.testbeds.hosts import Hosts
from discovery_xp.testbeds.remote import run_each


@dataclass(frozen=True)
class NodeStatus:
    """A node of Galera: `status` 'Primary' has a quorum; `state` 'Synced' has all changes.

    `members` is how many the group has, an arbitrator included, as the node sees it.
    """

    status: str
    state: str
    members: int

    @property
    def is_well(self) -> bool:
        """True of a node that takes clients."""
        return (self.status, self.state) == ("Primary", "Synced")

    @property
    def in_words(self) -> str:
        """Return the status in a few words."""
        return f"{self.status}, {self.state}, {self.members} member{'s' * (self.members != 1)}"


@dataclass(frozen=True)
class ServiceStatus:
    """How a service is: `state` is systemd's ('active', 'failed', ...) or 'unknown'.

    `answers` is what its port says over HTTP, None where it has none; `nova` what Nova
    itself calls it ('up', 'down'), None where Nova doesn't know it or wasn't asked; `listens`
    says whether it reads its queue of the message bus, None where it has none or RabbitMQ
    wasn't asked.  `node` is what a node of Galera says of itself, None of all else.  `lists` says
    of the API that was asked for Nova's services whether it listed them, None of all else: one
    whose database refuses it answers at its port all the same.
    """

    unit: str
    host: str
    site: str
    state: str
    restarts: int
    answers: bool | None
    nova: str | None
    listens: bool | None
    node: NodeStatus | None = None
    lists: bool | None = None

    @property
    def is_up(self) -> bool:
        """True when nothing speaks against it."""
        return self.complaint == ""

    @property
    def complaint(self) -> str:
        """What is wrong with it, in a few words; empty when it is up."""
        if self.state != "active":
            return "its host doesn't answer" if self.state == "unknown" else self.state
        if self.answers is False:
            return "active, but its port doesn't answer"
        if self.lists is False:
            return "active, but it doesn't list Nova's services: its journal may tell why"
        if self.node is not None and not self.node.is_well:
            return f"active, but its node is {self.node.in_words}"
        if self.nova == "down":
            return "active, but Nova calls it down"
        return "active, but not on the message bus" if self.listens is False else ""


GALERA_CHECK = "galera-check"
NOVA_API = "nova-api"

_NOVA_LIST = (
    f"{software.OPENSTACK.place}/bin/openstack --os-cloud admin compute service list -f json"
)


_QUEUES_LIST = "rabbitmqctl --quiet --formatter json list_queues name consumers"


def _look_command(
    services: Sequence[Service], asks_nova: bool, asks_rabbitmq: bool, time_scale: float
) -> str:
    """A line of bash that says how a host's services are, a line for each thing it says.

    Each has 10 s to answer, the clients of Nova and RabbitMQ a minute, times the scale.
    """
    answer_s, client_s = round(10 * time_scale), round(60 * time_scale)
    units = " ".join(service.unit for service in services)
    parts = [
        f"for unit in {units}; do echo unit $unit $(systemctl show "
        "--property=ActiveState,NRestarts $unit); done"
    ]
    for service in services:
        if service.is_http:
            request = f"exec 3<>/dev/tcp/127.0.0.1/{service.port}; "
            request += "printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; head -n 1 <&3"
            asking = f"timeout {answer_s} bash -c {shlex.quote(request)}"
            parts.append(f"echo port {service.unit} $({asking} 2>&1)")
        if service.unit == GALERA_CHECK:
            request = f"exec 3<>/dev/tcp/127.0.0.1/{service.port}; "
            request += "printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; tail -n 1 <&3"
            parts.append(
                f"echo node $(timeout {answer_s} bash -c {shlex.quote(request)} 2>/dev/null)"
            )
    if asks_nova:
        parts.append(f"echo nova $(timeout {client_s} {_NOVA_LIST} 2>/dev/null)")
    if asks_rabbitmq:
        parts.append(f"echo queues $(timeout {client_s} {_QUEUES_LIST} 2>/dev/null)")
    return f"bash -c {shlex.quote('; '.join(parts))}"


def inspect(hosts: Hosts, answering: Set[str]) -> list[ServiceStatus]:
    """How every service of the plan's cloud is; only hosts in `answering` are asked."""
    cloud = hosts.plan.require_cloud()
    by_host: dict[str, list[Service]] = {}
    for service in cloud.services:
        by_host.setdefault(service.host, []).append(service)
    outputs = run_each(
        hosts,
        {
            host: _look_command(
                services,
                asks_nova=host == cloud.master,
                asks_rabbitmq=any(service.component == "rabbitmq" for service in services),
                time_scale=hosts.plan.time_scale,
            )
            for host, services in by_host.items()
            if host in answering
        },
    )
    return read_status(by_host, {host: output.stdout for host, output in outputs.items()})


def read_status(
    by_host: Mapping[str, Sequence[Service]], outputs: Mapping[str, str]
) -> list[ServiceStatus]:
    """What `_look_command` printed on each host, as values."""
    states: dict[tuple[str, str], dict[str, str]] = {}
    answered: dict[tuple[str, str], bool] = {}
    nova: dict[tuple[str, str], str] = {}
    nova_lists: bool | None = None
    queues: dict[str, dict[str, bool]] = {}
    nodes: dict[str, NodeStatus] = {}
    for host, text in outputs.items():
        for line in text.splitlines():
            kind, _, rest = line.partition(" ")
            unit, _, value = rest.partition(" ")
            if kind == "unit":
                words = (word.split("=", 1) for word in value.split() if "=" in word)
                states[unit, host] = {word[0]: answers.text(word[1], 40) for word in words}
            elif kind == "port":
                answered[unit, host] = value.startswith("HTTP/")
            elif kind == "nova":
                nova_lists = False
                with contextlib.suppress(answers.Unfit):  # the client had nothing to say
                    nova |= _nova_states(rest)
                    nova_lists = True
            elif kind == "node":
                with contextlib.suppress(answers.Unfit):  # the check doesn't run
                    nodes[host] = _read_node(rest)
            elif kind == "queues":
                with contextlib.suppress(answers.Unfit):  # RabbitMQ doesn't run
                    queues[host] = _read_queues(rest)
    buses = {
        service.cell: host
        for host, services in by_host.items()
        for service in services
        if service.component == "rabbitmq"
    }
    apis = (each for own in by_host.values() for each in own if each.unit == NOVA_API)
    asked = next(apis, None)  # the client asks the first region's
    return [
        ServiceStatus(
            service.unit,
            host,
            service.site,
            states.get((service.unit, host), {}).get("ActiveState", "unknown"),
            _restarts(states.get((service.unit, host), {})),
            answered.get((service.unit, host), False if host in outputs else None)
            if service.is_http
            else None,
            nova.get(service.known_to_nova_as),
            _listens(service, queues.get(buses.get(service.cell, ""))),
            nodes.get(host) if service.unit == GALERA_CHECK else None,
            nova_lists if service is asked else None,
        )
        for host, services in by_host.items()
        for service in services
    ]


def _listens(service: Service, queues: Mapping[str, bool] | None) -> bool | None:
    """Tell whether a service reads its queue; `queues` are its bus's, None where that is silent."""
    if service.queue is None or queues is None:
        return None
    return queues.get(service.queue, False)


def _read_node(words: str) -> NodeStatus:
    """What the check of a node answered; raises Unfit where it is something else."""
    values = answers.mapping(answers.from_json(words))
    return NodeStatus(
        answers.text(values.get("status"), 40),
        answers.text(values.get("state"), 40),
        answers.whole(values.get("size")),
    )


def _restarts(state: Mapping[str, str]) -> int:
    with contextlib.suppress(answers.Unfit):
        return answers.whole_of(state.get("NRestarts", "0"))
    return 0


def _nova_states(words: str) -> dict[tuple[str, str], str]:
    """Nova's word on each service, by binary and host; raises Unfit where it is none."""
    states = {}
    for entry in answers.listed(answers.from_json(words)):
        values = answers.mapping(entry)
        binary, host, state = (
            answers.text(values.get(key), 300) for key in ("Binary", "Host", "State")
        )
        states[binary, host] = state
    return states


def _read_queues(words: str) -> dict[str, bool]:
    """Which queues are read, by name; raises Unfit where RabbitMQ says something else."""
    queues = {}
    for entry in answers.listed(answers.from_json(words)):
        values = answers.mapping(entry)
        queues[answers.text(values.get("name"), 300)] = answers.whole(values.get("consumers")) > 0
    return queues
