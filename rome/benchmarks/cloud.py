"""Nova and Placement in this process, their databases wherever the URLs point, and a cloud in them.

The functions of both are called as the services call them; no service runs.
"""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import nova.conf
import nova.context
from nova import config as nova_config
from nova import objects, rpc
from nova.db import migration as nova_migration
from nova.db.api import api as nova_api_db
from nova.db.main import api as nova_db
from oslo_config import cfg
from oslo_messaging import TransportURL
from placement import conf as placement_conf
from placement import db_api as placement_db
from placement import deploy
from placement.db.sqlalchemy import migration as placement_migration
from webob import Request

DATABASES = ("nova_api", "nova", "placement")

HOSTS = 48
FLAVORS = 20
SMALL_PROJECT, SMALL = "a" * 32, 300  # project, instances in it
LARGE_PROJECT, LARGE = "b" * 32, 1000
SCRATCH_PROJECT = "c" * 32  # where what is made while measuring goes
USER = "d" * 32
IMAGE = "2d2f1a0e-8a52-4b8e-8a1e-0f9f6ad2a1d3"
_NAMES = uuid.UUID("5d8a3cda-6c0c-4b4f-9c3d-8e7a2f3a6a10")


def configure(urls: dict[str, str]) -> None:
    """Point Nova and Placement at their databases, by name."""
    logging.getLogger().setLevel(logging.WARNING)
    conf = nova.conf.CONF
    conf([], project="nova", default_config_files=[])
    nova_config.set_lib_defaults()
    TransportURL.parse(conf, "fake://")  # registers the option
    conf.set_override("transport_url", "fake://")
    rpc.init(conf)  # some objects notify when they are made
    conf.set_override("connection", urls["nova_api"], "api_database")
    conf.set_override("connection", urls["nova"], "database")
    nova_db.configure(conf)
    nova_api_db.configure(conf)
    objects.register_all()
    placement_conf.register_opts(PLACEMENT)
    PLACEMENT.set_override("connection", urls["placement"], "placement_database")
    PLACEMENT.set_override("auth_strategy", "noauth2", "api")
    PLACEMENT([], project="placement", default_config_files=[])
    placement_db.configure(PLACEMENT)


PLACEMENT = cfg.ConfigOpts()


def sync() -> None:
    """The services' own migrations, on empty databases."""
    nova_migration.db_sync(database="api")
    nova_migration.db_sync(database="main")
    placement_migration.upgrade("head")


def context(project: str = SCRATCH_PROJECT) -> Any:
    """A new request's, of an administrator of the project."""
    return nova.context.RequestContext(
        user_id=USER, project_id=project, is_admin=True, overwrite=False, roles=["admin"]
    )


# ---------------------------------------------------------------- what is in it


def host(index: int) -> str:
    """Its name."""
    return f"compute-{index % HOSTS}"


def provider(index: int) -> str:
    """The UUID of a host's resource provider, and of its compute node."""
    return str(uuid.uuid5(_NAMES, host(index)))


def instance_uuid(project: str, index: int) -> str:
    """Of an instance that `fill` made."""
    return str(uuid.uuid5(_NAMES, f"{project} {index}"))


def flavor_values(index: int) -> dict[str, Any]:
    """Of a flavor, as its object takes them."""
    return {
        "name": f"m1.size{index}",
        "flavorid": f"size-{index}",
        "memory_mb": 512 * (index + 1),
        "vcpus": 1 + index % 8,
        "root_gb": 1,
        "ephemeral_gb": 0,
        "swap": 0,
        "rxtx_factor": 1.0,
        "vcpu_weight": 0,
        "disabled": False,
        "is_public": True,
        "extra_specs": {"hw:cpu_policy": "shared", "hw:mem_page_size": "small"},
    }


def _flavor_column() -> str:
    flavor = objects.Flavor(id=1, description=None, projects=[], **flavor_values(0))
    return json.dumps({"cur": flavor.obj_to_primitive(), "old": None, "new": None})


def instance_values(project: str, index: int, identity: str | None = None) -> dict[str, Any]:
    """Of an instance as Nova's conductor makes it: 14 rows, and its EC2 name."""
    return {
        "uuid": identity or str(uuid.uuid4()),
        "project_id": project,
        "user_id": USER,
        "display_name": f"vm-{index}",
        "display_description": f"vm-{index}",
        "hostname": f"vm-{index}",
        "image_ref": IMAGE,
        "kernel_id": "",
        "ramdisk_id": "",
        "reservation_id": f"r-{index:08d}",
        "instance_type_id": 1,
        "host": host(index),
        "node": host(index),
        "launched_on": host(index),
        "availability_zone": "nova",
        "vcpus": 1,
        "memory_mb": 512,
        "root_gb": 1,
        "ephemeral_gb": 0,
        "power_state": 0,
        "vm_state": "active" if index % 10 else "error",
        "task_state": None,
        "root_device_name": "/dev/vda",
        "config_drive": "",
        "launch_index": 0,
        "locked": False,
        "progress": 0,
        "disable_terminate": False,
        "hidden": False,
        "shutdown_terminate": False,
        "security_groups": ["default"],
        "metadata": {"role": "web" if index % 20 else "database", "owner": f"team-{index % 7}"},
        "system_metadata": {
            "image_min_disk": "1",
            "image_min_ram": "0",
            "image_disk_format": "qcow2",
            "image_container_format": "bare",
            "image_base_image_ref": IMAGE,
            "owner_user_name": "admin",
            "owner_project_name": "admin",
            "boot_roles": "reader,admin,member,manager",
        },
        "info_cache": {"network_info": "[]"},
        "extra": {"flavor": _flavor_column(), "pci_requests": "[]"},
    }


def compute_node_values(index: int) -> dict[str, Any]:
    """Of a compute node, as the resource tracker reports it."""
    return {
        "uuid": provider(index),
        "host": host(index),
        "hypervisor_hostname": host(index),
        "vcpus": 1000,
        "memory_mb": 800000,
        "local_gb": 600000,
        "vcpus_used": 0,
        "memory_mb_used": 512,
        "local_gb_used": 0,
        "hypervisor_type": "fake",
        "hypervisor_version": 1000,
        "free_ram_mb": 799488,
        "free_disk_gb": 600000,
        "current_workload": 0,
        "running_vms": 0,
        "disk_available_least": 0,
        "host_ip": f"10.0.0.{index + 1}",
        "pci_stats": None,
        "metrics": "[]",
        "mapped": 1,
        "cpu_info": json.dumps(
            {
                "arch": "x86_64",
                "model": "Nehalem",
                "vendor": "Intel",
                "features": ["pge", "clflush"],
                "topology": {"cores": 1, "threads": 1, "sockets": 4},
            }
        ),
        "supported_instances": json.dumps([["x86_64", "fake", "hvm"]]),
        "stats": json.dumps({"failed_builds": "0", "num_instances": "10", "io_workload": "0"}),
        "ram_allocation_ratio": 1.0,
        "cpu_allocation_ratio": 4.0,
        "disk_allocation_ratio": 1.0,
    }


def fill() -> None:
    """A cloud of 48 hosts with 1300 instances, in empty databases."""
    admin = context()
    cell = objects.CellMapping(
        admin,
        uuid=str(uuid.uuid5(_NAMES, "cell")),
        name="cell1",
        transport_url="fake://",
        database_connection="sqlite://",
        disabled=False,
    )
    cell.create()
    for index in range(HOSTS):
        nova_db.service_create(
            admin,
            {
                "host": host(index),
                "binary": "nova-compute",
                "topic": "compute",
                "uuid": str(uuid.uuid5(_NAMES, f"service {index}")),
                "report_count": 1,
                "version": 70,
            },
        )
        nova_db.compute_node_create(admin, compute_node_values(index))
        objects.HostMapping(admin, host=host(index), cell_mapping=cell).create()
    for index in range(12):
        for binary in ("nova-conductor", "nova-scheduler"):
            nova_db.service_create(
                admin,
                {
                    "host": f"controller-{index}",
                    "binary": binary,
                    "topic": binary[5:],
                    "uuid": str(uuid.uuid4()),
                    "report_count": 1,
                    "version": 70,
                },
            )
    for index in range(FLAVORS):
        objects.Flavor(admin, **flavor_values(index)).create()
    for project, count in ((SMALL_PROJECT, SMALL), (LARGE_PROJECT, LARGE)):
        owner = context(project)
        for index in range(count):
            identity = instance_uuid(project, index)
            nova_db.instance_create(owner, instance_values(project, index, identity))
            if project == SMALL_PROJECT:
                instance_mapping(owner, identity).create()
                request_spec(owner, identity).create()
                nova_db.block_device_mapping_create(owner, block_device_values(identity), False)
                nova_db.action_start(owner, action_values(identity))
    for index in range(0, LARGE, 10):
        identity = instance_uuid(LARGE_PROJECT, index)
        nova_db.instance_update(context(LARGE_PROJECT), identity, {"progress": 1})
    api = PlacementAPI()
    for index in range(HOSTS):
        identity = provider(index)
        api.call("POST", "/resource_providers", {"name": host(index), "uuid": identity})
        api.call(
            "PUT",
            f"/resource_providers/{identity}/inventories",
            {
                "resource_provider_generation": 0,
                "inventories": {
                    "VCPU": {"total": 1000, "allocation_ratio": 4.0},
                    "MEMORY_MB": {"total": 800000, "allocation_ratio": 1.0},
                    "DISK_GB": {"total": 600000, "allocation_ratio": 1.0},
                },
            },
        )
    for index in range(SMALL):
        api.allocate(instance_uuid(SMALL_PROJECT, index), provider(index))


def instance_mapping(owner: Any, identity: str) -> Any:
    """Not yet created; its cell is the one that `fill` made."""
    cell = objects.CellMapping.get_by_uuid(owner, str(uuid.uuid5(_NAMES, "cell")))
    return objects.InstanceMapping(
        owner,
        instance_uuid=identity,
        project_id=owner.project_id,
        user_id=owner.user_id,
        cell_mapping=cell,
        queued_for_delete=False,
    )


def request_spec(owner: Any, identity: str) -> Any:
    """Not yet created."""
    flavor = objects.Flavor(id=1, description=None, projects=[], **flavor_values(0))
    image = {
        "id": IMAGE,
        "name": "cirros",
        "status": "active",
        "min_disk": 0,
        "min_ram": 0,
        "size": 16300544,
        "checksum": "b874c39491a2377b8490f5f1e89761a4",
        "owner": "admin",
        "disk_format": "qcow2",
        "container_format": "bare",
        "properties": {},
    }
    return objects.RequestSpec.from_components(
        owner,
        identity,
        image,
        flavor,
        None,
        objects.InstancePCIRequests(requests=[], instance_uuid=identity),
        {},
        None,
        None,
        security_groups=objects.SecurityGroupList(),
    )


def block_device_values(identity: str) -> dict[str, Any]:
    """Of an instance's disk."""
    return {
        "uuid": str(uuid.uuid4()),
        "instance_uuid": identity,
        "source_type": "image",
        "destination_type": "local",
        "image_id": IMAGE,
        "boot_index": 0,
        "device_name": "/dev/vda",
        "delete_on_termination": True,
        "device_type": "disk",
        "guest_format": None,
    }


def request_id(identity: str) -> str:
    """Of the request that made an instance."""
    return f"req-{identity}"


def action_values(identity: str) -> dict[str, Any]:
    """Of the action that made an instance."""
    return {
        "action": "create",
        "instance_uuid": identity,
        "request_id": request_id(identity),
        "user_id": USER,
        "project_id": SCRATCH_PROJECT,
        "start_time": datetime(2026, 1, 1),
    }


# ---------------------------------------------------------------- Placement


@dataclass(frozen=True)
class Answer:
    """Of Placement."""

    status: int
    body: Any


class PlacementAPI:
    """Placement's WSGI application, called without a network."""

    def __init__(self) -> None:
        self._application = deploy.loadapp(PLACEMENT)

    def call(self, method: str, path: str, body: Any = None) -> Answer:
        """Raises RuntimeError if the request fails."""
        request = Request.blank(
            path,
            method=method,
            headers={
                "x-auth-token": "admin",
                "OpenStack-API-Version": "placement 1.36",
                "Accept": "application/json",
            },
        )
        if body is not None:
            request.body = json.dumps(body).encode()
            request.content_type = "application/json"
        response = request.get_response(self._application)
        if response.status_int >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {response.text[:300]}")
        return Answer(response.status_int, response.json if response.body else None)

    def allocate(
        self, consumer: str, resource_provider: str, generation: int | None = None
    ) -> None:
        """All that an instance of the smallest flavor takes."""
        self.call(
            "PUT",
            f"/allocations/{consumer}",
            {
                "allocations": {
                    resource_provider: {"resources": {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1}}
                },
                "project_id": SCRATCH_PROJECT,
                "user_id": USER,
                "consumer_generation": generation,
            },
        )
