"""The warm-up before a load: VMs that are booted and deleted, or kept to be read."""

from __future__ import annotations

import asyncio

from ..wire.request import PREFIX, LoadRequest
from .records import Records
from .regions import Region, Regions, interleaved
from .vms import Vm, Vms

AT_ONCE = 16


class WarmUp:
    """Boots the VMs of the warm-up; those that got ACTIVE are in `active`.

    On a compute that is named, only admin may.  A compute that has booted a VM and deleted
    it has told the schedulers of its VMs: until then they ask the database at each boot.
    """

    def __init__(self, request: LoadRequest, regions: Regions, vms: Vms, records: Records) -> None:
        self.request = request
        self.regions = regions
        self.vms = vms
        self.records = records
        self.active: list[Vm] = []

    async def run(self) -> None:
        """Boot them all, some at a time; one that fails is a note.

        Raises RuntimeError where none of a region's named computes boots one: the cloud is broken.
        """
        orders: list[tuple[Region, str | None]] = [
            *((region, None) for region in interleaved(self.regions, lambda each: each.warm_up)),
            *((region, name) for region in self.regions for name in region.request.computes),
        ]
        vms = [
            Vm(f"{PREFIX}{region.name}-9{number:05d}", region, number, compute)
            for number, (region, compute) in enumerate(orders, start=1)
        ]
        places, done = asyncio.Semaphore(AT_ONCE), 0

        async def boot(vm: Vm) -> None:
            nonlocal done
            async with places:
                await self.vms.boot(vm, is_measured=False)
            done += 1
            self.records.stage("warming up", done, len(vms))

        if vms:
            self.records.stage("warming up", 0, len(vms))
        await asyncio.gather(*(boot(vm) for vm in vms))
        failures: dict[str, str] = {}
        for vm in vms:
            if vm.status == "ACTIVE":
                self.active.append(vm)
                continue
            reason = await self.vms.fault_of(vm) or vm.error
            where = vm.compute or vm.region.name
            failure = f"warming up, {where}: {vm.status}, {reason}"
            self.records.write("note", text=failure)
            if vm.compute:
                failures[vm.region.name] = failure
        booted = {vm.region.name for vm in self.active if vm.compute}
        for region, failure in failures.items():
            if region not in booted:
                raise RuntimeError(f"no compute that {region} was asked for boots a VM: {failure}")

    @property
    def is_any(self) -> bool:
        """Tell whether the request asks for a warm-up."""
        return any(each.warm_up or each.computes for each in self.request.regions)
