"""Tables in Markdown, and the files they are written to."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .servers import CannotStart

KNOWN = (CannotStart, OSError)  # errors that are told in one line


def markdown(heads: list[str], lines: list[list[str]]) -> str:
    """A table."""
    made = [heads, ["---"] * len(heads), *lines]
    return "".join("| " + " | ".join(it.replace("|", "\\|") for it in line) + " |\n"
                   for line in made)


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
