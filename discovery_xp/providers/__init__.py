"""Where hosts come from: one contract, and a module for each `type` of a topology's provider.

`docs/providers.md` says how to add one.
"""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from discovery_xp.planning.plan import Plan
from discovery_xp.testbeds.hosts import Hosts, HostStatus, PageMerging, Progress
from discovery_xp.testbeds.testbed import Testbed

_MODULES = {
    "local": "local",
    "static": "static",
    "g5k": "grid5000",
    "vmong5k": "enoslib_machines",
    "vagrant": "enoslib_machines",
    "chameleon": "enoslib_machines",
}


class Provider(Protocol):
    """What each of these modules has."""

    def acquire(self, plan: Plan, testbed: Testbed, progress: Progress) -> Hosts:
        """Make the hosts, or repair them, until ssh answers on all.

        Comes out right from whatever a killed run left.  Raises Refused before anything is
        started, Failed after.
        """

    def hosts(self, plan: Plan, testbed: Testbed) -> Hosts:
        """The hosts of a testbed that was acquired, without touching them."""

    def status(self, plan: Plan, testbed: Testbed) -> list[HostStatus]:
        """How every host of the plan is, in the plan's order."""


class Lender(Provider, Protocol):
    """A provider whose hosts are somebody else's, and cost something while we have them."""

    def remarks(self, testbed: Testbed) -> list[str]:
        """What was borrowed and what it costs: lines for a person."""

    def is_lent(self, testbed: Testbed) -> bool:
        """True when there is anything to give back."""

    def why_over(self, testbed: Testbed) -> str | None:
        """Why the hosts are gone where they were taken back, None where they weren't."""

    def time_left_s(self, testbed: Testbed) -> float | None:
        """How long the hosts stay, None where that isn't known."""

    def release(self, plan: Plan | None, testbed: Testbed) -> None:
        """Give all back, whatever state it is in; raises Failed when that can't be done.

        `plan` is None where the testbed's state is lost.
        """


class MemoryMerger(Provider, Protocol):
    """A provider whose hosts share this machine's memory."""

    def page_merging(self, plan: Plan, testbed: Testbed) -> PageMerging:
        """Return whether equal pages of the hosts' memory are merged, and what comes of it."""


_MERGERS = ("local",)
LENDERS = ("g5k", "vmong5k", "vagrant", "chameleon")
# The file of a testbed's folder that says what was borrowed, by who lent it: found by name, so
# that nothing has to be loaded to see that there is none.
MACHINES_RECORD = "machines.json"
RECORDS = {"g5k": "grid5000.json"} | dict.fromkeys(LENDERS[1:], MACHINES_RECORD)


def of(kind: str) -> Provider:
    """The provider of a type."""
    return cast(Provider, importlib.import_module(f"{__name__}.{_MODULES[kind]}"))


def lender(kind: str) -> Lender | None:
    """The same, if what it provides has to be given back; None otherwise."""
    return cast(Lender, of(kind)) if kind in LENDERS else None


def page_merging(plan: Plan, testbed: Testbed) -> PageMerging | None:
    """Return how the hosts' memory is merged; None where they have machines of their own."""
    if plan.provider not in _MERGERS:
        return None
    return cast(MemoryMerger, of(plan.provider)).page_merging(plan, testbed)
