"""A load generator: the life of one load host's part of a load."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from ..wire.request import LoadRequest, vm_name
from .api import Api, Login
from .clearing import AT_ONCE, Clearing
from .clock import RunTime
from .reads import Reads
from .records import Iterations, Records, Steps, cpu_s
from .regions import Region, Regions, interleaved
from .vms import Vm, Vms
from .warming import WarmUp
from .watch import Watcher

USAGE_EVERY_S = 2.0
# Whoever started the load says when it may begin, and go on after it.
WORD_WITHIN_S = 1800.0
WORD_EVERY_S = 0.05

Iteration = Callable[[], Awaitable[None]]


class LoadGenerator:
    """Makes one load; `report` gets each iteration in Rally's own form."""

    def __init__(
        self,
        request: LoadRequest,
        user: Login,
        admin: Login,
        report: Callable[[dict[str, Any]], None] = lambda _result: None,
    ) -> None:
        self.request = request
        self.api = Api(user, admin, request.time_scale)
        self.regions = Regions(request.regions, request.time_scale)
        self.records = Records(request.records)
        self.iterations = Iterations(self.records, report)
        self.run_time = RunTime(request.run_timeout_s)
        self.watcher = Watcher(self.api, self.regions, request.poll_interval_s)
        self.vms = Vms(
            request, self.api, self.regions, self.watcher.view, self.records, self.run_time
        )
        self.clearing = Clearing(request, self.api, self.regions, self.records)
        self.reads = Reads(request, self.api)

    # ------------------------------------------------------------ the life of a load

    async def run(self) -> None:
        """Clear, warm up, load when told to, describe the VMs when told to, delete them."""
        async with self.api.connected():
            tasks = [asyncio.create_task(each()) for each in (self.watcher.run, self.write_usage)]
            try:
                for region in self.regions:
                    region.url = self.api.user.endpoint("compute", region.name)
                if self.request.kind != "authenticate":
                    await self.prepare()
                self.records.write("ready", at=time.time())
                await self.wait_for("go")
                vms = await self.load()
                await self.wait_for("on")
                await self.finish(vms)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def prepare(self) -> None:
        """Clear what earlier loads left, and warm up."""
        await self.clearing.clear("clearing VMs of earlier loads")
        await self.vms.find_order()
        warm_up = WarmUp(self.request, self.regions, self.vms, self.records)
        if not warm_up.is_any:
            return
        await warm_up.run()
        if self.request.kind == "reads":
            self.reads.keep(warm_up.active)
        else:
            await self.clearing.clear("deleting the warm-up's VMs")
        self.watcher.view.begin_anew()
        for region in self.regions:  # it was down just then
            region.forgive()

    async def load(self) -> list[Vm]:
        """Do all iterations within the run's time; returns the VMs that were asked for."""
        self.run_time.begin()
        self.usage("start")
        vms: list[Vm] = []
        if self.request.kind == "reads":
            await self.repeat(self.reads.round)
        elif self.request.kind == "authenticate":
            await self.repeat(self.take_token)
        else:
            vms = await self.boot_all()
        self.usage("end")
        self.records.write(
            "loaded", last_sent_at=self.api.last_sent_at, time_is_up=self.run_time.is_up
        )
        self.run_time.end()
        return vms

    async def finish(self, vms: Sequence[Vm]) -> None:
        """Describe the VMs, and delete them where that is asked for."""
        if vms:
            self.records.stage("looking where the VMs are", 0, 0)
            await self.vms.describe(vms)
        if self.request.kind in ("boot-and-delete", "reads") or (vms and self.request.delete_after):
            await self.delete_all(vms)
            await self.clearing.clear("clearing the cloud")
        self.records.write("done", lost=self.regions.complaints)

    async def wait_for(self, word: str) -> None:
        """Wait until the file of this name is there, and the moment that it names has come."""
        path, latest = Path(self.request.words) / word, time.monotonic() + WORD_WITHIN_S
        while True:
            with contextlib.suppress(FileNotFoundError, ValueError):
                starts_at = float(path.read_text())
                break
            if time.monotonic() > latest:
                raise RuntimeError(f"nobody said '{word}' within {WORD_WITHIN_S:g} s")
            await asyncio.sleep(WORD_EVERY_S)
        await asyncio.sleep(max(0.0, starts_at - time.time()))

    def usage(self, mark: str = "") -> None:
        """Write what the load generator used until now."""
        self.records.write("usage", at=time.time(), cpu_s=cpu_s(), polls=self.api.polls, mark=mark)

    async def write_usage(self) -> None:
        """Write it again and again, until this is cancelled."""
        while True:
            await asyncio.sleep(USAGE_EVERY_S)
            self.usage()

    # ------------------------------------------------------------ iterations

    async def together(self, iterations: Sequence[Iteration], most: int | None = None) -> None:
        """Do all of it, so much at a time as is asked for; begin nothing once the time is up.

        With `most`, never more than so much at a time.
        """
        waiting = iter(iterations)

        async def work() -> None:
            for iteration in waiting:
                if self.run_time.check():
                    return
                await iteration()

        every = len(iterations)
        at_once = min(every, self.request.concurrency or every, most or every)
        await asyncio.gather(*(work() for _ in range(at_once)))

    async def boot_all(self) -> list[Vm]:
        """Boot all VMs, at once or so many at a time, over the regions in turn."""
        vms: list[Vm] = []
        numbers: dict[str, int] = {}
        for region in interleaved(self.regions, lambda request: request.count):
            own = numbers[region.name] = numbers.get(region.name, 0) + 1
            number = self.request.iterations_before + len(vms) + 1
            placed = region.request.placed
            compute = placed[own - 1] if placed else None
            vms.append(Vm(vm_name(region.name, own), region, number, compute))
        await self.together([self.iteration_of(vm) for vm in vms])
        return [vm for vm in vms if vm.requested_at]

    def iteration_of(self, vm: Vm) -> Iteration:
        """Return the iteration that a VM is."""

        async def iteration() -> None:
            with self.iterations.one(vm.region, vm.number) as steps:
                await self.vms.boot(vm)
                ended_at = vm.seen_at or time.time()
                steps.add("boot", vm.requested_at, ended_at, vm.error)
                if vm.status == "ACTIVE" and self.request.kind == "boot-and-delete":
                    started = time.time()
                    error = await self.vms.delete(vm)
                    steps.add("delete", started, vm.deleted_at or time.time(), error)
                elif vm.status == "ACTIVE" and self.request.kind == "boot-and-list":
                    url = f"{vm.region.url}/servers/detail"
                    # Of its owner's project: admin's, where a host is named.
                    await steps.take("list", self.api.ask("GET", url, admin=vm.is_admins))

        return iteration

    async def delete_all(self, vms: Sequence[Vm]) -> None:
        """Delete all that are there, timed: so many at a time as there were boots, 32 at most.

        Hundreds at once wait for each other longer than a deletion may take.
        """
        there = [vm for vm in vms if vm.server_id and not vm.deleted_at]
        done = 0

        def deletion_of(vm: Vm) -> Iteration:
            async def deletion() -> None:
                nonlocal done
                await self.vms.delete(vm)
                done += 1
                self.records.stage("deleting the VMs", done, len(there))

            return deletion

        if there:
            self.records.stage("deleting the VMs", 0, len(there))
            await self.together([deletion_of(vm) for vm in there], most=AT_ONCE)

    async def repeat(self, once: Callable[[Region, int, Steps], Awaitable[None]]) -> None:
        """Do all iterations of what boots no VMs."""

        def iteration_of(region: Region, number: int) -> Iteration:
            async def iteration() -> None:
                with self.iterations.one(region, number) as steps:
                    await once(region, number, steps)
                self.records.write("iteration", number=number)

            return iteration

        turns = enumerate(
            interleaved(self.regions, lambda request: request.count),
            start=self.request.iterations_before + 1,
        )
        await self.together([iteration_of(region, number) for number, region in turns])

    async def take_token(self, _region: Region, _number: int, steps: Steps) -> None:
        """Ask for a token, as a step."""
        await steps.take("authenticate", self.api.authenticate())
