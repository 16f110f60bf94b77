"""run.json and links.json: what was run, how it ended, and the round trips around the load.

Both are read strictly, as JSON of bounded size and depth with numbers in known ranges, so
that whoever has a record needs to check nothing more of it.  What a run writes of hosts'
own words is cut to what can be read again.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pydantic_core
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from discovery_xp.boundary.names import ExperimentName
from discovery_xp.errors import Refused
from discovery_xp.store.tables import PROBES
from discovery_xp.text import shortened

FORMAT = 3
READABLE_FORMATS = (1, 2, FORMAT)
# In the place of a machine's provider, where there were no hosts.
CANNED_PROVIDER = "dummy"
# The `kind` of what was run where that were OpenStack's own tests, in the place of a load.
VERIFY = "verify"
TIME = "%Y-%m-%dT%H:%M:%SZ"

MOST_RECORD_BYTES = 2**20  # of run.json
MOST_LINKS_BYTES = 32 * 2**20  # of links.json: 250 sites have 31,125 pairs
_MOST_PAIRS = 100_000
_MOST_ENTRIES = 1000  # versions, stages, notes
_MOST_VALUES = 20_000  # of `options` or `scenario`, in all
_MOST_NESTED = 20
_MOST_TEXT = 100_000  # characters of one of them: a policy or a script may be a value of `config`
_WORD, _LINE = 500, 4000  # characters
# With these run.json fits into what is kept free for it, at six bytes a character.
_WRITTEN_NOTES = 60
_WRITTEN_LINE = 400
_WRITTEN_MACHINES = 300

Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(ge=-1e15, le=1e15)]
Share = Annotated[float, Field(ge=0, le=1)]
Word = Annotated[str, Field(max_length=_WORD)]
Line = Annotated[str, Field(max_length=_LINE)]
Experiment = Annotated[str, ExperimentName]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]
Time = Annotated[str, Field(pattern=r"^[0-9]{4}(-[0-9]{2}){2}T([0-9]{2}:){2}[0-9]{2}Z$")]


class _Known(BaseModel):
    """What analysis reads of a section; there is more in it, which is only printed."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _RomeOptions(_Known):
    store: Word = ""
    persistence: Word = ""
    replicas: Count = 0


class _Options(_Known):
    placement: Word = ""
    layout: Word = ""
    nodes: Count = 1
    replicas: Count = 0
    databases: Annotated[dict[Word, Word], Field(max_length=_MOST_ENTRIES)] = {}
    rome: _RomeOptions = _RomeOptions()


class _Scenario(_Known):
    kind: Word = ""
    iterations: Count = 0


def _require_plain(values: object) -> None:
    """Raise ValueError unless a value of JSON is of bounded depth, length and numbers."""
    pending, count = [(values, 0)], 0
    while pending:
        value, depth = pending.pop()
        count += 1
        if count > _MOST_VALUES or depth > _MOST_NESTED:
            raise ValueError(f"more than {_MOST_VALUES} values, or {_MOST_NESTED} in each other")
        if isinstance(value, Mapping):
            pending += [(key, depth + 1) for key in value]
            pending += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, list | tuple):
            pending += [(each, depth + 1) for each in value]
        elif isinstance(value, str):
            if len(value) > _MOST_TEXT:
                raise ValueError(f"a text of {len(value)} characters")
        # Not by way of math: an integer may have no float.
        elif isinstance(value, int | float) and not -1e18 < value < 1e18:
            raise ValueError("a number beyond 10^18")


def _options(values: Mapping[str, Any]) -> Mapping[str, Any]:
    _require_plain(values)
    _read(_adapter(_Options), json.dumps(values))
    return values


def _scenario(values: Mapping[str, Any]) -> Mapping[str, Any]:
    _require_plain(values)
    _read(_adapter(_Scenario), json.dumps(values))
    return values


# ---------------------------------------------------------------- run.json


class _Strict:
    """Base of the parts of run.json: unknown keys and wrong types are errors."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Machine(_Strict):
    """What the run ran on; of Grid'5000's nodes, one stands for all."""

    cpus: Count
    cpu_model: Word
    memory_bytes: Count
    kernel: Word
    provider: Word


@dataclass(frozen=True)
class Vms(_Strict):
    """How many VMs were asked for, and what came of them so far."""

    asked: Count
    active: Count = 0
    failed: Count = 0
    deleted: Count = 0


@dataclass(frozen=True)
class Window(_Strict):
    """The load's own time, s since 1970: what the probes' tables are about."""

    start: Number
    end: Number


@dataclass(frozen=True)
class Load(_Strict):
    """The load generator's share: CPU seconds, the cores they came to, polls sent, its host."""

    cpu_s: Number
    cores: Number
    polls: Count
    host: Word


@dataclass(frozen=True)
class Harness(_Strict):
    """CPU seconds of the whole machine over the window, whose they were, and how long it was."""

    total_cpu_s: Number
    openstack_cpu_s: Number
    load_cpu_s: Number
    other_cpu_s: Number
    elapsed_s: Number


@dataclass(frozen=True)
class Merging(_Strict):
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
class ThrottledShare(_Strict):
    """Whose share of the processor was used up most often: in which part of its periods.

    `stood_s` are the seconds, by a clock, that its processes stood still for it, added up over
    the processors.
    """

    name: Word
    share: Share
    stood_s: Number


@dataclass(frozen=True)
class Validity(_Strict):
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
    unit_cores: Annotated[Mapping[Word, Number], Field(max_length=_MOST_ENTRIES)]
    host_cores: Annotated[Mapping[Word, Number], Field(max_length=10_000)]
    throttled_unit: ThrottledShare | None
    throttled_host: ThrottledShare | None


@dataclass(frozen=True)
class Drawn(_Strict):
    """A placement of VMs on computes: the seed that drew it, and the digest of what it drew."""

    seed: Count
    digest: Digest


@dataclass(frozen=True)
class Arm(_Strict):
    """A run's place in a comparison of back ends.

    `comparison` is equal for all runs of one.  Each of `blocks` blocks, from 1, has a run of
    each of `arms` in an order of its own, drawn from `order_seed`; `position` is this run's in
    its block, from 1.
    """

    comparison: Word
    order_seed: Count
    arms: Annotated[tuple[Word, ...], Field(max_length=_MOST_ENTRIES)]
    block: Count
    blocks: Count
    position: Count


@dataclass(frozen=True)
class Recipe(_Strict):
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
class MachineState(_Strict):
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


@dataclass(frozen=True)
class RunRecord(_Strict):
    """run.json: what was run and how it ended.  `docs/results.md` says what each key means.

    What isn't known yet, or wasn't measured, is None.
    """

    experiment: Experiment
    plan: Digest
    started: Time
    machine: Machine
    backend: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    options: Annotated[Mapping[str, Any], AfterValidator(_options)]
    sites: Count
    controllers: Count
    computes: Count
    data: Count
    scenario: Annotated[Mapping[str, Any], AfterValidator(_scenario)]
    vms: Vms
    ended: Time | None = None
    status: Literal["running", "complete", "partial"] = "running"
    reason: Line | None = None
    notes: Annotated[tuple[Line, ...], Field(max_length=_MOST_ENTRIES)] = ()
    commit: Word | None = None
    versions: Annotated[Mapping[Word, Word], Field(max_length=_MOST_ENTRIES)] = field(
        default_factory=dict
    )
    latency_ms: Number | None = None
    rtt_ms: Number | None = None
    imposed_by: Literal["netem", "vde"] | None = None
    duration_s: Number | None = None
    probes: Annotated[tuple[Word, ...], Field(max_length=len(PROBES))] = ()
    stages_s: Annotated[Mapping[Word, Number], Field(max_length=_MOST_ENTRIES)] = field(
        default_factory=dict
    )
    window: Window | None = None
    load: Load | None = None
    harness: Harness | None = None
    merging: Merging | None = None
    drawn: Drawn | None = None
    arm: Arm | None = None
    recipe: Recipe | None = None
    time_scale: Annotated[float, Field(ge=1, le=1e6)] = 1.0
    validity: Validity | None = None
    sample_every_s: Annotated[float, Field(gt=0, le=1e6)] | None = None
    machines_before: Annotated[tuple[MachineState, ...], Field(max_length=_MOST_ENTRIES)] = ()
    format: int = FORMAT

    def __post_init__(self) -> None:
        if (self.status == "partial") != (self.reason is not None):
            raise ValueError("'reason' says why a run is partial, and nothing else")
        if (self.status == "running") != (self.ended is None):
            raise ValueError("'ended' is null while a run is running, and only then")
        unknown = [probe for probe in self.probes if probe not in PROBES]
        if unknown:
            raise ValueError(f"'{shortened(unknown[0])}' is not a probe")
        for time in (self.started, self.ended):
            if time is not None:
                datetime.datetime.strptime(time, TIME)

    @property
    def is_canned(self) -> bool:
        """True where there were no hosts: every figure of the run is made up."""
        return self.machine.provider == CANNED_PROVIDER

    @property
    def is_verification(self) -> bool:
        """True where OpenStack's own tests were run, and no load."""
        return bool(self.scenario.get("kind") == VERIFY)

    @property
    def is_partial(self) -> bool:
        """True unless the run came to its end."""
        return self.status != "complete"

    @property
    def is_busy(self) -> bool:
        """True where the machine was so full that its seconds aren't the cloud's."""
        return self.validity is not None and self.validity.verdict == "busy"

    @property
    def why_partial(self) -> str | None:
        """In a line; None for a complete run."""
        if self.status == "running":
            return "it has not ended, or was killed"
        return self.reason

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the order of docs/results.md."""
        data = dataclasses.asdict(self)
        return {key: data[key] for key in _ORDER}


# The order in which run.json is written and described.
_ORDER = (
    "format", "experiment", "plan", "started", "ended", "status", "reason", "notes", "commit",
    "versions", "machine", "backend", "options", "sites", "controllers", "computes", "data",
    "latency_ms", "rtt_ms", "imposed_by", "scenario", "vms", "duration_s", "probes", "stages_s",
    "window", "load", "harness", "merging", "time_scale", "validity", "drawn", "arm", "recipe",
    "sample_every_s", "machines_before",
)  # fmt: skip
# Runs of earlier versions lack them.
_LATER = (
    "merging", "time_scale", "validity", "drawn", "arm", "recipe", "sample_every_s",
    "machines_before",
)  # fmt: skip


@functools.cache
def _adapter(type_: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type_)


def _read(adapter: TypeAdapter[Any], text: bytes | str) -> Any:
    """Return the values of JSON; raises ValueError, with the place and value that is wrong."""
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = shortened(".".join(str(part) for part in first["loc"]), 60)
        # Of JSON that is none the input is all of it.
        of_value = first["type"] not in ("missing", "json_invalid")
        wrong = f", not {_described(first['input'])}" if of_value else ""
        message = shortened(first["msg"]) + wrong
        raise ValueError(f"'{place}': {message}" if place else message) from None


def _described(value: object) -> str:
    """Return a value of JSON for a message, without writing out all of a large one."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return shortened(json.dumps(value, ensure_ascii=False), 40)


def record_from_json(data: bytes | str | Mapping[str, Any]) -> RunRecord:
    """Return a record as `RunRecord.to_json` wrote it, from its text or its values.

    Raises Refused on another format, ValueError on a key that lacks, is unknown or holds
    what it can't, and on what is no JSON.
    """
    text = json.dumps(data) if isinstance(data, Mapping) else data
    values = pydantic_core.from_json(text)  # that a number is none, its key says below
    if not isinstance(values, dict):
        raise ValueError("it holds no keys")
    if (version := values.get("format")) not in READABLE_FORMATS:
        *earlier, latest = (str(number) for number in READABLE_FORMATS)
        readable = f"{', '.join(earlier)} and {latest}"
        raise Refused(
            f"a run of format {_described(version)}, but this version reads {readable}",
            "use the version that wrote it",
        )
    for key in _ORDER:
        if key not in values and key not in _LATER:
            raise ValueError(f"'{key}' is missing")
    for each in dataclasses.fields(Vms):
        if isinstance(values["vms"], Mapping) and each.name not in values["vms"]:
            raise ValueError(f"'vms.{each.name}' is missing")
    # By way of text: what strictness means for a tuple is another thing in JSON.
    record: RunRecord = _read(_adapter(RunRecord), text)
    return record


def fitting(record: RunRecord) -> RunRecord:
    """Return a record with its hosts' and errors' words cut to what can be read again.

    A run that a host answers a megabyte to is stored all the same, and its last word fits
    into the room that was kept for it.
    """
    notes = [_cut(note, _WRITTEN_LINE) for note in record.notes[:_WRITTEN_NOTES]]
    if len(record.notes) > _WRITTEN_NOTES:
        notes[-1] = f"and {len(record.notes) - _WRITTEN_NOTES + 1} more"
    machine = record.machine
    return dataclasses.replace(
        record,
        notes=tuple(notes),
        machines_before=record.machines_before[:_WRITTEN_MACHINES],
        reason=None if record.reason is None else _cut(record.reason, _LINE),
        machine=dataclasses.replace(
            machine, cpu_model=_cut(machine.cpu_model), kernel=_cut(machine.kernel)
        ),
        versions={
            _cut(name, 60): _cut(version, 60)
            for name, version in list(record.versions.items())[:100]
        },
    )


def _cut(text: object, limit: int = 200) -> Any:
    """Return text of at most `limit` characters that UTF-8 can say; others as they are."""
    if not isinstance(text, str):
        return text  # its type is refused by who checks it
    return text[:limit].encode(errors="replace").decode()


# ---------------------------------------------------------------- links.json


@dataclass(frozen=True)
class Pair:
    """Round trips between two sites; `observed_ms` is None where nothing came back.

    links.json says more of each, which nobody reads from there.
    """

    __pydantic_config__ = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    source: Word
    target: Word
    requested_ms: Number
    observed_ms: Number | None
    samples: Count
    lost: Count


@dataclass(frozen=True)
class Links:
    """links.json: each pair of sites, before and after the load."""

    __pydantic_config__ = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    before: Annotated[tuple[Pair, ...], Field(max_length=_MOST_PAIRS)] = ()
    after: Annotated[tuple[Pair, ...], Field(max_length=_MOST_PAIRS)] = ()


def links_from_json(text: bytes | str) -> Links:
    """Return the pairs of a links.json; raises ValueError, with the place and the value."""
    links: Links = _read(_adapter(Links), text)
    return links
