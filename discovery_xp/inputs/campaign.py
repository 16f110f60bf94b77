"""Campaign YAML to a frozen `Campaign`: many points, each a topology and a scenario.

A campaign says what all its points have, the factors that vary and their levels, and which
combinations of levels are its points.  `campaigns/README.md` describes the format.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from discovery_xp.boundary.names import TestbedName, derived
from discovery_xp.errors import InvalidInput
from discovery_xp.inputs.campaign_file import DOCS, CampaignFile
from discovery_xp.inputs.campaign_points import PointReader
from discovery_xp.inputs.campaign_values import Campaign
from discovery_xp.inputs.shapes import report_shape
from discovery_xp.inputs.yamlfile import YamlFile, parse_yaml, read_yaml


def read_campaign(path: Path) -> Campaign:
    """Read a campaign's file; raises InvalidInput with every problem found."""
    return _build(read_yaml(path, "campaigns"), path.parent)


def parse_campaign(text: str, name: str = "campaign.yaml") -> Campaign:
    """The same from text; `name` is what the problems call it."""
    return _build(parse_yaml(text, name), Path())


def _build(parsed: YamlFile, folder: Path) -> Campaign:
    if not isinstance(parsed.data, dict):
        parsed.report((), "is not a campaign", f"write a mapping with 'parts:', {DOCS}")
        raise InvalidInput(parsed.problems)
    try:
        shape = CampaignFile.model_validate(parsed.data)
    except ValidationError as error:
        report_shape(parsed, error, CampaignFile, DOCS)
        raise InvalidInput(parsed.problems) from None
    name = shape.name or TestbedName(derived(Path(parsed.name).stem, "c"))
    points, excluded = PointReader(parsed, shape, name, folder).read()
    if parsed.problems:
        raise InvalidInput(parsed.problems)
    return Campaign(
        name=name,
        description=shape.description,
        seed=shape.seed,
        attempts=shape.attempts,
        probes=shape.probes,
        sample_every_s=shape.sample_every,
        points=tuple(points),
        excluded=tuple(excluded),
        text=parsed.text,
        is_endless=shape.repeats == "endless",
    )
