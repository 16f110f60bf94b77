"""A graph of dependencies with labelled edges, and the cycles in it by the names of anomalies.

Edges are of these kinds:

- ww: one transaction's version of something follows the other's;
- wr: one saw the version that the other wrote;
- rw: one saw the version before the one that the other wrote;
- time: one had ended before the other began, or is an earlier statement of the same transaction.

A cycle means that no order of the nodes explains what was seen.  It is named, as in Adya's
thesis, by the fewest kinds that make one: G0 (ww), G1c (ww, wr), G-single (one rw besides), G2
(several rw).  "-realtime" stands behind the name if edges of time are needed too.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

Kind = str
WW, WR, RW, TIME = "ww", "wr", "rw", "time"
UNDONE = "lost after being read"
_BASE = frozenset({WW, WR})
# Cycles of one component that are looked at by their antidependencies.
_MOST = 500


@dataclass(slots=True)
class Graph:
    """Nodes are numbers; between two of them is at most one edge of each kind."""

    names: list[str] = field(default_factory=list)
    edges: list[dict[int, dict[Kind, str]]] = field(default_factory=list)

    def node(self, name: str) -> int:
        """Add a node; a name of "" is one that only carries time."""
        self.names.append(name)
        self.edges.append({})
        return len(self.names) - 1

    def edge(self, start: int, end: int, kind: Kind, why: str = "") -> None:
        """Add an edge, with the reason for people."""
        if start != end:
            self.edges[start].setdefault(end, {}).setdefault(kind, why)

    def in_time(self, spans: Iterable[tuple[int, int, int | None]]) -> None:
        """Order nodes that had ended before others began.

        Spans are node, begin, end (None: it may take effect at any later time).  A chain of
        nodes without a name carries the order, so that the edges grow with the nodes and not
        with their square.
        """
        whole = list(spans)
        ends = sorted((end, node) for node, _, end in whole if end is not None)
        chain = [self.node("") for _ in ends]
        for place, (_, node) in enumerate(ends):
            self.edge(node, chain[place], TIME)
            if place:
                self.edge(chain[place - 1], chain[place], TIME)
        times = [end for end, _ in ends]
        for node, begin, _ in whole:
            place = bisect.bisect_left(times, begin)
            if place:
                self.edge(chain[place - 1], node, TIME)

    def anomalies(self, doubtful: set[int]) -> Iterator[tuple[str, str]]:
        """Yield the name and a cycle of each strongly connected component.

        Doubtful nodes may have been undone after others saw them; a cycle that goes away
        without them is named for that.
        """
        every = frozenset({WW, WR, RW, TIME})
        nodes = set(range(len(self.names)))
        sure = self._components_of(nodes - doubtful, every)
        for members in sure:
            name, cycle = self._named(members)
            yield name, self._told(cycle)
        for members in self._components_of(nodes, every) if doubtful else ():
            if members & doubtful and not any(inner <= members for inner in sure):
                _, cycle = self._named(members)
                yield UNDONE, self._told(cycle)

    # ------------------------------------------------------------ cycles

    def _named(self, members: set[int]) -> tuple[str, list[int]]:
        for time, ending in ((frozenset[str](), ""), (frozenset({TIME}), "-realtime")):
            for kinds, name in ((frozenset({WW}), "G0"), (_BASE, "G1c")):
                cycle = self._cycle(members, kinds | time)
                if cycle:
                    return name + ending, cycle
            cycle = self._single(members, _BASE | time)
            if cycle:
                return "G-single" + ending, cycle
            cycle = self._cycle(members, _BASE | {RW} | time)
            if cycle:
                return "G2" + ending, cycle
        raise AssertionError("a component without a cycle")

    def _cycle(self, members: set[int], kinds: frozenset[Kind]) -> list[int]:
        """Return a short cycle of these kinds, or nothing.  Never one of time alone."""
        inner = self._components_of(members, kinds)
        for component in inner:
            # The shortest path back to each of some nodes.
            paths = [self._path(node, node, component, kinds) for node in sorted(component)[:20]]
            found = [path for path in paths if path]
            if found:
                return min(found, key=len)
        return []

    def _single(self, members: set[int], kinds: frozenset[Kind]) -> list[int]:
        best: list[int] = []
        looked = 0
        for start in sorted(members):
            for end, labels in self.edges[start].items():
                if RW not in labels or end not in members:
                    continue
                looked += 1
                if looked > _MOST:
                    return best
                path = self._path(end, start, members, kinds)
                if path and (not best or len(path) < len(best)):
                    best = [start, *path[:-1]]
                    if len(best) <= 2:
                        return best
        return best

    def _path(self, start: int, goal: int, members: set[int], kinds: frozenset[Kind]) -> list[int]:
        """Return the nodes of a shortest path, both ends included, or nothing."""
        before: dict[int, int] = {}
        waiting = deque([start])
        while waiting:
            node = waiting.popleft()
            for end, labels in self.edges[node].items():
                if end not in members or end in before or kinds.isdisjoint(labels):
                    continue
                before[end] = node
                if end == goal:
                    path = [end]
                    while len(path) == 1 or path[-1] != start:
                        path.append(before[path[-1]])
                    return path[::-1]
                waiting.append(end)
        return []

    def _told(self, cycle: list[int]) -> str:
        nodes = cycle if cycle[0] != cycle[-1] else cycle[:-1]
        first = next((i for i, node in enumerate(nodes) if self.names[node]), 0)
        nodes = nodes[first:] + nodes[:first]
        text = self.names[nodes[0]]
        in_time = False
        for start, end in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
            labels = self.edges[start][end]
            kind = next(kind for kind in (WW, WR, RW, TIME) if kind in labels)
            in_time = in_time or kind == TIME
            if self.names[end]:
                why = labels[kind]
                text += f" -[{TIME if in_time else kind}{': ' + why if why else ''}]-> "
                text += self.names[end]
                in_time = False
        return text

    # ------------------------------------------------------------ components

    def _components_of(self, members: set[int], kinds: frozenset[Kind]) -> list[set[int]]:
        """Return the strongly connected components of more than one node (Tarjan)."""
        index: dict[int, int] = {}
        low: dict[int, int] = {}
        stack: list[int] = []
        on_stack: set[int] = set()
        found = []
        for root in members:
            if root in index:
                continue
            index[root] = low[root] = len(index)
            stack.append(root)
            on_stack.add(root)
            work = [(root, self._following(root, members, kinds))]
            while work:
                node, rest = work[-1]
                for end in rest:
                    if end not in index:
                        index[end] = low[end] = len(index)
                        stack.append(end)
                        on_stack.add(end)
                        work.append((end, self._following(end, members, kinds)))
                        break
                    if end in on_stack:
                        low[node] = min(low[node], index[end])
                else:
                    work.pop()
                    if work:
                        parent = work[-1][0]
                        low[parent] = min(low[parent], low[node])
                    if low[node] == index[node]:
                        component = set()
                        while True:
                            member = stack.pop()
                            on_stack.discard(member)
                            component.add(member)
                            if member == node:
                                break
                        if len(component) > 1:
                            found.append(component)
        return found

    def _following(self, node: int, members: set[int], kinds: frozenset[Kind]) -> Iterator[int]:
        for end, labels in self.edges[node].items():
            if end in members and not kinds.isdisjoint(labels):
                yield end
