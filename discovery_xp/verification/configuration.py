"""`tempest.conf`: all that Tempest is told of a cloud, decided here.  Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from discovery_xp.deployment.variables import PlayVariables, RegionVariables
from discovery_xp.errors import Refused
from discovery_xp.onhost import catalogue
from discovery_xp.onhost.wire.verification import FlavorRequest
from discovery_xp.text import short

FOLDER = "/var/lib/discovery-xp/verify"
# For a VM or an image to get ready, in seconds: one that takes longer is a failure.
BUILD_WITHIN_S = 180

# The second one is larger, for VMs that are resized.
FLAVORS = (
    FlavorRequest("discovery-xp-verify-1", ram_mb=64, disk_gb=1, vcpus=1),
    FlavorRequest("discovery-xp-verify-2", ram_mb=128, disk_gb=1, vcpus=1),
)
Settings = Mapping[str, Mapping[str, Any]]


def new_images() -> tuple[str, str]:
    """Return identities for two images: Glance takes none that an image had before."""
    return str(uuid.uuid4()), str(uuid.uuid4())


@dataclass(frozen=True)
class CloudUnderTest:
    """What of a cloud decides which tests can pass: the region that is asked, computes, NICs.

    `images` are the identities of those that are made for the tests.
    """

    region: RegionVariables
    computes: int
    nics: int
    images: tuple[str, str] = field(default_factory=new_images)


def cloud_under_test(variables: PlayVariables, region: str | None) -> CloudUnderTest:
    """Return the cloud as tests see it, through its first region unless one is named.

    Raises Refused where there is no such region.
    """
    cloud = variables.cloud
    regions = {each.name: each for each in cloud.regions}
    if region is not None and region not in regions:
        raise Refused(
            f"--region: the cloud has no region '{short(region)}'", f"it has {', '.join(regions)}"
        )
    return CloudUnderTest(
        region=regions[region] if region is not None else cloud.regions[0],
        computes=sum(len(hosts) for hosts in cloud.computes.values()),
        nics=int(cloud.options["nics"]),
    )


def settings(cloud: CloudUnderTest, password: str) -> Settings:
    """Return `tempest.conf` by section and option; it holds the administrator's password.

    The host that runs the tests adds which extensions Neutron offers.
    """
    return {
        "DEFAULT": {"log_dir": FOLDER, "log_file": "tempest-debug.log"},
        "oslo_concurrency": {"lock_path": f"{FOLDER}/lock"},
        "auth": {
            "use_dynamic_credentials": True,
            # Neutron has no routers, and a network of each project's would want one.
            "create_isolated_networks": False,
            "admin_username": "admin",
            "admin_project_name": "admin",
            "admin_domain_name": "Default",
            "admin_password": password,
        },
        "identity": {
            "uri_v3": f"{cloud.region.urls['identity']}/v3",
            "region": cloud.region.name,
        },
        "service_available": {
            "nova": True, "glance": True, "neutron": True,
            "cinder": False, "swift": False, "horizon": False,
        },
        "compute": {
            "image_ref": cloud.images[0],
            "image_ref_alt": cloud.images[1],
            "flavor_ref": FLAVORS[0].id,
            "flavor_ref_alt": FLAVORS[1].id,
            # Without ports VMs get no network at all.
            "fixed_network_name": catalogue.NETWORK if cloud.nics else None,
            "min_compute_nodes": cloud.computes,
            "min_microversion": "2.1",
            "max_microversion": "latest",
            "build_timeout": BUILD_WITHIN_S,
        },
        "placement": {"min_microversion": "1.0", "max_microversion": "latest"},
        "compute-feature-enabled": {
            # The fake driver uploads nothing: an image of its VMs never gets ready.
            "snapshot": False,
            "resize": cloud.computes > 1,
            "cold_migration": cloud.computes > 1,
            "live_migration": cloud.computes > 1,
            "interface_attach": bool(cloud.nics),
        },
        "image": {"build_timeout": BUILD_WITHIN_S},
        # There are no routers, so nothing to reach VMs by.
        "network-feature-enabled": {"floating_ips": False, "port_security": True},
        # VMs of the fake driver answer nobody.
        "validation": {"run_validation": False},
    }  # fmt: skip
