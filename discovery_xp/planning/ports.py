"""What listens where: every port of a testbed's hosts, for whom, and what it asks for.

Pure, as plans are.  docs/ports.md shows it as a table (`as_markdown`), a host's firewall closes
`CLOUD_PORTS` to others, and the real tests compare it with what listens on their hosts.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass

from discovery_xp.onhost import catalogue
from discovery_xp.planning import cells


class Address(enum.Enum):
    """Where a program listens."""

    ALL = "all"
    HOST = "the host's own"
    BOTH = "the host's own, loopback"
    LOOPBACK = "loopback"

    def allows(self, address: str, own: str) -> bool:
        """Return whether a program may listen at `address` of a host that others know as `own`."""
        if self is Address.ALL:
            return True
        loopback = address.startswith("127.") or address == "::1"
        return (address == own and self is not Address.LOOPBACK) or (
            loopback and self is not Address.HOST
        )


@dataclass(frozen=True)
class Listener:
    """A program that listens at TCP ports; `program` is what the kernel calls its process.

    `role` is the role of its hosts, `also_on` are those that it may be on instead or besides;
    `is_brief` is true of what listens only while a command runs, or only in some clouds.
    """

    service: str
    program: str
    ports: tuple[int, ...]
    role: str
    address: Address
    asks_for: str
    secret: str
    is_brief: bool = False
    remark: str = ""
    also_on: tuple[str, ...] = ()


_TOKEN = "a token of Keystone's"
_PASSWORDS = "passwords.json"
_WITH_GALERA = "with `backend: galera`"
_OTHERWISE = "on the controller of a site without data nodes"
_HOSTS_OF_CELLS = cells.ROLES
_OF_CELLS = "with `layout: cells` at each site, too"

SSH = Listener(
    "ssh", "sshd", (catalogue.SSH_PORT,), "every host", Address.ALL, "a key",
    "login_key, or the user's",
)  # fmt: skip

LISTENERS: tuple[Listener, ...] = (
    SSH,
    Listener("MariaDB", "mariadbd", (catalogue.MARIADB_PORT,), "master", Address.HOST,
             "user and password; root only locally", f"{_PASSWORDS}: database", is_brief=True,
             remark="absent with `backend: rome`; at each site with `backend: galera` or "
             "`layout: cells`",
             also_on=("data", "controller")),
    Listener("Galera: its nodes' group", "mariadbd", (catalogue.GALERA_PORT,), "data",
             Address.HOST, "nothing", "", is_brief=True, remark=f"{_WITH_GALERA}; {_OTHERWISE}",
             also_on=("controller",)),
    Listener("Galera: changes for a node that was away", "mariadbd", (catalogue.GALERA_IST_PORT,),
             "data", Address.HOST, "nothing", "", is_brief=True,
             remark="while a node catches up", also_on=("controller",)),
    Listener("Galera: a copy for a node without data", "socat", (catalogue.GALERA_SST_PORT,),
             "data", Address.HOST, "nothing", "", is_brief=True,
             remark="while a node gets it", also_on=("controller",)),
    Listener("Galera's arbitrator", "garbd", (catalogue.ARBITRATOR_PORT,), "master", Address.HOST,
             "nothing", "", is_brief=True,
             remark=f"{_WITH_GALERA} and an even number of nodes",
             also_on=("controller", "compute", "data")),
    Listener("Galera: whether a node takes clients", "python3", (catalogue.GALERA_CHECK_PORT,),
             "data", Address.BOTH, "nothing", "", is_brief=True, remark=_WITH_GALERA,
             also_on=("controller",)),
    Listener("HAProxy before Galera's nodes", "haproxy", (catalogue.DATABASE_PROXY_PORT,),
             "master", Address.LOOPBACK, "what MariaDB asks for", f"{_PASSWORDS}: database",
             is_brief=True, remark=f"{_WITH_GALERA}, on controllers, too",
             also_on=("controller",)),
    Listener("RabbitMQ", "beam.smp", (catalogue.RABBITMQ_PORT,), "master", Address.BOTH,
             "user and password; there is no `guest`", f"{_PASSWORDS}: rabbitmq",
             remark=_OF_CELLS, also_on=_HOSTS_OF_CELLS),
    Listener("RabbitMQ: Erlang's distribution", "beam.smp", (catalogue.ERLANG_PORT,),
             "master", Address.LOOPBACK, "the cookie", f"{_PASSWORDS}: erlang",
             also_on=_HOSTS_OF_CELLS),
    Listener("rabbitmqctl: Erlang's distribution", "beam.smp", catalogue.ERLANG_TOOL_PORTS,
             "master", Address.LOOPBACK, "the cookie", f"{_PASSWORDS}: erlang", is_brief=True,
             remark="while it runs", also_on=_HOSTS_OF_CELLS),
    Listener("Erlang's port mapper", "epmd", (catalogue.ERLANG_MAPPER_PORT,), "master",
             Address.LOOPBACK, "nothing", "", remark="tells the port of the distribution",
             also_on=_HOSTS_OF_CELLS),
    Listener("memcached", "memcached", (catalogue.MEMCACHED_PORT,), "master", Address.BOTH,
             "user and password", f"{_PASSWORDS}: memcached"),
    Listener("Keystone", "gunicorn", (catalogue.KEYSTONE_PORT,), "master", Address.BOTH,
             f"a password, then {_TOKEN}", f"{_PASSWORDS}: admin, user, services"),
    Listener("Glance", "gunicorn", (catalogue.GLANCE_PORT,), "master", Address.BOTH, _TOKEN, ""),
    Listener("Placement", "gunicorn", (catalogue.PLACEMENT_PORT,), "master", Address.BOTH,
             _TOKEN, ""),
    Listener("Neutron", "gunicorn", (catalogue.NEUTRON_PORT,), "master", Address.BOTH,
             _TOKEN, ""),
    Listener("Nova", "gunicorn", (catalogue.NOVA_PORT,), "controller", Address.BOTH, _TOKEN, ""),
    Listener("Redis", "redis-server", catalogue.REDIS_PORTS, "data", Address.BOTH,
             "user and password; services may not administer",
             f"{_PASSWORDS}: database, redis (administrator)", is_brief=True,
             remark="with `backend: rome`; on the master where there are no data nodes",
             also_on=("master", "controller")),
    Listener("Redis Cluster: its nodes' bus", "redis-server", catalogue.REDIS_BUS_PORTS, "data",
             Address.BOTH, "nothing", "", is_brief=True,
             remark="with a cluster of `backend: rome`", also_on=("master",)),
    Listener("wheels for the other hosts", "python3", (catalogue.WHEELS_PORT,), "master",
             Address.HOST, "nothing", "", is_brief=True,
             remark="while `deploy` installs; nothing but public packages"),
)  # fmt: skip

# What a firewall on a lent host leaves to the testbed's own hosts.
CLOUD_PORTS: tuple[int, ...] = tuple(
    sorted({port for each in LISTENERS if each is not SSH for port in each.ports})
)


@dataclass(frozen=True)
class Socket:
    """Something that listens on a host, and whose it is: what `ss` says of it."""

    protocol: str
    address: str
    port: int
    programs: tuple[str, ...]


def read_sockets(text: str) -> list[Socket]:
    """What `ss --listening --tcp --udp --numeric --processes --no-header` printed, as values.

    Raises ValueError for a line of another form.
    """
    sockets = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 6:
            raise ValueError(f"not a line of ss: {line!r}")
        address, _, port = words[4].rpartition(":")
        address = address.partition("%")[0].strip("[]")
        programs = re.findall(r'\("([^":]+)', line)  # "gunicorn: worke", cut short by the kernel
        sockets.append(Socket(words[0], address, int(port), tuple(dict.fromkeys(programs))))
    return sockets


def differences(own: str, roles: Sequence[str], sockets: Sequence[Socket]) -> list[str]:
    """What listens on a host with these roles and isn't in the table, or is and doesn't listen.

    `own` is the host's address.  A line for each; none when host and table agree.
    """
    listeners = [each for each in LISTENERS if _is_on(each, roles)]
    lines = []
    for socket in sockets:
        owners = [each for each in listeners if socket.port in each.ports]
        program = ", ".join(socket.programs) or "something"
        if socket.protocol != "tcp" or not owners:
            lines.append(f"{program} listens at {socket.protocol} port {socket.port}")
        elif not any(each.program in socket.programs for each in owners):
            lines.append(f"{program} listens at {owners[0].service}'s port {socket.port}")
        elif not owners[0].address.allows(socket.address, own):
            lines.append(f"{owners[0].service} listens at {socket.address}:{socket.port}")
    heard = {socket.port for socket in sockets}
    lines += [
        f"{each.service} doesn't listen at port {port}"
        for each in listeners
        if not each.is_brief and (each.role == SSH.role or each.role in roles)
        for port in each.ports
        if port not in heard
    ]
    return lines


def _is_on(listener: Listener, roles: Sequence[str]) -> bool:
    where = {listener.role, *listener.also_on}
    return listener.role == SSH.role or bool(where & set(roles))


def as_markdown() -> str:
    """The table of docs/ports.md."""
    lines = [
        "| TCP port | Service | On | Listens at | Asks for | Its secret | |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in LISTENERS:
        first, last = each.ports[0], each.ports[-1]
        port = str(first) if first == last else f"{first} to {last}"
        lines.append(
            f"| {port} | {each.service} | {each.role} | {each.address.value} | {each.asks_for} | "
            f"{each.secret} | {each.remark} |"
        )
    return "\n".join(lines) + "\n"
