"""The operations that are measured: what the services do all day, by their own functions.

An operation prepares its arguments first, which is not measured, and then runs once for each.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nova import objects
from nova.db.main import api as db

from . import cloud

ANY = 1.0
KEY = 0.5  # reads by key, single inserts
INSTANCE = 0.6  # instance_get_by_uuid, instance_create

_BOOT_COLUMNS = [
    "metadata",
    "system_metadata",
    "info_cache",
    "security_groups",
    "pci_devices",
    "tags",
    "services",
    "extra",
    "extra.flavor",
    "extra.pci_requests",
    "extra.numa_topology",
    "extra.resources",
    "extra.migration_context",
    "extra.device_metadata",
]


@dataclass(frozen=True)
class Operation:
    """`run` takes what `prepare` made: one argument each time."""

    name: str
    prepare: Callable[[int], list[Any]]
    run: Callable[[Any], Any]
    target: float = ANY  # time on ROME / time on MariaDB, at most
    heavy: bool = False  # answers with hundreds of rows: measured less often


# ---------------------------------------------------------------- arguments

# Not from 0: a process would write what another has written, and SQLAlchemy sees no change.
_turn = int(time.time() * 100) % 10**9


def _next() -> int:
    """Spreads the work over rows: another number each time."""
    global _turn
    _turn += 1
    return _turn


def nothing(count: int) -> list[Any]:
    """Each time the same."""
    return [None] * count


def numbers(count: int) -> list[Any]:
    """One after the other."""
    return [_next() for _ in range(count)]


def old_instances(count: int) -> list[Any]:
    """UUIDs, spread over those of the small project."""
    return [cloud.instance_uuid(cloud.SMALL_PROJECT, _next() % cloud.SMALL) for _ in range(count)]


def new_values(count: int) -> list[Any]:
    """Of instances that do not exist yet."""
    return [cloud.instance_values(cloud.SCRATCH_PROJECT, _next()) for _ in range(count)]


def new_instances(count: int) -> list[Any]:
    """UUIDs of instances made for this."""
    values = new_values(count)
    for each in values:
        db.instance_create(cloud.context(), each)
    return [each["uuid"] for each in values]


def started_instances(count: int) -> list[Any]:
    """With an action that has begun."""
    identities = new_instances(count)
    for identity in identities:
        db.action_start(cloud.context(), cloud.action_values(identity))
    return identities


def _new_specs(count: int) -> list[Any]:
    return [cloud.request_spec(cloud.context(), str(uuid.uuid4())) for _ in range(count)]


def _new_mappings(count: int) -> list[Any]:
    return [cloud.instance_mapping(cloud.context(), str(uuid.uuid4())) for _ in range(count)]


def _hosts(count: int) -> list[Any]:
    return [cloud.host(_next()) for _ in range(count)]


# ---------------------------------------------------------------- reads


def _list(project: str, limit: int | None = 200, **filters: Any) -> list[Any]:
    found: list[Any] = db.instance_get_all_by_filters_sort(
        cloud.context(project),
        {"project_id": project, "deleted": False, **filters},
        limit=limit,
        sort_keys=["created_at", "display_name", "id"],
        sort_dirs=["desc", "desc", "desc"],
    )
    return found


def _by_host(name: str) -> Any:
    return db.instance_get_all_by_host(cloud.context(), name)


def _service(number: int) -> Any:
    return db.service_get(cloud.context(), 1 + number % cloud.HOSTS)


def _node(number: int) -> Any:
    return db.compute_node_get(cloud.context(), 1 + number % cloud.HOSTS)


def _counts(_: Any) -> Any:
    return objects.InstanceList.get_counts(
        cloud.context(cloud.SMALL_PROJECT), cloud.SMALL_PROJECT, user_id=cloud.USER
    )


# ---------------------------------------------------------------- writes


def _certificate(number: int) -> Any:
    return db.certificate_create(
        cloud.context(),
        {
            "user_id": cloud.USER,
            "project_id": cloud.SCRATCH_PROJECT,
            "file_name": f"{number}.pem",
        },
    )


def _update(identity: str) -> Any:
    return db.instance_update(
        cloud.context(),
        identity,
        {
            "vm_state": "building",
            "task_state": "spawning",
            "progress": _next() % 100,
        },
    )


def _update_expecting(identity: str) -> Any:
    return db.instance_update_and_get_original(
        cloud.context(),
        identity,
        {"vm_state": "active", "task_state": None, "power_state": 1, "progress": _next() % 100},
        columns_to_join=["info_cache", "metadata", "system_metadata"],
        expected={"vm_state": ["active", "building", "error"]},
    )


def _info_cache(identity: str) -> Any:
    return db.instance_info_cache_update(
        cloud.context(), identity, {"network_info": f'[{{"id": {_next()}}}]'}
    )


def _extra(identity: str) -> Any:
    return db.instance_extra_update_by_uuid(
        cloud.context(), identity, {"numa_topology": f'{{"n": {_next()}}}'}
    )


def _metadata(identity: str) -> Any:
    return db.instance_metadata_update(
        cloud.context(), identity, {"role": f"web-{_next()}", "owner": "team-1"}, True
    )


def _system_metadata(identity: str) -> Any:
    return db.instance_system_metadata_update(
        cloud.context(), identity, {"image_min_disk": str(_next()), "owner_user_name": "x"}, False
    )


def _block_device(identity: str) -> Any:
    return db.block_device_mapping_create(
        cloud.context(), cloud.block_device_values(identity), legacy=False
    )


def _start(identity: str) -> Any:
    return db.action_start(cloud.context(), cloud.action_values(identity))


def _start_event(identity: str) -> Any:
    return db.action_event_start(
        cloud.context(),
        {
            "event": "compute__do_build_and_run_instance",
            "instance_uuid": identity,
            "request_id": cloud.request_id(identity),
            "start_time": datetime(2026, 1, 1),
            "host": "compute-1",
        },
    )


def _service_report(number: int) -> Any:
    return db.service_update(
        cloud.context(), 1 + number % cloud.HOSTS, {"report_count": 10_000 + number}
    )


def _node_report(number: int) -> Any:
    return db.compute_node_update(
        cloud.context(),
        1 + number % cloud.HOSTS,
        {
            "vcpus_used": number % 1000,
            "memory_mb_used": 512 * number % 800000,
            "free_ram_mb": 800000 - 512 * number % 800000,
            "running_vms": number % 1000,
        },
    )


# ---------------------------------------------------------------- Placement

_placement: cloud.PlacementAPI | None = None


def _api() -> cloud.PlacementAPI:
    global _placement
    if _placement is None:
        _placement = cloud.PlacementAPI()
    return _placement


def _replacements(count: int) -> list[Any]:
    """Consumers that have an allocation, its provider, and their generation."""
    found = []
    for _ in range(count):
        index = _next() % cloud.SMALL
        consumer = cloud.instance_uuid(cloud.SMALL_PROJECT, index)
        generation = _api().call("GET", f"/allocations/{consumer}").body["consumer_generation"]
        found.append((consumer, cloud.provider(index), generation))
        if len({consumer for consumer, *_ in found}) < len(found):
            raise RuntimeError("more allocations at a time than there are consumers")
    return found


def _claims(count: int) -> list[Any]:
    return [(str(uuid.uuid4()), cloud.provider(_next()), None) for _ in range(count)]


def _allocate(claim: tuple[str, str, int | None]) -> None:
    _api().allocate(*claim)


def _candidates(_: Any) -> Any:
    return _api().call(
        "GET", "/allocation_candidates?resources=VCPU:1,MEMORY_MB:512,DISK_GB:1&limit=1000"
    )


def _allocations(identity: str) -> Any:
    return _api().call("GET", f"/allocations/{identity}")


# ---------------------------------------------------------------- all of them

OPERATIONS = (
    # The table of the prototype.
    Operation("primary-key first() (service_get)", numbers, _service, KEY),
    Operation("insert one row (certificate_create)", numbers, _certificate, KEY),
    Operation("instance_update", old_instances, _update),
    Operation(
        "instance_get_by_uuid",
        old_instances,
        lambda identity: db.instance_get_by_uuid(cloud.context(), identity),
        INSTANCE,
    ),
    Operation(
        "instance_create (15 rows)",
        new_values,
        lambda values: db.instance_create(cloud.context(), values),
        INSTANCE,
    ),
    Operation("count + sum over 300 rows (quota)", nothing, _counts),
    Operation("list, 200 of 300", nothing, lambda _: _list(cloud.SMALL_PROJECT), heavy=True),
    Operation("list, 200 of 1000", nothing, lambda _: _list(cloud.LARGE_PROJECT), heavy=True),
    # Further lists and filters.
    Operation(
        "list, all 300 of a project",
        nothing,
        lambda _: _list(cloud.SMALL_PROJECT, None),
        heavy=True,
    ),
    Operation(
        "list by state, 30 of 300",
        nothing,
        lambda _: _list(cloud.SMALL_PROJECT, vm_state="error"),
        heavy=True,
    ),
    Operation(
        "list changed since, 20 of 100",
        nothing,
        lambda _: _list(cloud.LARGE_PROJECT, 20, **{"changes-since": datetime(2020, 1, 1)}),
        heavy=True,
    ),
    Operation(
        "list by metadata, 15 of 300",
        nothing,
        lambda _: _list(cloud.SMALL_PROJECT, metadata={"role": "database"}),
        heavy=True,
    ),
    Operation(
        "list by name (regexp), 1 of 300",
        nothing,
        lambda _: _list(cloud.SMALL_PROJECT, display_name="^vm-123$"),
        heavy=True,
    ),
    Operation("instance_get_all_by_host, about 27", _hosts, _by_host, heavy=True),
    Operation(
        "instance_get_all_uuids_by_hosts (4)",
        nothing,
        lambda _: db.instance_get_all_uuids_by_hosts(
            cloud.context(), [cloud.host(index) for index in range(4)]
        ),
    ),
    # The life of an instance.
    Operation(
        "instance_get_by_uuid, all of it",
        old_instances,
        lambda identity: db.instance_get_by_uuid(
            cloud.context(), identity, columns_to_join=list(_BOOT_COLUMNS)
        ),
        INSTANCE,
    ),
    Operation("instance_update_and_get_original", old_instances, _update_expecting),
    Operation("instance_info_cache_update", old_instances, _info_cache),
    Operation("instance_extra_update_by_uuid", old_instances, _extra),
    Operation("instance_metadata_update", old_instances, _metadata),
    Operation("instance_system_metadata_update", old_instances, _system_metadata),
    Operation("block_device_mapping_create", old_instances, _block_device, KEY),
    Operation(
        "block_device_mapping_get_all_by_instance",
        old_instances,
        lambda identity: db.block_device_mapping_get_all_by_instance(cloud.context(), identity),
        KEY,
    ),
    Operation("action_start", new_instances, _start, KEY),
    Operation("action_event_start", started_instances, _start_event),
    Operation(
        "instance_destroy",
        new_instances,
        lambda identity: db.instance_destroy(cloud.context(), identity),
    ),
    # Hosts and services.
    Operation("service_get_all (72)", nothing, lambda _: db.service_get_all(cloud.context())),
    Operation(
        "service_get_by_compute_host",
        _hosts,
        lambda name: db.service_get_by_compute_host(cloud.context(), name),
        KEY,
    ),
    Operation("service_update", numbers, _service_report),
    Operation("compute_node_get", numbers, _node, KEY),
    Operation("compute_node_update", numbers, _node_report),
    Operation(
        "compute_node_get_all (48)", nothing, lambda _: db.compute_node_get_all(cloud.context())
    ),
    # The API's database.
    Operation(
        "FlavorList.get_all (20)",
        nothing,
        lambda _: objects.FlavorList.get_all(cloud.context()),
    ),
    Operation(
        "Flavor.get_by_flavor_id",
        numbers,
        lambda number: objects.Flavor.get_by_flavor_id(
            cloud.context(), f"size-{number % cloud.FLAVORS}"
        ),
        KEY,
    ),
    Operation(
        "InstanceMapping.get_by_instance_uuid",
        old_instances,
        lambda identity: objects.InstanceMapping.get_by_instance_uuid(cloud.context(), identity),
        KEY,
    ),
    Operation("InstanceMapping.create", _new_mappings, lambda mapping: mapping.create()),
    Operation("RequestSpec.create", _new_specs, lambda spec: spec.create(), KEY),
    Operation(
        "RequestSpec.get_by_instance_uuid",
        old_instances,
        lambda identity: objects.RequestSpec.get_by_instance_uuid(cloud.context(), identity),
        KEY,
    ),
    Operation(
        "HostMapping.get_by_host",
        _hosts,
        lambda name: objects.HostMapping.get_by_host(cloud.context(), name),
        KEY,
    ),
    # Placement, its whole requests.
    Operation("GET /allocation_candidates (48 hosts)", nothing, _candidates, heavy=True),
    Operation("GET /allocations", old_instances, _allocations),
    Operation("PUT /allocations (a new claim)", _claims, _allocate),
    Operation("PUT /allocations (replaced)", _replacements, _allocate),
)
