"""Lines of JSON, each of a kind, that a host writes as things happen: what each kind holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .. import checks
from ..checks import Check, Unfit

# A line holds at most an error's text; longer ones aren't read to their end.
LONGEST_LINE = 2**16
# The last line, by whoever ends the unit that writes the others.
UNIT: Mapping[str, Check] = {"words": checks.text}

_KIND = "line"
# By kind of line: what it must hold, or may.
Kinds = Mapping[str, Mapping[str, Check]]


def encode(required: Kinds, optional: Kinds, kind: str, values: Mapping[str, Any]) -> str:
    """Return a line of a kind, with its end; raises ValueError unless such a line holds these."""
    must, may = required[kind], optional.get(kind, {})
    if not must.keys() <= values.keys() <= must.keys() | may.keys():
        raise ValueError(f"a line of kind '{kind}' doesn't hold {', '.join(sorted(values))}")
    return f"{json.dumps({_KIND: kind, **values})}\n"


def end(words: str) -> str:
    """Return the last line, with its end: what became of the unit."""
    return encode({"unit": UNIT}, {}, "unit", {"words": words})


def is_end(line: bytes) -> bool:
    """Tell whether a line is the last one: the unit's own end."""
    return line.startswith(f'{{"{_KIND}": "unit"'.encode())


def parse(required: Kinds, optional: Kinds, line: object) -> tuple[str, dict[str, Any]]:
    """Return a line's kind and its values; raises Unfit unless they are what such a line holds."""
    values = checks.mapping(line)
    kind = values.get(_KIND)
    if not isinstance(kind, str) or kind not in required:
        raise Unfit(f"{checks.shown(kind)} is no kind of line")
    must, may = required[kind], optional.get(kind, {})
    missing = sorted(must.keys() - values.keys())
    if missing:
        raise Unfit(f"a line of kind '{kind}' lacks '{missing[0]}'")
    return kind, {
        key: check(values[key]) for key, check in (*must.items(), *may.items()) if key in values
    }
