"""VMs of a load: booted, deleted, and looked at afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import catalogue
from ..wire.request import LoadRequest
from . import clock
from .api import ANSWER_S, ERROR_LENGTH, Api, NoAnswer, Refusal
from .clock import RunTime, as_utc, from_utc, left_s
from .records import Records
from .regions import Region, Regions
from .watch import ALL, MARGIN_S, Lost, View


@dataclass
class Vm:
    """A VM of the load; times are seconds since 1970.

    `compute` is the host that its request names, None where the scheduler chooses.
    """

    name: str
    region: Region
    number: int
    compute: str | None = None
    requested_at: float = 0.0
    accepted_at: float | None = None
    seen_at: float | None = None
    server_id: str | None = None
    status: str = ""
    error: str | None = None
    deleted_at: float | None = None

    @property
    def is_admins(self) -> bool:
        """Tell whether admin asks for it, who alone may name a host."""
        return self.compute is not None


class Vms:
    """Boots and deletes VMs, and writes what became of them."""

    def __init__(
        self,
        request: LoadRequest,
        api: Api,
        regions: Regions,
        view: View,
        records: Records,
        run_time: RunTime,
    ) -> None:
        self.request = request
        self.api = api
        self.regions = regions
        self.view = view
        self.records = records
        self.run_time = run_time
        self.order: dict[str, Any] = {}

    # ------------------------------------------------------------ what is asked for

    async def find_order(self) -> None:
        """Find what a request for a VM holds besides its name; raises Refusal."""
        flavor = self.request.flavor
        flavors = await self._ask_any("compute", "/flavors")
        ids = {each["name"]: each["id"] for each in flavors["flavors"]}
        if flavor not in ids:
            raise Refusal(f"the cloud has no flavor '{flavor}'; it has {', '.join(sorted(ids))}")
        image = self.request.image
        images = (await self._ask_any("image", "/v2/images?limit=1000"))["images"]
        active = {each["name"]: each["id"] for each in images if each["status"] == "active"}
        if image not in active:
            raise Refusal(f"the cloud has no image '{image}'; it has {', '.join(sorted(active))}")
        networks: Any = "none"
        if self.request.network:
            listed = await self._ask_any("network", f"/v2.0/networks?name={self.request.network}")
            networks = [{"uuid": listed["networks"][0]["id"]}]
        self.order = {"flavorRef": ids[flavor], "imageRef": active[image], "networks": networks}

    async def _ask_any(self, service: str, path: str) -> Any:
        """Return what the first region says that answers."""
        return await self.regions.ask_any(
            lambda region: self.api.ask("GET", self.api.user.endpoint(service, region.name) + path)
        )

    # ------------------------------------------------------------ boots

    async def boot(self, vm: Vm, is_measured: bool = True) -> None:
        """Ask for a VM and wait for what becomes of it; all of that is in `vm` then."""
        region = vm.region
        order = {"name": vm.name, **self.order, **({"host": vm.compute} if vm.compute else {})}
        waiting = self.view.wait_until_active(vm.name)
        vm.requested_at = time.time()
        latest = min(vm.requested_at + self.request.vm_timeout_s, self.run_time.deadline)
        write = self.records.write if is_measured else lambda *_, **__: None
        write("vm", name=vm.name, region=region.name, site=region.request.site,
              requested_at=vm.requested_at)  # fmt: skip
        try:
            if region.lost:
                raise Refusal(region.lost)
            answer = await self.api.ask(
                "POST", f"{region.url}/servers", {"server": order}, admin=vm.is_admins,
                limit_s=left_s(latest),
            )  # fmt: skip
            vm.accepted_at, vm.server_id = time.time(), answer["server"]["id"]
            write("vm", name=vm.name, accepted_at=vm.accepted_at, server_id=vm.server_id)
            vm.status, vm.seen_at = await asyncio.wait_for(waiting, left_s(latest))
        except NoAnswer as error:
            vm.status, vm.error = "TIMEOUT", str(error)
        except Refusal as error:
            vm.status, vm.error = "REFUSED", str(error)
            region.note(error)
        except TimeoutError:
            vm.status, vm.error = "TIMEOUT", self._give_up(latest)
        except Lost as error:
            vm.status, vm.error = "TIMEOUT", str(error)
        finally:
            waiting.cancel()
        if vm.status == "ERROR":
            vm.error = "it went to ERROR"
        write("vm", name=vm.name, status=vm.status, seen_at=vm.seen_at, error=vm.error)

    def _give_up(self, latest: float) -> str:
        """Return why a VM is waited for no longer."""
        if latest == self.run_time.deadline:
            self.run_time.is_up = True
            return f"not ACTIVE when the run's time ({self.request.run_timeout_s:g} s) was up"
        return f"not ACTIVE within {self.request.vm_timeout_s:g} s"

    async def fault_of(self, vm: Vm) -> str | None:
        """Return what Nova says of why a VM is in ERROR."""
        with contextlib.suppress(Refusal):
            if vm.status == "ERROR":
                url = f"{vm.region.url}/servers/{vm.server_id}"
                answer = await self.api.ask(
                    "GET", url, admin=True, version=catalogue.COMPUTE_DETAILS_MICROVERSION
                )
                return str((answer["server"].get("fault") or {}).get("message"))[:ERROR_LENGTH]
        return None

    # ------------------------------------------------------------ deletions

    async def delete(self, vm: Vm) -> str | None:
        """Delete a VM and wait until it is gone; returns what went wrong."""
        started, error = time.time(), None
        waiting = self.view.wait_until_gone(str(vm.server_id))
        latest = started + self.request.vm_timeout_s
        try:
            url = f"{self.regions.compute_url(vm.region)}/servers/{vm.server_id}"
            await self.api.ask("DELETE", url, admin=vm.is_admins, limit_s=left_s(latest))
            vm.deleted_at = await self._until_gone(waiting, latest)
            self.records.write("vm", name=vm.name, deleted_at=vm.deleted_at)
        except Refusal as refusal:
            error = str(refusal)
            vm.region.note(refusal)
        except Lost as lost:
            error = str(lost)
        except TimeoutError:
            error = f"not gone within {time.time() - started:.0f} s"
        finally:
            waiting.cancel()
        ended = vm.deleted_at or time.time()
        self.records.action("delete", vm.region, started, ended, error, vm.number)
        return error

    async def _until_gone(self, waiting: asyncio.Future[float], latest: float) -> float:
        """Return when a VM was seen to be gone; raises TimeoutError when it is late.

        It is late, too, when no VM has gone for a while.
        """
        started, still_s = time.time(), clock.STOOD_STILL_S * self.api.time_scale
        while True:
            until = min(latest, max(started, self.view.last_gone_at) + still_s)
            try:
                return await asyncio.wait_for(asyncio.shield(waiting), left_s(until))
            except TimeoutError:
                if time.time() >= min(latest, self.view.last_gone_at + still_s):
                    raise

    # ------------------------------------------------------------ afterwards

    async def describe(self, vms: Sequence[Vm]) -> None:
        """Write where each VM is, when it says it got ACTIVE, why it failed: asked as admin."""
        by_id = {vm.server_id: vm for vm in vms if vm.server_id}
        # With `changes-since` a list has those that are deleted already as well.
        since = as_utc(min(vm.requested_at for vm in vms) - MARGIN_S)
        query = f"/detail?{ALL}&name={self.regions.names_in_common}&changes-since={since}"
        try:
            servers = await self.regions.ask_any(
                lambda region: self.api.servers(
                    region.url, query, limit_s=10 * ANSWER_S * self.api.time_scale,
                    version=catalogue.COMPUTE_DETAILS_MICROVERSION,
                )
            )  # fmt: skip
        except Refusal as error:
            self.records.write("note", text=f"looking where the VMs are: {error}")
            return
        for server in servers:
            if server["id"] in by_id:
                vm = by_id[server["id"]]
                self.records.write("vm", name=vm.name, **_description(vm, server))


def _description(vm: Vm, server: dict[str, Any]) -> dict[str, Any]:
    description: dict[str, Any] = {
        "host": server.get("OS-EXT-SRV-ATTR:host"),
        "launched_at": from_utc(server.get("OS-SRV-USG:launched_at")),
    }
    fault = (server.get("fault") or {}).get("message")
    if vm.status == "ERROR" and fault:
        description["error"] = str(fault)[:ERROR_LENGTH]
    elif vm.status not in ("ACTIVE", "ERROR"):
        description["error"] = f"{vm.error}; afterwards Nova called it {server.get('status')}"
    return description
