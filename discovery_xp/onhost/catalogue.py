"""Facts of a cloud that both ends of ssh must agree on: ports, units, queues, APIs, versions.

Each is written here and nowhere else.  Who runs where is a layout's matter
(`discovery_xp.planning.layout`); who may reach a port is `discovery_xp.planning.ports`'s.  Ports
are TCP ports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# ---------------------------------------------------------------- ports

SSH_PORT = 22
MARIADB_PORT = 3306
# Galera: its nodes' group, changes that a node missed, a whole copy for a node without data.
GALERA_PORT = 4567
GALERA_IST_PORT = 4568
GALERA_SST_PORT = 4444
ARBITRATOR_PORT = 4569  # not a node's: no arbitrator is taken for one
GALERA_CHECK_PORT = 9200  # whether a node takes clients, over HTTP
# Where services ask for Galera: of their own host.
DATABASE_PROXY_ADDRESS, DATABASE_PROXY_PORT = "127.0.0.1", 3307
RABBITMQ_PORT = 5672
# Erlang's: between RabbitMQ's nodes, of rabbitmqctl while it runs, of the port mapper.
ERLANG_PORT = 25672
ERLANG_TOOL_PORTS = tuple(range(35672, 35683))
ERLANG_MAPPER_PORT = 4369
MEMCACHED_PORT = 11211
KEYSTONE_PORT = 5000
GLANCE_PORT = 9292
PLACEMENT_PORT = 8778
NEUTRON_PORT = 9696
NOVA_PORT = 8774
REDIS_PORT = 6379  # of a host's first process; each replica beside it has the next port
REDIS_BUS_OFFSET = 10_000  # nodes of a Redis Cluster talk to each other at this and their port
REDIS_MAX_REPLICAS = 2
WHEELS_PORT = 8780  # where the master offers wheels while the others install them

REDIS_PORTS = tuple(REDIS_PORT + number for number in range(REDIS_MAX_REPLICAS + 1))
REDIS_BUS_PORTS = tuple(port + REDIS_BUS_OFFSET for port in REDIS_PORTS)

# ---------------------------------------------------------------- components and their units

COMPONENTS = (
    "mariadb", "galera", "arbitrator", "haproxy", "redis", "rome", "rabbitmq", "memcached",
    "keystone", "glance", "placement", "neutron", "nova",
)  # fmt: skip

# The Debian package of each component that has one; the others are in Python environments.
DEBIAN_PACKAGES: Mapping[str, str] = {
    "mariadb": "mariadb-server",
    "galera": "mariadb-backup",  # copies a node for another one; Galera comes with MariaDB
    "arbitrator": "galera-arbitrator-4",
    "haproxy": "haproxy",
    "redis": "redis-server",
    "rabbitmq": "rabbitmq-server",
    "memcached": "memcached",
}


@dataclass(frozen=True)
class Unit:
    """A systemd unit that serves a cloud.

    `port` is where it is asked, None where it listens nowhere; `is_http` is true of one that
    answers HTTP there.  `topic` is the name under which others send it messages; None where
    nobody does.  `binary` is what Nova calls its program, the unit's name where it is empty, and
    `suffix` is what follows the host's name where it calls itself by a name of its own.
    """

    name: str
    component: str
    port: int | None = None
    is_http: bool = False
    topic: str | None = None
    binary: str = ""
    suffix: str = ""

    def queue(self, host: str) -> str | None:
        """Return the queue of the message bus that only the unit on `host` reads."""
        return None if self.topic is None else f"{self.topic}.{self.nova_host(host)}"

    def nova_host(self, host: str) -> str:
        """Return the host's name under which Nova knows the unit there."""
        return f"{host}{self.suffix}"

    @property
    def nova_binary(self) -> str:
        """Return what Nova calls the unit's program."""
        return self.binary or self.name


def redis_unit(number: int) -> Unit:
    """Return the unit of a host's Redis process: 0 holds data, the others copies."""
    name = f"redis-replica-{number}" if number else "redis-server"
    return Unit(name, "redis", REDIS_PORT + number)


UNITS: Mapping[str, Unit] = {
    unit.name: unit
    for unit in (
        Unit("mariadb", "mariadb", MARIADB_PORT),
        Unit("galera-check", "galera", GALERA_CHECK_PORT, is_http=True),
        Unit("garb", "arbitrator", ARBITRATOR_PORT),
        Unit("haproxy", "haproxy", DATABASE_PROXY_PORT),
        *(redis_unit(number) for number in range(REDIS_MAX_REPLICAS + 1)),
        Unit("rabbitmq-server", "rabbitmq", RABBITMQ_PORT),
        Unit("memcached", "memcached", MEMCACHED_PORT),
        Unit("keystone-api", "keystone", KEYSTONE_PORT, is_http=True),
        Unit("glance-api", "glance", GLANCE_PORT, is_http=True),
        Unit("placement-api", "placement", PLACEMENT_PORT, is_http=True),
        Unit("neutron-api", "neutron", NEUTRON_PORT, is_http=True),
        Unit("nova-conductor", "nova", topic="conductor"),
        # The conductor above Nova's cells: on one host with a cell's own, so by another name.
        Unit(
            "nova-super-conductor",
            "nova",
            topic="conductor",
            binary="nova-conductor",
            suffix="-super",
        ),
        Unit("nova-scheduler", "nova", topic="scheduler"),
        Unit("nova-api", "nova", NOVA_PORT, is_http=True),
        Unit("nova-compute", "nova", topic="compute"),
    )
}

# ---------------------------------------------------------------- APIs


@dataclass(frozen=True)
class Api:
    """An API as Keystone's catalogue lists it: `kind` is the type of its service there."""

    kind: str
    unit: str
    path: str = ""

    @property
    def component(self) -> str:
        """Return the component that serves it; its name in Keystone's catalogue, too."""
        return UNITS[self.unit].component

    def url(self, address: str) -> str:
        """Return the URL of the API at a host's address."""
        return f"http://{address}:{UNITS[self.unit].port}{self.path}"


APIS: Mapping[str, Api] = {
    api.kind: api
    for api in (
        Api("identity", "keystone-api"),
        Api("image", "glance-api"),
        Api("placement", "placement-api"),
        Api("network", "neutron-api"),
        Api("compute", "nova-api", "/v2.1"),
    )
}

# Microversions of Nova's API: what clients speak, and what they speak where many VMs are looked
# at (what later ones tell of each VM besides costs Nova a query for each).
COMPUTE_MICROVERSION = "2.90"
COMPUTE_DETAILS_MICROVERSION = "2.1"

# Components with a user of their own in Keystone.
SERVICE_USERS = ("nova", "glance", "placement", "neutron")

# The network of VMs that have a port, where there is one.
NETWORK = "discovery"

# ---------------------------------------------------------------- what traffic is told apart by

# By port: the service whose traffic it is, as the table `traffic` names it.
TRAFFIC: Mapping[int, str] = {
    MARIADB_PORT: "mysql",
    **dict.fromkeys((GALERA_PORT, GALERA_IST_PORT, GALERA_SST_PORT, ARBITRATOR_PORT), "galera"),
    RABBITMQ_PORT: "amqp",
    MEMCACHED_PORT: "memcached",
    **{unit.port: unit.component for unit in UNITS.values() if unit.is_http and unit.port},
    **dict.fromkeys((*REDIS_PORTS, *REDIS_BUS_PORTS), "redis"),
}
OTHER_TRAFFIC = "other"
