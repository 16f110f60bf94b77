"""Blocks of Markdown between two marks: found, filled, and compared with their sources."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md", "docs/*.md", "results/README.md", "benchmarks/README.md", "scenarios/README.md",
    "notebooks/README.md", "rome/README.md", "rome/docs/*.md",
)  # fmt: skip

Source = Callable[[], str]
_BEGIN = re.compile(r"^<!-- figures: (?P<name>[a-z0-9-]+) -->\n", re.MULTILINE)
_END = "<!-- end -->"


class MarkError(ValueError):
    """A document's marks don't fit: an unknown name, or a block that doesn't end."""


def documents(root: Path = ROOT) -> list[Path]:
    """Return every document that may hold blocks, in a fixed order."""
    return [path for pattern in DOCUMENTS for path in sorted(root.glob(pattern))]


def names_in(text: str) -> list[str]:
    """Return the names of a document's blocks, in their order."""
    return [match["name"] for match in _BEGIN.finditer(text)]


def filled(text: str, sources: Mapping[str, Source]) -> str:
    """Return a document's text with each block as its source has it.  Raise MarkError."""
    parts, place = [], 0
    while (begin := _BEGIN.search(text, place)) is not None:
        end = text.find(_END, begin.end())
        following = _BEGIN.search(text, begin.end())
        if end < 0 or (following is not None and following.start() < end):
            raise MarkError(f"the block '{begin['name']}' has no '{_END}'")
        if begin["name"] not in sources:
            raise MarkError(f"there is no source named '{begin['name']}'")
        parts += [text[place : begin.end()], sources[begin["name"]]().rstrip("\n") + "\n"]
        place = end
    return "".join([*parts, text[place:]])


def outdated(paths: Iterable[Path], sources: Mapping[str, Source]) -> dict[Path, str]:
    """Return the new text of each document that differs from its sources."""
    found = {}
    for path in paths:
        text = path.read_text()
        try:
            new = filled(text, sources)
        except MarkError as error:
            raise MarkError(f"{path}: {error}") from None
        if new != text:
            found[path] = new
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown; a bar within a cell is escaped."""
    lines = [head, *rows]
    shown = [f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines]
    return "\n".join([shown[0], "|" + "---|" * len(head), *shown[1:]]) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text)
