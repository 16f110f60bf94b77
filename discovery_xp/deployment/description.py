"""`Deployment`: what a load or a reader needs to know of a cloud that was installed, no secrets."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from discovery_xp.errors import Refused
from discovery_xp.files import read_json
from discovery_xp.testbeds.testbed import Testbed, write_atomically

DEPLOYMENT_FORMAT = 1


@dataclass(frozen=True)
class Endpoint:
    """Where a region's Nova is asked; `site` and `controller` say whose it is."""

    region: str
    site: str
    controller: str
    url: str


@dataclass(frozen=True)
class Deployment:
    """A cloud that was installed.

    `versions` is by package; `stages_s` how long each stage took, the hosts' and the links'
    included (empty until all is through), `changes` how many tasks changed something, both
    in the last run.
    """

    auth_url: str
    endpoints: tuple[Endpoint, ...]
    user: str
    flavor: str
    image: str
    options: Mapping[str, Any]
    versions: Mapping[str, str]
    stages_s: Mapping[str, float]
    changes: int
    format: int = DEPLOYMENT_FORMAT

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)


def deployment_file(testbed: Testbed) -> Path:
    """Return where the last deployment's description is."""
    return testbed.folder / "deployment.json"


def save(testbed: Testbed, deployment: Deployment) -> None:
    """Write the description beside the testbed's state."""
    write_atomically(deployment_file(testbed), json.dumps(deployment.to_json(), indent=1) + "\n")


def load(testbed: Testbed) -> Deployment:
    """Return the last deployment of a testbed; raises Refused when there is none."""
    file = deployment_file(testbed)
    try:
        data = read_json(file)
        if data["format"] != DEPLOYMENT_FORMAT:
            raise Refused(
                f"{file}: a deployment of format {data['format']}, but this version reads "
                f"{DEPLOYMENT_FORMAT}",
                "use the version that wrote it, or deploy again",
            )
        endpoints = tuple(Endpoint(**endpoint) for endpoint in data.pop("endpoints"))
        return Deployment(endpoints=endpoints, **data)
    except FileNotFoundError:
        raise Refused(
            f"'{testbed.name}' has no cloud", "make one with 'discovery-xp deploy TOPOLOGY'"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(
            f"{file}: the description of the cloud is damaged ({type(error).__name__})",
            "'deploy' again writes it anew",
        ) from None
