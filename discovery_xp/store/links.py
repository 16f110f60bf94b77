"""links.json: the round trips between sites, before and after the load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

from discovery_xp.store.values import Count, Number, Word, read

MOST_LINKS_BYTES = 32 * 2**20  # of links.json: 250 sites have 31,125 pairs
_MOST_PAIRS = 100_000


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
    links: Links = read(Links, text)
    return links
