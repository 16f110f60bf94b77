"""Timeouts and periods of a cloud, in seconds, and what a time scale makes of them.

The one place that knows them: roles get them multiplied.  With a time scale of 1 only those are
written that we choose ourselves; with another one the defaults of OpenStack's options are, too,
as each of them has to be so many times longer.  docs/scaled-time.md shows the tables.

Pure, as plans are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from discovery_xp.planning import databases
from discovery_xp.planning.layout import CloudLayout

Seconds = Mapping[str, Mapping[str, int]]

# ---------------------------------------------------------------- OpenStack's options

# What oslo.messaging's clients wait for, and when they try again.
_MESSAGING: Seconds = {
    "DEFAULT": {"rpc_response_timeout": 60},
    "oslo_messaging_rabbit": {
        "heartbeat_timeout_threshold": 60,
        "kombu_reconnect_delay": 1,
        "kombu_missing_consumer_retry_timeout": 60,
        "rabbit_retry_interval": 1,
        "rabbit_retry_backoff": 2,
        "rabbit_interval_max": 30,
        "rabbit_transient_queues_ttl": 1800,
        "conn_pool_ttl": 1200,
    },
}
# How oslo.db waits for a connection of its pool, and tries a database again.
_DATABASE: Mapping[str, int] = {
    "connection_recycle_time": 3600,
    "pool_timeout": 30,
    "retry_interval": 10,
    "db_retry_interval": 1,
    "db_max_retry_interval": 10,
}
_TOKENS: Seconds = {
    "keystone_authtoken": {
        "token_cache_time": 300,
        "memcache_pool_dead_retry": 300,
        "memcache_pool_socket_timeout": 3,
        "memcache_pool_unused_timeout": 60,
        "memcache_pool_conn_get_timeout": 10,
    }
}

# The defaults of OpenStack's own options, by component.  What is 0 or negative there has another
# meaning than a time, and isn't here.
DEFAULTS: Mapping[str, Seconds] = {
    "keystone": {
        "database": _DATABASE,
        "token": {"expiration": 3600},
        "cache": {"expiration_time": 600},
    },
    "glance": {"database": _DATABASE, **_TOKENS},
    "placement": {"placement_database": _DATABASE, **_TOKENS},
    "neutron": {
        "DEFAULT": {
            **_MESSAGING["DEFAULT"],
            "rpc_response_max_timeout": 600,
            "periodic_interval": 40,
            "periodic_fuzzy_delay": 5,
            "agent_down_time": 75,
            "send_events_interval": 2,
        },
        "oslo_messaging_rabbit": _MESSAGING["oslo_messaging_rabbit"],
        "database": _DATABASE,
        **_TOKENS,
    },
    "nova": {
        "DEFAULT": {
            **_MESSAGING["DEFAULT"],
            "long_rpc_timeout": 1800,
            "report_interval": 10,
            "service_down_time": 60,
            "periodic_fuzzy_delay": 60,
            # 0, the default, lets it run every minute.
            "update_resources_interval": 60,
            "sync_power_state_interval": 600,
            "shelved_poll_interval": 3600,
            "instance_delete_interval": 300,
            "scheduler_instance_sync_interval": 120,
            "running_deleted_instance_poll_interval": 1800,
            "stale_share_access_reconcile_interval": 1800,
            "block_device_allocate_retries_interval": 3,
            "vif_plugging_timeout": 300,
            "arq_binding_timeout": 300,
            "shutdown_timeout": 60,
        },
        "oslo_messaging_rabbit": _MESSAGING["oslo_messaging_rabbit"],
        "compute": {"shutdown_retry_interval": 10, "resource_provider_association_refresh": 300},
        "image_cache": {"manager_interval": 2400},
        "neutron": {"extension_sync_interval": 600},
        **_TOKENS,
    },
    # In a file of its own, which computes haven't got.
    "nova_database": {"database": _DATABASE, "api_database": _DATABASE},
}

# What we choose for Nova, whatever the topology says of periodic tasks: services end when they
# are told to, not minutes later.
_NOVA: Seconds = {"DEFAULT": {"graceful_shutdown_timeout": 10}}
# As few periodic tasks as Nova allows, where the load alone is to be measured.  Where one machine
# stands for many, a burst makes answers wait for the processor: after Nova's 60 s deletions fail
# that would have come through.  An answer's time is shorter than that of a service which is taken
# for down: a compute whose report goes to a conductor that is being restarted waits so long.
_NOVA_QUIET: Seconds = {
    "DEFAULT": {
        "report_interval": 30,
        "service_down_time": 150,
        "rpc_response_timeout": 120,
        "update_resources_interval": 600,
        # Negative ones are off.
        "sync_power_state_interval": -1,
        "heal_instance_info_cache_interval": -1,
        "shelved_poll_interval": -1,
        "instance_delete_interval": -1,
        "scheduler_instance_sync_interval": -1,
    },
    "image_cache": {"manager_interval": -1},
}

# ---------------------------------------------------------------- all that isn't OpenStack's

# By the name that roles know them by.
SECONDS: Mapping[str, int] = {
    # gunicorn, in front of each API.
    "gunicorn_keepalive": 75,
    "gunicorn_timeout": 300,
    "gunicorn_graceful_timeout": 5,
    # systemd's units of the cloud.
    "unit_restart": 5,
    "unit_start": 300,
    "unit_stop": 20,
    "api_stop": 15,
    "server_start": 120,
    "rabbitmq_restart": 2,
    "redis_stop": 30,
    # Our own client of memcached.
    "memcached_timeout": 3,
    "memcached_rest": 10,
    # Redis: when a node of a cluster is taken for dead, and when a silent client is asked.
    "redis_node_timeout": 15,
    "redis_tcp_keepalive": 60,
    # For its nodes to be one cluster, each with its own part.
    "redis_cluster": 120,
    # For Nova's services to be up, for a VM of the smoke test to be ACTIVE, or gone.
    "services_up": 300,
    "smoke_boot": 120,
    # For VMs of loads to be gone, and for what Nova keeps of them to be archived.
    "reset": 900,
}
# With another time scale than 1 these defaults are written, too.
MARIADB_DEFAULTS: Mapping[str, int] = {
    "connect_timeout": 10,
    "net_read_timeout": 30,
    "net_write_timeout": 60,
    "innodb_lock_wait_timeout": 50,
    "lock_wait_timeout": 86_400,
    "wait_timeout": 28_800,
    "interactive_timeout": 28_800,
}
RABBITMQ_DEFAULTS_S: Mapping[str, int] = {"heartbeat": 60}
RABBITMQ_DEFAULTS_MS: Mapping[str, int] = {
    "handshake_timeout": 10_000,
    "consumer_timeout": 1_800_000,
    "collect_statistics_interval": 5000,
}
REDIS_DEFAULTS: Mapping[str, int] = {"repl-timeout": 60, "repl-ping-replica-period": 10}
# Options of the URLs of both drivers, by the driver's name.
CONNECTION_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    databases.ROME: {"timeout": 30, "connect_timeout": 5, "hold": 5},
    databases.MYSQL: {"connect_timeout": 10},
}
PATIENCE_S = 15
# Those that MariaDB, the kernel and oslo.messaging don't take any longer: a year, the most of a
# signed short, 4.5 s.
_MOST = {"wait_timeout": 31_536_000, "interactive_timeout": 31_536_000,
         "lock_wait_timeout": 31_536_000, "connect_timeout": 31_536_000,
         "redis_tcp_keepalive": 32_767, "kombu_reconnect_delay": 4}  # fmt: skip


@dataclass(frozen=True)
class Timings:
    """What roles are told of timeouts and periods: all of them are multiplied already.

    `settings` are OpenStack's options by component, section and option, those included that a
    topology's own `config` names.  `seconds` are by name.  `mariadb`, `rabbitmq` and `redis`
    are lines of these servers' own files, none with a time scale of 1.
    """

    time_scale: float
    settings: Mapping[str, Mapping[str, Mapping[str, Any]]]
    seconds: Mapping[str, int]
    mariadb: Mapping[str, int]
    rabbitmq: Mapping[str, int]
    redis: Mapping[str, int]


def scaled(seconds: float, time_scale: float) -> int:
    """Return how many whole seconds stand for so many; what isn't a time stays as it is."""
    return math.ceil(seconds * time_scale) if seconds > 0 else int(seconds)


def timings(layout: CloudLayout, time_scale: float) -> Timings:
    """Decide all timeouts and periods of a cloud."""
    return Timings(
        time_scale=time_scale,
        settings={component: _settings(component, layout, time_scale) for component in DEFAULTS},
        seconds=_scaled(SECONDS, time_scale),
        mariadb=_if_scaled(MARIADB_DEFAULTS, time_scale),
        rabbitmq={
            **_if_scaled(RABBITMQ_DEFAULTS_S, time_scale),
            **_if_scaled(RABBITMQ_DEFAULTS_MS, time_scale),
        },
        redis=_if_scaled(REDIS_DEFAULTS, time_scale),
    )


def _settings(component: str, layout: CloudLayout, time_scale: float) -> dict[str, dict[str, Any]]:
    options = layout.options
    layers: list[Seconds] = [DEFAULTS[component]] if time_scale != 1 else []
    if component == "nova":
        layers += [_NOVA, *([_NOVA_QUIET] if options.periodic_tasks == "quiet" else [])]
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, seconds in layer.items():
            merged.setdefault(section, {}).update(seconds)
    own = options.config.get(component.removesuffix("_database"), {})
    for section, settings in own.items():
        for option, value in settings.items():
            if option in merged.get(section, {}):
                merged[section][option] = value
    written = {
        section: {option: _option(option, value, time_scale) for option, value in settings.items()}
        for section, settings in merged.items()
    }
    for section, database in _DATABASES.get(component, {}).items() if time_scale != 1 else ():
        if "connection_parameters" not in own.get(section, {}):
            written[section]["connection_parameters"] = _parameters(layout, database, time_scale)
    return written


def _parameters(layout: CloudLayout, database: str, time_scale: float) -> str:
    """Return what is added to a database's URL: its driver's own timeouts."""
    backend = next(each.backend for each in layout.databases if each.name == database)
    seconds = {**CONNECTION_DEFAULTS[backend]}
    if backend == databases.ROME and layout.redis and layout.redis.kind == "server":
        seconds["patience"] = PATIENCE_S  # with a cluster it follows the node timeout
    return "&".join(f"{name}={scaled(value, time_scale)}" for name, value in seconds.items())


# The database that each section of a component's options is about.
_DATABASES: Mapping[str, Mapping[str, str]] = {
    "keystone": {"database": "keystone"},
    "glance": {"database": "glance"},
    "placement": {"placement_database": "placement"},
    "neutron": {"database": "neutron"},
    # Those of cells are held as this one is.
    "nova_database": {"database": databases.CELL0, "api_database": "nova_api"},
}


def _option(name: str, value: Any, time_scale: float) -> Any:
    """Return an option's value, multiplied where it is a number; a text may be anything."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return _bounded(name, value, time_scale) if is_number and time_scale != 1 else value


def _bounded(name: str, seconds: float, time_scale: float) -> int:
    return min(_MOST.get(name, 2**31 - 1), scaled(seconds, time_scale))


def _scaled(seconds: Mapping[str, int], time_scale: float) -> dict[str, int]:
    return {name: _bounded(name, value, time_scale) for name, value in seconds.items()}


def _if_scaled(seconds: Mapping[str, int], time_scale: float) -> dict[str, int]:
    return _scaled(seconds, time_scale) if time_scale != 1 else {}
