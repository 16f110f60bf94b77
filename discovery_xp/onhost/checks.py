"""Values that the other end of ssh sent, checked: types, sizes, and no control characters.

A host of an experiment may say anything.  What isn't what was asked for raises `Unfit`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

LONGEST_TEXT = 2000
# Of names of services, functions, regions and the like.
LONGEST_NAME = 300
# Counters of bytes stay far below it, and every reader of JSON and Parquet takes it.
LARGEST = 2**53

Check = Callable[[Any], Any]


class Unfit(ValueError):
    """An answer that isn't what was asked for; the message says why, in a few words."""


def printable(text: str) -> str:
    r"""Return `text` on one line, whatever isn't printed as it is as an escape.

    A line break becomes `\n`, an escape sequence begins with `\x1b`, a change of direction
    is `\u202e`; a byte of a command line that is no UTF-8 is `\xff`.  What it returned stays
    as it is when it is given again.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if 0xDC80 <= ord(char) <= 0xDCFF:  # how Python keeps a byte that it can't decode
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def shown(value: object, most: int = 60) -> str:
    """Return a short form of any value, for a message."""
    text = ascii(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def text(value: object, most: int = LONGEST_TEXT) -> str:
    """Return a text, shortened and printable; raises Unfit for anything else."""
    if not isinstance(value, str):
        raise Unfit(f"{shown(value)} is no text")
    return printable(value[:most])


def name(value: object) -> str:
    """Return a text as short as a name; raises Unfit for anything else."""
    return text(value, LONGEST_NAME)


def number(value: object) -> float:
    """Return a finite number; raises Unfit for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit(f"{shown(value)} is no number")
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise Unfit(f"{shown(value)} is out of range")
    return float(value)


def whole(value: object) -> int:
    """Return a whole number of 0 or more; raises Unfit for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise Unfit(f"{shown(value)} is no count")
    return value


def flag(value: object) -> bool:
    """Return true or false; raises Unfit for anything else."""
    if not isinstance(value, bool):
        raise Unfit(f"{shown(value)} is neither true nor false")
    return value


def number_of(words: str) -> float:
    """Return the finite number that a text is; raises Unfit for anything else."""
    try:
        return number(float(words[:50]))
    except ValueError:
        raise Unfit(f"{shown(words)} is no number") from None


def whole_of(words: str) -> int:
    """Return the whole number of 0 or more that a text is; raises Unfit for anything else."""
    if not re.fullmatch(r"[0-9]{1,16}", words):
        raise Unfit(f"{shown(words)} is no count")
    return whole(int(words))


def one_of(value: object, choices: Sequence[str]) -> str:
    """Return one of some texts; raises Unfit for anything else."""
    if not isinstance(value, str) or value not in choices:
        raise Unfit(f"{shown(value)} is none of {', '.join(choices)}")
    return value


def mapping(value: object) -> dict[str, Any]:
    """Return a mapping by texts; raises Unfit for anything else."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise Unfit(f"{shown(value)} is no mapping")
    return value


def listed(value: object) -> list[Any]:
    """Return a list; raises Unfit for anything else."""
    if not isinstance(value, list):
        raise Unfit(f"{shown(value)} is no list")
    return value


def maybe(check: Check) -> Check:
    """Return a check that takes None besides what `check` takes."""
    return lambda value: None if value is None else check(value)
