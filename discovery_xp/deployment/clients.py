"""How OpenStack's clients log in to a cloud: `clouds.yaml`, and `openrc` for a shell.

Both hold passwords, and are readable by their owner only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from discovery_xp.boundary import writers
from discovery_xp.onhost.catalogue import COMPUTE_MICROVERSION
from discovery_xp.testbeds.testbed import Testbed, write_atomically

# The user of experiments, and the project of the same name.
USER = "discovery"


def clouds_file(testbed: Testbed) -> Path:
    """Return where the testbed's `clouds.yaml` is."""
    return testbed.folder / "clouds.yaml"


def openrc_file(testbed: Testbed) -> Path:
    """Return where the testbed's `openrc` is."""
    return testbed.folder / "openrc"


def write(
    testbed: Testbed, auth_url: str, regions: Sequence[str], passwords: Mapping[str, str]
) -> None:
    """Write both files into the testbed's folder."""
    for file, text in (
        (clouds_file(testbed), clouds_yaml(auth_url, regions, passwords)),
        (openrc_file(testbed), openrc(auth_url, regions, passwords)),
    ):
        write_atomically(file, text, mode=0o600)


def clouds_yaml(auth_url: str, regions: Sequence[str], passwords: Mapping[str, str]) -> str:
    """Return `clouds.yaml` with the administrator and the user of experiments."""

    def entry(user: str, project: str, password: str) -> dict[str, Any]:
        return {
            "auth": {
                "auth_url": auth_url,
                "username": user,
                "password": password,
                "project_name": project,
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            },
            "identity_api_version": "3",
            # Without it the client speaks the API of 2013, which can't go without a NIC.
            "compute_api_version": COMPUTE_MICROVERSION,
            "regions": list(regions),  # the first is asked unless another is named
        }

    clouds = {
        "admin": entry("admin", "admin", passwords["admin"]),
        USER: entry(USER, USER, passwords["user"]),
    }
    return yaml.safe_dump({"clouds": clouds}, sort_keys=False)


def openrc(auth_url: str, regions: Sequence[str], passwords: Mapping[str, str]) -> str:
    """Return the administrator's login as variables of a shell."""
    shell = {
        "OS_AUTH_URL": auth_url,
        "OS_USERNAME": "admin",
        "OS_PASSWORD": passwords["admin"],
        "OS_PROJECT_NAME": "admin",
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_IDENTITY_API_VERSION": "3",
        "OS_COMPUTE_API_VERSION": COMPUTE_MICROVERSION,
        "OS_REGION_NAME": regions[0],
    }
    return writers.shell_exports(shell)
