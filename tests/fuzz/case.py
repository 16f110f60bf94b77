"""A case: what is laid down and what is run on it, in plain values that can be kept as JSON."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A file's text, or a mapping with one key that says what stands there instead:
# base64 (bytes), link (a target), fifo, folder, missing (a file of the base that isn't laid
# down), size (that many zeros, sparse), mode (a file without content, of that mode).
Content = str | dict[str, Any]

# Names of files begin with one of these.
WORK, HOME = "work", "home"


@dataclass(frozen=True)
class Case:
    """One case of a kind.

    `base` names files that are laid down first (`bases.py`), `files` are laid over them; paths
    begin with 'work/' or 'home/'.  `steps` are command lines, each run by itself, one after the
    other, in 'work'; `call` names a function of `answers.py` instead, which gets `told`.
    `environment` has None for what isn't set; `streams` says where stdout leads.
    """

    kind: str
    name: str
    base: str = ""
    files: Mapping[str, Content] = field(default_factory=dict)
    steps: tuple[tuple[str, ...], ...] = ()
    call: str | None = None
    told: Any = None
    environment: Mapping[str, str | None] = field(default_factory=dict)
    streams: str = "plain"
    about: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is as usual is left out."""
        usual = Case(self.kind, self.name)
        return {
            each.name: getattr(self, each.name)
            for each in dataclasses.fields(self)
            if each.name in ("kind", "name")
            or getattr(self, each.name) != getattr(usual, each.name)
        }


def case_from_json(data: Mapping[str, Any]) -> Case:
    """A case as `to_json` wrote it."""
    values = dict(data)
    values["steps"] = tuple(tuple(step) for step in values.get("steps", ()))
    return Case(**values)


def content(data: bytes) -> Content:
    """Bytes as a file's content."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
    return text if text.isprintable() or text.encode() == data else {"base64": ""}


def bytes_of(each: Content) -> bytes | None:
    """A file's bytes; None where something else stands there."""
    if isinstance(each, str):
        return each.encode(errors="surrogateescape")
    return base64.b64decode(each["base64"]) if "base64" in each else None


def read_case(path: Path) -> Case:
    """A case from its file."""
    return case_from_json(json.loads(path.read_text()))


def write_case(path: Path, case: Case) -> None:
    """Keep a case in a file."""
    path.write_text(json.dumps(case.to_json(), indent=1, sort_keys=False) + "\n")
