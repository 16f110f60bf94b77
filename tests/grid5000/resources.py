"""OAR's resource expressions: `{cluster='paravance'}/nodes=3+slash_22=1,walltime=03:00:00`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

DEFAULT_WALLTIME_S = 3600

Properties = Mapping[str, str | int]
Condition = Callable[[Properties], bool]


class BadRequest(Exception):
    """An expression that OAR can't read."""


@dataclass(frozen=True)
class Level:
    """`nodes=3`; a count of None stands for ALL, one of 0 for BEST."""

    name: str
    count: int | None


@dataclass(frozen=True)
class Piece:
    where: Condition
    levels: tuple[Level, ...]


@dataclass(frozen=True)
class Request:
    pieces: tuple[Piece, ...]
    walltime_s: int


def parse_request(text: str, properties: str = "") -> Request:
    """Read an expression; `properties` hold for all of its pieces. Raises BadRequest."""
    head, *options = _split(text, ",")
    walltime = DEFAULT_WALLTIME_S
    for option in options:
        name, _, value = option.partition("=")
        if name.strip() != "walltime":
            raise BadRequest(f"Bad resource request: {option}")
        walltime = parse_walltime(value)
    everywhere = parse_condition(properties)
    # execo ends the piece of a VLAN with a plus of its own.
    pieces = tuple(_piece(part, everywhere) for part in _split(head, "+") if part.strip())
    if not pieces:
        raise BadRequest("Bad resource request: nothing is asked for")
    return Request(pieces, walltime)


def parse_walltime(text: str) -> int:
    """Seconds of `H`, `H:M` or `H:M:S`."""
    parts = text.strip().split(":")
    if len(parts) > 3 or not all(part.isdigit() for part in parts):
        raise BadRequest(f"Bad walltime: {text}")
    hours, minutes, seconds = (*map(int, parts), 0, 0)[:3]
    return hours * 3600 + minutes * 60 + seconds


def format_walltime(seconds: int) -> str:
    """`H:M:S` as OAR writes it, without leading zeros."""
    return f"{seconds // 3600}:{seconds // 60 % 60}:{seconds % 60}"


def _split(text: str, separator: str) -> list[str]:
    """Split where the separator is neither quoted nor in braces."""
    parts = [""]
    depth, quote = 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "{}":
            depth += 1 if character == "{" else -1
        elif character == separator and depth == 0:
            parts.append("")
            continue
        parts[-1] += character
    if depth or quote:
        raise BadRequest(f"Bad resource request: {text}")
    return parts


def _piece(text: str, everywhere: Condition) -> Piece:
    found = re.fullmatch(r"\s*(?:\{(.*)\})?\s*/?(.*)", text, re.DOTALL)
    levels = []
    for level in found[2].split("/") if found else ():
        name, equals, count = (part.strip() for part in level.partition("="))
        counts = {"ALL": None, "BEST": 0}
        if not equals or not re.fullmatch(r"\w+", name):
            raise BadRequest(f"Bad resource request: {text}")
        if count not in counts and not re.fullmatch(r"[1-9]\d*", count):
            raise BadRequest(f"Bad resource request: {text}")
        levels.append(Level(name, counts[count] if count in counts else int(count)))
    own = parse_condition((found and found[1]) or "")
    return Piece(lambda properties: own(properties) and everywhere(properties), tuple(levels))


# ---------------------------------------------------------------- conditions, as SQL has them

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'[^']*'|\"[^\"]*\")|(?P<sign><=|>=|!=|<>|=|<|>|\(|\)|,)|(?P<word>[\w.%-]+))"
)


def parse_condition(text: str) -> Condition:
    """Read `cluster='a' AND host NOT IN ('b', 'c')`; an empty one holds everywhere."""
    tokens = list(_tokens(text))
    if not tokens:
        return lambda properties: True
    return _Reader(tokens, text).whole()


def _tokens(text: str) -> Iterator[str]:
    at = 0
    end = len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if not found:
            raise BadRequest(f"Bad resource request: {text}")
        yield found.group().strip()
        at = found.end()


class _Reader:
    """Reads tokens from left to right: OR binds least, then AND, then NOT."""

    def __init__(self, tokens: list[str], text: str) -> None:
        self._tokens = tokens
        self._text = text

    def whole(self) -> Condition:
        condition = self._either()
        if self._tokens:
            raise self._bad()
        return condition

    def _bad(self) -> BadRequest:
        return BadRequest(f"Bad resource request: {self._text}")

    def _next_is(self, *words: str) -> bool:
        ahead = [token.upper() for token in self._tokens[: len(words)]]
        if ahead == list(words):
            del self._tokens[: len(words)]
            return True
        return False

    def _take(self) -> str:
        if not self._tokens:
            raise self._bad()
        return self._tokens.pop(0)

    def _either(self) -> Condition:
        parts = [self._both()]
        while self._next_is("OR"):
            parts.append(self._both())
        return lambda properties: any(part(properties) for part in parts)

    def _both(self) -> Condition:
        parts = [self._one()]
        while self._next_is("AND"):
            parts.append(self._one())
        return lambda properties: all(part(properties) for part in parts)

    def _one(self) -> Condition:
        if self._next_is("NOT"):
            negated = self._one()
            return lambda properties: not negated(properties)
        if self._next_is("("):
            inner = self._either()
            if not self._next_is(")"):
                raise self._bad()
            return inner
        return self._comparison()

    def _comparison(self) -> Condition:
        name = self._take()
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise self._bad()
        if self._next_is("NOT", "IN"):
            excluded = self._values()
            return lambda properties: str(_value(properties, name)) not in excluded
        if self._next_is("IN"):
            allowed = self._values()
            return lambda properties: str(_value(properties, name)) in allowed
        if self._next_is("LIKE"):
            like = "".join(
                ".*" if c == "%" else "." if c == "_" else re.escape(c)
                for c in self._take().strip("'\"")
            )
            return lambda properties: bool(re.fullmatch(like, str(_value(properties, name))))
        sign = self._take()
        if sign not in _SIGNS:
            raise self._bad()
        wanted = self._take().strip("'\"")
        compare = _SIGNS[sign]
        return lambda properties: compare(*_comparable(_value(properties, name), wanted))

    def _values(self) -> set[str]:
        if not self._next_is("("):
            raise self._bad()
        values = {self._take().strip("'\"")}
        while self._next_is(","):
            values.add(self._take().strip("'\""))
        if not self._next_is(")"):
            raise self._bad()
        return values


def _value(properties: Properties, name: str) -> str | int:
    if name not in properties:
        raise BadRequest(f'Bad resource request: column "{name}" does not exist')
    return properties[name]


Pair = tuple[int, int] | tuple[str, str]


def _comparable(left: str | int, right: str) -> Pair:
    if isinstance(left, int) and re.fullmatch(r"-?\d+", right):
        return left, int(right)
    return str(left), right


_SIGNS: dict[str, Callable[[int | str, int | str], bool]] = {
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<>": lambda left, right: left != right,
    "<": lambda left, right: left < right,  # type: ignore[operator]
    ">": lambda left, right: left > right,  # type: ignore[operator]
    "<=": lambda left, right: left <= right,  # type: ignore[operator]
    ">=": lambda left, right: left >= right,  # type: ignore[operator]
}
