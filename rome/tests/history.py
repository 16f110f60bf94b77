"""Checks a history of concurrent transactions that append to lists and read them.

Every appended value is unique, so a list that was read tells which transactions were before
it, and in which order.  From that come the dependencies between transactions:

- ww: one appended right after the other's value;
- wr: one read a list that ends with the other's value;
- rw: one read a list to which the other's value was appended next.

A cycle of them is an anomaly, named as in Adya's thesis: G0 (ww only), G1c (ww and wr),
G-single (exactly one rw), G2 (more than one rw).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

Edges = dict[int, set[int]]


@dataclass(frozen=True)
class Append:
    """A value at the end of a list."""

    key: int
    value: int


@dataclass(frozen=True)
class Read:
    """A list as it was seen."""

    key: int
    values: tuple[int, ...]


@dataclass(frozen=True)
class Executed:
    """A transaction: what it did, in order, and whether its commit was confirmed."""

    operations: tuple[Append | Read, ...]
    committed: bool = True


def anomalies(
    history: Sequence[Executed], final: Mapping[int, Sequence[int]]
) -> dict[str, list[str]]:
    """What went wrong, by the name of the anomaly; `final`: the lists at the end."""
    found: dict[str, list[str]] = {}

    def report(name: str, what: str) -> None:
        found.setdefault(name, []).append(what)

    writers: dict[int, int] = {}
    last_of: dict[tuple[int, int], int] = {}  # transaction, key -> its last value
    for number, transaction in enumerate(history):
        for operation in transaction.operations:
            if isinstance(operation, Append):
                writers[operation.value] = number
                last_of[number, operation.key] = operation.value

    for key, values in final.items():
        if len(set(values)) != len(values):
            report("twice", f"list {key}: {list(values)}")
        for value in values:
            if value not in writers or not history[writers[value]].committed:
                report("G1a", f"list {key} has {value}, which nobody committed")
    for number, transaction in enumerate(history):
        if transaction.committed:
            for operation in transaction.operations:
                if isinstance(operation, Append) and (
                    operation.value not in final.get(operation.key, ())
                ):
                    report("lost", f"T{number} appended {operation.value} to {operation.key}")

    ww, wr, rw = _dependencies(history, final, writers, last_of, report)
    for members in _cycles(ww):
        report("G0", f"cycle of T{sorted(members)}")
    both = _union(ww, wr)
    if "G0" not in found:
        for members in _cycles(both):
            report("G1c", f"cycle of T{sorted(members)}")
    singles = [
        (reader, writer)
        for reader, following in rw.items()
        for writer in following
        if _reaches(both, writer, reader)
    ]
    for reader, writer in singles:
        report("G-single", f"T{reader} read before T{writer} wrote, and depends on it")
    if not singles:
        for members in _cycles(_union(both, rw)):
            if not any(members <= set(inner) for inner in _cycles(both)):
                report("G2", f"cycle of T{sorted(members)}")
    return found


def _dependencies(
    history: Sequence[Executed],
    final: Mapping[int, Sequence[int]],
    writers: Mapping[int, int],
    last_of: Mapping[tuple[int, int], int],
    report: Callable[[str, str], None],
) -> tuple[Edges, Edges, Edges]:
    ww: Edges = {}
    wr: Edges = {}
    rw: Edges = {}
    for values in final.values():
        known = [value for value in values if value in writers]
        for before, after in itertools.pairwise(known):
            _edge(ww, writers[before], writers[after])
    for number, transaction in enumerate(history):
        if not transaction.committed:
            continue
        own: dict[int, list[int]] = {}
        for operation in transaction.operations:
            key = operation.key
            mine = own.setdefault(key, [])
            if isinstance(operation, Append):
                mine.append(operation.value)
                continue
            seen = list(operation.values)
            if mine and seen[len(seen) - len(mine) :] != mine:
                report("own-writes", f"T{number} read {seen}, having appended {mine}")
                continue
            seen = seen[: len(seen) - len(mine)]
            order = list(final.get(key, ()))
            if seen != order[: len(seen)]:
                missing = [v for v in seen if v not in order]
                name = "G1a" if missing else "order"
                report(name, f"T{number} read {seen} of {key}, which became {order}")
                continue
            if seen:
                writer = writers.get(seen[-1])
                if writer is not None and writer != number:
                    if last_of[writer, key] != seen[-1]:
                        report("G1b", f"T{number} read {seen}, in the middle of T{writer}")
                    _edge(wr, writer, number)
            following = [v for v in order[len(seen) :] if writers.get(v) != number]
            if following and following[0] in writers:
                _edge(rw, number, writers[following[0]])
    return ww, wr, rw


def _edge(edges: Edges, start: int, end: int) -> None:
    if start != end:
        edges.setdefault(start, set()).add(end)


def _union(*parts: Edges) -> Edges:
    whole: Edges = {}
    for part in parts:
        for start, ends in part.items():
            whole.setdefault(start, set()).update(ends)
    return whole


def _reaches(edges: Edges, start: int, end: int) -> bool:
    seen = {start}
    waiting = [start]
    while waiting:
        node = waiting.pop()
        if node == end:
            return True
        fresh = edges.get(node, set()) - seen
        seen |= fresh
        waiting += fresh
    return False


def _cycles(edges: Edges) -> list[frozenset[int]]:
    """The strongly connected components of more than one node."""
    order: list[int] = []
    seen: set[int] = set()
    for root in list(edges):
        _postorder(edges, root, seen, order)
    backwards: Edges = {}
    for start, ends in edges.items():
        for end in ends:
            _edge(backwards, end, start)
    seen = set()
    found = []
    for root in reversed(order):
        members: list[int] = []
        _postorder(backwards, root, seen, members)
        if len(members) > 1:
            found.append(frozenset(members))
    return found


def _postorder(edges: Edges, root: int, seen: set[int], order: list[int]) -> None:
    if root in seen:
        return
    seen.add(root)
    stack: list[tuple[int, Iterable[int]]] = [(root, iter(edges.get(root, ())))]
    while stack:
        node, rest = stack[-1]
        for following in rest:
            if following not in seen:
                seen.add(following)
                stack.append((following, iter(edges.get(following, ()))))
                break
        else:
            order.append(node)
            stack.pop()
