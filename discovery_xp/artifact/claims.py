"""Claims about runs: a sentence, the runs that it compares, and the relation that is to hold.

They stand in a YAML file of their own, which is read strictly; `docs/artifacts.md` describes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from discovery_xp.analysis.figures import FIGURES, FURTHER, Figure
from discovery_xp.artifact.levels import canonical
from discovery_xp.errors import InvalidInput, Refused
from discovery_xp.inputs.fields import Entry, Percent, Text, unknown
from discovery_xp.inputs.shapes import report_shape
from discovery_xp.inputs.yamlfile import Path_, YamlFile, parse_yaml, read_yaml
from discovery_xp.text import short

DOCS = "see docs/artifacts.md"
MOST_CLAIMS = 100

CLAIMED: Mapping[str, Figure] = {figure.key: figure for figure in (*FIGURES, *FURTHER)}


class ClaimEntry(Entry):
    """A claim: which figure of which runs is at most or at least how much."""

    sentence: Text
    figure: Text
    of: dict[str, Any] = Field(description="the runs that it is about: a level by factor")
    to: dict[str, Any] | None = Field(
        None, description="the runs that these are compared to; the bounds are then of the ratio"
    )
    at_most: float | None = None
    at_least: float | None = None
    tolerance: Percent = Field(0.0, description="how far a bound may be missed, e.g. '10%'")


class ClaimsFile(Entry):
    """Claims about the runs of a campaign, or of a folder of results."""

    description: Text = ""
    claims: Annotated[list[ClaimEntry], Field(min_length=1, max_length=MOST_CLAIMS)]


@dataclass(frozen=True)
class Claim:
    """One claim.

    `of` and `to` are levels by factor, in their canonical form; with `to`, bounds are of the
    ratio of the two sides' figures, else of the figure.  `tolerance` is a share.  `place` is
    the file and line that it stands at.
    """

    number: int
    sentence: str
    figure: Figure
    of: Mapping[str, str]
    to: Mapping[str, str] | None
    at_most: float | None
    at_least: float | None
    tolerance: float
    place: str = ""

    @property
    def sides(self) -> tuple[Mapping[str, str], ...]:
        """Return the levels of its sides, that which is judged first."""
        return (self.of,) if self.to is None else (self.of, self.to)

    @property
    def relation(self) -> str:
        """Return what is to hold, in words: 'ratio at most 0.5, ± 10 %'."""
        bounds = [
            f"{words} {bound:g}"
            for words, bound in (("at least", self.at_least), ("at most", self.at_most))
            if bound is not None
        ]
        subject = "" if self.to is None else "ratio "
        tolerance = f", ± {100 * self.tolerance:g} %" if self.tolerance else ""
        return f"{subject}{' and '.join(bounds)}{tolerance}"

    def holds(self, value: float) -> bool:
        """Tell whether a value is within the bounds."""
        return self._is_within(value, 0.0)

    def holds_within_tolerance(self, value: float) -> bool:
        """Tell whether a value is within the bounds, or misses them by the tolerance at most."""
        return self._is_within(value, self.tolerance)

    def _is_within(self, value: float, tolerance: float) -> bool:
        return (self.at_most is None or value <= self.at_most * (1 + tolerance)) and (
            self.at_least is None or value >= self.at_least * (1 - tolerance)
        )


@dataclass(frozen=True)
class Claims:
    """All claims of a file; `text` is the file."""

    description: str = ""
    claims: tuple[Claim, ...] = ()
    text: str = ""

    def numbered(self, number: int) -> Claim:
        """Return a claim by its number, from 1; raises Refused where there is none."""
        if not self.claims:
            raise Refused(
                f"claim {number}: there are no claims about these runs",
                "name a file of claims with --claims",
            )
        if not 1 <= number <= len(self.claims):
            raise Refused(
                f"there is no claim {number}", f"name one of 1 to {len(self.claims)} with --claim"
            )
        return self.claims[number - 1]


def read_claims(path: Path, factors: Sequence[str]) -> Claims:
    """Read a file of claims about runs that have these factors.

    Raises InvalidInput with every problem found.
    """
    return _build(read_yaml(path, "campaigns/claims"), factors)


def parse_claims(text: str, factors: Sequence[str], name: str = "claims.yaml") -> Claims:
    """Read the same from text; `name` is what problems call it."""
    return _build(parse_yaml(text, name), factors)


def claims_schema() -> dict[str, Any]:
    """Return the JSON Schema of a file of claims, for editors."""
    schema = ClaimsFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _build(parsed: YamlFile, factors: Sequence[str]) -> Claims:
    if not isinstance(parsed.data, dict):
        parsed.report((), "holds no claims", f"write a mapping with 'claims:', {DOCS}")
        raise InvalidInput(parsed.problems)
    try:
        shape = ClaimsFile.model_validate(parsed.data)
    except ValidationError as error:
        report_shape(parsed, error, ClaimsFile, DOCS)
        raise InvalidInput(parsed.problems) from None
    claims = [_claim(parsed, index, entry, factors) for index, entry in enumerate(shape.claims)]
    if parsed.problems:
        raise InvalidInput(parsed.problems)
    made = tuple(claim for claim in claims if claim is not None)
    return Claims(shape.description, made, parsed.text)


def _claim(parsed: YamlFile, index: int, entry: ClaimEntry, factors: Sequence[str]) -> Claim | None:
    place: Path_ = ("claims", index)
    figure = CLAIMED.get(entry.figure)
    if figure is None:
        parsed.report((*place, "figure"), *unknown(entry.figure, tuple(CLAIMED)))
    of = _levels(parsed, (*place, "of"), entry.of, factors)
    to = None if entry.to is None else _levels(parsed, (*place, "to"), entry.to, factors)
    if to is not None and to == of:
        parsed.report((*place, "to"), "are the runs of 'of'", "name another level")
    bounds = [each for each in (entry.at_least, entry.at_most) if each is not None]
    if not bounds:
        parsed.report(place, "has no bound", "add 'at_most: ...' or 'at_least: ...'")
    if any(each < 0 for each in bounds):
        parsed.report(place, f"'{min(bounds):g}' is out of range", "write bounds from 0 on")
    elif bounds != sorted(bounds):
        parsed.report(place, "'at_least' is over 'at_most'", "write the lesser one as 'at_least'")
    if figure is None:
        return None
    line = parsed.line(place)
    return Claim(
        number=index + 1,
        sentence=" ".join(entry.sentence.split()),
        figure=figure,
        of=of,
        to=to,
        at_most=entry.at_most,
        at_least=entry.at_least,
        tolerance=entry.tolerance / 100,
        place=f"{parsed.name}:{line}",
    )


def _levels(
    parsed: YamlFile, place: Path_, written: Mapping[str, Any], factors: Sequence[str]
) -> dict[str, str]:
    if not written:
        parsed.report(place, "names no level", "write e.g. '{backend: rome, sites: 2}'")
    levels = {}
    for factor, level in written.items():
        if factor not in factors:
            parsed.report((*place, factor), *unknown(factor, factors))
        elif isinstance(level, dict | list | bool) or level is None:
            parsed.report(
                (*place, factor), f"'{short(level)}' is not a level", "write a word or a number"
            )
        else:
            levels[factor] = canonical(factor, level)
    return levels
