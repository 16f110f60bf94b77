"""YAML with places: plain values, and the line each of them was written on.

Scalars follow YAML 1.2's core schema, so that `no`, `08` and `2:00:00` stay
the strings they look like, and a key written twice is a problem instead of a
silent overwrite.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from discovery_xp.errors import InvalidInput, Problem

Path_ = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+")
_MAX_BYTES = 10_000_000
_MAX_VALUES = 100_000


@dataclass
class YamlFile:
    """A parsed file: `data`, and the line of each key or item by its path."""

    name: str
    data: object = None
    lines: dict[Path_, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, path: Sequence[str | int]) -> int:
        """Line of the longest written part of `path`, counted from 1."""
        for length in range(len(path), -1, -1):
            line = self.lines.get(tuple(path[:length]))
            if line is not None:
                return line
        return 1

    def written(self, path: Sequence[str | int]) -> Path_:
        """`path` without the parts that stand for no key or item of the file."""
        kept: Path_ = ()
        for part in path:
            if (*kept, part) in self.lines:
                kept = (*kept, part)
        return kept

    def value(self, path: Sequence[str | int]) -> object:
        """What stands at `path`, or None."""
        found = self.data
        for part in path:
            inside: dict[object, object] = {}
            if isinstance(found, dict):
                inside = found
            elif isinstance(found, list):
                inside = dict(enumerate(found))
            if part not in inside:
                return None
            found = inside[part]
        return found

    def report(self, path: Sequence[str | int], message: str, remedy: str) -> None:
        """Note a problem at `path`."""
        problem = Problem(self.name, self.line(path), dotted(path), message, remedy)
        if problem not in self.problems:
            self.problems.append(problem)


def dotted(path: Sequence[str | int]) -> str:
    """('links', 2, 'delay') as 'links[2].delay'."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def read_yaml(path: Path) -> YamlFile:
    """Read `path`; raises InvalidInput when it can't be read or isn't YAML."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InvalidInput([Problem(str(path), 0, "", "is over 10 MB", "name a topology file")])
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidInput(
            [
                Problem(
                    str(path),
                    0,
                    "",
                    "no such file",
                    "name an existing file, such as those under topologies/",
                )
            ]
        ) from None
    except UnicodeDecodeError:
        raise InvalidInput(
            [Problem(str(path), 0, "", "is not UTF-8 text", "name a YAML file")]
        ) from None
    except OSError as error:
        raise InvalidInput(
            [
                Problem(
                    str(path),
                    0,
                    "",
                    f"can't be read ({error.strerror})",
                    "name a readable YAML file",
                )
            ]
        ) from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> YamlFile:
    """Parse `text`; `name` is what the problems call it."""
    parsed = YamlFile(name)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            parsed.lines[()] = node.start_mark.line + 1
            parsed.data = _construct(node, (), parsed, depth=0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InvalidInput(
            [Problem(name, line, "", f"is not YAML ({error.problem})", "correct the syntax there")]
        ) from None
    except yaml.YAMLError as error:
        first = str(error).splitlines()[0]
        raise InvalidInput(
            [Problem(name, 1, "", f"is not YAML ({first})", "correct the syntax")]
        ) from None
    return parsed


def _construct(node: yaml.Node, path: Path_, parsed: YamlFile, depth: int) -> object:
    if depth > 50 or len(parsed.lines) > _MAX_VALUES:  # aliases can grow without end
        parsed.report(path[:3], "is nested too deeply, or repeats itself", "write it flat")
        raise InvalidInput(parsed.problems)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[object, object] = {}
        for key_node, value_node in node.value:
            key = _scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            key = key if isinstance(key, str) else str(getattr(key_node, "value", key))
            place = (*path, key)
            if key in mapping:
                first = parsed.lines[place]
                parsed.lines[place] = key_node.start_mark.line + 1
                parsed.report(place, f"is written twice (first on line {first})", "keep one")
            parsed.lines[place] = key_node.start_mark.line + 1
            mapping[key] = _construct(value_node, place, parsed, depth + 1)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            parsed.lines[(*path, index)] = item.start_mark.line + 1
            items.append(_construct(item, (*path, index), parsed, depth + 1))
        return items
    return _scalar(node) if isinstance(node, yaml.ScalarNode) else None


def _scalar(node: yaml.ScalarNode) -> object:
    text: str = node.value
    if node.style is not None:  # quoted, or a block: a string, whatever it looks like
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INTEGER.fullmatch(text) and len(text) < 20:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
