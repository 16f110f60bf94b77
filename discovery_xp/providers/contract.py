"""The contract of providers: what each `type` of a topology's provider does for a testbed.

`docs/providers.md` says how to add one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from discovery_xp.errors import Refused
from discovery_xp.planning.plan import Plan
from discovery_xp.testbeds.hosts import Hosts, HostStatus, PageMerging, Progress
from discovery_xp.testbeds.shares import HeldShare
from discovery_xp.testbeds.testbed import Testbed


@dataclass(frozen=True)
class FreeSlot:
    """A time at which all hosts of a plan could start, in seconds since 1970.

    `date` is the same in Paris, `free` counts nodes by cluster, `policy` says under which part
    of the platform's usage policy a job would be then.
    """

    start: float
    date: str
    free: Mapping[str, int]
    policy: str


class Provider(ABC):
    """Where hosts come from and how they go; it keeps nothing itself, all is in the testbed.

    The first three are every provider's.  The others do nothing unless a provider has something
    to do there; what is asked of which kind is in `kinds.Kind`.  Refused is raised before
    anything was started, Failed after.
    """

    @abstractmethod
    def acquire(self, plan: Plan, testbed: Testbed, progress: Progress) -> Hosts:
        """Make the hosts, or repair them, until ssh answers on all.

        Comes out right from whatever a killed run left.
        """

    @abstractmethod
    def hosts(self, plan: Plan, testbed: Testbed) -> Hosts:
        """Return the hosts of a testbed that was acquired, without touching them."""

    @abstractmethod
    def status(self, plan: Plan, testbed: Testbed) -> list[HostStatus]:
        """Say how every host of the plan is, in the plan's order."""

    def broken_links(self, plan: Plan, testbed: Testbed) -> list[str]:
        """Name the pairs of sites whose link died, where the provider makes the links."""
        return []

    def page_merging(self, plan: Plan, testbed: Testbed) -> PageMerging | None:
        """Return how equal pages of the hosts' memory are merged; None where it isn't shared."""
        return None

    def slow_merging(self, plan: Plan, testbed: Testbed) -> None:  # noqa: B027
        """Have the merging of pages take next to nothing of the processors: a load is measured."""

    def resume_merging(self, plan: Plan, testbed: Testbed) -> None:  # noqa: B027
        """Merge pages as before."""

    # ------------------------------------------------ shares of the processor

    def impose_shares(  # noqa: B027 (most have nothing to do)
        self, plan: Plan, testbed: Testbed
    ) -> None:
        """Hold the plan's shares of the processor, of processes that were started since, too."""

    def keep_shares(self, plan: Plan, testbed: Testbed) -> None:  # noqa: B027
        """Hold what was started since shares were imposed; it may be called from a thread."""

    def held_shares(self, plan: Plan, testbed: Testbed) -> list[HeldShare] | None:
        """Read back what is held of the plan's shares; None where nothing ever is."""
        return None

    def lift_shares(self, plan: Plan, testbed: Testbed) -> None:  # noqa: B027
        """Hold nothing, until shares are imposed again."""

    # ------------------------------------------------ how a testbed ends

    def clear(self, plan: Plan, testbed: Testbed) -> None:  # noqa: B027 (most have nothing to do)
        """Take all of ours off hosts that stay when the testbed goes."""

    def release(self, plan: Plan | None, testbed: Testbed) -> None:  # noqa: B027
        """Remove the hosts or give them back, whatever state they are in.

        `plan` is None where the testbed's state is lost.  It should write nothing and load as
        little as it can: the disk may be full.  Raises Failed when that can't be done.
        """

    def sweep(self) -> None:  # noqa: B027
        """Remove what belongs to no testbed of this machine, where none is left on it."""

    def homes(self) -> dict[str, Path]:
        """Return the home of each testbed that has anything on this machine, by name."""
        return {}

    # ------------------------------------------------ hosts that are somebody else's

    def remarks(self, testbed: Testbed) -> list[str]:
        """Say what was borrowed and what it costs, in lines for a person."""
        return []

    def is_lent(self, testbed: Testbed) -> bool:
        """Return True when there is anything to give back."""
        return False

    def why_over(self, testbed: Testbed) -> str | None:
        """Say why the hosts are gone where they were taken back, None where they weren't."""
        return None

    def time_left_s(self, testbed: Testbed) -> float | None:
        """Return how long the hosts stay, None where that isn't known."""
        return None

    def slots(self, plan: Plan, most: int, by_night: bool) -> list[FreeSlot]:
        """List when the plan's hosts would be free, the first `most`; nothing is reserved."""
        raise Refused(
            f"'{plan.name}' is for provider {plan.provider}, which has no slots",
            "name a topology with 'provider: {type: g5k, ...}'",
        )

    def forgotten(self) -> list[str]:
        """Say, in a line each, what is borrowed in our name for no testbed of this machine.

        Raises Refused where that can't be asked.
        """
        return []

    def end_forgotten(self, name: str) -> int:
        """Give back what is borrowed for a testbed `name` that isn't here; returns how many.

        Raises Refused where nobody can be asked, Failed where it can't be given back.
        """
        return 0
