"""A whole platform in one object: what is reserved, what is deployed, what goes wrong."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from concurrent.futures import Executor, Future

from .api import Api
from .deployments import Deployments
from .faults import Faults
from .jobs import Job, Jobs, Pace
from .machines import Immediately, InMemoryMachines, Machines, Work
from .platform import Clock, Platform, RunningClock, Sites, User
from .vlans import Vlans


class Emulator:
    """Grid'5000 as its REST API shows it, without a socket: `api.respond` answers calls.

    Whoever looks at it from several threads holds `lock` meanwhile.
    """

    def __init__(
        self,
        platform: Platform,
        clock: Clock | None = None,
        machines: Machines | None = None,
        pace: Pace | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.platform = platform
        self.clock = clock or RunningClock()
        self.machines = machines or InMemoryMachines(platform)
        self.lock = threading.RLock()
        self.faults = Faults()
        self.jobs = Jobs(platform, self.clock, pace)
        self.jobs.admission.append(self.faults.admission_rule)
        self.vlans = Vlans(platform, self.jobs)
        work = Work(executor or Immediately())
        self.deployments = Deployments(
            platform, self.clock, self.jobs, self.vlans, self.machines, work, self.faults
        )
        self._work = work
        self._boots: dict[int, list[Future[None]]] = {}
        self.jobs.on_launch.append(self._boot)
        self.jobs.is_ready = self._is_booted
        self.jobs.on_end.append(self._release)
        self.api = Api(self)

    @classmethod
    def of(
        cls,
        sites: Sites,
        users: Sequence[User] = (User("alice"), User("bob")),
        clock: Clock | None = None,
        pace: Pace | None = None,
    ) -> Emulator:
        """One of `{site: {cluster: nodes}}`, with nothing behind its nodes."""
        return cls(Platform.of(sites, users), clock=clock, pace=pace)

    def advance(self) -> None:
        """Catch up with the clock."""
        self.jobs.advance()
        self.deployments.advance()

    def close(self) -> None:
        """End all jobs, and wait until their nodes are released."""
        with self.lock:
            self.jobs.end_all()
        self._work.wait()

    def _boot(self, job: Job) -> None:
        if "deploy" in job.types:
            return  # the nodes stay as they are until something is deployed on them
        works = self._boots[job.uid] = []
        for name in job.named("node"):
            node = self.jobs.node(name)
            assert node is not None
            works.append(self._work.on(node, functools.partial(self.machines.boot, node)))

    def _is_booted(self, job: Job) -> bool:
        return all(work.done() for work in self._boots.get(job.uid, ()))

    def _release(self, job: Job) -> None:
        self._boots.pop(job.uid, None)
        if job.container is not None:
            return  # they go on in the container
        for name in job.named("node"):
            node = self.jobs.node(name)
            assert node is not None
            self._work.on(node, functools.partial(self.machines.release, node))
