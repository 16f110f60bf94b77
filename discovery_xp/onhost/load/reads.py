"""Reads of a load: one after the other, of what the cloud has."""

from __future__ import annotations

from collections.abc import Iterable

from ..wire.request import LoadRequest
from .api import Api, Refusal
from .records import Steps
from .regions import Region
from .vms import Vm

# By kind of read: what is asked of the compute API, and whether only admin may.
_COMPUTE_READS = {
    "list": ("servers/detail", False),
    "flavors": ("flavors/detail", False),
    "hypervisors": ("os-hypervisors/detail", True),
    "services": ("os-services", True),
}


class Reads:
    """Rounds of reads; `show` is of VMs that the warm-up left."""

    def __init__(self, request: LoadRequest, api: Api) -> None:
        self.request = request
        self.api = api
        self.to_show: dict[str, list[str]] = {}

    def keep(self, vms: Iterable[Vm]) -> None:
        """Have these VMs shown, each by its own region; not those on a compute of admin's."""
        for vm in vms:
            if vm.server_id and not vm.compute:
                self.to_show.setdefault(vm.region.name, []).append(vm.server_id)

    async def round(self, region: Region, number: int, steps: Steps) -> None:
        """Read all that the request names, as often as it says."""
        for kind in self.request.reads:
            for _ in range(self.request.repeats):
                await steps.take(kind, self.read(kind, region, number))

    async def read(self, kind: str, region: Region, number: int) -> None:
        """Read one thing; raises Refusal."""
        is_admins = False
        if kind == "images":
            url = f"{self.api.user.endpoint('image', region.name)}/v2/images"
        elif kind == "show":
            ids = self.to_show.get(region.name, [])
            if not ids:
                raise Refusal("there is no VM to show")
            url = f"{region.url}/servers/{ids[number % len(ids)]}"
        else:
            path, is_admins = _COMPUTE_READS[kind]
            url = f"{region.url}/{path}"
        await self.api.ask("GET", url, admin=is_admins)
