"""YAML with places: plain values, and the line each of them was written on.

Scalars follow YAML 1.2's core schema, so that `no`, `08` and `2:00:00` stay
the strings they look like, and a key written twice is a problem instead of a
silent overwrite.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from discovery_xp.boundary.reading import Unreadable, read_text
from discovery_xp.errors import InvalidInput, Problem
from discovery_xp.text import printable, short

Path_ = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+")
# A full mesh of 250 sites with a rule for each pair is under both.
MAX_BYTES = 4_000_000
_MAX_VALUES = 200_000
_MAX_DEPTH = 20
MAX_PROBLEMS = 50
_LONGEST_NUMBER = 20
_TEXT_TAG = "tag:yaml.org,2002:str"
# libyaml where it is there: twenty times as quick, with the same events.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class YamlFile:
    """A parsed file: its `text`, its `data`, and the line of each key or item by its path."""

    name: str
    text: str = ""
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
        written: Path_ = ()
        for part in path:
            if (*written, part) in self.lines:
                written = (*written, part)
        return written

    def value(self, path: Sequence[str | int]) -> object:
        """What stands at `path`, or None."""
        value = self.data
        for part in path:
            inside: dict[object, object] = {}
            if isinstance(value, dict):
                inside = value
            elif isinstance(value, list):
                inside = dict(enumerate(value))
            if part not in inside:
                return None
            value = inside[part]
        return value

    def report(self, path: Sequence[str | int], message: str, remedy: str) -> None:
        """Note a problem at `path`; raises InvalidInput once there are many."""
        problem = Problem(self.name, self.line(path), dotted(path), message, remedy)
        if problem not in self.problems:
            self.problems.append(problem)
        if len(self.problems) >= MAX_PROBLEMS:
            message, remedy = "there may be more problems", "correct these first"
            last = max(problem.line for problem in self.problems)
            raise InvalidInput([*self.problems, Problem(self.name, last, "", message, remedy)])


def dotted(path: Sequence[str | int]) -> str:
    """('links', 2, 'delay') as 'links[2].delay'; long keys are shortened."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{short(part)}"
    return text


def read_yaml(path: Path, examples: str = "topologies") -> YamlFile:
    """Read `path`; raises InvalidInput when it can't be read or isn't YAML.

    `examples` is the folder of files that are such as this should be.
    """
    try:
        text = read_text(path, MAX_BYTES)
    except Unreadable as error:
        remedy = f"name a YAML file, such as those under {examples}/"
        raise InvalidInput([Problem(str(path), 0, "", error.reason, remedy)]) from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> YamlFile:
    """Parse `text`; `name` is what the problems call it, and the result keeps both."""
    parsed = YamlFile(name, text)
    unprintable = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if unprintable is not None:
        line = text.count("\n", 0, unprintable.start()) + 1
        message = f"a character that YAML forbids, '{printable(unprintable[0])}'"
        raise InvalidInput([Problem(name, line, "", message, "take it out")])
    events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
    try:
        _Composer(parsed, events).compose()
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


@dataclass
class _Node:
    """A value as it is written: a text with its style, pairs, or items; and its line."""

    line: int
    text: str | None = None
    is_quoted: bool = False
    pairs: list[tuple[_Node, _Node]] | None = None
    items: list[_Node] | None = None


class _Composer:
    """YAML's events to values, in bounded time and memory whatever the file holds.

    PyYAML's own composer recurses as deep as the file does.
    """

    def __init__(self, parsed: YamlFile, events: Iterator[Any]) -> None:
        self.parsed = parsed
        self.events = events
        self.anchors: dict[str, _Node] = {}
        self.values = self.characters = 0

    def compose(self) -> None:
        """Put the file's only document into `parsed`."""
        next(self.events)  # the stream's start
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return
        root = self._node(next(self.events), depth=0)
        next(self.events)  # the document's end
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            self._stop(_line(event), "a second document", "write one, without '---' inside")
        self.parsed.lines[()] = root.line
        self.parsed.data = self._value(root, (), depth=0)

    def _node(self, event: Any, depth: int) -> _Node:
        line = _line(event)
        if depth > _MAX_DEPTH:
            self._stop(line, "is nested too deeply", f"write at most {_MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                self._stop(line, f"'*{short(event.anchor)}' stands for nothing", "write its '&'")
            return self.anchors[event.anchor]
        node = _Node(line)
        self._refuse_tag(event, line)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        if isinstance(event, yaml.ScalarEvent):
            node.text = event.value
            node.is_quoted = event.style not in (None, "") or event.tag is not None
        elif isinstance(event, yaml.MappingStartEvent):
            node.pairs = []
            while not isinstance(inner := next(self.events), yaml.MappingEndEvent):
                key = self._node(inner, depth + 1)
                node.pairs.append((key, self._node(next(self.events), depth + 1)))
        else:
            node.items = []
            while not isinstance(inner := next(self.events), yaml.SequenceEndEvent):
                node.items.append(self._node(inner, depth + 1))
        return node

    def _refuse_tag(self, event: Any, line: int) -> None:
        """Nothing here is made from a tag, so none may seem to be; `!!str` says 'a text'."""
        tag = event.tag
        if tag is None or (isinstance(event, yaml.ScalarEvent) and tag == _TEXT_TAG):
            return
        shown = short(tag.replace("tag:yaml.org,2002:", "!!"))
        self._stop(line, f"the tag '{shown}' isn't read", "leave it out; quotes make a text")

    def _value(self, node: _Node, path: Path_, depth: int) -> object:
        self.values += 1
        self.characters += len(node.text or "")
        if depth > _MAX_DEPTH:
            self._stop(node.line, "is nested too deeply, or repeats itself", "write it flat")
        # Aliases can grow without end.
        if self.values > _MAX_VALUES or self.characters > MAX_BYTES:
            self._stop(node.line, "is too large, or repeats itself", "write less, without aliases")
        if node.pairs is not None:
            return self._mapping(node.pairs, path, depth)
        if node.items is not None:
            items = []
            for index, item in enumerate(node.items):
                self.parsed.lines[(*path, index)] = item.line
                items.append(self._value(item, (*path, index), depth + 1))
            return items
        return _scalar(node.text or "", node.is_quoted)

    def _mapping(
        self, pairs: Sequence[tuple[_Node, _Node]], path: Path_, depth: int
    ) -> dict[str, object]:
        mapping: dict[str, object] = {}
        for key_node, value_node in pairs:
            key = key_node.text
            if key is None:
                kind = "mapping" if key_node.pairs is not None else "list"
                self._stop(key_node.line, f"a {kind} stands as a key", "write a word before ':'")
            place = (*path, key)
            if key in mapping:
                first = self.parsed.lines[place]
                self.parsed.lines[place] = key_node.line
                self.parsed.report(place, f"is written twice (first on line {first})", "keep one")
            self.parsed.lines[place] = key_node.line
            mapping[key] = self._value(value_node, place, depth + 1)
        return mapping

    def _stop(self, line: int, message: str, remedy: str) -> NoReturn:
        problems = [*self.parsed.problems, Problem(self.parsed.name, line, "", message, remedy)]
        raise InvalidInput(problems)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _scalar(text: str, is_quoted: bool) -> object:
    if is_quoted:  # or a block: a string, whatever it looks like
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if len(text) < _LONGEST_NUMBER:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
            return number
    return text
