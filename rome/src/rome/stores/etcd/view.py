"""A database as it is at one moment, however many requests it takes to look at it.

etcd numbers its transactions (revisions) and keeps what earlier ones have left, until it is
compacted.  So the first request of a view tells the revision, and all others ask for that one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from rome.errors import ConflictError, OperationalError
from rome.stores.etcd.connection import LeaseLost, Refused, Wire, is_lease_lost, remedy
from rome.stores.etcd.keys import Span
from rome.stores.etcd.operations import Found, Json, KeyValue, Range, Txn, unpack_ranges

Result = TypeVar("Result")
# Yields ranges that it wants of one view, gets what they have, and returns a result.  What several
# of them ask at the same time goes in one request.
Question = Generator[list[Range], list[Found], Result]

# Keys that one range brings at most.
PAGE = 2000
# Levels that questions may need beyond those which have to be answered.
_MORE_LEVELS = 4
# Times that a view whose revision is compacted meanwhile is begun anew.
_ATTEMPTS = 5


class Compacted(ConflictError):
    """etcd has forgotten the revision of a view: begin anew."""

    def __init__(self) -> None:
        super().__init__("etcd has compacted what was being read; try again")


class View:
    """The latest state of a database, as of the first request.

    linearizable: whether the first request asks for what the cluster has agreed on until then; else
    for what the member has, which is never older than what this process has seen.  opening:
    transactions that the first request does before it looks (holds.py); opened: their answers.
    """

    def __init__(self, wire: Wire, linearizable: bool, opening: Sequence[Txn] = ()) -> None:
        self._wire = wire
        self._linearizable = linearizable or bool(opening)
        self._opening = opening
        self.opened: list[Json] = []
        self.revision = 0

    def ask(self, ranges: Sequence[Range]) -> list[Found]:
        """Return what ranges have: one round trip, or several if they are many."""
        most = self._wire.server.txn_ops
        found: list[Found] = []
        while len(found) < len(ranges):
            # The transactions of the first request need room of their own.
            size = most // 2 if self._opening and not self.revision else most
            found += self._ask(ranges[len(found) : len(found) + size])
        return found

    def _ask(self, ranges: Sequence[Range]) -> list[Found]:
        linearizable = self._linearizable and not self.revision
        opening = self._opening if not self.revision else ()
        least = self._wire.server.hints.revision
        while True:
            looks = [one.packed(self.revision, not linearizable) for one in ranges]
            request = {"success": [*(txn.packed() for txn in opening), *looks]}
            try:
                answer = self._wire.call("/v3/kv/txn", request)
            except Refused as refused:
                if is_lease_lost(refused):
                    raise LeaseLost from refused
                if "compacted" in str(refused):
                    raise Compacted from refused
                if "future revision" in str(refused) and not linearizable:
                    linearizable = True  # another member, which has to catch up first
                    continue
                text = f"{refused}{remedy(str(refused), self._wire.server.txn_ops)}"
                raise OperationalError(f"etcd: {text}") from refused
            revision = int(answer["header"]["revision"])
            if not self.revision:
                if revision < least and not linearizable:
                    linearizable = True
                    continue
                self.revision = revision
            responses = answer.get("responses", ())
            if opening:
                self.opened = [one.get("response_txn", {}) for one in responses[: len(opening)]]
            return unpack_ranges(responses[len(opening) :])

    def answer(self, question: Question[Result]) -> Result:
        """Return what a question finds out, level by level."""
        try:
            ranges = next(question)
            while True:
                ranges = question.send(self.ask(ranges))
        except StopIteration as stop:
            result: Result = stop.value
            return result


def with_a_view(
    wire: Wire, linearizable: bool, look: Callable[[View], Result], what: str = "a large read"
) -> Result:
    """Return what `look` makes of a view; it is called again where a revision was compacted."""
    for _ in range(_ATTEMPTS):
        try:
            return look(View(wire, linearizable))
        except Compacted:
            continue
    raise ConflictError(
        f"{what} takes longer than etcd keeps revisions (--auto-compaction-retention); try again"
    )


def together(questions: Sequence[Question[Any]], needed: int | None = None) -> Question[list[Any]]:
    """Ask several questions side by side, level by level; returns their results.

    needed: how many of the first ones have to be answered; the others are given up, their results
    None, if they need many more levels than these.
    """
    results: list[Any] = [None] * len(questions)
    waiting: list[tuple[int, Question[Any], list[Range]]] = []
    more = _MORE_LEVELS
    for place, question in enumerate(questions):
        try:
            waiting.append((place, question, next(question)))
        except StopIteration as stop:
            results[place] = stop.value
    while waiting:
        found = yield [one for _, _, ranges in waiting for one in ranges]
        going_on = []
        start = 0
        for place, question, ranges in waiting:
            own = found[start : start + len(ranges)]
            start += len(ranges)
            try:
                going_on.append((place, question, question.send(own)))
            except StopIteration as stop:
                results[place] = stop.value
        waiting = going_on
        if needed is not None and all(place >= needed for place, _, _ in waiting):
            more -= 1
            if not more:
                break
    return results


def whole(
    spans: Sequence[Span], keys_only: bool = False, page: int = PAGE
) -> Question[list[list[KeyValue]]]:
    """Ask for all keys of some spans, page by page."""
    found: list[list[KeyValue]] = [[] for _ in spans]
    waiting = list(enumerate(spans))
    while waiting:
        answers = yield [Range.of(span, page, keys_only) for _, span in waiting]
        going_on = []
        for (place, span), answer in zip(waiting, answers, strict=True):
            found[place] += answer.pairs
            if answer.total > len(answer.pairs):
                going_on.append((place, Span(answer.pairs[-1].key + b"\0", span.end)))
        waiting = going_on
    return found


def values(keys: Sequence[bytes]) -> Question[list[KeyValue | None]]:
    """Ask for single keys; None: a key isn't there."""
    if not keys:
        return []
    answers = yield [Range(key) for key in keys]
    return [answer.pairs[0] if answer.pairs else None for answer in answers]
