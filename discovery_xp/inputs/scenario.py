"""Scenario YAML to a frozen `Scenario`: what load a cloud is to take.

The file is read as strictly as topologies are: every problem in it is found in one go,
each with its line, its value and a remedy.  `scenarios/README.md` describes the format,
`scenario_schema()` gives it to editors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema

from discovery_xp.boundary.names import RegionName, ScenarioName, derived
from discovery_xp.errors import InvalidInput
from discovery_xp.inputs.fields import (
    Entry,
    Flag,
    Label,
    Text,
    listed,
    seconds,
    unknown,
    whole,
    wrong,
)
from discovery_xp.inputs.shapes import report_shape
from discovery_xp.inputs.yamlfile import YamlFile, parse_yaml, read_yaml
from discovery_xp.text import short

BOOTING = ("boot", "boot-and-delete", "boot-and-list")
KINDS = (*BOOTING, "reads", "authenticate")
READS = ("list", "show", "flavors", "images", "hypervisors", "services")

MAX_VMS = 100_000
MAX_ITERATIONS = 1_000_000
MAX_TIME_S = 24 * 3600.0
MAX_SEED = 2**31 - 1

_DOCS = "see scenarios/README.md"
MAX_REGIONS = 250
MAX_READS = 100


# ---------------------------------------------------------------- the file's shape


def _regions(value: object) -> object:
    if value == "controllers":
        return value
    if not isinstance(value, list) or not value:
        raise wrong(
            f"'{short(value)}' is no way to spread the load",
            "write 'controllers', or a list of regions such as [site1, site2]",
        )
    if len(value) > MAX_REGIONS:
        raise wrong(f"{len(value)} regions", f"write at most {MAX_REGIONS}")
    seen: set[str] = set()
    for index, region in enumerate(value):
        objection = RegionName.objection(region)
        if objection is not None:
            raise wrong(*objection, index)
        if region in seen:
            raise wrong(f"'{region}' is named twice", "name each region once", index)
        seen.add(region)
    return value


def _reads(value: object) -> object:
    if not isinstance(value, list) or not value:
        raise wrong(
            f"'{short(value)}' is not a list of reads", f"write some of [{', '.join(READS)}]"
        )
    if len(value) > MAX_READS:
        raise wrong(f"{len(value)} reads", f"write at most {MAX_READS}, and 'repeats'")
    for index, read in enumerate(value):
        if read not in READS:
            raise wrong(*unknown(read, READS), index)
    return value


_REGION_SCHEMA = {
    "anyOf": [
        {"const": "controllers"},
        {
            "type": "array",
            "minItems": 1,
            "uniqueItems": True,
            "items": {"type": "string", "pattern": f"^{RegionName.pattern}$"},
        },
    ]
}
_READS_SCHEMA = {"type": "array", "minItems": 1, "items": {"enum": list(READS)}}


class ScenarioFile(Entry):
    """A scenario: what is asked of the cloud, how much of it, how fast, and from where."""

    name: ScenarioName | None = Field(None, description="default: the file's name")
    description: Text = ""
    kind: Literal["boot", "boot-and-delete", "boot-and-list", "reads", "authenticate"]
    vms: Annotated[int, *whole(MAX_VMS, 1, 500)] = Field(
        500, description="how many VMs are asked for, in all"
    )
    iterations: Annotated[int, *whole(MAX_ITERATIONS, 1, 100)] = Field(
        100, description="how many rounds of reads, or tokens, in all"
    )
    concurrency: Annotated[int | str, *whole(MAX_VMS, 1, 20, also="all")] = Field(
        "all", description="ask for all at once, or keep so many under way"
    )
    flavor: Label = "m1.tiny"
    image: Label = "discovery"
    spread: Annotated[
        list[str] | str, BeforeValidator(_regions), WithJsonSchema(_REGION_SCHEMA)
    ] = Field("controllers", description="fairly over all controllers, or these regions")
    from_: Literal["master", "sites"] = Field(
        "master", alias="from", description="the hosts where the load starts"
    )
    poll_interval: Annotated[float, *seconds(0.1, MAX_TIME_S)] = Field(
        1.0, description="pause between two looks at the VMs"
    )
    vm_timeout: Annotated[float, *seconds(1, MAX_TIME_S)] = Field(
        1800.0, description="for a VM to be ACTIVE, or to be gone"
    )
    run_timeout: Annotated[float, *seconds(1, MAX_TIME_S)] = Field(
        3600.0, description="for all of the load, from its first request"
    )
    warm_up: Annotated[int, *whole(MAX_VMS, 0, 2)] = Field(
        0,
        description="VMs booted and deleted before (default: one for each region and compute)",
    )
    placement_seed: Annotated[int, *whole(MAX_SEED, 0, 1)] = Field(
        0, description="draw each VM's host from this seed (default: the scheduler chooses)"
    )
    delete_after: Flag = Field(
        True,
        description="delete the VMs at the end, timed (default: if the hosts are kept)",
    )
    reads: Annotated[list[str], BeforeValidator(_reads), WithJsonSchema(_READS_SCHEMA)] = Field(
        list(READS), description="what a round of reads asks, in this order"
    )
    repeats: Annotated[int, *whole(1000, 1, 3)] = Field(
        1, description="how often a round asks each of its reads"
    )


# Keys that only some kinds look at; the others would silently ignore them.
_ONLY_FOR: Mapping[str, tuple[str, ...]] = {
    "vms": BOOTING,
    "iterations": ("reads", "authenticate"),
    "flavor": (*BOOTING, "reads"),
    "image": (*BOOTING, "reads"),
    "poll_interval": (*BOOTING, "reads"),
    "vm_timeout": (*BOOTING, "reads"),
    "warm_up": (*BOOTING, "reads"),
    "placement_seed": BOOTING,
    "delete_after": ("boot", "boot-and-list"),
    "reads": ("reads",),
    "repeats": ("reads",),
}


# ---------------------------------------------------------------- the value


@dataclass(frozen=True)
class Scenario:
    """What load a cloud is to take; `scenarios/README.md` says what each field does.

    `concurrency` None asks for all at once; `regions` None are all there are; `warm_up`
    None is one VM for each region and one on each compute; `placement_seed` None leaves VMs'
    hosts to the scheduler; `delete_after` None deletes the VMs unless their hosts are destroyed.
    """

    name: str
    kind: str
    vms: int = 500
    iterations: int = 100
    concurrency: int | None = None
    flavor: str = "m1.tiny"
    image: str = "discovery"
    regions: tuple[str, ...] | None = None
    starts_on: str = "master"
    poll_interval_s: float = 1.0
    vm_timeout_s: float = 1800.0
    run_timeout_s: float = 3600.0
    warm_up: int | None = None
    delete_after: bool | None = None
    reads: tuple[str, ...] = READS
    repeats: int = 1
    description: str = ""
    placement_seed: int | None = None

    @property
    def boots(self) -> bool:
        """True when an iteration is a VM."""
        return self.kind in BOOTING

    @property
    def count(self) -> int:
        """How many iterations there are: VMs, rounds of reads, tokens."""
        return self.vms if self.boots else self.iterations

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    def to_yaml(self) -> str:
        """A scenario file that says the same, every key that its kind looks at."""
        written: dict[str, Any] = {
            "name": self.name,
            "description": self.description or None,
            "kind": self.kind,
            "vms": self.vms,
            "iterations": self.iterations,
            "concurrency": "all" if self.concurrency is None else self.concurrency,
            "flavor": self.flavor,
            "image": self.image,
            "spread": "controllers" if self.regions is None else list(self.regions),
            "from": self.starts_on,
            "poll_interval": f"{self.poll_interval_s:g}s",
            "vm_timeout": f"{self.vm_timeout_s:g}s",
            "run_timeout": f"{self.run_timeout_s:g}s",
            "warm_up": self.warm_up,
            "placement_seed": self.placement_seed,
            "delete_after": self.delete_after,
            "reads": list(self.reads),
            "repeats": self.repeats,
        }
        fields = {
            key: value
            for key, value in written.items()
            if value is not None and self.kind in _ONLY_FOR.get(key, KINDS)
        }
        return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


# ---------------------------------------------------------------- reading


def read_scenario(path: Path) -> Scenario:
    """Read a scenario file; raises InvalidInput with every problem found."""
    return scenario_of(read_yaml(path, "scenarios"))


def parse_scenario(text: str, name: str = "scenario.yaml") -> Scenario:
    """The same from text; `name` is what the problems call it."""
    return scenario_of(parse_yaml(text, name))


def scenario_of(parsed: YamlFile) -> Scenario:
    """The scenario in a file that was read; raises InvalidInput with every problem found."""
    return _build(parsed, _name_from(Path(parsed.name).stem))


def scenario_schema() -> dict[str, Any]:
    """The JSON Schema of a scenario file, for editors."""
    schema = ScenarioFile.model_json_schema(by_alias=True)
    # Their defaults depend on what is outside of the file.
    for key in ("name", "warm_up", "placement_seed", "delete_after"):
        del schema["properties"][key]["default"]
    for key, kinds in _ONLY_FOR.items():
        schema.setdefault("allOf", []).append(
            {"if": {"required": [key]}, "then": {"properties": {"kind": {"enum": list(kinds)}}}}
        )
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _name_from(stem: str) -> ScenarioName:
    return ScenarioName(derived(stem, "s"))


def _build(parsed: YamlFile, default_name: ScenarioName) -> Scenario:
    if not isinstance(parsed.data, dict):
        parsed.report((), "is not a scenario", f"write a mapping with 'kind:', {_DOCS}")
        raise InvalidInput(parsed.problems)
    # A key without a value counts as left out.
    written = {key: value for key, value in parsed.data.items() if value is not None}
    shape: ScenarioFile | None = None
    try:
        shape = ScenarioFile.model_validate(written)
    except ValidationError as error:
        report_shape(parsed, error, ScenarioFile, _DOCS)
    # Cross-checks look at each value alone, so that they are found in the same run.
    _check_keys_of_kind(parsed, written)
    _check_times(parsed, written)
    _check_show(parsed, written)
    if parsed.problems or shape is None:
        raise InvalidInput(parsed.problems)
    return _resolve(shape, default_name)


def _check_keys_of_kind(parsed: YamlFile, written: Mapping[str, Any]) -> None:
    kind = written.get("kind")
    for key in written:
        kinds = _ONLY_FOR.get(key)
        if kind in KINDS and kinds is not None and kind not in kinds:
            other = {"vms": "iterations", "iterations": "vms"}.get(key)
            parsed.report(
                (key,),
                f"means nothing to '{kind}'",
                f"write '{other}'" if other else f"leave it out (it is for {listed(kinds)})",
            )


def _alone(written: Mapping[str, Any], key: str) -> Any:
    """The value of `key`, or its default where what is written isn't valid."""
    entry = {"kind": KINDS[0], **({key: written[key]} if key in written else {})}
    try:
        return getattr(ScenarioFile.model_validate(entry), key)
    except ValidationError:
        return ScenarioFile.model_fields[key].default


def _check_times(parsed: YamlFile, written: Mapping[str, Any]) -> None:
    if written.get("kind") == "authenticate":
        return
    vm_s, run_s = _alone(written, "vm_timeout"), _alone(written, "run_timeout")
    if vm_s > run_s:
        key = "run_timeout" if "run_timeout" in written else "vm_timeout"
        parsed.report(
            (key,),
            f"the run ({run_s:g}s) is over before the time of a VM ({vm_s:g}s)",
            "write a run_timeout of at least the vm_timeout",
        )
    if _alone(written, "poll_interval") >= vm_s:
        parsed.report(
            ("poll_interval" if "poll_interval" in written else "vm_timeout",),
            f"the time of a VM ({vm_s:g}s) is over before it is looked at",
            "write a poll_interval under the vm_timeout",
        )


def _check_show(parsed: YamlFile, written: Mapping[str, Any]) -> None:
    shows = "show" in _alone(written, "reads")
    if written.get("kind") == "reads" and shows and written.get("warm_up") == 0:
        parsed.report(
            ("warm_up",),
            "without any VM there is none to 'show'",
            "write at least 1, or leave 'show' out of 'reads'",
        )


def _resolve(shape: ScenarioFile, default_name: ScenarioName) -> Scenario:
    return Scenario(
        name=shape.name or default_name,
        kind=shape.kind,
        vms=shape.vms,
        iterations=shape.iterations,
        concurrency=None if isinstance(shape.concurrency, str) else shape.concurrency,
        flavor=shape.flavor,
        image=shape.image,
        regions=None if isinstance(shape.spread, str) else tuple(shape.spread),
        starts_on=shape.from_,
        poll_interval_s=shape.poll_interval,
        vm_timeout_s=shape.vm_timeout,
        run_timeout_s=shape.run_timeout,
        warm_up=shape.warm_up if "warm_up" in shape.model_fields_set else None,
        placement_seed=(
            shape.placement_seed if "placement_seed" in shape.model_fields_set else None
        ),
        delete_after=shape.delete_after if "delete_after" in shape.model_fields_set else None,
        reads=tuple(shape.reads),
        repeats=shape.repeats,
        description=shape.description,
    )
