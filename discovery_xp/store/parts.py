"""The parts of run.json that hold several values each.  `docs/results.md` says what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from discovery_xp.store.values import (
    MOST_ENTRIES,
    Count,
    Digest,
    Experiment,
    Line,
    Number,
    Share,
    Strict,
    Word,
)


@dataclass(frozen=True)
class Machine(Strict):
    """What the run ran on; of Grid'5000's nodes, one stands for all."""

    cpus: Count
    cpu_model: Word
    memory_bytes: Count
    kernel: Word
    provider: Word


@dataclass(frozen=True)
class Vms(Strict):
    """How many VMs were asked for, and what came of them so far."""

    asked: Count
    active: Count = 0
    failed: Count = 0
    deleted: Count = 0


@dataclass(frozen=True)
class Window(Strict):
    """The load's own time, s since 1970: what the probes' tables are about."""

    start: Number
    end: Number


@dataclass(frozen=True)
class Load(Strict):
    """The load generator's share: CPU seconds, the cores they came to, polls sent, its host."""

    cpu_s: Number
    cores: Number
    polls: Count
    host: Word


@dataclass(frozen=True)
class Harness(Strict):
    """CPU seconds of the whole machine over the window, whose they were, and how long it was."""

    total_cpu_s: Number
    openstack_cpu_s: Number
    load_cpu_s: Number
    other_cpu_s: Number
    elapsed_s: Number


@dataclass(frozen=True)
class Merging(Strict):
    """Whether the kernel kept equal pages of the hosts' memory once, and its figures.

    `reason` says why not.  `hosts_memory_bytes` and `saved_bytes` are of the load's end,
    `ksmd_cpu_s` of the window.
    """

    is_on: bool
    reason: Line | None
    hosts_memory_bytes: Count | None
    saved_bytes: Count
    ksmd_cpu_s: Number | None


@dataclass(frozen=True)
class ThrottledShare(Strict):
    """Whose share of the processor was used up most often: in which part of its periods.

    `stood_s` are the seconds, by a clock, that its processes stood still for it, added up over
    the processors.
    """

    name: Word
    share: Share
    stood_s: Number


@dataclass(frozen=True)
class Validity(Strict):
    """Whether the run's seconds mean something: how full its machine was over the window.

    `verdict` is 'busy' where the machine was full for more than a tenth of the time, or busy for
    more than nine tenths of it.  Of its time `busy`, `saturated` (95 % or more of a slice),
    `stolen` by its hypervisor, and the busy share of `busiest_second`; by `slices` of about
    `slice_s`.  `needed_cores` of its `cores` would do if all hosts used all of theirs at once;
    `unit_cores` and `host_cores` are those before the scale, by unit and by host, empty where
    nothing is capped.
    """

    verdict: Literal["good", "busy"]
    busy: Share
    saturated: Share
    stolen: Share
    busiest_second: Share
    slices: Count
    slice_s: Number
    cores: Count
    needed_cores: Number
    unit_cores: Annotated[Mapping[Word, Number], Field(max_length=MOST_ENTRIES)]
    host_cores: Annotated[Mapping[Word, Number], Field(max_length=10_000)]
    throttled_unit: ThrottledShare | None
    throttled_host: ThrottledShare | None


@dataclass(frozen=True)
class Drawn(Strict):
    """A placement of VMs on computes: the seed that drew it, and the digest of what it drew."""

    seed: Count
    digest: Digest


@dataclass(frozen=True)
class Arm(Strict):
    """A run's place in a comparison of back ends.

    `comparison` is equal for all runs of one.  Each of `blocks` blocks, from 1, has a run of
    each of `arms` in an order of its own, drawn from `order_seed`; `position` is this run's in
    its block, from 1.
    """

    comparison: Word
    order_seed: Count
    arms: Annotated[tuple[Word, ...], Field(max_length=MOST_ENTRIES)]
    block: Count
    blocks: Count
    position: Count


@dataclass(frozen=True)
class InCampaign(Strict):
    """A run's place in a campaign.

    `point` is equal for all runs that ask for the same, `levels` its levels by factor; the run is
    the point's in a block, from 1; `attempt` counts those that failed before, from 1.
    """

    campaign: Experiment
    part: Word
    point: Digest
    levels: Annotated[Mapping[Word, Word], Field(max_length=MOST_ENTRIES)]
    block: Count
    attempt: Count


@dataclass(frozen=True)
class Recipe(Strict):
    """What a bench was told besides the files topology.yaml and scenario.yaml, and the probes.

    `backend`, `placement`, `time_scale` and `layout` replace the topology's where they aren't
    None.
    """

    backend: Word | None = None
    placement: Word | None = None
    time_scale: Number | None = None
    settle_s: Number = 0.0
    expose: bool = False
    layout: Word | None = None


@dataclass(frozen=True)
class MachineState(Strict):
    """A machine before the load: how busy, how fast, and its clock beside the control machine's.

    `host` is empty for the machine that all emulated hosts are on.  What it doesn't say is None.
    """

    host: Word
    cpus: Count
    load_1min: Number
    steal_percent: Number | None
    memory_available_bytes: Count
    governor: Word | None
    frequency_mhz: Number | None
    clock_source: Word | None
    clock_offset_ms: Number | None = None
    clock_uncertainty_ms: Number | None = None
