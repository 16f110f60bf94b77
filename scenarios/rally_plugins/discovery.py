"""The load as Rally runs it: an iteration is a VM, a round of reads, or a token.

Rally brings the users, keeps the results and writes the reports.  Its own runners start a
thread, a login and a poller for each iteration, and 500 of those are a load of their own.
So the runner is ours, too: one process, one event loop, one token for each user,
connections that are kept, and one list of VMs for each look, at the regions in turn.

All that happens is written at once to a file of JSON lines: a load that is killed keeps
what it had.  `discovery_xp/load` reads them; docs/load.md says what each step is.
"""

# No `from __future__ import annotations`: Rally loads plugins outside of sys.modules, where
# dataclasses look for names in annotations.
import asyncio
import contextlib
import json
import os
import re
import resource
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from rally.common import validation
from rally.task import runner
from rally_openstack.common import osclients
from rally_openstack.task import scenario

T = TypeVar("T")

COMPUTE_VERSION = "2.90"
# What later versions tell of each VM besides costs Nova a question to the database for each.
DETAILS_VERSION = "2.1"
PREFIX = "load-"
# Of the load's other requests: their time isn't what is measured.
ANSWER_S = 120.0
CONNECT_S = 30.0
# Of a look: there is another region to ask.
LOOK_ANSWER_S = 60.0
LOOK_CONNECT_S = 5.0
# A region whose API can't be reached for so long is given up.
GIVE_UP_S = 60.0
# `changes-since` looks back so far behind the last look: the hosts' clocks differ a bit.
MARGIN_S = 30.0
# Each so many looks one is at all VMs, and at those in ERROR.
FULL_LOOK_EVERY = 5
USAGE_EVERY_S = 2.0
# Whoever started the load says when it may begin, and go on after it.
WORD_WITHIN_S = 1800.0
WORD_EVERY_S = 0.05
# Of a list: VMs of all projects.
ALL = "all_tenants=1"
# Boots and deletions of what isn't measured.
WARMING_AT_ONCE = 16
CLEARING_AT_ONCE = 32
# Deletions are waited for no longer when no VM has gone for so long.
STOOD_STILL_S = 120.0
ERROR_LENGTH = 300


class Refusal(Exception):
    """A request that was answered by an error, or couldn't be sent."""

    def __init__(self, message: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(message[:ERROR_LENGTH])


class NoAnswer(Refusal):
    """A request that wasn't answered in time."""


class Lost(Exception):
    """All APIs were given up."""


@dataclass
class Region:
    """An API that is asked.

    `lost` says why it was given up, `unreached` counts requests of the load that didn't
    reach it, `failing_since` is set while looks don't.
    """

    name: str
    site: str
    count: int
    warm_up: int
    computes: list[str]
    url: str = ""
    failing_since: float | None = None
    lost: str = ""
    unreached: int = 0
    last_failure: str = ""

    def note(self, refusal: Refusal) -> None:
        """A request of the load failed; an answer that refuses it is an answer."""
        if refusal.status is None and not isinstance(refusal, NoAnswer):
            self.unreached += 1
            self.last_failure = str(refusal)

    def note_look(self, started: float, failure: Refusal | None) -> None:
        """A look was answered or not; an API that fails to be reached for long is given up.

        One that answers by errors, or takes its time, is there: it may be busy.
        """
        if failure is None or failure.status is not None or isinstance(failure, NoAnswer):
            self.failing_since = None
            return
        self.failing_since, self.last_failure = self.failing_since or started, str(failure)
        if time.time() - self.failing_since >= GIVE_UP_S:
            self.lost = f"{self.name}'s API doesn't answer: {failure}"

    @property
    def complaint(self) -> str:
        """What is wrong with it; empty when nothing is."""
        if self.lost:
            return self.lost
        if self.unreached:
            requests = "a request" if self.unreached == 1 else f"{self.unreached} requests"
            return f"{self.name}'s API couldn't be reached by {requests}: {self.last_failure}"
        if self.failing_since is not None:
            return f"{self.name}'s API doesn't answer any more: {self.last_failure}"
        return ""


class View:
    """Who waits for what lists show: VMs that boot, by name, and that go, by id.

    By name, as a list may show a VM before its request was answered.
    """

    def __init__(self) -> None:
        self.booting: dict[str, asyncio.Future[tuple[str, float]]] = {}
        self.leaving: dict[str, asyncio.Future[float]] = {}
        self.waited_for = asyncio.Event()
        self.lost = ""
        self.looks = 0
        self.since = 0.0
        self.last_gone_at = 0.0

    def wait_for_boot(self, name: str) -> asyncio.Future[tuple[str, float]]:
        """Done with (status, when it was seen) once the VM is ACTIVE or in ERROR."""
        return self._wait(self.booting, name)

    def wait_for_end(self, server_id: str) -> asyncio.Future[float]:
        """Done with when it was seen that the VM is gone."""
        return self._wait(self.leaving, server_id)

    def _wait(self, waiting: dict[str, asyncio.Future[Any]], key: str) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.lost:
            future.set_exception(Lost(self.lost))
        else:
            waiting[key] = future
            self.waited_for.set()
            future.add_done_callback(lambda _done: waiting.pop(key, None))
        return future

    def lose(self, reason: str) -> None:
        """There is nobody left to ask: nobody waits any longer."""
        self.lost = reason
        waiting: list[asyncio.Future[Any]] = [*self.booting.values(), *self.leaving.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(Lost(reason))

    def begin_anew(self) -> None:
        """As if nothing had been looked at."""
        self.looks, self.since = 0, 0.0


@dataclass
class Vm:
    """A VM of the load; times are seconds since 1970."""

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


class Records:
    """The file of JSON lines; each line is there once `write` returns."""

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, line: str, **values: Any) -> None:
        os.write(self.file, f"{json.dumps({'line': line, **values})}\n".encode())


class Login:
    """A user of the cloud; one token for all requests, another when it is refused."""

    def __init__(self, credential: Any) -> None:
        self.credential = credential
        self.session, self.plugin = osclients.Clients(credential).keystone.get_session()
        self.token: str = self.session.get_token()
        self.lock = asyncio.Lock()

    def endpoint(self, service: str, region: str) -> str:
        """Where a service of a region is asked."""
        found = self.session.get_endpoint(
            service_type=service, interface="public", region_name=region
        )
        if not found:
            raise Refusal(f"the catalogue has no {service} in {region}")
        return str(found).rstrip("/")

    async def renew(self, stale: str) -> None:
        """Another token than `stale`, by whoever comes first."""
        async with self.lock:
            if self.token == stale:
                await asyncio.to_thread(self.session.invalidate)
                self.token = await asyncio.to_thread(self.session.get_token)


def cpu_s() -> float:
    """CPU seconds of this process and all that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return round(sum(each.ru_utime + each.ru_stime for each in used), 3)


def interleaved(regions: list[Region], counts: Callable[[Region], int]) -> Iterator[Region]:
    """One region after the other, each as often as it is due, for as long as any is."""
    left = [counts(region) for region in regions]
    while any(left):
        for index, region in enumerate(regions):
            if left[index]:
                left[index] -= 1
                yield region


class Bench:
    """One load; `report` gets each iteration in Rally's own form."""

    def __init__(self, wanted: dict[str, Any], user: Any, admin: Any) -> None:
        self.wanted = wanted
        self.user, self.admin = Login(user), Login(admin)
        self.records = Records(wanted["records"])
        self.regions = [Region(**region) for region in wanted["regions"]]
        self.report: Callable[[dict[str, Any]], None] = lambda _result: None
        self.http: Any = None
        self.polls = 0
        self.view = View()
        self.turn = 0
        self.order: dict[str, Any] = {}
        self.deadline = float("inf")
        self.time_is_up = False
        self.last_sent_at = 0.0
        self.to_show: dict[str, list[str]] = {}

    # ------------------------------------------------------------ the life of a load

    async def run(self) -> None:
        """Clear, warm up, load when told to, look at what became of it when told to, delete."""
        tracing = aiohttp.TraceConfig()
        tracing.on_request_headers_sent.append(self.note_sent)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        async with aiohttp.ClientSession(
            connector=connector, trace_configs=[tracing], auto_decompress=True
        ) as self.http:
            watchers = [asyncio.create_task(each()) for each in (self.watch, self.write_usage)]
            try:
                await self.live()
            finally:
                for watcher in watchers:
                    watcher.cancel()
                await asyncio.gather(*watchers, return_exceptions=True)

    async def live(self) -> None:
        for region in self.regions:
            region.url = self.user.endpoint("compute", region.name)
        kind = self.wanted["kind"]
        if kind != "authenticate":
            await self.clear("clearing VMs of earlier loads")
            self.order = await self.find_order()
            await self.warm_up()
        self.records.write("ready", at=time.time())
        await self.wait_for("go")
        started = time.time()
        self.deadline = started + self.wanted["run_timeout_s"]
        self.usage("start")
        runs = {"reads": self.read, "authenticate": self.authenticate}
        vms = await (self.boot_all() if kind not in runs else self.repeat(runs[kind]))
        self.usage("end")
        self.records.write("loaded", last_sent_at=self.last_sent_at, time_is_up=self.time_is_up)
        self.deadline = float("inf")
        await self.wait_for("on")
        if vms:
            self.records.write("stage", stage="looking where the VMs are", done=0, total=0)
            await self.describe(vms)
        if kind in ("boot-and-delete", "reads") or (vms and self.wanted["delete_after"]):
            await self.delete_all(vms)
            await self.clear("clearing the cloud")
        complaints = {region.name: region.complaint for region in self.regions}
        self.records.write("done", lost={name: text for name, text in complaints.items() if text})

    async def wait_for(self, word: str) -> None:
        """Until the file of this name is there, and the time that it names has come."""
        path, latest = Path(self.wanted["words"]) / word, time.monotonic() + WORD_WITHIN_S
        while True:
            with contextlib.suppress(FileNotFoundError, ValueError):
                starts_at = float(path.read_text())
                break
            if time.monotonic() > latest:
                raise RuntimeError(f"nobody said '{word}' within {WORD_WITHIN_S:g} s")
            await asyncio.sleep(WORD_EVERY_S)
        await asyncio.sleep(max(0.0, starts_at - time.time()))

    async def note_sent(self, _session: Any, _context: Any, params: Any) -> None:
        if params.method == "POST":
            self.last_sent_at = time.time()

    def usage(self, mark: str = "") -> None:
        self.records.write("usage", at=time.time(), cpu_s=cpu_s(), polls=self.polls, mark=mark)

    async def write_usage(self) -> None:
        while True:
            await asyncio.sleep(USAGE_EVERY_S)
            self.usage()

    # ------------------------------------------------------------ requests

    async def ask(
        self,
        method: str,
        url: str,
        body: Any = None,
        admin: bool = False,
        limit_s: float = ANSWER_S,
        connect_s: float = CONNECT_S,
        version: str = COMPUTE_VERSION,
    ) -> Any:
        """The answer's JSON; raises Refusal."""
        login = self.admin if admin else self.user
        limits = aiohttp.ClientTimeout(total=limit_s, sock_connect=connect_s)
        renewed = False
        while True:
            token = login.token
            headers = {"X-Auth-Token": token, "X-OpenStack-Nova-API-Version": version}
            status, data = await self.send(method, url, body, headers, limits)
            if status != 401 or renewed:
                break
            await login.renew(token)
            renewed = True
        if status >= 400:
            raise Refusal(f"HTTP {status}: {said(data)}", status)
        try:
            return json.loads(data) if data else None
        except ValueError:
            raise Refusal(f"HTTP {status}, but not JSON: {said(data)}", status) from None

    async def send(
        self, method: str, url: str, body: Any, headers: dict[str, str], limits: Any
    ) -> tuple[int, bytes]:
        try:
            async with self.http.request(
                method, url, json=body, headers=headers, timeout=limits
            ) as answer:
                return answer.status, await answer.read()
        except aiohttp.ServerTimeoutError:
            raise Refusal(f"no connection within {limits.sock_connect:g} s") from None
        except TimeoutError:
            raise NoAnswer(f"no answer within {limits.total:.0f} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Refusal(f"{type(error).__name__}: {error}") from None

    async def pages(self, region: Region, query: str, **how: Any) -> list[Any]:
        """All servers of a list, however many pages it has; each page is a poll.

        It is asked as admin: VMs of the warm-up are admin's.
        """
        url: str | None = f"{region.url}/servers{query}"
        found: list[Any] = []
        while url:
            self.polls += 1
            answer = await self.ask("GET", url, admin=True, **how)
            found += answer["servers"]
            links = [link for link in answer.get("servers_links", []) if link["rel"] == "next"]
            url = links[0]["href"] if links else None
        return found

    async def somewhere(self, doing: Callable[[Region], Awaitable[T]]) -> T:
        """What comes of it at the first region that can be asked; raises the last Refusal.

        VMs are one cell's: where a region's own API is gone, another one knows them.
        """
        refusal = Refusal("; ".join(region.lost for region in self.regions) or "no region")
        for region in self.regions:
            if not region.lost:
                try:
                    return await doing(region)
                except Refusal as error:
                    refusal = error
        raise refusal

    def api_of(self, region: Region) -> str:
        """Where a region's VMs are asked about: by its own API, or another if it was lost."""
        others = [each for each in self.regions if not each.lost]
        return region.url if not region.lost or not others else others[0].url

    # ------------------------------------------------------------ looking at VMs

    async def watch(self) -> None:
        """Look at all VMs that are under way as long as somebody waits for one."""
        view = self.view
        while True:
            if not (view.booting or view.leaving):
                view.waited_for.clear()
                await view.waited_for.wait()
            await asyncio.sleep(self.wanted["poll_interval_s"])
            await self.look()
            if all(region.lost for region in self.regions):
                view.lose("; ".join(region.lost for region in self.regions))

    async def look(self) -> None:
        """At the next region in turn that can be reached: no API has more of it than others."""
        for _ in self.regions:
            region = self.regions[self.turn % len(self.regions)]
            self.turn += 1
            if region.lost:
                continue
            started, failure = time.time(), None
            try:
                if self.view.booting:
                    await self.look_for_boots(region, started)
                if self.view.leaving:
                    await self.look_for_ends(region)
            except Refusal as refusal:
                failure = refusal
            region.note_look(started, failure)
            if region.failing_since is None:
                return

    async def look_for_boots(self, region: Region, started: float) -> None:
        """Ids and names only: that costs the API least, and asks nothing of Neutron."""
        view = self.view
        full = view.looks % FULL_LOOK_EVERY == FULL_LOOK_EVERY - 1
        since = "" if full or not view.since else f"&changes-since={as_utc(view.since)}"
        for status in ("ACTIVE", "ERROR") if full else ("ACTIVE",):
            query = f"?{ALL}&status={status}&name={self.names}{since}"
            servers = await self.pages(
                region, query, limit_s=LOOK_ANSWER_S, connect_s=LOOK_CONNECT_S
            )
            seen_at = time.time()
            for server in servers:
                future = view.booting.get(server["name"])
                if future is not None and not future.done():
                    future.set_result((status, seen_at))
        view.looks, view.since = view.looks + 1, started - MARGIN_S

    async def look_for_ends(self, region: Region) -> None:
        left = await self.pages(
            region, f"?{ALL}&name={self.names}", limit_s=LOOK_ANSWER_S, connect_s=LOOK_CONNECT_S
        )
        there, seen_at = {server["id"] for server in left}, time.time()
        for server_id, future in [*self.view.leaving.items()]:
            if server_id not in there and not future.done():
                future.set_result(seen_at)
                self.view.last_gone_at = seen_at

    @property
    def names(self) -> str:
        """What a list asks for: what our VMs' names have in common."""
        return names_of(self.regions[0].name) if len(self.regions) == 1 else PREFIX

    # ------------------------------------------------------------ before the load

    async def find_order(self) -> dict[str, Any]:
        """What a request for a VM holds besides its name."""
        flavor = self.wanted["flavor"]
        flavors = await self.first("compute", "/flavors")
        ids = {each["name"]: each["id"] for each in flavors["flavors"]}
        if flavor not in ids:
            raise Refusal(f"the cloud has no flavor '{flavor}'; it has {', '.join(sorted(ids))}")
        image = self.wanted["image"]
        images = (await self.first("image", "/v2/images?limit=1000"))["images"]
        active = {each["name"]: each["id"] for each in images if each["status"] == "active"}
        if image not in active:
            raise Refusal(f"the cloud has no image '{image}'; it has {', '.join(sorted(active))}")
        networks: Any = "none"
        if self.wanted["network"]:
            found = await self.first("network", f"/v2.0/networks?name={self.wanted['network']}")
            networks = [{"uuid": found["networks"][0]["id"]}]
        return {"flavorRef": ids[flavor], "imageRef": active[image], "networks": networks}

    async def first(self, service: str, path: str) -> Any:
        """What the first region says that answers."""
        return await self.somewhere(
            lambda region: self.ask("GET", self.user.endpoint(service, region.name) + path)
        )

    async def clear(self, stage: str) -> None:
        """Delete what any load left of the VMs that are ours to clear."""
        try:
            await self.somewhere(lambda region: self.clear_by(region, stage))
        except Refusal as error:
            self.records.write("note", text=f"{stage}: {error}")

    async def clear_by(self, region: Region, stage: str) -> None:
        """By way of `region`, until none is left or none goes."""
        own = re.compile(f"{PREFIX}({'|'.join(self.wanted['clears'])})-[0-9]+")

        async def those_left() -> list[Any]:
            found = await self.pages(region, f"?{ALL}&name={PREFIX}")
            return [server for server in found if own.fullmatch(server["name"])]

        left = await those_left()
        total, places = len(left), asyncio.Semaphore(CLEARING_AT_ONCE)
        if left:
            self.records.write("stage", stage=stage, done=0, total=total)
        apis = [each for each in self.regions if not each.lost] or [region]
        await asyncio.gather(
            *(self.clear_one([apis[index % len(apis)], region], server["id"], places)
              for index, server in enumerate(left))
        )  # fmt: skip
        latest = time.monotonic() + STOOD_STILL_S
        while left and time.monotonic() < latest:
            await asyncio.sleep(self.wanted["poll_interval_s"])
            before, left = left, await those_left()
            if len(left) < len(before):
                latest = time.monotonic() + STOOD_STILL_S
            self.records.write("stage", stage=stage, done=total - len(left), total=total)
        if left:
            self.records.write("note", text=f"{len(left)} VMs can't be deleted ({stage})")

    async def clear_one(
        self, regions: list[Region], server_id: str, places: asyncio.Semaphore
    ) -> None:
        """By way of the first region that takes it."""
        async with places:
            for region in regions:
                with contextlib.suppress(Refusal):  # what stays is in the next list
                    await self.ask("DELETE", f"{region.url}/servers/{server_id}", admin=True)
                    return

    async def warm_up(self) -> None:
        """Boot some VMs and delete them, but for those that are there to be read.

        On a compute that is named, only admin may.  A compute that has booted a VM and deleted
        it has told the schedulers of its VMs: until then they ask the database at each boot.
        """
        wanted: list[tuple[Region, str | None]] = [
            *((region, None) for region in interleaved(self.regions, lambda each: each.warm_up)),
            *((region, name) for region in self.regions for name in region.computes),
        ]
        vms = [
            Vm(f"{PREFIX}{region.name}-9{number:05d}", region, number, compute)
            for number, (region, compute) in enumerate(wanted, start=1)
        ]
        if not vms:
            return
        self.records.write("stage", stage="warming up", done=0, total=len(vms))
        places, done = asyncio.Semaphore(WARMING_AT_ONCE), 0

        async def boot(vm: Vm) -> None:
            nonlocal done
            async with places:
                await self.boot(vm, is_measured=False)
            done += 1
            self.records.write("stage", stage="warming up", done=done, total=len(vms))

        await asyncio.gather(*(boot(vm) for vm in vms))
        for vm in vms:
            if vm.status != "ACTIVE":
                why = await self.fault_of(vm) or vm.error
                where = vm.compute or vm.region.name
                self.records.write("note", text=f"warming up, {where}: {vm.status}, {why}")
        if self.wanted["kind"] == "reads":
            for vm in vms:
                if vm.status == "ACTIVE" and vm.server_id and not vm.compute:
                    self.to_show.setdefault(vm.region.name, []).append(vm.server_id)
        else:
            await self.clear("deleting the warm-up's VMs")
        self.view.begin_anew()
        for region in self.regions:  # it was down just then
            region.failing_since, region.unreached = None, 0

    async def fault_of(self, vm: Vm) -> str | None:
        """What Nova says of why a VM is in ERROR."""
        with contextlib.suppress(Refusal):
            if vm.status == "ERROR":
                url = f"{vm.region.url}/servers/{vm.server_id}"
                found = await self.ask("GET", url, admin=True, version=DETAILS_VERSION)
                return str((found["server"].get("fault") or {}).get("message"))[:ERROR_LENGTH]
        return None

    # ------------------------------------------------------------ VMs

    async def boot_all(self) -> list[Vm]:
        """All VMs, at once or so many at a time, over the regions in turn."""
        vms: list[Vm] = []
        numbers: dict[str, int] = {}
        for region in interleaved(self.regions, lambda region: region.count):
            own = numbers[region.name] = numbers.get(region.name, 0) + 1
            number = self.wanted["iterations_before"] + len(vms) + 1
            vms.append(Vm(f"{PREFIX}{region.name}-{own:05d}", region, number))
        await self.together([self.iteration_of(vm) for vm in vms])
        return [vm for vm in vms if vm.requested_at]

    async def together(self, todo: list[Callable[[], Awaitable[None]]]) -> None:
        """Do all of it, so much at a time as is wanted; begin nothing once the time is up."""
        waiting = iter(todo)

        async def work() -> None:
            for each in waiting:
                if time.time() > self.deadline:
                    self.time_is_up = True
                    return
                await each()

        at_once = min(self.wanted["concurrency"] or len(todo), len(todo))
        await asyncio.gather(*(work() for _ in range(at_once)))

    def iteration_of(self, vm: Vm) -> Callable[[], Awaitable[None]]:
        async def iteration() -> None:
            with self.rally_iteration(vm.region, vm.number) as steps:
                await self.boot(vm)
                ended_at = vm.seen_at or time.time()
                steps.add("boot", vm.requested_at, ended_at, vm.error)
                if vm.status == "ACTIVE" and self.wanted["kind"] == "boot-and-delete":
                    started = time.time()
                    error = await self.delete(vm)
                    steps.add("delete", started, vm.deleted_at or time.time(), error)
                elif vm.status == "ACTIVE" and self.wanted["kind"] == "boot-and-list":
                    await steps.take("list", self.ask("GET", f"{vm.region.url}/servers/detail"))

        return iteration

    async def boot(self, vm: Vm, is_measured: bool = True) -> None:
        """Ask for it and wait for what becomes of it; all of that is in `vm` then."""
        region = vm.region
        order = {"name": vm.name, **self.order, **({"host": vm.compute} if vm.compute else {})}
        waiting = self.view.wait_for_boot(vm.name)
        waiting.add_done_callback(retrieved)
        vm.requested_at = time.time()
        latest = min(vm.requested_at + self.wanted["vm_timeout_s"], self.deadline)
        note = self.records.write if is_measured else lambda *_, **__: None
        note("vm", name=vm.name, region=region.name, site=region.site,
             requested_at=vm.requested_at)  # fmt: skip
        try:
            if region.lost:
                raise Refusal(region.lost)
            answer = await self.ask(
                "POST", f"{region.url}/servers", {"server": order}, admin=bool(vm.compute),
                limit_s=left_s(latest),
            )  # fmt: skip
            vm.accepted_at, vm.server_id = time.time(), answer["server"]["id"]
            note("vm", name=vm.name, accepted_at=vm.accepted_at, server_id=vm.server_id)
            vm.status, vm.seen_at = await asyncio.wait_for(waiting, left_s(latest))
        except NoAnswer as error:
            vm.status, vm.error = "TIMEOUT", str(error)
        except Refusal as error:
            vm.status, vm.error = "REFUSED", str(error)
            region.note(error)
        except TimeoutError:
            vm.status, vm.error = "TIMEOUT", self.in_vain(latest)
        except Lost as error:
            vm.status, vm.error = "TIMEOUT", str(error)
        finally:
            waiting.cancel()
        if vm.status == "ERROR":
            vm.error = "it went to ERROR"
        note("vm", name=vm.name, status=vm.status, seen_at=vm.seen_at, error=vm.error)

    def in_vain(self, latest: float) -> str:
        """Why a VM was waited for no longer."""
        if latest == self.deadline:
            self.time_is_up = True
            return f"not ACTIVE when the run's time ({self.wanted['run_timeout_s']:g} s) was up"
        return f"not ACTIVE within {self.wanted['vm_timeout_s']:g} s"

    async def delete(self, vm: Vm) -> str | None:
        """Delete it and wait until it is gone; returns what went wrong."""
        started, error = time.time(), None
        waiting = self.view.wait_for_end(str(vm.server_id))
        waiting.add_done_callback(retrieved)
        latest = started + self.wanted["vm_timeout_s"]
        try:
            url = f"{self.api_of(vm.region)}/servers/{vm.server_id}"
            await self.ask("DELETE", url, limit_s=left_s(latest))
            vm.deleted_at = await self.until_gone(waiting, latest)
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
        self.action("delete", vm.region, started, vm.deleted_at or time.time(), error, vm.number)
        return error

    async def until_gone(self, waiting: asyncio.Future[float], latest: float) -> float:
        """When a VM was seen to be gone; TimeoutError when it is late, or nothing goes any more."""
        asked = time.time()
        while True:
            until = min(latest, max(asked, self.view.last_gone_at) + STOOD_STILL_S)
            try:
                return await asyncio.wait_for(asyncio.shield(waiting), left_s(until))
            except TimeoutError:
                if time.time() >= min(latest, self.view.last_gone_at + STOOD_STILL_S):
                    raise

    async def describe(self, vms: list[Vm]) -> None:
        """Where each VM is, when it says it got ACTIVE, why it failed: as admin, afterwards."""
        by_id = {vm.server_id: vm for vm in vms if vm.server_id}
        # With `changes-since` a list has those that are deleted already as well.
        since = as_utc(min(vm.requested_at for vm in vms) - MARGIN_S)
        query = f"/detail?{ALL}&name={self.names}&changes-since={since}"
        try:
            servers = await self.somewhere(
                lambda region: self.pages(
                    region, query, limit_s=10 * ANSWER_S, version=DETAILS_VERSION
                )
            )
        except Refusal as error:
            self.records.write("note", text=f"looking where the VMs are: {error}")
            return
        for server in servers:
            if server["id"] in by_id:
                self.describe_one(by_id[server["id"]], server)

    def describe_one(self, vm: Vm, server: dict[str, Any]) -> None:
        known: dict[str, Any] = {
            "host": server.get("OS-EXT-SRV-ATTR:host"),
            "launched_at": from_utc(server.get("OS-SRV-USG:launched_at")),
        }
        fault = (server.get("fault") or {}).get("message")
        if vm.status == "ERROR" and fault:
            known["error"] = str(fault)[:ERROR_LENGTH]
        elif vm.status not in ("ACTIVE", "ERROR"):
            known["error"] = f"{vm.error}; afterwards Nova called it {server.get('status')}"
        self.records.write("vm", name=vm.name, **known)

    async def delete_all(self, vms: list[Vm]) -> None:
        """All that are there, at once or so many at a time as there were boots; timed."""
        there = [vm for vm in vms if vm.server_id and not vm.deleted_at]
        done = 0

        async def one(vm: Vm) -> None:
            nonlocal done
            await self.delete(vm)
            done += 1
            self.records.write("stage", stage="deleting the VMs", done=done, total=len(there))

        if there:
            self.records.write("stage", stage="deleting the VMs", done=0, total=len(there))
            await self.together([lambda vm=vm: one(vm) for vm in there])  # type: ignore[misc]

    # ------------------------------------------------------------ reads and tokens

    async def repeat(self, once: Callable[[Region, int, "Steps"], Awaitable[None]]) -> list[Vm]:
        """All iterations of what has no VMs; returns none of them."""

        def iteration_of(region: Region, number: int) -> Callable[[], Awaitable[None]]:
            async def iteration() -> None:
                with self.rally_iteration(region, number) as steps:
                    await once(region, number, steps)
                self.records.write("iteration", number=number)

            return iteration

        first = self.wanted["iterations_before"] + 1
        turns = enumerate(interleaved(self.regions, lambda region: region.count), start=first)
        await self.together([iteration_of(region, number) for number, region in turns])
        return []

    async def read(self, region: Region, number: int, steps: "Steps") -> None:
        """A round of reads, one after the other."""
        for kind in self.wanted["reads"]:
            for _ in range(self.wanted["repeats"]):
                await steps.take(kind, self.read_one(kind, region, number))

    async def read_one(self, kind: str, region: Region, number: int) -> None:
        admin = kind in ("hypervisors", "services")
        if kind == "images":
            url = f"{self.user.endpoint('image', region.name)}/v2/images"
        elif kind == "show":
            known = self.to_show.get(region.name, [])
            if not known:
                raise Refusal("there is no VM to show")
            url = f"{region.url}/servers/{known[number % len(known)]}"
        else:
            paths = {"list": "servers/detail", "flavors": "flavors/detail",
                     "hypervisors": "os-hypervisors/detail", "services": "os-services"}  # fmt: skip
            url = f"{region.url}/{paths[kind]}"
        await self.ask("GET", url, admin=admin)

    async def authenticate(self, _region: Region, _number: int, steps: "Steps") -> None:
        await steps.take("authenticate", self.ask_for_token())

    async def ask_for_token(self) -> None:
        """A token by the user's password, for its project, with the whole catalogue."""
        credential = self.user.credential
        user = {
            "name": credential["username"],
            "domain": {"name": credential["user_domain_name"]},
            "password": credential["password"],
        }
        project = {
            "name": credential["tenant_name"],
            "domain": {"name": credential["project_domain_name"]},
        }
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": project},
            }
        }
        base = credential["auth_url"].rstrip("/").removesuffix("/v3")
        limits = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S)
        status, data = await self.send("POST", f"{base}/v3/auth/tokens", body, {}, limits)
        if status >= 400:
            raise Refusal(f"HTTP {status}: {said(data)}", status)

    # ------------------------------------------------------------ what is kept

    def action(
        self, name: str, region: Region, started: float, ended: float, error: str | None,
        iteration: int,
    ) -> None:  # fmt: skip
        self.records.write("action", action=name, iteration=iteration, region=region.name,
                           site=region.site, started_at=started, duration_s=ended - started,
                           error=error)  # fmt: skip

    @contextlib.contextmanager
    def rally_iteration(self, region: Region, number: int) -> Iterator["Steps"]:
        """An iteration of Rally's report: from its first step to the end of its last."""
        steps = Steps(self, region, number)
        yield steps
        first = steps.taken[0]["started_at"] if steps.taken else time.time()
        last = steps.taken[-1]["finished_at"] if steps.taken else first
        self.report(
            {
                "timestamp": first,
                "duration": max(0.0, last - first),
                "idle_duration": 0.0,
                "error": ["Failed", steps.error, ""] if steps.error else [],
                "output": {"additive": [], "complete": []},
                "atomic_actions": steps.taken,
            }
        )


class Steps:
    """The timed steps of an iteration, Rally's atomic actions; the first error is kept."""

    def __init__(self, bench: Bench, region: Region, number: int) -> None:
        self.bench, self.region, self.number = bench, region, number
        self.taken: list[dict[str, Any]] = []
        self.error: str | None = None

    def add(self, name: str, started: float, ended: float, error: str | None) -> None:
        step = {"name": name, "children": [], "started_at": started, "finished_at": ended}
        self.taken.append({**step, **({"failed": True} if error else {})})
        self.error = self.error or error
        if name != "delete":  # that one was noted where it was done
            self.bench.action(name, self.region, started, ended, error, self.number)

    async def take(self, name: str, doing: Awaitable[Any]) -> None:
        started, error = time.time(), None
        try:
            await doing
        except Refusal as refusal:
            error = str(refusal)
            self.region.note(refusal)
        self.add(name, started, time.time(), error)


def names_of(region: str) -> str:
    """A part that the names of a region's VMs have in common, and few others.

    Nova takes it for a regular expression on some databases, and for a part on others.
    """
    return f"{PREFIX}{region}-"


def as_utc(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def from_utc(text: str | None) -> float | None:
    """Seconds since 1970 of Nova's '2026-11-23T16:05:01.000000'."""
    if not text:
        return None
    import calendar

    return float(calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")))


def left_s(latest: float) -> float:
    return max(0.001, latest - time.time())


def said(data: bytes) -> str:
    """What an API's error says in words."""
    text = data.decode(errors="replace")
    with contextlib.suppress(ValueError, AttributeError):
        for value in json.loads(text).values():
            if isinstance(value, dict) and "message" in value:
                return str(value["message"])
    return " ".join(re.sub(r"<[^>]*>", " ", text).split()) or "no message"


def retrieved(future: asyncio.Future[Any]) -> None:
    """Keeps asyncio from logging what nobody waits for any longer."""
    if not future.cancelled():
        future.exception()


@validation.add("required_platform", platform="openstack", admin=True, users=True)
@scenario.configure(name="Discovery.load")
class Load(scenario.OpenStackScenario):
    """VMs, reads or tokens, spread over regions."""

    report: Callable[[dict[str, Any]], None] = staticmethod(lambda _result: None)

    def run(self, load: dict) -> None:  # type: ignore[type-arg]
        """Do all of the load.

        :param load: what discovery_xp/load writes
        """
        asyncio.run(self.start(load))

    async def start(self, load: dict[str, Any]) -> None:
        bench = Bench(
            load, self.context["users"][0]["credential"], self.context["admin"]["credential"]
        )
        bench.report = self.report
        try:
            await bench.run()
        except Exception as error:
            words = str(error) if isinstance(error, Refusal) else f"{type(error).__name__}: {error}"
            bench.records.write("crash", error=words[:ERROR_LENGTH])
            raise


@runner.configure(name="discovery")
class Together(runner.ScenarioRunner):
    """Leaves it to the scenario what runs when; its iterations go to Rally one by one."""

    CONFIG_SCHEMA = {"type": "object", "additionalProperties": False, "properties": {}}  # noqa: RUF012

    def _run_scenario(
        self, cls: Any, method_name: str, context: dict[str, Any], args: dict[str, Any]
    ) -> None:
        instance = cls(runner._get_scenario_context(0, context))
        instance.report = self._send_result
        try:
            getattr(instance, method_name)(**args)
        finally:
            self._flush_results()
