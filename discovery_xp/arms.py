"""Several back ends in one bench: the arms of a comparison, in blocks of random order.

Each block has one run of each arm (a design of randomised complete blocks): what changes slowly
on the machine meets all arms alike, and runs of one block can be compared in pairs.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from discovery_xp.bench_request import BenchRequest
from discovery_xp.inputs.scenario import MAX_SEED
from discovery_xp.load.placement import shuffled
from discovery_xp.planning.plan import Plan
from discovery_xp.store import Arm, Run
from discovery_xp.testbeds.testbed import now


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison: its back end, and what a bench is told."""

    backend: str
    plan: Plan
    request: BenchRequest

    @property
    def arm(self) -> Arm:
        """Return its place in the comparison."""
        assert self.request.arm is not None
        return self.request.arm


@dataclass(frozen=True)
class Outcome:
    """What became of a run: it, and what went wrong, None where nothing did."""

    planned: PlannedRun
    run: Run | None
    error: Exception | None = None

    @property
    def failure(self) -> str | None:
        """Return in words why it isn't complete, None where it is."""
        if self.error is not None:
            return str(self.error).splitlines()[0] if str(self.error) else repr(self.error)
        if self.run is None:
            return "there is no run"
        record = self.run.load()
        return f"partial: {record.why_partial}" if record.is_partial else None


def draw_seed() -> int:
    """Return a seed that nobody gave."""
    return secrets.randbelow(MAX_SEED + 1)


def order(backends: Sequence[str], seed: int, blocks: int) -> list[tuple[int, int, str]]:
    """Return block, position in it (both from 1) and back end of each run, in the order to run."""
    return [
        (block, position, backend)
        for block in range(1, blocks + 1)
        for position, backend in enumerate(shuffled(backends, f"{seed}/{block}"), start=1)
    ]


def plan_runs(
    backends: Sequence[str],
    seed: int,
    blocks: int,
    make: Callable[[str], tuple[Plan, BenchRequest]],
) -> list[PlannedRun]:
    """Plan each run of a comparison, in the order in which they are to be made.

    `make` gives the plan and the request of a back end.  Testbeds are destroyed between runs, so
    that each begins on a new cloud; only the last one's is kept, where that is asked for.
    """
    made = {backend: make(backend) for backend in backends}
    comparison = f"{now()}-{seed}"
    ordered = order(backends, seed, blocks)
    runs = []
    for number, (block, position, backend) in enumerate(ordered, start=1):
        plan, request = made[backend]
        arm = Arm(comparison, seed, tuple(backends), block, blocks, position)
        keep = request.keep and number == len(ordered)
        runs.append(PlannedRun(backend, plan, dataclasses.replace(request, arm=arm, keep=keep)))
    return runs


def run_all(
    planned: Sequence[PlannedRun], run_one: Callable[[PlannedRun], Run]
) -> Iterator[Outcome]:
    """Make the runs one after the other; one that fails doesn't stop the others.

    An interruption does.
    """
    for each in planned:
        run: Run | None = None
        error: Exception | None = None
        try:
            run = run_one(each)
        except Exception as caught:
            error = caught
        yield Outcome(each, run, error)
