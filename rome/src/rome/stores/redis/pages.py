"""Reads that are too large for one script: page by page, and yet as of one moment.

A script blocks the server while it runs, so read.lua refuses to look at more than so many
rows.  The same request is then answered by many short scripts (scan.lua).  Rows change in
between, so a read of this kind is a *scan with catching up*:

1. Before its first page it marks its tables, and from then on each commit notes the numbers
   of the rows that it changes in them.
2. Each page also brings the rows that were noted since the page before, as they are now, or
   that they are gone.  They take the place of what was read earlier.  So after each page all
   that was read is as it is at the moment of that page.
3. When all pages are there, rows that were changed may join rows that nobody has asked for:
   these are asked for, again with what was noted since, until nothing is missing.

The first rows in an order that an ordered index has are found by a walk along it: each row up
to where the walk has come is known, for those that have come or gone since were noted.  So it ends
when enough of the rows that it has met are unchanged, and goes on if too many have changed.

The answer is what one script would have answered at the moment of the last page, and so are
the tokens of the tables that come with it.  Sums are made by page; if a row changes
meanwhile, they are made from the rows instead.

A scan that was forgotten for too long, that met more changes than are noted, or whose
connection broke (another master may have taken over, without the latest commits) has lapsed:
it begins anew, a few times, and then fails with ConflictError.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from rome.errors import ConflictError
from rome.stores.base import Answer, Request, Rows
from rome.stores.redis.groups import Groups
from rome.stores.redis.step_rows import StepRows
from rome.stores.steps import part
from rome.stores.wire import (
    Aggregation,
    JoinLookup,
    KeyLookup,
    RangeLookup,
    Step,
    pack_range,
    pack_step,
)

# Keys of a look-up in one page, pages in one round trip, and keys whose sets are measured.
KEYS, WINDOW, MEASURED = 500, 16, 1000
# Times that a scan begins, and that it looks for what is missing.
ATTEMPTS, ROUNDS = 8, 100
# Rows that are brought beside the first so many, to take the places of those that change.
MARGIN = 50
# Rows that a page may be expected to look at, before one is there.
USUAL_PAGE = 1500
# Rows that a walk looks for at least, in one round trip.
_WALKED = 16

# What a page has to do, or None: only to bring what was changed.
#   ["whole", step, name]                     the next part of the step's table
#   ["set", step, name, index, bytes, others] the next part of a set, as far as in the others
#   ["order", step, name, index, range]       the next part of a range of an ordered index
#   ["walk", step, name, index, range, wanted] the same, until so many rows of it are wanted
#   ["keys", step, kind, index, keys]         what keys find
# Under its name a task goes on where the page before has stopped.
Task = list[Any]


class Lapsed(Exception):
    """What was read so far is of no use: the scan must begin anew."""


class Page(NamedTuple):
    """What one script has answered.

    rows: numbers and rows by turns, or groups.  done: keys that it has looked for; 1: the
    end of a table or set.  looked: rows that it has looked at.  left: numbers of rows that
    there was no time for.  large: keys of sets that want pages of their own.  changed: for
    each table that was written its number, the numbers of rows, and for each step (by its
    place) those of them that it wants.  more: whether there are more changed rows.
    commits: the last commits of the tables that are watched.
    """

    rows: list[Any]
    done: int
    looked: int
    left: list[bytes]
    large: list[bytes]
    changed: list[Any]
    more: int
    commits: list[bytes | None]


# send(commands) -> answers of scan.lua; a command is its number in the scan (0: it begins)
# and its task.  All go in one round trip.  Raises Lapsed, SchemaChanged.
Send = Callable[[Sequence[tuple[int, Any]]], list[list[Any]]]


def read_in_pages(new_scan: Callable[[], Send], request: Request, about: int = 0) -> Answer:
    """Return the answer to a request; each call of `new_scan` makes a scan of its own.

    about: rows that it will have to look at, as far as that is known.
    """
    cut, in_store = True, True
    for _ in range(ATTEMPTS):
        scan = _Scan(new_scan(), request, cut, in_store, about)
        try:
            return scan.read()
        except _TooFewRows:
            cut = False
        except _SumsChanged:
            in_store = False
        except Lapsed:
            continue
    raise ConflictError("a large read met too many changes by others; try again")


class _TooFewRows(Lapsed):
    """Of the first rows in an order so many were changed that others may take their place."""


class _SumsChanged(Lapsed):
    """Rows were changed, or met twice, after they went into sums."""


class _Scan:
    """One attempt to read.

    cut: whether pages bring only the first rows, where only these are wanted.  in_store:
    whether sums are made by page, in the store.
    """

    def __init__(self, send: Send, request: Request, cut: bool, in_store: bool, about: int) -> None:
        self._send_all = send
        self._about = about
        self._steps = request.steps
        self._watched = list(request.watched)
        self._cut = cut
        first = self._steps[0]
        self._sums = None if first.aggregation is None else Groups(first.aggregation)
        self._in_store = self._sums is not None and in_store
        self._found = [
            StepRows(step, self._columns(place), dict(step.defaults))
            for place, step in enumerate(self._steps)
        ]
        self._number = 1
        self._last: Page | None = None
        self._page_rows = USUAL_PAGE
        self._lengths: dict[int, int] = {}
        self._sizes: dict[tuple[int, int], float] = {}

    def read(self) -> Answer:
        """Return the answer, as of the last page."""
        self._begin()
        for place, rows in enumerate(self._found):
            self._choose(place, rows)
            if rows.lookup is None and not rows.done:
                self._run([["whole", place, f"w{place}"]])
            self._run(self._missing(place))
        for _ in range(ROUNDS):
            tasks = [task for place in range(len(self._steps)) for task in self._missing(place)]
            if tasks:
                self._run(tasks)
            elif self._last is None or self._last.more:
                self._send([None])
            else:
                return self._answer(self._last)
        raise Lapsed

    # ------------------------------------------------------------ what is asked for

    def _columns(self, place: int) -> tuple[int, ...]:
        step = self._steps[place]
        if self._sums:
            aggregation = self._sums.aggregation
            slots = {slot for _, slot in aggregation.functions if slot >= 0}
            return tuple(sorted({*aggregation.groups, *slots})) or (0,)
        columns = step.columns or ()
        needed = {slot for lookup in _walks(step) for slot in lookup.ties}
        needed.update(join.own_slot for join in step.semi_joins)
        for later in self._steps[place + 1 :]:
            for lookup in later.lookups:
                if isinstance(lookup, JoinLookup) and lookup.step == place:
                    needed.update(lookup.slots)
            needed.update(join.slot for join in later.semi_joins if join.step == place)
        return columns if needed.issubset(columns) else ()

    def _view(self, rows: StepRows) -> list[Any]:
        """Return a step as scan.lua takes it."""
        step, sums = rows.step, None
        if self._sums is not None and self._in_store:
            # The groups' own values come first, to tell which groups of two pages are one.
            groups = self._sums.aggregation.groups
            own = [("", slot) for slot in groups]
            sums = Aggregation(groups, [*own, *self._sums.aggregation.functions])
        limit = step.limit + MARGIN if step.limit and self._cut else 0
        return pack_step(
            replace(
                step,
                lookups=(),
                limit=limit,
                columns=rows.columns or None,
                aggregation=sums,
                semi_joins=(),
            )
        )

    def _begin(self) -> None:
        tables = list(dict.fromkeys(step.table for step in self._steps))
        places: list[tuple[int, int]] = []
        measured: list[list[Any]] = []
        for place, step in enumerate(self._steps):
            for position, lookup in enumerate(step.lookups):
                if isinstance(lookup, RangeLookup):
                    places.append((place, position))
                    measured.append([step.table, "order", lookup.index, pack_range(lookup)])
                elif isinstance(lookup, KeyLookup) and lookup.kind == "set":
                    places.append((place, position))
                    measured.append([step.table, "set", lookup.index, lookup.keys[:MEASURED]])
        views = [self._view(rows) for rows in self._found]
        commands: list[tuple[int, Any]] = [(0, [[views, tables, self._watched], tables, measured])]
        whole = ["whole", 0, "w0"]
        if not self._steps[0].lookups:
            pages_expected = min(WINDOW, 1 + self._about // USUAL_PAGE)
            commands += [(number, whole) for number in range(1, 1 + pages_expected)]
        (_, lengths, sizes), *pages = self._send_all(commands)
        self._number = len(commands)
        self._lengths = dict(zip(tables, lengths, strict=True))
        self._sizes = dict(zip(places, sizes, strict=True))
        for page in pages:
            self._take(whole, Page(*page[1:]))

    def _choose(self, place: int, rows: StepRows) -> None:
        """Choose the look-up that costs least, if it costs less than the whole table."""
        rows.size = self._lengths[rows.step.table]
        least = rows.size / 2
        for position, lookup in enumerate(rows.step.lookups):
            if isinstance(lookup, RangeLookup):
                cost: float = self._sizes[place, position]
            elif isinstance(lookup, JoinLookup):
                source = self._found[lookup.step]
                cost = len(set(source.keys(lookup.kind, lookup.slots, 0))) + len(lookup.keys)
                if lookup.kind == "set":
                    cost *= 2
            elif lookup.kind == "set":
                count = len(lookup.keys)
                cost = self._sizes[place, position] * count / max(1, min(count, MEASURED))
            else:
                cost = len(lookup.keys)
            if cost <= least:
                least = rows.size = cost
                rows.lookup = lookup
        for lookup in _walks(rows.step):
            # It may end before its range does, so only a much better look-up is better.
            size = self._sizes[place, list(rows.step.lookups).index(lookup)]
            if not self._sums and (rows.lookup is None or rows.size > size / 2):
                rows.size, rows.lookup, rows.walking = size, lookup, True

    def _missing(self, place: int) -> list[Task]:
        """Return tasks for keys that a step's look-up has and nobody has asked for yet."""
        rows = self._found[place]
        lookup = rows.lookup
        if lookup is None:
            return []
        index = lookup.index
        if isinstance(lookup, RangeLookup):
            if rows.walked_enough():
                return []
            span = pack_range(lookup)
            if not rows.walking:
                return [["order", place, f"o{place}", index, span]]
            more = max(rows.step.limit + 1 - len(rows.walked), rows.met, _WALKED)
            return [["walk", place, f"o{place}", index, span, rows.met + more]]
        kind, keys = lookup.kind, lookup.keys
        others: list[Any] = []
        if isinstance(lookup, JoinLookup):
            source = self._found[lookup.step]
            keys = [*keys, *source.keys(kind, lookup.slots, rows.used)]
            rows.used = len(source.added)
        elif kind == "set" and len(keys) == 1 and not self._sums:
            others = [
                [other.index, other.keys[0]]
                for other in rows.step.lookups
                if isinstance(other, KeyLookup) and other.kind == "set" and len(other.keys) == 1
                if other is not lookup
            ]
        new = [key for key in dict.fromkeys(keys) if key not in rows.asked]
        rows.asked.update(new)
        if len(new) == 1 and kind == "set":
            return [["set", place, f"s{place}.{len(rows.asked)}", index, new[0], others]]
        return [
            ["keys", place, kind, index, new[start : start + KEYS]]
            for start in range(0, len(new), KEYS)
        ]

    # ------------------------------------------------------------ pages

    def _run(self, tasks: Sequence[Task]) -> None:
        waiting = deque(tasks)
        while waiting:
            task = waiting.popleft()
            if task[0] != "keys":
                rows = self._found[task[1]]
                left = math.ceil(max(0.0, rows.size - rows.looked) / self._page_rows)
                if task[0] == "walk":
                    left = min(left, 2**rows.trips)
                    rows.trips += 1
                pages = self._send([task] * max(1, min(WINDOW, left)))
                if task[0] == "walk":
                    waiting.extendleft(self._missing(task[1]))
                elif not any(page.done for page in pages):
                    waiting.appendleft(task)
                for page in pages:
                    waiting.extend(_by_number(task[1], page.left))
                continue
            several = [task]
            while waiting and len(several) < WINDOW and waiting[0][0] == "keys":
                several.append(waiting.popleft())
            for done, page in zip(several, self._send(several), strict=True):
                _, place, kind, index, keys = done
                if page.done < len(keys):
                    waiting.append(["keys", place, kind, index, keys[page.done :]])
                for data in page.large:
                    name = f"l{place}.{len(self._found[place].asked)}.{data!r}"
                    waiting.append(["set", place, name, index, data, []])
                waiting.extend(_by_number(place, page.left))

    def _send(self, tasks: Sequence[Task | None]) -> list[Page]:
        """Return one round trip: a page for each task."""
        answers = self._send_all(list(enumerate(tasks, self._number)))
        self._number += len(tasks)
        pages = [Page(*answer[1:]) for answer in answers]
        for task, page in zip(tasks, pages, strict=True):
            self._take(task, page)
        return pages

    def _take(self, task: Task | None, page: Page) -> None:
        """Take in what a page has brought."""
        self._last = page
        for table, numbers, by_place in page.changed:
            if self._in_store:
                raise _SumsChanged
            for rows in self._found:
                if rows.step.table == table:
                    rows.remove(numbers)
            for place, pairs in by_place:
                self._found[place].add(pairs)
        if self._cut and any(
            rows.step.limit and rows.removed > MARGIN and not rows.walking for rows in self._found
        ):
            raise _TooFewRows
        if task is None:
            return
        rows = self._found[task[1]]
        rows.looked += page.looked
        if task[0] in ("whole", "order", "walk"):
            rows.done = rows.done or bool(page.done)
        if task[0] != "keys" and page.looked and not page.done:
            self._page_rows = page.looked
        if task[0] == "walk":
            rows.walk(page.rows)
        elif not self._in_store:
            rows.add(page.rows)
        elif self._sums is not None:
            self._sums.add_page(page.rows)

    # ------------------------------------------------------------ answers

    def _answer(self, last: Page) -> Answer:
        commits = [(commit or b"0").decode() for commit in last.commits]
        if self._sums:
            rows = self._found[0]
            if not self._in_store:
                self._sums.add_rows(rows)
            elif self._sums.countable and rows.looked != rows.size:
                raise _SumsChanged  # some rows were met twice, or none of it is known
            return Answer([self._sums.results()], commits)
        for place in range(len(self._found)):
            self._reduce(place)
        returned: dict[int, set[bytes]] = {}
        answer: list[Rows] = []
        for rows in self._found:
            had = returned.setdefault(rows.step.table, set())
            only: Sequence[int] = () if rows.columns else rows.step.columns or ()
            out: Rows = []
            for number, row in rows.rows.items():
                if number not in had:
                    out += (number, part(row, only, rows.defaults) if only else row)
            had.update(rows.rows)
            answer.append(out)
        return Answer(answer, commits)

    def _reduce(self, place: int) -> None:
        """Take out of earlier steps the rows that no row of this one matches."""
        rows = self._found[place]
        for join in rows.step.semi_joins:
            earlier = self._found[join.step]
            values = {value for value in rows.values(join.own_slot) if value is not None}
            matches = [value in values for value in earlier.values(join.slot)]
            if not all(matches):
                earlier.rows = dict(itertools.compress(earlier.rows.items(), matches))
                self._reduce(join.step)


def _by_number(place: int, numbers: Sequence[bytes]) -> Iterator[Task]:
    for start in range(0, len(numbers), KEYS):
        yield ["keys", place, "row", 0, numbers[start : start + KEYS]]


def _walks(step: Step) -> list[RangeLookup]:
    """Return the look-ups of a step by which a walk finds its first rows."""
    ranges = [lookup for lookup in step.lookups if isinstance(lookup, RangeLookup)]
    return [lookup for lookup in ranges if lookup.walk and step.limit]
