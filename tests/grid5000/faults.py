"""What goes wrong on demand: calls that fail or take long, nodes that don't come up."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .jobs import Job, Jobs

TEXTS = {
    400: "Bad Request",
    401: "Authorization Required",
    403: "You are not authorized to access this resource",
    404: "Not Found",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Server Unavailable",
    504: "Gateway Timeout",
}


@dataclass
class CallFault:
    """Hits the calls that match; `calls` of None means until it is cleared.

    With `is_late` what was asked for is done first.
    """

    status: int | None = None
    text: str = ""
    delay_s: float = 0
    calls: int | None = None
    method: str | None = None
    path: str = ""
    is_late: bool = False

    def matches(self, method: str, path: str) -> bool:
        if self.calls == 0 or self.method not in (None, method):
            return False
        return re.search(self.path, path) is not None


class Faults:
    """Everything here can be set while the platform is in use."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._calls: list[CallFault] = []
        self._undeployable: dict[str, int | None] = {}
        self._silent: set[str] = set()
        self._broken_deployments = 0
        self._refusal: str | None = None

    # ---------------------------------------------------------------- the API

    def fail(
        self,
        status: int,
        calls: int | None = None,
        path: str = "",
        method: str | None = None,
        text: str | None = None,
    ) -> None:
        """Answer with `status` (401, 403, 500, 503...), on the next `calls` that match."""
        told = TEXTS.get(status, "") if text is None else text
        self._calls.append(CallFault(status, told, 0, calls, method, path))

    def lose_answers(
        self,
        status: int = 504,
        calls: int | None = None,
        path: str = "",
        method: str | None = None,
    ) -> None:
        """Do what is asked, but answer with `status`, as a proxy that won't wait does."""
        told = TEXTS.get(status, "")
        self._calls.append(CallFault(status, told, 0, calls, method, path, is_late=True))

    def slow(
        self, seconds: float, calls: int | None = None, path: str = "", method: str | None = None
    ) -> None:
        """Answer `seconds` of wall time late."""
        self._calls.append(CallFault(None, "", seconds, calls, method, path))

    def on_call(self, method: str, path: str) -> tuple[float, CallFault | None]:
        """How long to wait before the answer to a call, and which fault it is, if one."""
        delay_s = 0.0
        for fault in self._calls:
            if fault.matches(method, path):
                if fault.calls is not None:
                    fault.calls -= 1
                delay_s += fault.delay_s
                if fault.status is not None:
                    return delay_s, fault
        return delay_s, None

    # ---------------------------------------------------------------- nodes

    def fail_to_deploy(self, nodes: Iterable[str], times: int | None = None) -> None:
        """Nodes that come out of deployments KO: `times`, or always."""
        self._undeployable |= dict.fromkeys(nodes, times)

    def stay_silent(self, nodes: Iterable[str]) -> None:
        """Nodes that come out of deployments OK, but answer no more."""
        self._silent |= set(nodes)

    def break_deployments(self, times: int = 1) -> None:
        """Deployments that end in state error as a whole."""
        self._broken_deployments += times

    def fails_to_deploy(self, node: str) -> bool:
        if node not in self._undeployable:
            return False
        left = self._undeployable[node]
        if left is not None:
            self._undeployable[node] = left - 1
        return left is None or left > 0

    def stays_silent(self, node: str) -> bool:
        return node in self._silent

    def breaks_deployment(self) -> bool:
        if self._broken_deployments == 0:
            return False
        self._broken_deployments -= 1
        return True

    # ---------------------------------------------------------------- jobs

    def refuse_jobs(self, text: str | None) -> None:
        """Refuse every job with OAR's text, as a quota does; None takes them again."""
        self._refusal = text

    def admission_rule(self, job: Job, jobs: Jobs) -> str | None:
        return self._refusal
