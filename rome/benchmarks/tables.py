"""Tables in Markdown, and the files they are written to."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .servers import CannotStart


class BadInput(Exception):
    """What the command line holds can't be."""


KNOWN = (BadInput, CannotStart, OSError)  # errors that are told in one line


def delays(words: str) -> list[float]:
    """Milliseconds, separated by commas."""
    try:
        found = [float(each) for each in words.split(",")]
    except ValueError:
        found = [-1]
    if min(found) < 0:
        raise BadInput(f"--delays takes milliseconds, like 0,10,50, not {words!r}")
    return found


def pattern(words: str) -> None:
    """See that it is a regular expression."""
    try:
        re.compile(words)
    except re.error as error:
        raise BadInput(f"{words!r} is no regular expression: {error}") from None


def markdown(heads: list[str], lines: list[list[str]]) -> str:
    """A table."""
    made = [heads, ["---"] * len(heads), *lines]
    return "".join(
        "| " + " | ".join(it.replace("|", "\\|") for it in line) + " |\n" for line in made
    )


def number(value: float | None, digits: int) -> str:
    """Rounded, whole where it is; a dash for None."""
    if value is None:
        return "-"
    text = f"{value:.{digits}f}"
    return text.removesuffix(".0") if digits == 1 and value == int(value) else text


def verdict(reached: bool | None) -> str:
    """In a word."""
    return "-" if reached is None else "yes" if reached else "**no**"


def write(results: Path, name: str, text: str, data: dict[str, Any]) -> None:
    """NAME.md and NAME.json."""
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.md").write_text(text)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    (results / f"{name}.json").write_text(
        json.dumps({"format": 1, "at": at, **data}, indent=1, ensure_ascii=False) + "\n"
    )
