"""The shape of a campaign's file: its keys, their types, what editors are told of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from discovery_xp.boundary.names import Name, TestbedName
from discovery_xp.inputs.fields import Entry, Identifier, Text, seconds, whole
from discovery_xp.inputs.scenario import MAX_SEED
from discovery_xp.inputs.yamlfile import Path_

DOCS = "see campaigns/README.md"
MAX_POINTS = 10_000
MAX_REPEATS = 1000
MAX_ATTEMPTS = 20

# What a level may say in a word, and where it stands in a topology.  `*` stands for each site.
TOPOLOGY_KEYS: Mapping[str, Path_] = {
    "sites": ("sites", 0, "count"),
    "controllers": ("sites", "*", "controllers"),
    "computes": ("sites", "*", "computes"),
    "data": ("sites", "*", "data"),
    "latency": ("network", "delay"),
    "time_scale": ("time_scale",),
    "backend": ("openstack", "backend"),
    "layout": ("openstack", "layout"),
    "placement": ("openstack", "placement"),
}
SCENARIO_KEYS = ("vms", "concurrency", "iterations", "placement_seed", "spread", "warm_up")
# What a level may say with a mapping: parts of the files themselves.
FILES = ("topology", "scenario")
SHORT_KEYS = (*TOPOLOGY_KEYS, *SCENARIO_KEYS)


class ExcludeEntry(Entry):
    """Points that are left out: those with all of these levels, and why."""

    levels: dict[str, Any] = Field(description="a level, or a list of levels, by factor")
    because: Text


class PartEntry(Entry):
    """Some of a campaign's points: all combinations of the levels in `over`, or those listed."""

    name: Name
    description: Text = ""
    set: dict[str, Any] = Field({}, description="what all of its points have")
    over: dict[str, list[Any] | str] = Field(
        {}, description="levels by factor, every combination of which is a point; or 'all'"
    )
    points: list[dict[str, Any]] = Field([], description="points one by one: a level by factor")
    exclude: list[ExcludeEntry] = Field([])
    share: list[str] = Field(
        [], description="factors whose levels may follow each other on one cloud"
    )
    repeats: Annotated[int | None, *whole(MAX_REPEATS, 1, 3)] = None
    first: bool = Field(False, description="its points are made before others of their block")


class CampaignFile(Entry):
    """A campaign: what all points have, which factors vary, and which points there are."""

    name: TestbedName | None = Field(None, description="default: the file's name")
    description: Text = ""
    seed: Annotated[int, *whole(MAX_SEED, 0, 1)] = Field(
        1, description="what the order of the points is drawn from"
    )
    repeats: Annotated[int, *whole(MAX_REPEATS, 1, 3)] | Literal["endless"] = Field(
        1,
        description="runs of each point, in blocks with one run of each; 'endless': each time that "
        "all of them are done, 'run' makes another block",
    )
    attempts: Annotated[int, *whole(MAX_ATTEMPTS, 1, 2)] = Field(
        2, description="how often a point that fails is tried, before it is a failed row"
    )
    probes: Text = Field("all", description="'all', 'none', or some with commas")
    sample_every: Annotated[float, *seconds(1, 600)] = 5.0
    topology: dict[str, Any] | str = Field(
        {"sites": [{"name": "site", "controllers": 1, "computes": 6, "data": 1}]},
        description="what all points begin with: a topology, or a file that holds one",
    )
    scenario: dict[str, Any] | str = Field(
        {"kind": "boot", "vms": 500},
        description="what all points begin with: a scenario, or a file that holds one",
    )
    factors: dict[Identifier, dict[str, dict[str, Any]]] = Field(
        {}, description="factors of one's own: what each of their levels sets"
    )
    parts: Annotated[list[PartEntry], Field(min_length=1, max_length=100)]


def campaign_schema() -> dict[str, Any]:
    """The JSON Schema of a campaign's file, for editors."""
    schema = CampaignFile.model_json_schema(by_alias=True)
    del schema["properties"]["name"]["default"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
