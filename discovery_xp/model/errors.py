"""How far predictions were from runs that the model didn't know, as it comes with the toolkit."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from discovery_xp.errors import Refused
from discovery_xp.planning.plan import Plan

FORMAT = 1
SHIPPED = Path(__file__).with_name("errors.json")


@dataclass(frozen=True)
class HeldOut:
    """A run that was predicted from others, and by how much that was off."""

    run: str
    backend: str
    layout: str
    duration_s: float
    boot_median_s: float
    boot_p90_s: float


def kind_of(plan: Plan) -> tuple[str, str]:
    """Return back end and layout of a plan's cloud."""
    options = plan.require_cloud().options
    return options.backend, options.layout


def in_words(runs: Sequence[HeldOut], backend: str, layout: str) -> str:
    """Return what is known of how right predictions of a back end and layout are."""
    own = [
        abs(each.duration_s) for each in runs if (each.backend, each.layout) == (backend, layout)
    ]
    if not own:
        return (
            f"unknown: of back end '{backend}' with layout '{layout}' there is one run, the one "
            "that the model was made from"
        )
    return (
        f"of {len(own)} runs of '{backend}' with '{layout}' that it didn't know, the time to "
        f"create all VMs was off by {statistics.median(own):.0%} in the median, "
        f"{max(own):.0%} at most"
    )


def dumps(runs: Sequence[HeldOut]) -> str:
    """Return the text of a file of errors."""
    return json.dumps({"format": FORMAT, "runs": [asdict(run) for run in runs]}, indent=1) + "\n"


def loads(text: str, name: str) -> list[HeldOut]:
    """Return the errors of a file's text; raises Refused, naming the file."""
    try:
        values: Mapping[str, Any] = json.loads(text)
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}, not {FORMAT}")
        return [HeldOut(**each) for each in values["runs"]]
    except (ValueError, KeyError, TypeError) as error:
        remedy = "write it anew: 'benchmarks/prediction.py predict'"
        raise Refused(f"{name}: {type(error).__name__}: {error}", remedy) from None


def shipped() -> list[HeldOut]:
    """Return those that come with the toolkit."""
    return loads(SHIPPED.read_text(), SHIPPED.name)
