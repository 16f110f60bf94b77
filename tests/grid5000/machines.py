"""What stands behind the nodes: nothing but a note of their state, or hosts of some kind."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import ParamSpec, Protocol, TypeVar

from .platform import Node, Platform

P = ParamSpec("P")
T = TypeVar("T")


class MachineFailed(Exception):
    """A machine didn't come up."""


class Machines(Protocol):
    """Each call may take its time: one node's calls come one after the other, in order."""

    def deploy(self, node: Node, environment: str, public_key: str) -> None:
        """Start `node` with an environment that lets the key in as root; MachineFailed else."""

    def boot(self, node: Node) -> None:
        """Start `node` with the standard environment; MachineFailed when it doesn't come up."""

    def release(self, node: Node) -> None:
        """Stop `node` and forget what it wrote, in whatever state it is."""

    def address(self, node: Node) -> IPv4Address:
        """Where `node` is in the production network."""


@dataclass
class InMemoryMachines:
    """Notes of each node what was last done with it: `debian12-min`, `standard`, `off`."""

    platform: Platform

    def __post_init__(self) -> None:
        self.state: dict[str, str] = {}
        self.keys: dict[str, str] = {}

    def deploy(self, node: Node, environment: str, public_key: str) -> None:
        self.state[node.fqdn] = environment
        self.keys[node.fqdn] = public_key

    def boot(self, node: Node) -> None:
        self.state[node.fqdn] = "standard"

    def release(self, node: Node) -> None:
        self.state[node.fqdn] = "off"
        self.keys.pop(node.fqdn, None)

    def address(self, node: Node) -> IPv4Address:
        return self.platform.sites[node.site].address(node)


class Immediately(Executor):
    """Runs each task at once, in the caller's thread: tests needn't wait for anything."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Work:
    """Lets nodes be worked on at the same time, but each by one task after the other."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._last: dict[str, Future[None]] = {}

    def on(self, node: Node, task: Callable[[], None]) -> Future[None]:
        before = self._last.get(node.fqdn)

        def run() -> None:
            if before is not None:
                # It was submitted earlier, so it never waits for this one.
                before.exception()
            task()

        self._last[node.fqdn] = self._executor.submit(run)
        return self._last[node.fqdn]

    def wait(self) -> None:
        """Until nothing is worked on any more."""
        for work in list(self._last.values()):
            work.exception()
