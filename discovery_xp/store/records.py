"""run.json: what was run and how it ended.

It is read strictly, as JSON of bounded size and depth with numbers in known ranges, so
that whoever has a record needs to check nothing more of it.  What a run writes of hosts'
own words is cut to what can be read again.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pydantic_core
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from discovery_xp.errors import Refused
from discovery_xp.store.parts import (
    Arm,
    Drawn,
    Harness,
    InCampaign,
    Load,
    Machine,
    MachineState,
    Merging,
    Recipe,
    Validity,
    Vms,
    Window,
)
from discovery_xp.store.tables import PROBES
from discovery_xp.store.values import (
    MOST_ENTRIES,
    MOST_OF_LINE,
    Count,
    Digest,
    Experiment,
    Line,
    Number,
    Strict,
    Time,
    Word,
    described,
    read,
    require_plain,
)
from discovery_xp.text import shortened

FORMAT = 3
READABLE_FORMATS = (1, 2, FORMAT)
# In the place of a machine's provider, where there were no hosts.
CANNED_PROVIDER = "dummy"
# The `kind` of what was run where that were OpenStack's own tests, in the place of a load.
VERIFY = "verify"
TIME = "%Y-%m-%dT%H:%M:%SZ"

MOST_RECORD_BYTES = 2**20  # of run.json
# With these run.json fits into what is kept free for it, at six bytes a character.
_WRITTEN_NOTES = 60
_WRITTEN_LINE = 400
_WRITTEN_MACHINES = 300


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
    databases: Annotated[dict[Word, Word], Field(max_length=MOST_ENTRIES)] = {}
    rome: _RomeOptions = _RomeOptions()


class _Scenario(_Known):
    kind: Word = ""
    iterations: Count = 0


def _options(values: Mapping[str, Any]) -> Mapping[str, Any]:
    require_plain(values)
    read(_Options, json.dumps(values))
    return values


def _scenario(values: Mapping[str, Any]) -> Mapping[str, Any]:
    require_plain(values)
    read(_Scenario, json.dumps(values))
    return values


@dataclass(frozen=True)
class RunRecord(Strict):
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
    notes: Annotated[tuple[Line, ...], Field(max_length=MOST_ENTRIES)] = ()
    commit: Word | None = None
    versions: Annotated[Mapping[Word, Word], Field(max_length=MOST_ENTRIES)] = field(
        default_factory=dict
    )
    latency_ms: Number | None = None
    rtt_ms: Number | None = None
    imposed_by: Literal["netem", "vde"] | None = None
    duration_s: Number | None = None
    probes: Annotated[tuple[Word, ...], Field(max_length=len(PROBES))] = ()
    stages_s: Annotated[Mapping[Word, Number], Field(max_length=MOST_ENTRIES)] = field(
        default_factory=dict
    )
    window: Window | None = None
    load: Load | None = None
    harness: Harness | None = None
    merging: Merging | None = None
    drawn: Drawn | None = None
    arm: Arm | None = None
    in_campaign: InCampaign | None = None
    recipe: Recipe | None = None
    time_scale: Annotated[float, Field(ge=1, le=1e6)] = 1.0
    validity: Validity | None = None
    sample_every_s: Annotated[float, Field(gt=0, le=1e6)] | None = None
    machines_before: Annotated[tuple[MachineState, ...], Field(max_length=MOST_ENTRIES)] = ()
    left_out: Annotated[tuple[Word, ...], Field(max_length=len(PROBES))] = ()
    format: int = FORMAT

    def __post_init__(self) -> None:
        if (self.status == "partial") != (self.reason is not None):
            raise ValueError("'reason' says why a run is partial, and nothing else")
        if (self.status == "running") != (self.ended is None):
            raise ValueError("'ended' is null while a run is running, and only then")
        unknown = [name for name in (*self.probes, *self.left_out) if name not in PROBES]
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
    "window", "load", "harness", "merging", "time_scale", "validity", "drawn", "arm",
    "in_campaign", "recipe", "sample_every_s", "machines_before", "left_out",
)  # fmt: skip
# Runs of earlier versions lack them.
_LATER = (
    "merging", "time_scale", "validity", "drawn", "arm", "in_campaign", "recipe", "sample_every_s",
    "machines_before", "left_out",
)  # fmt: skip


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
            f"a run of format {described(version)}, but this version reads {readable}",
            "use the version that wrote it",
        )
    for key in _ORDER:
        if key not in values and key not in _LATER:
            raise ValueError(f"'{key}' is missing")
    for each in dataclasses.fields(Vms):
        if isinstance(values["vms"], Mapping) and each.name not in values["vms"]:
            raise ValueError(f"'vms.{each.name}' is missing")
    # By way of text: what strictness means for a tuple is another thing in JSON.
    record: RunRecord = read(RunRecord, text)
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
        reason=None if record.reason is None else _cut(record.reason, MOST_OF_LINE),
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
