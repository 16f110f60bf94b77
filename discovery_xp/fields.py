"""What the fields of a topology file are made of: quantities with units, names, entries.

Problems carry `reason` and `remedy`, which the reader of the file turns into one line.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema
from pydantic_core import PydanticCustomError

from discovery_xp import units

NAME = re.compile(r"[a-z]([a-z0-9-]{0,28}[a-z0-9])?")


class Entry(BaseModel):
    """A mapping of the file: an unknown key is a problem, a number isn't taken for a text."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, populate_by_name=False, allow_inf_nan=False
    )


def _quantity(parse: Any, pattern: str, example: str) -> Any:
    def validate(value: object) -> object:
        try:
            return parse(value)
        except units.QuantityError as error:
            raise wrong(error.reason, error.remedy) from None

    schema = {"type": "string", "pattern": pattern, "examples": [example]}
    return (BeforeValidator(validate), WithJsonSchema(schema))


def wrong(reason: str, remedy: str) -> PydanticCustomError:
    """What a validator raises: the value, and what to write instead."""
    return PydanticCustomError("quantity", "{reason}", {"reason": reason, "remedy": remedy})


_NUMBER = r"^\s*(\d+\.?\d*|\.\d+)\s*"
Duration = Annotated[float, *_quantity(units.parse_duration_ms, _NUMBER + r"(us|ms|s)\s*$", "10ms")]
Rate = Annotated[
    float, *_quantity(units.parse_rate_mbit, _NUMBER + r"(kbit|mbit|gbit)\s*$", "1gbit")
]
Loss = Annotated[float, *_quantity(units.parse_loss_percent, _NUMBER + r"%\s*$", "0.1%")]
Percent = Annotated[float, *_quantity(units.parse_percent, _NUMBER + r"%\s*$", "5%")]
Size = Annotated[
    int, *_quantity(units.parse_memory_bytes, _NUMBER + r"[KMGkmg]i?[Bb]\s*$", "512MiB")
]


def _check_name(value: object) -> object:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise PydanticCustomError(
            "name",
            "{reason}",
            {
                "reason": f"'{value}' is not a name",
                "remedy": "write 1 to 30 of a-z, 0-9 and '-', a letter first, no '-' last",
            },
        )
    return value


Name = Annotated[
    str,
    BeforeValidator(_check_name),
    WithJsonSchema({"type": "string", "pattern": f"^{NAME.pattern}$"}),
]
