"""The steps of a read (wire.py) over etcd, level by level.

What a script does inside of Redis, the client does here: it looks into an index, asks for the rows
that the index names, looks by these into the next index.  All of it is asked as of one revision
(view.py), so the answer is that of one moment.  Steps that don't wait for each other, and those of
statements that are read together, share the requests of their levels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from rome.stores.base import Answer, Request, Rows, SchemaChanged
from rome.stores.etcd.keys import Keys, Span, as_bytes, number_of, row_number_in, unpack_number
from rome.stores.etcd.operations import Found, KeyValue, Range
from rome.stores.etcd.seen import Seen
from rome.stores.etcd.view import PAGE, Question, together, values, whole
from rome.stores.evaluation import Pair, answered, first_in_order, passes, reduce_earlier
from rome.stores.rows import pack_value, unpack_value
from rome.stores.steps import Defaults, column, join_keys
from rome.stores.steps import Found as StepFound
from rome.stores.values import sort_key
from rome.stores.wire import IndexKey, JoinLookup, KeyLookup, Lookup, RangeLookup, Step

# Members of an index that come along when its size is asked for, and the keys of one look-up whose
# sets are asked for their sizes.
_FEW, _MEASURED = 200, 32
# Of more rows than these all between them are asked for, in place of each by itself, unless there
# are so many times as many.
_SINGLE, _SPARSE = 500, 4
# Rows that a walk along an ordered index asks for, at least and at most.
_WALKED, _WALKED_MOST = 16, 1000
# A walk isn't worth while where a look-up finds so few rows.
_NO_WALK = 64


class Reading:
    """The reads of one database under one version of the schema."""

    def __init__(self, keys: Keys, version: str, seen: Seen) -> None:
        """`seen` gets the rows that were read."""
        self._keys = keys
        self._version = version
        self._seen = seen

    def answers(self, requests: Sequence[Request]) -> Question[list[Answer]]:
        """Ask for the answers to some requests; those but the first may be left out if they take
        long.  Raises SchemaChanged."""
        questions = [self._checked(), *(self._answer(request) for request in requests)]
        _, *answers = yield from together(questions, needed=2)
        return list(itertools.takewhile(lambda answer: answer is not None, answers))

    def _checked(self) -> Question[None]:
        (version,) = yield from values([self._keys.version])
        if (version.value.decode() if version else "0") != self._version:
            raise SchemaChanged

    def _answer(self, request: Request) -> Question[Answer]:
        tokens = values([self._keys.last_commit(table) for table in request.watched])
        if request.unless:
            commits = _commits((yield from tokens))
            if commits == list(request.unless):
                return Answer(None, commits)
            return Answer((yield from self._rows(request.steps)), commits)
        found, rows = yield from together([tokens, self._rows(request.steps)])
        return Answer(rows, _commits(found))

    def _rows(self, steps: Sequence[Step]) -> Question[list[Rows]]:
        counted = yield from self._counted(steps)
        if counted is not None:
            return [counted]
        results: list[StepFound] = []
        numbers: list[list[bytes]] = []
        while len(results) < len(steps):
            stop = _wave(steps, len(results))
            wave = steps[len(results) : stop]
            found = yield from together([self._step(step, results) for step in wave])
            for step, pairs in zip(wave, found, strict=True):
                numbers.append([number for number, _ in pairs])
                results.append(([row for _, row in pairs], dict(step.defaults)))
                reduce_earlier(steps, results, numbers, len(results) - 1)
        return answered(steps, results, numbers)

    # ------------------------------------------------------------ one step

    def _step(self, step: Step, results: Sequence[StepFound]) -> Question[list[Pair]]:
        """Ask for the rows that a step wants."""
        defaults: Defaults = dict(step.defaults)
        if not step.lookups:
            enough = step.limit if step.limit and not step.order else 0
            return (yield from self._whole_table(step, defaults, enough))
        places = [_Place(lookup, results) for lookup in step.lookups]
        best = yield from self._choose(step, places)
        walk = next((p for p in places if p.walks(step)), None)
        pairs: list[Pair] | None = None
        if walk is not None and best.size > max(_NO_WALK, 2 * step.limit):
            budget = 0 if best is walk else max(1, best.size // 2)
            pairs = yield from self._walk(step, walk, defaults, budget)
        if pairs is None:
            numbers = yield from self._numbers(step.table, best, places)
            rows = yield from self._rows_of(step.table, numbers)
            pairs = [pair for pair in rows if passes(pair[1], step.filters, defaults)]
        if step.limit and len(pairs) > step.limit:
            pairs = first_in_order(pairs, step.order, step.limit, defaults)
        return pairs

    def _whole_table(self, step: Step, defaults: Defaults, enough: int) -> Question[list[Pair]]:
        """Ask for all rows of a table; with `enough`, until so many pass."""
        start, end = span = self._keys.rows(step.table)
        pairs: list[Pair] = []
        while True:
            (answer,) = yield [Range.of(span, PAGE)]
            pairs += [
                pair
                for pair in self._pairs(start, answer.pairs)
                if passes(pair[1], step.filters, defaults)
            ]
            if answer.total <= len(answer.pairs) or (enough and len(pairs) >= enough):
                break
            span = Span(answer.pairs[-1].key + b"\0", end)
        if step.limit and step.order and len(pairs) > step.limit:
            pairs = first_in_order(pairs, step.order, step.limit, defaults)
        return pairs

    def _choose(self, step: Step, places: Sequence[_Place]) -> Question[_Place]:
        """Return the look-up that promises the fewest rows; sizes are asked for where there is a
        choice."""
        least = min((p for p in places if p.exact), key=lambda p: p.size, default=None)
        choice = len(places) > 1 or places[0].walks(step)
        if not choice or (least is not None and least.size <= 1):
            return least or places[0]
        measured = [p for p in places if not p.exact and len(p.keys) <= _MEASURED]
        ranges = [
            [Range.of(span, _FEW, keys_only=True) for span in p.spans(self._keys, step.table)]
            for p in measured
        ]
        found = yield [one for several in ranges for one in several]
        start = 0
        for place, several in zip(measured, ranges, strict=True):
            place.measure(self._keys, step.table, found[start : start + len(several)])
            start += len(several)
        return min(places, key=lambda p: p.size)

    def _numbers(self, table: int, best: _Place, places: Sequence[_Place]) -> Question[list[int]]:
        """Return the row numbers that a look-up finds, and the others as far as they are known."""
        if best.numbers is None:
            if best.kind == "unique":
                entries = yield from values(
                    [self._keys.unique(table, best.index, k) for k in best.keys]
                )
                best.numbers = [int(entry.value) for entry in entries if entry is not None]
            else:
                spans = best.spans(self._keys, table)
                found = yield from whole(spans, keys_only=True)
                best.numbers = best.in_keys(self._keys, table, (p for part in found for p in part))
        numbers = list(dict.fromkeys(best.numbers))
        for other in places:
            # Of a join only some keys may be known.
            if other is not best and other.numbers is not None and not other.joins:
                allowed = set(other.numbers)
                numbers = [number for number in numbers if number in allowed]
        return numbers

    def _rows_of(self, table: int, numbers: Sequence[int]) -> Question[list[Pair]]:
        """Ask for rows by their numbers; those that aren't there are left out."""
        start = self._keys.rows(table).start
        if len(numbers) > _SINGLE:
            span = Span(
                self._keys.row(table, min(numbers)), self._keys.row(table, max(numbers)) + b"\0"
            )
            (answer,) = yield [Range.of(span, PAGE)]
            if answer.total <= max(PAGE, _SPARSE * len(numbers)):
                found = answer.pairs
                if answer.total > len(found):
                    (rest,) = yield from whole([Span(found[-1].key + b"\0", span.end)])
                    found += rest
                wanted = {b"%d" % number for number in numbers}
                return [pair for pair in self._pairs(start, found) if pair[0] in wanted]
        rows = yield from values([self._keys.row(table, number) for number in numbers])
        return self._pairs(start, [row for row in rows if row is not None])

    def _pairs(self, start: bytes, rows: Sequence[KeyValue]) -> list[Pair]:
        """Return row numbers and rows, and remember at which revision each was written."""
        self._seen.note(rows)
        return [(b"%d" % unpack_number(row.key[len(start) :]), row.value) for row in rows]

    # ------------------------------------------------------------ walks

    def _walk(
        self, step: Step, place: _Place, defaults: Defaults, budget: int
    ) -> Question[list[Pair] | None]:
        """Ask for the rows that an ordered index leads to, in its order, until the first `limit`
        that pass are known, and those equal to the last of them in the tie slots.

        None: there may be more behind `budget` entries (0: as many as there are).
        """
        lookup = place.lookup
        assert isinstance(lookup, RangeLookup)
        span = self._keys.range(step.table, lookup)
        backward = lookup.walk < 0
        kept: list[Pair] = []
        looked_at, count = 0, max(step.limit + 1, _WALKED)
        while span.start < span.end:
            (answer,) = yield [
                Range(span.start, span.end, count, keys_only=True, descending=backward)
            ]
            entries = answer.pairs
            numbers = place.in_keys(self._keys, step.table, entries)
            rows = dict((yield from self._rows_of(step.table, numbers)))
            kept += [
                (b"%d" % number, row)
                for number in numbers
                if (row := rows.get(b"%d" % number)) is not None
                and passes(row, step.filters, defaults)
            ]
            looked_at += len(entries)
            if answer.total <= len(entries) or _is_enough(kept, step.limit, lookup.ties, defaults):
                break
            if budget and looked_at >= budget:
                return None
            last = entries[-1].key
            span = Span(span.start, last) if backward else Span(last + b"\0", span.end)
            count = min(2 * count, _WALKED_MOST)
        return kept

    # ------------------------------------------------------------ counts

    def _counted(self, steps: Sequence[Step]) -> Question[Rows | None]:
        """Return the answer of a step that only counts rows, if etcd can count keys for it."""
        step = steps[0] if len(steps) == 1 else None
        if step is None or step.aggregation is None or step.aggregation.groups:
            return None
        functions = step.aggregation.functions
        if any(function != "count" or slot >= 0 for function, slot in functions):
            return None
        spans: list[Span] = []
        if not step.lookups and not step.filters:
            spans = [self._keys.rows(step.table)]
        elif len(step.lookups) == 1 and not isinstance(step.lookups[0], JoinLookup):
            place = _Place(step.lookups[0], ())
            covered = set(step.lookups[0].filters)
            if covered != set(range(len(step.filters))) or place.kind in ("row", "unique"):
                return None
            spans = place.spans(self._keys, step.table)
        if not spans:
            return None
        found = yield [Range.count(span) for span in spans]
        # A row has one value in a column, so sets of one index have no rows in common.
        count = pack_value(sum(answer.total for answer in found))
        result: Rows = [[count] * len(functions)]  # type: ignore[list-item]
        return result


class _Place:
    """A look-up whose keys are known.

    size: about how many rows it finds.  exact: whether that needs no question.  joins: whether the
    keys are those of another step's rows.  numbers: the row numbers that it finds, as soon as all
    of them are known.
    """

    __slots__ = ("exact", "index", "joins", "keys", "kind", "lookup", "numbers", "size")

    def __init__(self, lookup: Lookup, results: Sequence[StepFound]) -> None:
        self.lookup, self.index = lookup, lookup.index
        self.joins = isinstance(lookup, JoinLookup)
        self.numbers: list[int] | None = None
        self.kind = "order" if isinstance(lookup, RangeLookup) else str(lookup.kind)
        keys: Sequence[IndexKey] = ()
        if isinstance(lookup, JoinLookup):
            keys = join_keys(lookup, results)
        elif isinstance(lookup, KeyLookup):
            keys = lookup.keys
        self.keys = list(dict.fromkeys(map(as_bytes, keys)))
        self.size = len(self.keys)
        self.exact = self.kind in ("row", "unique")
        if self.kind == "row":
            found = map(number_of, self.keys)
            self.numbers = [number for number in found if number is not None]
        elif self.kind == "set":
            self.size *= 2
        elif self.kind == "order":
            self.size = PAGE

    def walks(self, step: Step) -> bool:
        """Tell whether the first rows in the step's order are the first ones in the index's."""
        return isinstance(self.lookup, RangeLookup) and bool(self.lookup.walk and step.limit)

    def spans(self, keys: Keys, table: int) -> list[Span]:
        """Return the keys of the entries in a set or an ordered index."""
        if isinstance(self.lookup, RangeLookup):
            span = keys.range(table, self.lookup)
            return [span] if span.start < span.end else []
        return [keys.members_of_set(table, self.index, data) for data in self.keys]

    def measure(self, keys: Keys, table: int, found: Sequence[Found]) -> None:
        """Take in how many entries there are, and the first of them."""
        self.size = sum(answer.total for answer in found)
        if all(answer.total <= len(answer.pairs) for answer in found):
            pairs = (pair for answer in found for pair in answer.pairs)
            self.numbers = self.in_keys(keys, table, pairs)

    def in_keys(self, keys: Keys, table: int, entries: Iterable[KeyValue]) -> list[int]:
        """Return the row numbers that entries of a set or an ordered index name."""
        if self.kind == "set":
            return [unpack_number(entry.key[-8:]) for entry in entries]
        start = len(keys.order(table, self.index))
        return [int(row_number_in(entry.key[start:])) for entry in entries]


def _wave(steps: Sequence[Step], start: int) -> int:
    """Return where the steps end that can be asked for together from `start` on: none of them
    waits for rows of another, also not for those that a semi-join will leave of an earlier one."""
    reduces = False
    for place in range(start, len(steps)):
        joins = [one for one in steps[place].lookups if isinstance(one, JoinLookup)]
        if place > start and joins and (reduces or any(join.step >= start for join in joins)):
            return place
        reduces = reduces or bool(steps[place].semi_joins)
    return len(steps)


def levels_of(steps: Sequence[Step]) -> int:
    """Return the levels of look-ups that a read takes at most, where no table is large."""
    total = place = 0
    while place < len(steps):
        stop = _wave(steps, place)
        total += max(map(_levels_of_step, steps[place:stop]))
        place = stop
    return total


def _levels_of_step(step: Step) -> int:
    """Return one for the rows, one for the entries that lead to them, one for sizes."""
    lookups = step.lookups
    if not lookups:
        return 1
    if len(lookups) == 1:
        lookup = lookups[0]
        named = not isinstance(lookup, RangeLookup) and lookup.kind == "row"
        walks = isinstance(lookup, RangeLookup) and bool(lookup.walk and step.limit)
        return 1 if named else 2 + walks
    return 3


def _commits(tokens: Sequence[KeyValue | None]) -> list[str]:
    return [token.value.decode() if token else "0" for token in tokens]


def _is_enough(kept: Sequence[Pair], limit: int, ties: Sequence[int], defaults: Defaults) -> bool:
    """Tell whether the first rows are there, and all that are equal to the last of them."""
    if len(kept) < limit:
        return False

    def values_of(row: bytes) -> list[Any]:
        return [sort_key(unpack_value(column(row, slot, defaults))) for slot in ties]

    return not ties or values_of(kept[limit - 1][1]) != values_of(kept[-1][1])
