"""What the fields of all our files are made of: quantities with units, numbers, words, entries.

Problems carry `reason` and `remedy`, which the reader of the file turns into one line.

Words are what goes on to other programs: ssh, Ansible, OAR, the services.  Each has a
pattern that holds what such a word needs and nothing that these could take for more than a
word: no line break, no quote, no brace.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema
from pydantic_core import PydanticCustomError

from discovery_xp.inputs import units
from discovery_xp.text import printable, short


class Entry(BaseModel):
    """A mapping of the file: an unknown key is a problem, a number isn't taken for a text."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, populate_by_name=False, allow_inf_nan=False
    )


def _quantity(parse: Any, pattern: str, *examples: str) -> Any:
    def validate(value: object) -> object:
        try:
            return parse(value)
        except units.QuantityError as error:
            raise wrong(error.reason, error.remedy) from None

    schema = {"type": "string", "pattern": pattern, "examples": list(examples)}
    return (BeforeValidator(validate), WithJsonSchema(schema))


def wrong(reason: str, remedy: str, item: int | None = None) -> PydanticCustomError:
    """Return what a validator raises: the value, and what to write instead.

    `item` is the index of a list's item that is wrong.
    """
    context: dict[str, Any] = {"reason": reason, "remedy": remedy, "item": item}
    return PydanticCustomError("quantity", "{reason}", context)


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


# ---------------------------------------------------------------- numbers, times, flags


def whole(most: int, least: int, example: int, also: str | None = None) -> Any:
    """A whole number from `least` to `most`, or the word `also`."""

    def validate(value: object) -> object:
        if also is not None and value == also:
            return value
        if not isinstance(value, int) or isinstance(value, bool):
            choice = f" or '{also}'" if also else ""
            raise wrong(
                f"'{short(value)}' is not a whole number{choice}", f"write e.g. {example}{choice}"
            )
        if not least <= value <= most:
            raise wrong(f"'{value}' is out of range", f"write {least} to {most}")
        return value

    number: dict[str, Any] = {"type": "integer", "minimum": least, "maximum": most}
    schema = number if also is None else {"anyOf": [number, {"const": also}]}
    return (BeforeValidator(validate), WithJsonSchema(schema))


def seconds(least_s: float, most_s: float) -> Any:
    """A time with its unit, from `least_s` to `most_s`, as a number of seconds."""

    def parse(value: object) -> float:
        time_s = units.parse_time_s(value)
        if not least_s <= time_s <= most_s:
            most = f"{most_s / 3600:g}h"
            raise units.QuantityError(
                f"'{short(value)}' is out of range", f"write '{least_s:g}s' to '{most}'"
            )
        return time_s

    return _quantity(parse, rf"{_NUMBER}({'|'.join(units.TIME_S)})\s*$", "30s", "5min")


def _check_text(value: object) -> object:
    if not isinstance(value, str) or not value.strip():
        raise wrong(f"'{short(value)}' is not text", "write a word, in quotes if need be")
    return value


def _check_flag(value: object) -> object:
    if not isinstance(value, bool):
        raise wrong(f"'{short(value)}' is neither true nor false", "write 'true' or 'false'")
    return value


Text = Annotated[
    str, BeforeValidator(_check_text), WithJsonSchema({"type": "string", "minLength": 1})
]
Flag = Annotated[bool, BeforeValidator(_check_flag), WithJsonSchema({"type": "boolean"})]


def unknown(value: object, words: Sequence[str]) -> tuple[str, str]:
    """Say that `value` is none of `words`, and which of them it may be meant for."""
    close = difflib.get_close_matches(short(value), words, 1)
    remedy = f"did you mean '{close[0]}'?" if close else f"write one of {alternatives(words)}"
    return f"'{short(value)}' is unknown", remedy


def alternatives(words: Sequence[str]) -> str:
    """Return words in quotes, 'or' before the last."""
    *first, last = words
    return f"{listed(first)} or '{last}'" if first else f"'{last}'"


def listed(words: Sequence[str]) -> str:
    """Return words in quotes, with commas between them."""
    return ", ".join(f"'{word}'" for word in words)


# ---------------------------------------------------------------- words


def word(pattern: str, kind: str, remedy: str, most: int = 100) -> Any:
    """A text of up to `most` characters, the whole of which matches `pattern` (in ASCII)."""
    compiled = re.compile(pattern, re.ASCII)

    def validate(value: object) -> object:
        if not isinstance(value, str):
            raise wrong(f"'{short(value)}' is not text", "write a word, in quotes if need be")
        if len(value) > most or not compiled.fullmatch(value):
            raise wrong(f"'{short(value)}' is not {kind}", remedy)
        return value

    schema = {"type": "string", "pattern": f"^{pattern}$", "maxLength": most}
    return (BeforeValidator(validate), WithJsonSchema(schema))


USER_PATTERN = r"[a-z_][a-z0-9_.-]{0,31}"
HOST_PATTERN = r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
JUMP_PATTERN = rf"({USER_PATTERN}@)?{HOST_PATTERN}"
SshUser = Annotated[
    str,
    *word(USER_PATTERN, "a user", "write e.g. 'root': a-z, 0-9, '_', '.' and '-', a letter first"),
]
JumpHost = Annotated[
    str,
    *word(
        rf"auto|none|{JUMP_PATTERN}",
        "a jump host",
        "write 'auto', 'none' or e.g. 'alice@access.grid5000.fr'",
        most=300,
    ),
]
# Names of clusters, projects, images and the like, that others give.
Label = Annotated[
    str,
    *word(
        r"[A-Za-z0-9]([A-Za-z0-9 ._@:/+~()-]*[A-Za-z0-9._@:/+~()-])?",
        "such a name",
        "write letters, digits, spaces and ._@:/+~()-, a letter or digit first",
        most=200,
    ),
]
Identifier = Annotated[
    str,
    *word(r"[A-Za-z0-9][A-Za-z0-9_-]*", "such a name", "write letters, digits, '_' and '-'"),
]
# Of the services' own configuration: a section in brackets, an option before '='.
Section = Annotated[
    str,
    *word(
        r"[A-Za-z0-9_][A-Za-z0-9_.:/-]*",
        "a section",
        "write letters, digits and _.:/-, e.g. 'DEFAULT'",
    ),
]
Option = Annotated[
    str,
    *word(
        r"[A-Za-z0-9_][A-Za-z0-9_.-]*",
        "an option",
        "write letters, digits and _.-, e.g. 'debug'",
    ),
]


def is_plain_path(path: str) -> bool:
    """True for a path that a quoted line of a file can hold: no control character, no quote."""
    return len(path) <= 4096 and path.isprintable() and '"' not in path


def _check_path(value: object) -> object:
    """A path: what shells, ssh and templates would take for more than a path isn't in it."""
    if not isinstance(value, str) or len(value) > 1000 or not _PATH.fullmatch(value):
        raise wrong(
            f"'{short(value)}' is not a path",
            "write letters, digits, spaces and ._~+@=,:/-, with '/', '~/', a letter, "
            "a digit or '.' first",
        )
    try:
        Path(value).expanduser()
    except RuntimeError:
        raise wrong(f"'{short(value)}' needs a home folder", "write the whole path") from None
    return value


# Letters of any alphabet; '~' stands for one's own home only.
_PATH = re.compile(r"(~/|/|[\w.])[\w. ~+@=,:/-]*")
FilePath = Annotated[
    str, BeforeValidator(_check_path), WithJsonSchema({"type": "string", "minLength": 1})
]


_NO_HOSTS = {
    "this network": ipaddress.IPv4Network("0.0.0.0/8"),
    "loopback": ipaddress.IPv4Network("127.0.0.0/8"),
    "link-local": ipaddress.IPv4Network("169.254.0.0/16"),
    "multicast": ipaddress.IPv4Network("224.0.0.0/4"),
    "reserved": ipaddress.IPv4Network("240.0.0.0/4"),
}


def check_address(value: object) -> object:
    """Return an IPv4 address that a host can have; raises what a validator raises."""
    try:
        address = ipaddress.IPv4Address(value if isinstance(value, str) else "")
    except ValueError:
        raise wrong(
            f"'{short(value)}' is not an IPv4 address", "write e.g. '192.168.0.7' (tc wants it)"
        ) from None
    for kind, network in _NO_HOSTS.items():
        if address in network:
            raise wrong(
                f"'{address}' is no address of another host ({kind})",
                "write the address by which the other hosts reach it",
            )
    return value


Address = Annotated[
    str, BeforeValidator(check_address), WithJsonSchema({"type": "string", "format": "ipv4"})
]

# What networks of one's own are made of: RFC 1918, and RFC 2544's for tests of networks.
OWN_NETWORKS = tuple(
    ipaddress.IPv4Network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15")
)


def own_network(value: object, example: str) -> ipaddress.IPv4Network:
    """The private IPv4 network that `value` is; raises what a validator raises."""
    try:
        network = ipaddress.IPv4Network(value if isinstance(value, str) else "")
    except ValueError as error:
        reason = printable(str(error))[:80] if isinstance(value, str) and len(value) < 40 else ""
        raise wrong(
            f"'{short(value)}' is not an IPv4 network{f' ({reason})' if reason else ''}",
            f"write e.g. '{example}'",
        ) from None
    if not any(network.subnet_of(own) for own in OWN_NETWORKS):
        raise wrong(f"'{network}' is not a private network", f"write e.g. '{example}'")
    return network


def _check_setting(value: object) -> object:
    """A value of a service's configuration: one line of any text, or a number."""
    if isinstance(value, str):
        if len(value) > 4000:
            raise wrong(f"'{short(value)}' is over 4000 characters", "write less")
        if not value.replace("\t", " ").isprintable():
            raise wrong(
                f"'{short(value)}' holds a line break or a control character",
                "write one line of text",
            )
        return value
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise wrong(f"'{short(value)}' is not a value", "write a text or a number")


Setting = Annotated[
    Any,
    BeforeValidator(_check_setting),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
