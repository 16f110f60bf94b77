"""The life of deployments: processing, then terminated with a result per node, or in error."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from .faults import Faults
from .jobs import Jobs
from .machines import Machines, Work
from .platform import ENVIRONMENTS, Clock, Platform
from .vlans import Vlans


class Refused(Exception):
    """Kadeploy doesn't start a deployment; says why, and whether it blames the request."""

    def __init__(self, text: str, is_bad_request: bool = False) -> None:
        super().__init__(text)
        self.is_bad_request = is_bad_request


@dataclass
class Deployment:
    uid: str
    site: str
    user: str
    nodes: tuple[str, ...]
    environment: str
    key: str
    version: int | None
    vlan: str | None
    created_at: float
    ready_at: float
    status: str = "processing"
    updated_at: float = 0
    result: dict[str, dict[str, Any]] = field(default_factory=dict)
    works: dict[str, Future[None]] = field(default_factory=dict)


class Deployments:
    def __init__(
        self,
        platform: Platform,
        clock: Clock,
        jobs: Jobs,
        vlans: Vlans,
        machines: Machines,
        work: Work,
        faults: Faults,
    ) -> None:
        self._platform = platform
        self._clock = clock
        self._jobs = jobs
        self._vlans = vlans
        self._machines = machines
        self._work = work
        self._faults = faults
        self._deployments: dict[str, Deployment] = {}

    def of(self, site: str) -> list[Deployment]:
        """The deployments of a site, the newest first."""
        return [d for d in reversed(self._deployments.values()) if d.site == site]

    def get(self, site: str, uid: str) -> Deployment | None:
        found = self._deployments.get(uid)
        return found if found is not None and found.site == site else None

    def start(
        self,
        site: str,
        user: str,
        nodes: Sequence[str],
        environment: str,
        key: str = "",
        version: int | None = None,
        vlan: str | None = None,
    ) -> Deployment:
        """Deploy an environment on nodes of a running job of type deploy. Raises Refused."""
        self.advance()
        self._check(site, user, nodes, environment, vlan)
        now = self._clock.now()
        deployment = Deployment(
            uid=f"D-{uuid.uuid4()}",
            site=site,
            user=user,
            nodes=tuple(nodes),
            environment=environment,
            key=key,
            version=version,
            vlan=vlan,
            created_at=now,
            ready_at=now + self._jobs.pace.deployment_s,
            updated_at=now,
        )
        for name in nodes:
            self._deploy(deployment, name)
        if vlan is not None:
            self._vlans.put(self._platform.sites[site], vlan, list(nodes), user)
        self._deployments[deployment.uid] = deployment
        return deployment

    def _check(
        self, site: str, user: str, nodes: Sequence[str], environment: str, vlan: str | None
    ) -> None:
        known = environment.split("@")[0] in ENVIRONMENTS
        if not known and not environment.startswith(("http://", "https://")):
            raise Refused(
                f"Invalid environment specification -- the environment {environment} "
                "does not exist",
                is_bad_request=True,
            )
        unknown = [name for name in nodes if (node := self._jobs.node(name)) is None
                   or node.site != site]  # fmt: skip
        if unknown:
            raise Refused(f"The node {unknown[0]} does not exist", is_bad_request=True)
        foreign = [n for n in nodes if self._jobs.running_on(n, user, "deploy") is None]
        if foreign:
            raise Refused(f"Invalid rights: {user} may not deploy on {', '.join(foreign)}")
        busy = {
            name
            for other in self._deployments.values()
            if other.status == "processing"
            for name in other.nodes
        }
        if busy & set(nodes):
            busy_ones = ", ".join(sorted(busy & set(nodes)))
            raise Refused(f"Some nodes are already involved in a deployment: {busy_ones}")
        if vlan is not None and user not in self._vlans.users(self._platform.sites[site], vlan):
            raise Refused(f"Invalid rights: {user} may not use the VLAN {vlan}")

    def _deploy(self, deployment: Deployment, name: str) -> None:
        node = self._jobs.node(name)
        assert node is not None
        if self._faults.fails_to_deploy(name):
            deployment.result[name] = {"macro": None, "micro": None, "state": "KO"}
        elif self._faults.stays_silent(name):
            # Kadeploy believes in it, but nothing answers there.
            deployment.works[name] = self._work.on(node, lambda: self._machines.release(node))
        else:
            deployment.works[name] = self._work.on(
                node,
                lambda: self._machines.deploy(node, deployment.environment, deployment.key),
            )

    def cancel(self, deployment: Deployment) -> None:
        self.advance()
        if deployment.status == "processing":
            deployment.status = "canceled"
            deployment.updated_at = self._clock.now()

    def advance(self) -> None:
        """End the deployments whose time has come, when their machines are done, too."""
        now = self._clock.now()
        for deployment in self._deployments.values():
            if deployment.status != "processing" or now < deployment.ready_at:
                continue
            if not all(work.done() for work in deployment.works.values()):
                continue
            deployment.updated_at = now
            if self._faults.breaks_deployment():
                deployment.status = "error"
                deployment.result = {}
                continue
            for name in deployment.nodes:
                work = deployment.works.get(name)
                is_lost = self._jobs.running_on(name, deployment.user, "deploy") is None
                failed = is_lost or work is None or work.exception() is not None
                state = {"macro": None, "micro": None, "state": "KO" if failed else "OK"}
                deployment.result[name] = state
            deployment.status = "terminated"

    def document(self, deployment: Deployment, prefix: str) -> dict[str, Any]:
        """A deployment as the API describes it; the result is there once there is one."""
        described: dict[str, Any] = {
            "uid": deployment.uid,
            "site_uid": deployment.site,
            "user_uid": deployment.user,
            "environment": deployment.environment,
            "status": deployment.status,
            "nodes": list(deployment.nodes),
            "created_at": int(deployment.created_at),
            "updated_at": int(deployment.updated_at),
            "disable_bootloader_install": False,
            "disable_disk_partitioning": False,
            "ignore_nodes_deploying": False,
        }
        if deployment.key:
            # The API keeps a key that is given as text in a file, and names the file.
            digest = hashlib.sha1(deployment.key.encode()).hexdigest()
            described["key"] = f"{prefix}/sites/{deployment.site}/files/{digest}"
        if deployment.version is not None:
            described["version"] = deployment.version
        if deployment.vlan is not None:
            described["vlan"] = deployment.vlan
        if deployment.status == "terminated":
            described["result"] = deployment.result
        return described
