"""The values of run.json and links.json: their types, and JSON that is read strictly.

Whoever has a value of these types needs to check nothing more of it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from discovery_xp.boundary.names import ExperimentName
from discovery_xp.text import shortened

MOST_ENTRIES = 1000  # versions, stages, notes
MOST_VALUES = 20_000  # of `options` or `scenario`, in all
MOST_NESTED = 20
MOST_TEXT = 100_000  # characters of one of them: a policy or a script may be a value of `config`
MOST_OF_WORD, MOST_OF_LINE = 500, 4000  # characters

Count = Annotated[int, Field(ge=0, le=2**53)]
Number = Annotated[float, Field(ge=-1e15, le=1e15)]
Share = Annotated[float, Field(ge=0, le=1)]
Word = Annotated[str, Field(max_length=MOST_OF_WORD)]
Line = Annotated[str, Field(max_length=MOST_OF_LINE)]
Experiment = Annotated[str, ExperimentName]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]
Time = Annotated[str, Field(pattern=r"^[0-9]{4}(-[0-9]{2}){2}T([0-9]{2}:){2}[0-9]{2}Z$")]


class Strict:
    """Base of the parts of run.json: unknown keys and wrong types are errors."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@functools.cache
def _adapter(type_: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type_)


def read(type_: Any, text: bytes | str) -> Any:
    """Return a value of a type from JSON; raises ValueError with the place and the wrong value."""
    try:
        return _adapter(type_).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = shortened(".".join(str(part) for part in first["loc"]), 60)
        # Of JSON that is none the input is all of it.
        of_value = first["type"] not in ("missing", "json_invalid")
        wrong = f", not {described(first['input'])}" if of_value else ""
        message = shortened(first["msg"]) + wrong
        raise ValueError(f"'{place}': {message}" if place else message) from None


def described(value: object) -> str:
    """Return a value of JSON for a message, without writing out all of a large one."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return shortened(json.dumps(value, ensure_ascii=False), 40)


def require_plain(values: object) -> None:
    """Raise ValueError unless a value of JSON is of bounded depth, length and numbers."""
    pending, count = [(values, 0)], 0
    while pending:
        value, depth = pending.pop()
        count += 1
        if count > MOST_VALUES or depth > MOST_NESTED:
            raise ValueError(f"more than {MOST_VALUES} values, or {MOST_NESTED} in each other")
        if isinstance(value, Mapping):
            pending += [(key, depth + 1) for key in value]
            pending += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, list | tuple):
            pending += [(each, depth + 1) for each in value]
        elif isinstance(value, str):
            if len(value) > MOST_TEXT:
                raise ValueError(f"a text of {len(value)} characters")
        # Not by way of math: an integer may have no float.
        elif isinstance(value, int | float) and not -1e18 < value < 1e18:
            raise ValueError("a number beyond 10^18")
