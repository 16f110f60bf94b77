"""Odd values, and ways to put them into texts, bytes and trees; deterministic by its `Random`."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

# Each means something to somebody who reads it further on.
ODD_TEXTS: Sequence[str] = (
    "", " ", "\t", "\n", "a\nb", "\r\nProxyCommand touch x", "\x00", "a\x00b", "\x07", "\x7f",
    "\x9b31m",
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b[2J", "\u202edesrever", "\u2028", "\ufeff", "é",
    "日本", "🙂",
    "e\u0301" * 40, "٣", "²", "ⅷ", "ﬁ", "İ", "{{ 7 * 7 }}",
    "{{ lookup('pipe', 'touch /tmp/owned') }}",
    "{% for x in y %}", "{#", "${HOME}", "$(touch owned)", "`touch owned`", "; touch owned", "| id",
    "& id", "'", '"',
    "\\", "\\n", "a'b\"c", "[/x]", "[red]", "[link=http://x]y[/link]", "[[", "]", "$\\foo$", "$x^",
    "$$", "$\\frac{a$",
    "_", "^", "%", "#", "# x", ": ", "- ", "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>", "&amp;",
    "\"><svg/onload=alert(1)>", "=cmd()", "@x", "..", "../../x", "/", "/etc/passwd", "//", "./",
    "~", "~root", "~nobody/x",
    "C:\\x", "-", "--", "-rf", "--help", "%n%s%x", "{0}", "{x}", "{", "%(x)s", "nan", "NaN", "inf",
    "-inf", "-1", "0", "00",
    "-0", "1e9", "1e999", "9" * 25, "9" * 5000, "0x10", "1_000", "0.1", ".5", "5.", "10ms", "10 ms",
    "-5ms", "1e400ms",
    "9" * 400 + "ms", "60s", "61s", "0.0000001us", "100%", "99.9999%", "64kbit", "100gbit", "1kbit",
    "0gbit", "0.5kbit",
    "31MiB", "1e3GiB", "99999999TiB", "00:00:00", "999:59:59", "25:61:00", "2027-03-01 19:00:00",
    "2027-02-30 19:00:00",
    "0.0.0.0/0", "0.0.0.0/16", "10.0.0.0/8", "10.0.0.1/8", "10.0.0.0/31", "10.0.0.0/32",
    "255.255.255.255/32",
    "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "192.168.0.0/16", "10.0.0.0/255.0.0.0", "::1",
    "fe80::1%eth0",
    "127.0.0.1", "localhost", "0", "1.2.3", "01.02.03.04", "192.0.2.11", "192.0.2.11\n", "root\n",
    "root@", "@", "a@b@c",
    "null", "true", "no", "~", "none", "None", "auto", "all", "master", "default", "A", "a" * 30,
    "a" * 31, "a" * 300,
    "a" * 20000, "1a", "-a", "a-", "a_b", "a b", "a.b", "a/b", "site", "site1", "site2", "north",
    "local", "static", "g5k",
    "{" * 1000, "[" * 3000, "(" * 500, "a" * 28 + "!", " a ", "\u200b", "\U000e0041", "\ud800",
)  # fmt: skip
NUMBERS: Sequence[Any] = (
    0, -1, 1, 2, 3, 7, 49, 64, 65, 100, 101, 249, 250, 251, 1000, 65535, 65536, 2**31, 2**32,
    2**53 + 1, 2**63,
    2**64, -(2**63) - 1, 10**30, 0.5, -0.0, 1.5, 1e-9, 1e9, 1e30, 1e308, float("nan"), float("inf"),
    float("-inf"),
)  # fmt: skip


def nested(depth: int) -> Any:
    """Lists in lists."""
    found: Any = "x"
    for _ in range(depth):
        found = [found]
    return found


def odd(rng: random.Random) -> Any:
    """Any odd value."""
    kind = rng.randrange(12)
    if kind < 6:
        return rng.choice(ODD_TEXTS)
    if kind < 9:
        return rng.choice(NUMBERS)
    return copy.deepcopy(rng.choice([
        None, True, False, [], {}, [[]], {"a": {}}, [None], {"": ""}, {"x": [1, {"y": None}]},
        ["a"] * 300, [{}] * 20, {f"k{i}": i for i in range(200)}, nested(40), nested(60),
        {"{{ x }}": "{{ x }}"}, {"\x1b[31m": "\x1b[31m"}, [rng.choice(ODD_TEXTS) for _ in range(3)],
    ]))  # fmt: skip


# ---------------------------------------------------------------- trees


Place = tuple[Any, ...]


def places(tree: Any) -> list[Place]:
    """The path of every value below a tree's root."""
    found: list[Place] = []
    todo: list[tuple[Place, Any]] = [((), tree)]
    while todo:
        path, value = todo.pop()
        if path:
            found.append(path)
        if isinstance(value, dict):
            todo += [((*path, key), each) for key, each in value.items()]
        elif isinstance(value, list):
            todo += [((*path, index), each) for index, each in enumerate(value[:300])]
    return found


def at(tree: Any, path: Place) -> Any:
    """What is at a path."""
    for part in path:
        tree = tree[part]
    return tree


def put(tree: Any, path: Place, value: Any) -> Any:
    """The tree with another value at a path."""
    if not path:
        return value
    at(tree, path[:-1])[path[-1]] = value
    return tree


def mutate_tree(tree: Any, rng: random.Random, times: int | None = None) -> Any:
    """A changed copy of a tree of plain values."""
    tree = copy.deepcopy(tree)
    for _ in range(times or 1 + (rng.random() < 0.3) + 2 * (rng.random() < 0.1)):
        found = places(tree)
        if not found or rng.random() < 0.02:
            tree = odd(rng)
            continue
        path = rng.choice(found)
        parent, value = at(tree, path[:-1]), at(tree, path)
        change = rng.randrange(11)
        if change == 0:
            del parent[path[-1]]
        elif change == 1 and isinstance(parent, list):
            parent[path[-1] : path[-1]] = [copy.deepcopy(value)] * rng.choice([1, 1, 3, 300])
        elif change == 1 or (change == 2 and isinstance(parent, dict)):
            key = rng.choice([odd_key(rng), path[-1] if change == 1 else odd_key(rng)])
            parent[key] = copy.deepcopy(value)
            if change == 2 and key != path[-1]:
                del parent[path[-1]]
        elif change == 3:
            put(tree, path, copy.deepcopy(at(tree, rng.choice(found))))
        elif change == 4:
            put(tree, path, rng.choice([[value], {"a": value}, str(value), [value, value]]))
        elif change in (5, 6) and isinstance(value, str):
            put(tree, path, mutate_text(value, rng))
        elif change in (5, 6) and isinstance(value, (int, float)):
            put(tree, path, rng.choice([-value, value + 1, value * 1000, value / 7, *NUMBERS]))
        elif isinstance(value, dict) and rng.random() < 0.3:
            value[odd_key(rng)] = odd(rng)
        elif isinstance(value, str) and rng.random() < 0.6:
            put(tree, path, rng.choice(ODD_TEXTS))
        else:
            put(tree, path, odd(rng))
    return tree


def odd_key(rng: random.Random) -> str:
    """An odd key of a mapping."""
    return rng.choice([*ODD_TEXTS, "name", "type", "sites", "count", "x", "__class__"])


# ---------------------------------------------------------------- texts and bytes


def mutate_text(text: str, rng: random.Random) -> str:
    """A changed text."""
    change = rng.randrange(9)
    where = rng.randrange(len(text) + 1)
    until = min(len(text), where + rng.choice([1, 1, 2, 5, 50]))
    if change < 3:
        return text[:where] + rng.choice(ODD_TEXTS) + text[where:]
    if change == 3:
        return text[:where] + text[until:]
    if change == 4:
        return text[:where] + rng.choice(ODD_TEXTS) + text[until:]
    if change == 5:
        return text[:where]
    if change == 6:
        return text[:where] + text[where:until] * rng.choice([2, 3, 50, 2000]) + text[until:]
    if change == 7:
        lines = text.splitlines(keepends=True)
        rng.shuffle(lines)
        return "".join(lines)
    return (
        text[:where]
        + chr(rng.choice([rng.randrange(32), rng.randrange(256), rng.randrange(0xD800)]))
        + text[until:]
    )


def mutate_lines(text: str, rng: random.Random) -> str:
    """A text with lines removed, repeated, moved or replaced."""
    lines = text.splitlines(keepends=True) or [""]
    for _ in range(rng.choice([1, 1, 2, 3])):
        where = rng.randrange(len(lines))
        change = rng.randrange(6)
        if change == 0 and len(lines) > 1:
            del lines[where]
        elif change == 1:
            lines[where:where] = [lines[where]] * rng.choice([1, 2, 300])
        elif change == 2:
            other = rng.randrange(len(lines))
            lines[where], lines[other] = lines[other], lines[where]
        elif change == 3:
            lines[where] = mutate_text(lines[where].rstrip("\n"), rng) + "\n"
        elif change == 4:
            lines.insert(where, rng.choice(ODD_TEXTS) + "\n")
        else:
            lines[where] = lines[where].rstrip("\n") + rng.choice(ODD_TEXTS) + "\n"
    return "".join(lines)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Changed bytes."""
    made = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        where = rng.randrange(len(made) + 1)
        until = min(len(made), where + rng.choice([1, 1, 4, 64]))
        change = rng.randrange(6)
        if change == 0 and made:
            made[where % len(made)] ^= 1 << rng.randrange(8)
        elif change == 1:
            made[where:until] = bytes(rng.randrange(256) for _ in range(until - where))
        elif change == 2:
            del made[where:until]
        elif change == 3:
            made[where:where] = rng.choice(
                [b"\x00" * 8, b"\xff" * 8, b"\xc3\x28", b"\x1b[31m", b"\x80"]
            )
        elif change == 4:
            made[where:where] = made[where:until] * 3
        elif rng.random() < 0.3:
            del made[where:]
    return bytes(made)


def mutate_json(text: str, rng: random.Random) -> bytes:
    """A changed JSON text: most often its values, sometimes its letters."""
    if rng.random() < 0.75:
        tree = mutate_tree(json.loads(text), rng)
        return json.dumps(tree, indent=1).encode(errors="surrogatepass")
    if rng.random() < 0.3:
        return rng.choice([b"", b"null", b"[]", b"{}", b"1", b'"x"', b"[" * 100_000,
            b"{\"a\":" * 50_000,
                           b"9" * 100_000, b"\xff\xfe", b"NaN", b"\x00", b"{} {}",
                               b"-" * 1000])  # fmt: skip
    return mutate_bytes(text.encode(), rng)
