"""The life of jobs: waiting, launching, running, then terminated or in error.

Nothing here runs by itself: `Jobs.advance` catches up with the clock, event after event, so
that a test that steps the clock by hand always sees the same.
"""

from __future__ import annotations

import datetime as dt
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .platform import LOCAL_VLANS, PARIS, QUEUES, ROUTED_VLANS, Clock, Cluster, Node, Platform, Site
from .resources import BadRequest, Piece, Properties, Request, parse_request

TYPES = (
    "allow_classic_ssh", "besteffort", "container", "cosystem", "day", "deploy", "destructive",
    "exotic", "inner", "monitor", "night", "noop", "origin", "placeholder", "allowed",
)  # fmt: skip

# The working day of Grid'5000's usage policy: what `day` and `night` refer to.
DAY_STARTS, DAY_ENDS = dt.time(9), dt.time(19)


class Refused(Exception):
    """OAR doesn't take a job, or doesn't do what was asked with it; says why in its words."""


@dataclass(frozen=True)
class Pace:
    """How long things take, in seconds of the platform's clock."""

    scheduling_s: float = 2
    to_launch_s: float = 1
    launching_s: float = 4
    killing_s: float = 3
    deployment_s: float = 180


class Resource(NamedTuple):
    kind: str  # node, vlan or subnet
    name: str


@dataclass(frozen=True)
class Submission:
    """A job as it is asked for."""

    site: str
    user: str
    resources: str = "/nodes=1"
    command: str = "sleep 3600"
    name: str | None = None
    types: tuple[str, ...] = ()
    queue: str = "default"
    project: str | None = None
    reservation: str | None = None
    properties: str = ""
    directory: str | None = None


@dataclass
class Job:
    uid: int
    asked: Submission
    request: Request
    types: tuple[str, ...]
    queue: str
    project: str
    submitted_at: float
    walltime_s: int
    reservation_at: float | None = None
    state: str = "waiting"
    planned_at: float | None = None
    started_at: float | None = None
    running_at: float | None = None
    killed_at: float | None = None
    stopped_at: float | None = None
    resources: tuple[Resource, ...] = ()
    message: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    walltime_pending: str = "0:0:0"

    @property
    def is_active(self) -> bool:
        return self.state not in ("terminated", "error")

    @property
    def is_besteffort(self) -> bool:
        return "besteffort" in self.types

    @property
    def starts_at(self) -> float | None:
        return self.planned_at if self.started_at is None else self.started_at

    @property
    def ends_at(self) -> float | None:
        """When its resources are free again, as far as the scheduler knows."""
        if self.killed_at is not None:
            return self.killed_at
        return None if self.starts_at is None else self.starts_at + self.walltime_s

    @property
    def container(self) -> int | None:
        """The job in whose resources this one runs."""
        return next((int(t[6:]) for t in self.types if re.fullmatch(r"inner=\d+", t)), None)

    def named(self, kind: str) -> list[str]:
        return [resource.name for resource in self.resources if resource.kind == kind]


AdmissionRule = Callable[[Job, "Jobs"], str | None]
"""Says why it refuses a job, or None."""


@dataclass(frozen=True)
class Quotas:
    """An admission rule: what one user may have on one site at a time."""

    nodes: int | None = None
    node_hours: float | None = None
    reservations: int | None = None

    def __call__(self, job: Job, jobs: Jobs) -> str | None:
        own = [j for j in jobs.of(job.asked.site) if j.is_active and j.asked.user == job.asked.user]
        own.append(job)
        nodes = [jobs.count_nodes(j) for j in own]
        hours = sum(n * j.walltime_s / 3600 for n, j in zip(nodes, own, strict=True))
        reserved = sum(j.reservation_at is not None for j in own)
        for found, limit, what in (
            (sum(nodes), self.nodes, "nodes"),
            (hours, self.node_hours, "node hours"),
            (reserved, self.reservations, "advance reservations"),
        ):
            if limit is not None and found > limit:
                return (
                    f"[ADMISSION RULE] Error: {job.asked.user} would have {found:g} {what} "
                    f"on {job.asked.site}, but the usage policy allows {limit:g}"
                )
        return None


def duration_of(command: str) -> float | None:
    """How long a command takes, when it tells: `sleep 3600` or `sleep 10d`."""
    found = re.fullmatch(r"\s*sleep\s+(\d+(?:\.\d+)?)([smhd]?)\s*", command)
    units = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
    return float(found[1]) * units[found[2]] if found else None


def parse_reservation(text: str, now: float) -> tuple[float, float | None]:
    """Start and, if given, end of a reservation, in seconds since the epoch.

    Raises ValueError with g5k-api's text when it is no date.
    """
    dates = []
    for which, part in zip(("start", "end"), text.split(","), strict=False):
        if part.strip() == "now" and which == "start":
            dates.append(now)
            continue
        today = dt.datetime.fromtimestamp(now, PARIS).strftime("%Y-%m-%d")
        found = re.fullmatch(
            r"\s*(?:(\d{4}-\d{1,2}-\d{1,2})\s+)?(\d{1,2})(?::(\d{1,2}))?(?::(\d{1,2}))?\s*", part
        )
        try:
            if not found:
                raise ValueError
            day = dt.date(*map(int, (found[1] or today).split("-")))
            at = dt.time(int(found[2]), int(found[3] or 0), int(found[4] or 0))
        except ValueError:
            raise ValueError(
                f"Syntax error in reservation {which} date, should at least match the format: "
                "'YYYY-MM-DD hh:mm:ss'. Please see documentation for available date syntaxes."
            ) from None
        dates.append(dt.datetime.combine(day, at, PARIS).timestamp())
    return dates[0], (dates[1] if len(dates) > 1 else None)


def format_date(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, PARIS).strftime("%Y-%m-%d %H:%M:%S")


class Jobs:
    """The jobs of all sites, the calendars of their nodes, VLANs and subnets."""

    def __init__(self, platform: Platform, clock: Clock, pace: Pace | None = None) -> None:
        self._platform = platform
        self._clock = clock
        self.pace = pace or Pace()
        self._jobs: dict[int, Job] = {}
        self._active: dict[int, Job] = {}
        self._next_uid = 1_000_000
        self._now = clock.now()
        self.admission: list[AdmissionRule] = []
        # Who hears of a job that is launched, and of one that has ended.
        self.on_launch: list[Callable[[Job], None]] = []
        self.on_end: list[Callable[[Job], None]] = []
        # A job that is launched runs when its nodes are ready.
        self.is_ready: Callable[[Job], bool] = lambda job: True
        # The state of a node's hardware when it isn't alive: absent, dead or suspected.
        self.hardware: dict[str, str] = {}

    # ---------------------------------------------------------------- looking

    def of(self, site: str) -> list[Job]:
        """The jobs of a site, the newest first."""
        return [job for job in reversed(self._jobs.values()) if job.asked.site == site]

    def get(self, site: str, uid: str) -> Job | None:
        job = self._jobs.get(int(uid)) if uid.isdigit() else None
        return job if job is not None and job.asked.site == site else None

    def count_nodes(self, job: Job) -> int:
        """Nodes that a job has, or that it asks for."""
        if job.resources:
            return len(job.named("node"))
        counts = 0
        for piece in job.request.pieces:
            nodes = 1
            for level in piece.levels:
                is_node = level.name in ("nodes", "host", "network_address", "cluster")
                nodes *= (level.count or 1) if is_node else 0
            counts += nodes
        return counts

    def node(self, fqdn: str) -> Node | None:
        parts = fqdn.split(".")
        site = self._platform.sites.get(parts[1]) if len(parts) > 1 else None
        return next((node for node in site.nodes if node.fqdn == fqdn), None) if site else None

    def running_on(self, fqdn: str, user: str, of_type: str | None = None) -> Job | None:
        """The running job in which a user has a node."""
        for job in self._active.values():
            fits = of_type is None or of_type in job.types
            is_own = job.state == "running" and job.asked.user == user
            if fits and is_own and fqdn in job.named("node"):
                return job
        return None

    # ---------------------------------------------------------------- submitting

    def submit(self, asked: Submission) -> Job:
        """Take a job into the queue; raises Refused, or ValueError for a date that is none."""
        self.advance()
        job = self._admit(asked)
        if self._earliest(job, self._now, empty=True) is None:
            raise Refused("There are not enough resources for your request")
        if job.reservation_at is not None:
            self._reserve(job)
        for rule in self.admission:
            refusal = rule(job, self)
            if refusal:
                raise Refused(refusal)
        job.uid = self._next_uid
        self._next_uid += 1
        self._jobs[job.uid] = self._active[job.uid] = job
        self._replan()
        return job

    def _admit(self, asked: Submission) -> Job:
        types, queue = list(asked.types), asked.queue
        for of_type in types:
            if of_type.split("=")[0] not in TYPES:
                raise Refused(f"[ADMISSION RULE] Error: unknown job type: {of_type}")
        if queue not in QUEUES:
            raise Refused(f"[ADMISSION RULE] Error: queue {queue} does not exist")
        if "besteffort" in types:
            queue = "besteffort"
        elif queue == "besteffort":
            types.append("besteffort")
        if "besteffort" in types and asked.reservation:
            raise Refused(
                "[ADMISSION RULE] Error: a job cannot both be of type besteffort "
                "and be a reservation."
            )
        try:
            request = parse_request(asked.resources, asked.properties)
        except BadRequest as error:
            raise Refused(str(error)) from None
        for piece in request.pieces:
            for level in piece.levels:
                if level.name not in _LEVELS:
                    raise Refused(f"Bad resource request: unknown resource {level.name}")
        job = Job(
            uid=0,
            asked=asked,
            request=request,
            types=tuple(types),
            queue=queue,
            project=self._project(asked),
            submitted_at=self._now,
            walltime_s=request.walltime_s,
        )
        if job.container is not None:
            outer = self._jobs.get(job.container)
            if outer is None or outer.asked.site != asked.site or "container" not in outer.types:
                raise Refused(f"Error: job {job.container} is no container")
        if asked.reservation:
            start, end = parse_reservation(asked.reservation, self._now)
            job.reservation_at = start
            if end is not None and "walltime" not in asked.resources:
                job.walltime_s = int(end - start)
        return job

    def _project(self, asked: Submission) -> str:
        user = self._platform.users.get(asked.user)
        projects: Sequence[str] = user.projects if user else ()
        if asked.project is None:
            return projects[0] if projects else "default"
        if user is not None and asked.project not in projects:
            raise Refused(
                f"[ADMISSION RULE] Error: {asked.user} is not a member of {asked.project}"
            )
        return asked.project

    def _reserve(self, job: Job) -> None:
        assert job.reservation_at is not None
        if job.reservation_at < int(self._now):
            raise Refused("Reservation too old")
        found = self._earliest(job, job.reservation_at)
        if found is None or found[0] > job.reservation_at:
            hint = f" (This reservation could run at {format_date(found[0])})" if found else ""
            raise Refused(f"Reservation not valid --> KO{hint}")
        job.planned_at, job.resources = found

    # ---------------------------------------------------------------- ending

    def delete(self, job: Job) -> None:
        """Ask for a job's end; it takes a moment. Raises Refused when it has its end already."""
        self.advance()
        if not job.is_active or job.killed_at is not None:
            raise Refused(f"Cannot frag {job.uid} ; This job was already killed.")
        self._frag(job, "FRAG_JOB_REQUEST", f"User {job.asked.user} requested to frag the job")

    def kill(self, job: Job, reason: str) -> None:
        """The platform itself ends a job."""
        self.advance()
        if job.is_active and job.killed_at is None:
            self._frag(job, "KILLED_BY_PLATFORM", reason)

    def end_all(self) -> None:
        """The platform closes: every job ends at once."""
        self.advance()
        for job in list(self._active.values()):
            self._end(job, "error")

    def _frag(self, job: Job, kind: str, why: str) -> None:
        self._tell(job, kind, why)
        ends = self._now + self.pace.killing_s
        job.killed_at = ends if job.ends_at is None else min(ends, max(job.ends_at, self._now))

    def _end(self, job: Job, state: str) -> None:
        job.state = state
        job.stopped_at = self._now
        self._tell(job, f"SWITCH_INTO_{state.upper()}_STATE", f"The job is in state {state}")
        del self._active[job.uid]
        if job.started_at is not None:
            for told in self.on_end:
                told(job)

    def _tell(self, job: Job, kind: str, description: str) -> None:
        uid = sum(len(other.events) for other in self._jobs.values()) + 1
        job.events.append(
            {"uid": uid, "created_at": int(self._now), "type": kind, "description": description}
        )

    def change_walltime(self, job: Job, walltime_s: int) -> bool:
        """Give a running job another walltime, if nobody waits for its resources."""
        self.advance()
        before = job.walltime_s
        job.walltime_s = walltime_s
        assert job.starts_at is not None
        taken = self._taken(job, job.starts_at, job.starts_at + walltime_s, fixed_only=True)
        if walltime_s <= self._now - job.starts_at or taken & set(job.resources):
            job.walltime_s = before
            return False
        self._replan()
        return True

    # ---------------------------------------------------------------- time

    def advance(self) -> None:
        """Let everything happen that was due up to now."""
        now = self._clock.now()
        while True:
            due = [(at, job.uid) for job in self._active.values() if (at := self._next(job))]
            if not due or min(due)[0] > now:
                break
            at, uid = min(due)
            self._now = max(self._now, at)
            self._step(self._active[uid])
        self._now = max(self._now, now)

    def _next(self, job: Job) -> float | None:
        """When something happens to a job by itself."""
        if job.killed_at is not None:
            return job.killed_at
        if job.state == "waiting":
            if job.planned_at is None:
                return None
            return max(job.planned_at, job.submitted_at + self.pace.scheduling_s)
        assert job.started_at is not None
        if job.state == "tolaunch":
            return job.started_at + self.pace.to_launch_s
        if job.state == "launching":
            ready = job.started_at + self.pace.to_launch_s + self.pace.launching_s
            return ready if self.is_ready(job) else None
        ends = job.started_at + job.walltime_s
        duration = duration_of(job.asked.command)
        if duration is not None and job.running_at is not None:
            ends = min(ends, job.running_at + duration)
        return ends

    def _step(self, job: Job) -> None:
        if job.killed_at is not None:
            self._end(job, "error")
            self._replan()
        elif job.state == "waiting":
            self._kill_besteffort(job)
            job.state, job.started_at = "tolaunch", self._now
            self._replan()
        elif job.state == "tolaunch":
            job.state = "launching"
            for told in self.on_launch:
                told(job)
        elif job.state == "launching":
            job.state, job.running_at = "running", self._now
        else:
            self._end(job, "terminated")
            self._replan()

    def _kill_besteffort(self, job: Job) -> None:
        if job.is_besteffort or job.container is not None:
            return
        for other in list(self._active.values()):
            is_near = other.asked.site == job.asked.site and other.started_at is not None
            if other.is_besteffort and is_near and set(other.resources) & set(job.resources):
                self._tell(other, "BESTEFFORT_KILL", f"Its nodes go to job {job.uid}")
                self._end(other, "error")

    # ---------------------------------------------------------------- planning

    def set_hardware(self, fqdn: str, state: str) -> None:
        """`alive`, or a reason not to give a node to jobs: absent, dead or suspected."""
        self.advance()
        if state == "alive":
            self.hardware.pop(fqdn, None)
        else:
            self.hardware[fqdn] = state
        self._replan()

    def _replan(self) -> None:
        """Find the earliest start of each job that waits; reservations keep theirs."""
        waiting = [
            job
            for job in self._active.values()
            if job.state == "waiting" and job.reservation_at is None and job.killed_at is None
        ]
        for job in waiting:
            job.planned_at, job.resources = None, ()
        for job in sorted(waiting, key=lambda job: (job.is_besteffort, job.uid)):
            found = self._earliest(job, max(self._now, job.submitted_at + self.pace.scheduling_s))
            if found:
                job.planned_at, job.resources = found

    def _earliest(
        self, job: Job, after: float, empty: bool = False
    ) -> tuple[float, tuple[Resource, ...]] | None:
        """When a job can start, and on what; on an `empty` platform as if it were alone."""
        last = None
        if job.container is not None:
            outer = self._jobs[job.container]
            if outer.starts_at is None or outer.ends_at is None or not outer.is_active:
                return None
            after, last = max(after, outer.starts_at), outer.ends_at
        candidates = {after}
        if not empty:
            others = (other.ends_at for other in self._rivals(job))
            # Dates are told in whole seconds, and must be good when they come back.
            candidates |= {math.ceil(end) for end in others if end is not None and end > after}
        for start in sorted(_allowed_times(job, candidates)):
            if last is not None and start + job.walltime_s > last:
                continue
            taken = set() if empty else self._taken(job, start, start + job.walltime_s)
            chosen = self._choose(job, taken)
            if chosen is not None:
                return start, chosen
        return None

    def _rivals(self, job: Job) -> Iterator[Job]:
        """Active jobs whose resources this one can't have."""
        for other in self._active.values():
            is_near = other is not job and other.asked.site == job.asked.site
            yields = other.is_besteffort and not job.is_besteffort
            if is_near and other.resources and other.container == job.container and not yields:
                yield other

    def _taken(self, job: Job, start: float, end: float, fixed_only: bool = False) -> set[Resource]:
        taken: set[Resource] = set()
        for other in self._rivals(job):
            if fixed_only and other.started_at is None and other.reservation_at is None:
                continue
            assert other.starts_at is not None and other.ends_at is not None
            if other.starts_at < end and other.ends_at > start:
                taken |= set(other.resources)
        return taken

    def _choose(self, job: Job, taken: set[Resource]) -> tuple[Resource, ...] | None:
        site = self._platform.sites[job.asked.site]
        chosen: list[Resource] = []
        for piece in job.request.pieces:
            kind = piece.levels[-1].name
            try:
                if kind == "vlan":
                    found = _vlans(site, piece, taken | set(chosen))
                elif kind.startswith("slash_"):
                    found = _subnets(site, piece, taken | set(chosen))
                else:
                    found = self._nodes(site, job, piece, taken | set(chosen))
            except BadRequest as error:
                raise Refused(str(error)) from None
            if found is None:
                return None
            chosen += found
        return tuple(chosen)

    def _nodes(
        self, site: Site, job: Job, piece: Piece, taken: set[Resource]
    ) -> list[Resource] | None:
        fits = [
            node
            for cluster in site.clusters.values()
            if _may_use(job, cluster)
            for node in cluster.nodes
            if node.fqdn not in self.hardware and piece.where(properties(cluster, node))
        ]
        if job.container is not None:
            inside = self._jobs[job.container].named("node")
            fits = [node for node in fits if node.fqdn in inside]
        free = [node for node in fits if Resource("node", node.fqdn) not in taken]
        busy_with_besteffort = {
            name
            for other in self._active.values()
            if other.is_besteffort and other is not job
            for name in other.named("node")
        }
        free.sort(key=lambda node: node.fqdn in busy_with_besteffort)
        found = _pick(piece, free, len(fits), site)
        return None if found is None else [Resource("node", node.fqdn) for node in found]


_LEVELS = {
    "nodes", "host", "network_address", "cluster", "core", "vlan",
    *(f"slash_{length}" for length in range(16, 23)),
}  # fmt: skip


def _allowed_times(job: Job, candidates: Iterable[float]) -> Iterator[float]:
    """Those starts at which the whole walltime lies in the day or the night, if it must."""
    wanted = {"day", "night"} & set(job.types)
    for start in candidates:
        if not wanted:
            yield start
            continue
        # Openings follow each other for at most a week's end.
        for opening in _openings(start, "day" in wanted):
            if opening[0] + job.walltime_s <= opening[1]:
                yield opening[0]
                break


def _openings(after: float, by_day: bool) -> Iterator[tuple[float, float]]:
    """Days, or nights and ends of weeks, from `after` on."""
    first = dt.datetime.fromtimestamp(after, PARIS).date()
    days = []
    for day in (first + dt.timedelta(n) for n in range(-4, 11)):
        if day.weekday() < 5:
            bounds = (dt.datetime.combine(day, t, PARIS) for t in (DAY_STARTS, DAY_ENDS))
            days.append(tuple(bound.timestamp() for bound in bounds))
    nights = [(today[1], tomorrow[0]) for today, tomorrow in itertools.pairwise(days)]
    for start, end in days if by_day else nights:
        if end > after:
            yield max(start, after), end


def _may_use(job: Job, cluster: Cluster) -> bool:
    if cluster.spec.exotic and "exotic" not in job.types:
        return False
    return job.queue == "besteffort" or job.queue in cluster.spec.queues


def properties(cluster: Cluster, node: Node) -> Properties:
    """OAR's properties of a node, as far as users ask for them."""
    spec = cluster.spec
    return {
        "type": "default",
        "cluster": cluster.name,
        "host": node.fqdn,
        "network_address": node.fqdn,
        "virtual": spec.virtual,
        "exotic": "YES" if spec.exotic else "NO",
        "production": "YES" if "production" in spec.queues else "NO",
        "besteffort": "YES",
        "deploy": "YES",
        "maintenance": "NO",
        "state": "Alive",
        "cpuarch": "x86_64",
        "core_count": spec.cores,
        "memnode": spec.memory_gib * 1024,
        "eth_count": spec.interfaces,
        "eth_rate": 10,
        "eth_kavlan_count": spec.interfaces,
        "gpu_count": 0,
        "ib_count": 0,
        "disktype": "SSD",
        "disk_reservation_count": 0,
    }


def _pick(piece: Piece, free: list[Node], fitting: int, site: Site) -> list[Node] | None:
    """As many nodes as a piece wants, the first ones that are free."""
    outer, inner = (piece.levels[0], piece.levels[-1])
    if outer.name == "cluster" and len(piece.levels) > 1:
        found: list[Node] = []
        clusters = 0
        for name in site.clusters:
            own = [node for node in free if node.cluster == name]
            taken = _pick(Piece(piece.where, piece.levels[1:]), own, len(own), site)
            if own and taken is not None and clusters < (outer.count or 1):
                found += taken
                clusters += 1
        return found if clusters == (outer.count or 1) else None
    if inner.count is None:
        return free if free and len(free) == fitting else None
    if inner.count == 0:
        return free or None
    if inner.name == "core" and len(piece.levels) == 1:
        # Jobs get whole nodes here: as many as have that many cores together.
        cores = 0
        for number, node in enumerate(free, start=1):
            cores += site.clusters[node.cluster].spec.cores
            if cores >= inner.count:
                return free[:number]
        return None
    wanted = outer.count or 1
    return free[:wanted] if len(free) >= wanted else None


def _vlans(site: Site, piece: Piece, taken: set[Resource]) -> list[Resource] | None:
    types = dict.fromkeys(LOCAL_VLANS, "kavlan-local")
    types |= dict.fromkeys(ROUTED_VLANS, "kavlan")
    types[site.global_vlan] = "kavlan-global"
    free = [
        resource
        for vlan, of_type in types.items()
        if piece.where({"type": of_type, "vlan": vlan, "maintenance": "NO"})
        if (resource := Resource("vlan", vlan)) not in taken
    ]
    wanted = piece.levels[-1].count or 1
    return free[:wanted] if len(free) >= wanted else None


def _subnets(site: Site, piece: Piece, taken: set[Resource]) -> list[Resource] | None:
    """Subnets are given as the /22 networks that they are made of."""
    length = int(piece.levels[-1].name.removeprefix("slash_"))
    chosen: list[Resource] = []
    for block in site.subnets.subnets(new_prefix=length):
        parts = [Resource("subnet", str(part)) for part in block.subnets(new_prefix=22)]
        if not taken & set(parts):
            chosen += parts
            if len(chosen) == len(parts) * (piece.levels[-1].count or 1):
                return chosen
    return None
